"""Run directories: where a run lives, what it was told, and the tables it writes."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import importlib.metadata
import io
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from experiments.presets import PRESETS
from experiments.spec.errors import UserError, warn
from experiments.spec.experiment import Experiment, at_alpha, from_dict, settings, to_dict
from experiments.spec.learners import LEARNERS
from experiments.training.host import device_name
from roml_jax.methods import METHODS

CONFIG, METRICS, TEST, CHECKPOINT = "config.json", "metrics.csv", "test.csv", "checkpoint"
WANDB_ID = "wandb-id.txt"
_PICTURES = ("curve.png", "cem.png", "episodes.png", "fits.png")
_OWN_FILES = (CONFIG, METRICS, TEST, WANDB_ID, *_PICTURES)
_QUIET: Any = {"capture_output": True, "text": True, "check": False}
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "distrax", "orbax-checkpoint", "numpy")
# Settings that a run may be gone on with under others: what has been trained stays as it is.
_FREE = {
    *("frames", "validation_every", "validation_tasks", "test_tasks", "test_repeats"),
    *("tested", "evaluation_seed"),
}
_RANDOM = ("jax_default_prng_impl", "jax_threefry_partitionable")
_ROUNDING = ("jax_enable_x64", "jax_default_matmul_precision")
Status = Literal["new", "unfinished", "finished"]


class Run(NamedTuple):
    """One seed of one experiment."""

    env: str  # name of the preset
    experiment: Experiment
    seed: int
    name: str | None = None  # of the folder of its seeds; None for METHOD-LEARNER

    def path(self, out: str | Path) -> Path:
        """Its directory under the folder of all runs."""
        return Path(out) / self.env / (self.name or self.folder) / f"seed-{self.seed}"

    @property
    def folder(self) -> str:
        """METHOD-LEARNER."""
        return f"{self.experiment.method_name}-{self.experiment.learner_name}"

    def at_alpha(self, alpha: float) -> Run:
        """The same run of a sweep for another ``alpha``, in a folder of its own."""
        name = f"{self.name or self.folder},alpha={alpha:g}"
        return self._replace(experiment=at_alpha(self.experiment, alpha), name=name)

    def label(self) -> str:
        """Method and learner, for people."""
        return f"{self.experiment.method_name} on {self.experiment.learner_name}"

    @property
    def evaluation_seed(self) -> int:
        """Of the tasks of validations and test."""
        shared = self.experiment.evaluation_seed
        return self.seed if shared is None else shared

    def describe(self, seeds: Sequence[int], alphas: Sequence[float] = ()) -> dict[str, Any]:
        """What ``config.json`` holds: the run, and what made it.

        Args:
          seeds: of the runs that train side by side, which decides how sums are rounded.
          alphas: of the same runs, if they sweep it.
        """
        preset = PRESETS[self.env]
        return {
            "env": self.env,
            "learner": self.experiment.learner_name,
            "seed": self.seed,
            "side_by_side": list(seeds),
            "alphas": list(alphas),
            "name": self.name,
            "experiment": to_dict(self.experiment),
            **preset.about(self.experiment.env),
            "jax_config": switches(),
            **provenance(preset.packages),
        }


def switches() -> dict[str, Any]:
    """JAX's own switches that decide which random numbers a key gives, or how numbers round."""
    return {name: jax.config.values[name] for name in (*_RANDOM, *_ROUNDING)}


@functools.cache
def provenance(packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """What made a result: device, versions, and the commit where the code is a checkout.

    Args:
      packages: more of them that count, if they are installed.
    """
    return {
        "commit": _commit(),
        "device": device_name(),
        "versions": {
            name: version for name in (*_PACKAGES, *packages) if (version := _version(name))
        },
    }


def _version(package: str) -> str | None:
    """The version of a package, or None if it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _commit() -> str:
    """The commit of the code, with a ``+`` if files differ from it; empty without git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], **_QUIET)
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], **_QUIET)
    except OSError:
        return ""
    return head.stdout.strip() + "+" * bool(changes.stdout) if head.returncode == 0 else ""


