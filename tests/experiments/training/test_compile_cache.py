"""Compiled programs are kept where nobody has said otherwise."""

from __future__ import annotations

import jax
import pytest

from experiments.training import compile_cache


@pytest.fixture
def keep():
    """``keep_programs``, after which JAX's own setting comes back."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    yield compile_cache.keep_programs
    jax.config.update("jax_compilation_cache_dir", before)


def kept():
    return jax.config.values["jax_compilation_cache_dir"]


def test_a_folder_that_is_named_is_used(keep, tmp_path):
    keep(str(tmp_path / "programs"))
    assert kept() == str(tmp_path / "programs") and (tmp_path / "programs").is_dir()


def test_the_users_cache_is_the_default(keep, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep("auto")
    assert kept() == str(compile_cache.cache_folder())
    assert compile_cache.cache_folder().parent == tmp_path / "roml-jax"


def test_none_keeps_none(keep):
    keep("none")
    assert kept() is None


def test_what_jax_was_told_stands(keep, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    keep("auto")
    assert kept() == str(tmp_path / "own")


def test_a_home_that_cannot_be_written_is_no_error(keep, tmp_path, capsys):
    (tmp_path / "file").touch()
    keep(str(tmp_path / "file" / "programs"))
    assert kept() is None and "compiled programs are not kept" in capsys.readouterr().err


def test_other_processors_have_other_folders(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("model name : A\nflags : avx2\ncpu MHz : 1.0\n")
    other.write_text("model name : A\nflags : avx2 avx512\ncpu MHz : 1.0\n")
    folders = [compile_cache.cache_folder(file) for file in (one, other, one)]
    assert folders[0] == folders[2] != folders[1]
    other.write_text("model name : A\nflags : avx2\ncpu MHz : 2.0\n")  # which changes by the hour
    assert compile_cache.cache_folder(other) == folders[0]
