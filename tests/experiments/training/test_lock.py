"""One process to a run."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from experiments.spec.errors import UserError
from experiments.training import lock


def lock_of(path):
    return path.with_name(f".{path.name}.lock")


def write(path, **holder):
    lock_of(path).write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x"} | holder))


def test_a_run_is_held_once_and_let_go(tmp_path):
    path = tmp_path / "new" / "seed-1"
    with lock.hold([path]):
        message = rf"seed-1 is in use by process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(UserError, match=message), lock.hold([tmp_path / "seed-2", path]):
            pass
        assert not lock_of(tmp_path / "seed-2").exists()  # nothing is held by halves
    with lock.hold([path]):
        assert lock_of(path).is_file()
    assert not lock_of(path).exists() and not path.exists()


def test_that_of_a_dead_process_is_taken_over(tmp_path):
    path = tmp_path / "seed-1"
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=1)
    write(path, host=socket.gethostname(), pid=int(dead.stdout))
    with lock.hold([path]):
        assert json.loads(lock_of(path).read_text())["pid"] == os.getpid()
    lock_of(path).write_text("{")  # of a process that died while it wrote
    os.utime(lock_of(path), (0, 0))
    with lock.hold([path]):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("silent", "free"), [(10, False), (1000, True)])
def test_that_of_another_machine_counts_while_it_shows_life(tmp_path, silent, free):
    path = tmp_path / "seed-1"
    write(path)
    seen = time.time() - silent
    os.utime(lock_of(path), (seen, seen))
    if free:
        with lock.hold([path]):
            assert json.loads(lock_of(path).read_text())["host"] == socket.gethostname()
    else:
        with pytest.raises(UserError, match="process 1 on elsewhere"), lock.hold([path]):
            pass
        assert lock_of(path).is_file()


def test_a_lock_that_came_in_between_is_put_back(tmp_path):
    path = tmp_path / "seed-1"
    write(path, token="fresh")
    lock._set_aside(lock_of(path), {"host": "elsewhere", "pid": 1, "token": "stale"})
    assert json.loads(lock_of(path).read_text())["token"] == "fresh"
    assert [file.name for file in tmp_path.iterdir()] == [".seed-1.lock"]


def test_a_holder_shows_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_BEAT", 0.05)
    path = tmp_path / "seed-1"
    with lock.hold([path]):
        os.utime(lock_of(path), (0, 0))
        for _ in range(100):
            time.sleep(0.05)
            if lock_of(path).stat().st_mtime > 1e9:
                return
    raise AssertionError("no sign of life in five seconds")