def write_config(path: Path, run: Run, seeds: Sequence[int], alphas: Sequence[float] = ()) -> None:
    """Writes ``config.json``, see ``Run.describe``."""
    _write_description(path, run.describe(seeds, alphas))


def note(path: Path, **facts: Any) -> None:
    """Adds to what ``config.json`` says of a run."""
    _write_description(path, json.loads((path / CONFIG).read_text(encoding="utf-8")) | facts)


def _write_description(path: Path, data: dict[str, Any]) -> None:
    write_whole(path / CONFIG, json.dumps(data, indent=2) + "\n")


def read_config(path: Path) -> Run:
    """The run of a directory.

    Raises:
      UserError: there is no run, or none of this version's settings.
    """
    file = path / CONFIG
    if not file.is_file():
        raise UserError(f"{path} is no run directory: it has no {CONFIG}")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        settings = _of_today(data["experiment"], data["learner"])
        classes = {
            "env": PRESETS[data["env"]].env_class(),
            "learner": LEARNERS[settings["learner_name"]].config,
            "method": METHODS[settings["method_name"]].config,
        }
        experiment = from_dict(Experiment, settings, **classes)
        return Run(data["env"], experiment, int(data["seed"]), data.get("name"))
    except (UserError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not a config of this version: {error}") from error


def _of_today(settings: dict[str, Any], learner: str) -> dict[str, Any]:
    """The settings of an experiment, also as versions before 0.2 wrote them.

    These held the settings of all methods in one table, with the name of the method.
    """
    if "method_name" in settings:
        return settings
    method = dict(settings["method"])
    name = method.pop("name")
    used = {field.name for field in dataclasses.fields(METHODS[name].config)}
    method = {key: value for key, value in method.items() if key in used}
    return settings | {"learner_name": learner, "method_name": name, "method": method}


def side_by_side(path: Path) -> list[int]:
    """The seeds of the runs that one was last trained beside, itself included; none if it is new.

    In a sweep of alpha, each seed stands there once for every level.
    """
    file = path / CONFIG
    return (
        json.loads(file.read_text(encoding="utf-8")).get("side_by_side", [])
        if file.is_file()
        else []
    )


def status(path: Path) -> Status:
    """How far the run of a directory is.

    Raises:
      UserError: the directory holds something else.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return "new"
    if not (path / CONFIG).is_file():
        raise UserError(f"{path} holds something that is no run: choose another --out")
    return "finished" if (path / TEST).is_file() else "unfinished"


def check_same(path: Path, run: Run) -> bool:
    """Whether the run of a directory has the same settings, and not only the same training.

    Raises:
      UserError: it differs in settings that training depends on; names them.
    """
    old, new = settings(read_config(path).experiment), settings(run.experiment)
    differing = [name for name in new if old[name] != new[name]]
    if new.get("groups") == 1 and "groups" in differing:  # unsaid: they come with the devices
        differing.remove("groups")
    told = [f"{name} {old[name]} there, {new[name]} here" for name in differing]
    paced = METHODS[run.experiment.method_name].paced(run.experiment.method)
    free = _FREE - {"frames"} if paced else _FREE
    if {*differing} - free:
        raise UserError(
            f"{path} holds a run with other settings ({'; '.join(told)}): "
            "repeat them to go on, or choose --overwrite or another --out"
        )
    _check_switches(path)
    return not differing


def _check_switches(path: Path) -> None:
    """Warns of switches of JAX under which a run rounds otherwise than before.

    Raises:
      UserError: under those of now, it would go on with other random numbers.
    """
    before = json.loads((path / CONFIG).read_text(encoding="utf-8")).get("jax_config", {})
    now = switches()
    told = {
        name: f"{name}={value} there, {now[name]} here"
        for name, value in before.items()
        if name in now and value != now[name]
    }
    if random := [told[name] for name in _RANDOM if name in told]:
        again = " ".join(f"{name.upper()}={before[name]}" for name in _RANDOM if name in told)
        raise UserError(
            f"{path} draws other random numbers under JAX's switches of now ({'; '.join(random)}): "
            f"go on with {again}, or choose --overwrite or another --out"
        )
    if told:
        warn(
            f"{path} goes on under other switches, and rounds otherwise: {'; '.join(told.values())}"
        )


def groups_of(path: Path) -> int | None:
    """Groups that the run of a directory deals its tasks in; None for no run."""
    if status(path) == "new":
        return None
    learner: Any = read_config(path).experiment.learner
    return getattr(learner, "groups", None)


def validates_otherwise(path: Path, run: Run) -> bool:
    """Whether the run of a directory validates on other tasks than this one."""
    before = read_config(path).experiment
    return (before.validation_tasks, before.evaluation_seed) != (
        run.experiment.validation_tasks,
        run.experiment.evaluation_seed,
    )


def clear(path: Path) -> None:
    """Removes the files of a run, and nothing else."""
    for name in _OWN_FILES:
        (path / name).unlink(missing_ok=True)
    for pattern in ("events.out.tfevents.*", "video*.mp4", "video*.gif"):
        for made in path.glob(pattern):
            made.unlink()
    for folder in (CHECKPOINT, "wandb"):
        shutil.rmtree(path / folder, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def as_text(value: Any) -> str:
    """A number with as many digits as its type holds; nothing for None."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool | np.bool_) else str(value)


class MetricsLog:
    """``metrics.csv``: one row per training step, and one for the untrained agent.

    A row that cannot be written, on a full disk for instance, waits for the next one.

    Args:
      path: the run directory.
      columns: of the table.
      last_step: rows of later steps, which a run has not lived to keep, are dropped.
    """

    def __init__(self, path: Path, columns: list[str], last_step: int | None) -> None:
        file = path / METRICS
        rows = _whole_rows(file, last_step) if last_step is not None else []
        self.columns = columns
        self.seconds = float(rows[-1]["seconds"]) if rows else 0.0  # before this session
        text = self._text(dict(zip(columns, columns, strict=True)), *rows)
        write_whole(file, text)
        self._file = file.open("ab", buffering=0)
        self._size, self._waiting = len(text.encode()), b""

    def write(self, *rows: dict[str, Any]) -> None:
        """Appends rows; columns that one does not have stay empty."""
        complained = bool(self._waiting)
        texts = ({name: as_text(row.get(name)) for name in self.columns} for row in rows)
        self._waiting += self._text(*texts).encode()
        try:
            self._flush()
        except OSError as error:
            if not complained:
                warn(f"{self._file.name} has to wait: {error.strerror}")

    def close(self) -> None:
        """Closes the file, with a last attempt at what is waiting."""
        with contextlib.suppress(OSError):
            self._flush()
        self._file.close()

    def _flush(self) -> None:
        """Writes what waits, in place of what a failed attempt left."""
        self._file.truncate(self._size)
        while self._waiting:
            done = self._file.write(self._waiting) or 0
            self._size, self._waiting = self._size + done, self._waiting[done:]

    def _text(self, *rows: dict[str, str]) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(
            text, self.columns, restval="", extrasaction="ignore", lineterminator="\n"
        )
        writer.writerows(rows)
        return text.getvalue()


def _whole_rows(file: Path, last_step: int) -> list[dict[str, str]]:
    """The rows of a table up to a step, without a last one that was cut off."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as old:
        rows = [row for row in csv.DictReader(old) if None not in row.values()]
    rows = [
        {name.replace("phi_phi_", "phi_"): row[name] for name in row} for row in rows
    ]  # of older runs
    return [row for row in rows if int(row["step"]) <= last_step]
