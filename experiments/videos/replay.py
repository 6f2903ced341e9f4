"""Meta-episodes of trained agents with the positions of every body at every step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from tqdm import tqdm

from envs.mujoco.body_env import BodyEnv
from experiments.spec.build import Built, build
from experiments.training import agents
from experiments.training.runs import Run
from roml_jax.evaluate import evaluation_key
from roml_jax.rollout import rollout
from roml_jax.types import Agent, Box, Family, PRNGKey, TimeStep

QUANTILES = {"easy": 0.95, "median": 0.5, "hard": 0.05}  # of the returns of tasks


class Replay(NamedTuple):
    """What a meta-episode on each of n tasks looked like, and what it earned."""

    qpos: Float[Array, "K H1 n nq"]  # from the true start of each episode on
    reward: Float[Array, "K H n"]  # raw

    def at(self, chosen: Sequence[int]) -> Replay:
        """Some of the tasks."""
        return Replay(self.qpos[:, :, chosen], self.reward[:, :, chosen])


def replay(
    key: PRNGKey,
    env: BodyEnv,
    agent: Agent,
    params: Any,
    tasks: Float[Array, "n D"],
) -> Replay:
    """Runs one meta-episode on every task, without sampled actions.

    It is the meta-episode of ``roml_jax.rollout`` with the same arguments: positions travel
    in the observations, and the agent is kept from seeing them.

    Args:
      key: of resets and steps.
      env: the environment.
      agent: the behaviour.
      params: of the agent.
      tasks: ``[n, D]``.

    Returns:
      A ``Replay``. An episode that a diverged simulation ended stands still from there on.
    """
    size = jax.eval_shape(env.start, key)[0].size  # nq

    def seen(obs: Float[Array, "n O"]) -> Float[Array, "n O2"]:
        return obs[:, 2 * size :]

    def act(params: Any, carry: Any, obs: Array, key: PRNGKey, deterministic: bool) -> Any:
        return agent.act(params, carry, seen(obs), key, deterministic)

    def observe(params: Any, carry: Any, transition: Any) -> Any:
        transition = transition._replace(next_obs=seen(transition.next_obs))
        return agent.observe(params, carry, transition)

    data = rollout(
        key,
        _Recorded(env, size),
        agent._replace(act=act, observe=observe),
        params,
        tasks,
        deterministic=True,
    )
    later = data.obs[:, 1:]  # the first one may be the last of the episode before
    qpos = jnp.concatenate([later[:, :1, :, :size], later[..., size : 2 * size]], axis=1)
    return Replay(qpos, data.reward.reshape(env.episodes, env.horizon, len(tasks)))


def replay_runs(
    members: Sequence[tuple[Path, Run]],
    tasks: Float[np.ndarray, "n D"],
    seed: int,
    which: str | None = None,
) -> list[Replay]:
    """The meta-episodes of trained agents on the same tasks, from the same starting positions.

    Says which agents they are.

    Args:
      members: run directories and what they hold.
      tasks: ``[n, D]``.
      seed: of the starting positions.
      which: agents, see ``agents.load_agent``.

    Returns:
      NumPy leaves, a ``Replay`` for each run.

    Raises:
      UserError: a checkpoint or an engine is missing.
    """
    compiled: dict[Any, Callable[[PRNGKey, PyTree, Array], Replay]] = {}
    results = []
    pause = 0.5 if sys.stderr.isatty() else 5.0
    for path, run in tqdm(members, desc="running", unit=" runs", mininterval=pause):
        built = build(run.experiment)
        (params, _), step = agents.load_agent(path, built, which)
        tqdm.write(f"{path}: agent of step {step:,} of {built.total_steps:,}")
        play = compiled.setdefault(run.experiment, _player(built))
        key = jax.random.fold_in(evaluation_key(seed, "test"), 2)
        results.append(jax.tree.map(np.asarray, play(key, params, jnp.asarray(tasks))))
    return results


def choose(replays: Sequence[Replay]) -> dict[str, int]:
    """An easy, a median and a hard task, by the mean return of all agents.

    Args:
      replays: of each agent, on the same n tasks.

    Returns:
      The tasks' places among the n, by name.
    """
    returns = np.mean([one.reward.sum(axis=(0, 1)) for one in replays], axis=0)
    order = np.argsort(returns)
    return {name: int(order[round(q * (len(order) - 1))]) for name, q in QUANTILES.items()}


def _player(built: Built) -> Callable[[PRNGKey, PyTree, Array], Replay]:
    """``replay`` of one experiment, to be compiled when it is first called."""

    def play(key: PRNGKey, params: PyTree, tasks: Array) -> Replay:
        return replay(key, built.env, cast(Agent, built.agent), params, tasks)

    return jax.jit(play)


@dataclass(frozen=True)
class _Recorded:
    """An environment whose observations begin with two more parts.

    These are the positions at the start of the episode, and those of now.
    """

    env: BodyEnv
    size: int  # nq

    @property
    def family(self) -> Family:
        return self.env.family

    @property
    def horizon(self) -> int:
        return self.env.horizon

    @property
    def episodes(self) -> int:
        return self.env.episodes

    @property
    def observation_size(self) -> int:
        return 2 * self.size + self.env.observation_size

    @property
    def action_space(self) -> Box:
        return self.env.action_space

    def reset(self, key: PRNGKey, task: Float[Array, " D"]) -> tuple[Any, Float[Array, " O"]]:
        state, obs = self.env.reset(key, task)
        start = state.physics.qpos
        return (state, start), jnp.concatenate([start, start, obs])

    def step(
        self, key: PRNGKey, state: Any, action: Array, task: Float[Array, " D"]
    ) -> tuple[Any, TimeStep]:
        inner, start = state
        inner, out = self.env.step(key, inner, action, task)
        obs = jnp.concatenate([start, inner.physics.qpos, out.obs])
        return (inner, start), out._replace(obs=obs)
