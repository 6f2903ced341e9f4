"""Trainings as jobs: what becomes of those that end well, badly, or with their machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from experiments import cli, compare
from experiments.spec.errors import UserError
from experiments.study.launch import jobs, make_launcher
from experiments.study.launch.jobs import Job, Training, run_all
from experiments.study.options import CompareOptions
from experiments.training import checkpoints, runs
from tests.experiments.conftest import TINY

ROOT = Path(__file__).parents[3]


def job(tmp_path, name="roml-seeds-0", argv=()):
    return Job(name, list(argv), tmp_path / "logs" / f"{name}.log", 1, 0.0, 2**28)


class Engine:
    """Jobs that end as they are told: by name, what becomes of each of its starts."""

    def __init__(self, **ends):
        self.ends, self.cancelled, self.closed = ends, [], False
        self.starts = dict.fromkeys(ends, 0)

    def submit(self, job):
        self.starts[job.name] += 1
        return job.name, self.starts[job.name] - 1

    def look(self, handle):
        name, i = handle
        end = self.ends[name][min(i, len(self.ends[name]) - 1)]
        if end == "interrupt" and name not in self.cancelled:
            raise KeyboardInterrupt
        if name in self.cancelled:
            return "ended", 143
        return ("lost", None) if end == "lost" else ("ended", end)

    def cancel(self, handle):
        self.cancelled.append(handle[0])

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(jobs, "_LOOK", 0.0)


def test_what_is_stopped_or_lost_starts_once_more(tmp_path, capsys):
    engine = Engine(a=[0], b=[143, "lost", 0], c=["lost"])
    code, failures = run_all([job(tmp_path, name) for name in "abc"], engine)
    assert engine.starts == {"a": 1, "b": 3, "c": 5} and engine.closed
    assert code == 1 and len(failures) == 1 and failures[0].startswith("c: its machine was lost")
    told = capsys.readouterr().out
    assert "a is finished" in told and "b was stopped: once more" in told
    assert "b was lost: once more" in told and "b is finished" in told


def test_a_job_that_fails_does_not_end_the_others(tmp_path):
    bad = job(tmp_path, "bad")
    bad.log.parent.mkdir()
    bad.log.write_text("plan\nerror: unknown flag --nosuch\n\n")
    engine = Engine(bad=[2], good=[0])
    code, failures = run_all([bad, job(tmp_path, "good")], engine)
    assert code == 1 and engine.starts == {"bad": 1, "good": 1}
    assert failures == [f"bad: exit code 2, error: unknown flag --nosuch; see {bad.log}"]


def test_ctrl_c_cancels_and_waits(tmp_path, capsys):
    engine = Engine(a=["interrupt"], b=["interrupt"])
    code, failures = run_all([job(tmp_path, "a"), job(tmp_path, "b")], engine)
    assert code == 130 and not failures and engine.closed
    assert engine.cancelled == ["a", "b"]
    assert "stopping 2 jobs, which save first" in capsys.readouterr().out


def test_a_training_says_why_it_failed(tmp_path):
    wrong = job(tmp_path, argv=["khazad-dum", "--nosuch", "1"])
    assert Training(wrong.argv, wrong.log, ROOT)() == 2
    assert "unknown flag --nosuch" in wrong.log.read_text()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"job_cores": 0}, "--job-cores is at least 1"),
        ({"job_hours": 0.0}, "--job-hours positive"),
        (
            {"launcher": "slurm", "slurm": ("gpu",)},
            "partition=gpu for instance; got gpu",
        ),
        ({"launcher": "slurm"}, "--launcher slurm: "),
    ],
)
def test_what_cannot_be_launched_is_one_line(changes, told):
    if changes.get("launcher") == "slurm":
        pytest.importorskip("submitit")
    with pytest.raises(UserError, match=told):
        make_launcher(CompareOptions(**changes))


def test_the_plan_says_what_each_job_needs(tmp_path, capsys):
    words = ["khazad-dum", "--methods", "baseline", "roml", "--seeds", "0..3", "--at-once", "2"]
    words += ["--launcher", "ray", "--job-cores", "3", "--job-gpus", "0.5", "--plan"]
    assert cli.run(compare.main, [*words, *TINY[:6], "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "by ray: 4 jobs of 3 cores, 0.5 GPUs and up to 1.7 GiB each" in told
    assert not list(tmp_path.iterdir())


def test_several_processes_are_not_compared(tmp_path, capsys):
    words = ["khazad-dum", "--coordinator", "auto", "--out", str(tmp_path)]
    assert cli.run(compare.main, words) == 2
    assert "--coordinator is no flag of a comparison" in capsys.readouterr().err


# ------------------------------------------------------------------ the engines themselves


@pytest.fixture
def training(tmp_path, compilation_cache_dir, monkeypatch):
    """A job of ten thousand steps, which says where it stands on disk."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(compilation_cache_dir))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(jobs, "_LOOK", 0.5)
    words = ["khazad-dum", *TINY, "--checkpoint-minutes", "0.05", "--frames", "400000"]
    words += ["--out", str(tmp_path)]
    return job(tmp_path, argv=words), tmp_path / "khazad-dum" / "roml-varibad" / "seed-0"


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.2)


@pytest.mark.slow
def test_ray_goes_on_elsewhere_when_a_machine_is_lost(training, monkeypatch):
    """Two machines of one core; that which trains is taken away after its first checkpoint."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from experiments.study.launch.on_ray import RayLauncher

    one, path = training
    monkeypatch.setenv("RAY_worker_niceness", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    engine = RayLauncher()
    look, taken = engine.look, []

    def take_away(handle):
        if not taken and checkpoints.steps(path):
            above = ancestors_of_training(path)
            taken.extend(node for node in nodes if raylet(node) in above)
            if taken:
                cluster.remove_node(taken[0], allow_graceful=False)
        return look(handle)

    engine.look = take_away
    try:
        assert run_all([one], engine) == (0, [])
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert taken and runs.status(path) == "finished" and "resume  from step" in one.log.read_text()


def raylet(node):
    """The process that is a machine to Ray."""
    return node.all_processes["raylet"][0].process.pid


def ancestors_of_training(path):
    """The processes above the training that writes below a folder."""
    out = str(path.parents[2]).encode()
    found = [file.parent for file in Path("/proc").glob("[0-9]*/cmdline") if out in _read(file)]
    above = []
    for process in found:
        while process.name != "0" and (status := _read(process / "status")):
            parent = status.split(b"PPid:")[1].split()[0].decode()
            above.append(int(parent))
            process = Path("/proc") / parent
    return above


def _read(file):
    try:
        return file.read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.mark.slow
def test_submitit_stops_a_training_that_saves(training):
    """By submitit's engine for one machine, which is what SLURM does but for the queue."""
    pytest.importorskip("submitit")
    from experiments.study.launch.on_slurm import SlurmLauncher

    one, path = training
    engine = SlurmLauncher(1, (), cluster="local")
    handle = engine.submit(one)
    wait_for(lambda: checkpoints.steps(path))
    assert engine.look(handle)[0] == "running"
    engine.cancel(handle)
    wait_for(lambda: engine.look(handle)[0] not in ("waiting", "running"), 60)
    wait_for(lambda: "stopped at step" in one.log.read_text(), 60)
    assert run_all([one], engine) == (0, [])
    assert runs.status(path) == "finished" and "resume  from step" in one.log.read_text()
    assert os.path.isdir(one.log.parent / "slurm")
