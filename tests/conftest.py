"""Strict settings for all tests, set before any module of the project is imported."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from pathlib import Path

import jax
import jax.experimental
import pytest
from jaxtyping import install_import_hook

# Tests compile much and run little. The flag halves the time of compiling on a CPU; XLA has had it
# from before our oldest jax until 0.10, and ends the process on a flag that it does not know.
if jax.__version_info__ < (0, 11):
    _FLAGS = (os.environ.get("XLA_FLAGS", ""), "--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join(filter(None, _FLAGS))
jax.config.update("jax_disable_most_optimizations", True)
gc.set_threshold(100_000, 20, 20)  # jaxprs are many objects, and most of them live on
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
install_import_hook(["roml_jax", "envs"], "beartype.beartype")


# Files of long tests begin, so that at the end no worker waits for another (pyproject.toml asks
# xdist to keep this order).
FIRST = ("test_notebook.py", "test_docs.py", "test_compare.py", "test_survival.py")


# The pure functions of roml_jax that need no learner: ``pytest -m core``.
CORE = ("families", "methods", "samplers")  # folders, and files:
CORE += tuple(
    f"test_{name}.py"
    for name in (
        *("risk", "quantiles", "returns", "normalize", "buffers", "edges", "theory"),
        *("rollout", "evaluate", "networks", "references", "any_array", "any_task"),
        *("context", "replay"),
    )
)


def pytest_collection_modifyitems(items):
    """Sorts by file, and keeps the order within; marks what is core."""
    for item in items:
        part = item.path.relative_to(Path(__file__).parent).parts[0]
        if part in CORE and not item.get_closest_marker("slow"):
            item.add_marker("core")
    rank = {name: i for i, name in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(FIRST)))


@pytest.fixture
def count_traces():
    """Wraps a function so that ``wrapped.count`` says how often jax traced it."""

    def wrap(fn):
        def traced(*args, **kwargs):
            traced.count += 1
            return fn(*args, **kwargs)

        traced.count = 0
        return traced

    return wrap


@pytest.fixture
def enable_x64():
    """``jax.enable_x64``, a context, wherever jax has it."""
    return (jax if hasattr(jax, "enable_x64") else jax.experimental).enable_x64  # before jax 0.8


@pytest.fixture
def x64(enable_x64):
    """Runs a test with 64-bit types enabled."""
    with enable_x64(True):
        yield


MOST = 1.2 * 2**30  # bytes that a worker may keep from one file of tests to the next


def held_bytes():
    """What this process holds in memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def trim():
    """Gives memory that is free back to the system, where that is glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.fixture(autouse=True, scope="module")
def give_back_compiled_programs():
    """After a file of tests, if they have become many."""
    yield
    if held_bytes() > MOST:
        jax.clear_caches()
        gc.collect()
        trim()
