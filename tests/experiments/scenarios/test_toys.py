"""An environment, a learner, a sampler and a method from outside, through every command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import cli, compare, evaluate, figures, style, train
from experiments.domains.preset import Preset
from experiments.presets import PRESETS
from experiments.spec.experiment import Experiment
from experiments.spec.learners import LEARNERS, LearnerKind
from experiments.spec.view import View
from roml_jax import families, risk
from roml_jax.methods import METHODS, BaselineConfig, MethodKind
from roml_jax.rollout import rollout, rollout_returns
from roml_jax.types import (
    Agent,
    Box,
    Draw,
    Family,
    Learner,
    MetaAlgorithm,
    TaskSampler,
    TimeStep,
)

# ------------------------------------------------------------------ the toys


@dataclass(frozen=True)
class Aim:
    """Hit a hidden number: the reward is minus the distance."""

    spread: float = 1.0
    horizon: int = 3
    episodes: int = 2
    observation_size = 1
    action_space = Box(1)

    @property
    def family(self) -> Family:
        return families.exponential(self.spread, name="target")

    def reset(self, key: Any, task: Any) -> tuple[Any, Any]:
        return jnp.zeros(1), jnp.zeros(1)

    def step(self, key: Any, state: Any, action: Any, task: Any) -> tuple[Any, TimeStep]:
        missed = jnp.abs(action[0] - task[0])
        return state, TimeStep(action, -missed, jnp.zeros((), bool), {"missed": missed})


@dataclass(frozen=True)
class ConstantConfig:
    """Settings of a learner that always does the same.

    Attributes:
      num_tasks: B.
      rate: of the steps towards the targets.
    """

    num_tasks: int = 8
    rate: float = 0.1


class ConstantState(NamedTuple):
    action: jax.Array  # [1]


def constant(env: Aim, config: ConstantConfig) -> Learner:
    agent = Agent(
        init_carry=lambda n: (),
        act=lambda params, carry, obs, key, deterministic: (
            jnp.broadcast_to(params, (len(obs), 1)),
            (),
        ),
        observe=lambda params, carry, transition: carry,
        env_action=lambda action: action,
    )

    def collect(key: Any, state: Any, tasks: Any) -> tuple[Any, Any, Any]:
        data = rollout(key, env, agent, state.action, tasks)
        return state, data, rollout_returns(data)

    def update(key: Any, state: Any, data: Any, weights: Any) -> tuple[Any, dict[str, Any]]:
        gap = ((data.tasks - state.action[None]) * weights[:, None]).sum(0) / weights.sum()
        return ConstantState(state.action + config.rate * gap), {"gap": gap[0]}

    frames = config.num_tasks * env.horizon * env.episodes
    return Learner(
        lambda key: ConstantState(jnp.zeros(1)),
        collect, update, agent, lambda state: state.action, config.num_tasks, frames,
        extras=lambda data: {"missed": data.info["missed"].mean(0)},
    )  # fmt: skip


def around_the_farthest(family: Family) -> TaskSampler:
    """Half of the tasks are from D, half like the one that was missed by most."""

    def sample(key: Any, state: Any, n: int) -> Draw:
        tasks = family.sample(key, jnp.asarray(family.phi0), n)
        own = jnp.arange(n) % 2 == 0
        tasks = jnp.where(own[:, None], state[None], tasks)
        return Draw(tasks, jnp.where(own, 0.0, 1.0), ~own)

    def update(key: Any, state: Any, draw: Draw, returns: Any) -> tuple[Any, dict[str, Any]]:
        farthest = draw.extras["missed"].argmax()
        return draw.tasks[farthest], {"farthest": draw.extras["missed"][farthest]}

    init = lambda key: family.sample(key, jnp.asarray(family.phi0), 1)[0]  # noqa: E731
    return TaskSampler(init, sample, update, lambda state: state)


@dataclass(frozen=True)
class FarthestConfig:
    """Settings of the toy method.

    Attributes:
      alpha: fraction of worst tasks.
      steps: before which it is the mean that counts.
    """

    alpha: float = 0.25
    steps: int = 5


def make_farthest(family: Family, config: FarthestConfig, steps: int) -> Any:
    """A schedule: the tail counts more and more."""
    sampler = around_the_farthest(family)

    def at(step: Any) -> MetaAlgorithm:
        share = jnp.clip(1 - step / config.steps, config.alpha, 1.0)
        return MetaAlgorithm(sampler, risk.tail(share), config.alpha)

    return at


def draw_targets(tasks: np.ndarray, obs: np.ndarray, info: Any) -> Any:
    figure, axes = style.new_figure(3, 2)
    axes.ravel()[0].plot(tasks[:, 0], info["missed"].mean(0))
    return figure


def aim_view(env: Aim) -> View:
    edges = tuple(env.spread * edge for edge in (0.0, 0.5, 1.0, 4.0))
    tasks = np.float32([[0.2], [1.0], [2.0]]) * env.spread
    return View(
        tasks, draw_targets, task="target", ranges=edges, columns=lambda i: {"missed": i["missed"]}
    )


@pytest.fixture(autouse=True)
def plugged_in(monkeypatch):
    settings = BaselineConfig(alpha=0.25)
    experiment = Experiment(
        Aim(), ConstantConfig(), settings, "constant", "baseline",
        frames=30 * 48, validation_tasks=16, validation_every=10, test_tasks=40,
    )  # fmt: skip
    preset = Preset(
        "a toy", experiment, {"constant": ConstantConfig()}, {"baseline": settings}, aim_view
    )
    monkeypatch.setitem(PRESETS, "aim", preset)
    kind = LearnerKind(ConstantConfig, constant, "Constant")
    monkeypatch.setitem(LEARNERS, "constant", kind)
    monkeypatch.setitem(METHODS, "farthest", MethodKind(FarthestConfig, make_farthest, "Farthest"))


# ------------------------------------------------------------------ the commands


def test_toys_go_through_every_command(tmp_path, capsys):
    out = str(tmp_path / "runs")
    words = ["aim", "--method", "farthest", "--steps", "7", "--spread", "2", "--out", out]
    assert cli.run(train.main, words) == 0
    assert "farthest on constant" in capsys.readouterr().out
    run = tmp_path / "runs" / "aim" / "farthest-constant" / "seed-0"
    metrics = pd.read_csv(run / "metrics.csv")
    assert {"gap", "farthest", "phi_mean_target", "reference_cvar"} <= set(metrics)
    assert metrics["gap"].iloc[1] > 0 and (run / "episodes.png").is_file()
    test = pd.read_csv(run / "test.csv")
    assert {"missed", "task_target"} <= set(test) and len(test) == 40 * 2

    assert cli.run(evaluate.main, [str(run), "--csv", str(tmp_path / "again.csv")]) == 0
    again = pd.read_csv(tmp_path / "again.csv")
    np.testing.assert_allclose(again["return"], test["return"], rtol=1e-5)

    results = str(tmp_path / "results")
    words = ["aim", "--methods", "baseline", "farthest:steps=2"]
    words += ["--seeds", "0", "1", "--out", str(tmp_path / "more"), "--results", results]
    with jax.debug_key_reuse(False):  # wrongly finds a reuse in every scan over keys under vmap
        assert cli.run(compare.main, words) == 0
    told = capsys.readouterr().out
    assert "Farthest" in told and "Constant" in told
    table = pd.read_csv(tmp_path / "results" / "aim" / "table.csv")
    assert list(table["method"])[:2] == ["baseline", "farthest:steps=2"]

    words = ["aim", "--results", results, "--out", str(tmp_path / "figures"), "--format", "png"]
    assert cli.run(figures.main, words) == 0
    drawn = {file.name for file in (tmp_path / "figures" / "aim").glob("*.png")}
    assert {"learning.png", "test.png", "sampler.png", "ranges.png"} <= drawn


def test_toys_are_on_offer(capsys):
    assert cli.run(train.main, ["aym"]) == 2
    assert "did you mean aim?" in capsys.readouterr().err
    assert cli.run(train.main, ["aim", "--learner", "constnt"]) == 2
    assert "did you mean constant?" in capsys.readouterr().err
    assert cli.run(train.main, ["aim", "--steps", "7"]) == 2
    assert "--steps is a setting of farthest, not of baseline" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.run(train.main, ["aim", "--method", "farthest", "--help"])
    told = capsys.readouterr().out
    assert "--steps" in told and "--spread" in told and "--rate" in told and "--beta" not in told


@pytest.mark.slow
def test_any_learner_runs_there_under_any_method(tmp_path):
    words = ["aim", "--learner", "ppo", "--method", "farthest", "--policy.layers", "4"]
    words += ["--policy.minibatches", "2", "--out", str(tmp_path), "--frames", "600"]
    assert cli.run(train.main, [*words, "--num-tasks", "8"]) == 0
