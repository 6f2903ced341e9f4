"""Compiled programs on disk, for the next start of the same training."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

import jax

from experiments.spec.errors import warn

_FEATURES = ("flags", "Features", "model name")  # lines of /proc/cpuinfo


def keep_programs(where: str) -> None:
    """Lets JAX keep what it compiles, unless it has been told where by other means.

    Args:
      where: a folder; auto for one of this user and this kind of machine; none for none.
    """
    if where == "none" or jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = cache_folder() if where == "auto" else Path(where)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        warn(f"compiled programs are not kept: {folder}: {error.strerror}")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def cache_folder(cpuinfo: Path = Path("/proc/cpuinfo")) -> Path:
    """Where programs of this user and this kind of machine are kept.

    A program may use what only the processor has that it was compiled on, and homes are shared.

    Args:
      cpuinfo: what Linux says of the processor.
    """
    usual = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    base = Path(os.environ.get("XDG_CACHE_HOME") or usual).expanduser()
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    features = sorted({line for line in lines if line.startswith(_FEATURES)})
    told = "\n".join([platform.machine(), *features])
    return base / "roml-jax" / hashlib.sha256(told.encode()).hexdigest()[:12]
