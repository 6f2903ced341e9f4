"""A trained agent in one file, which runs where JAX is and this project is not."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Bool, Float, PyTree, UInt32

from experiments.spec.errors import UserError
from roml_jax.types import Agent, Discrete, TaskEnv, Transition

PLATFORMS = ("cpu", "cuda", "tpu")
ABOUT = "about.json"


def functions(agent: Agent, params: PyTree, n: int) -> dict[str, Callable]:
    """The behaviour of n agents as functions of arrays, deterministic.

    Their memory is a tuple of arrays. An observation stands as the environment gives it, with
    ``done``, whether it is the last one of an episode.

    Args:
      agent: the behaviour.
      params: its parameters, which become constants.
      n: how many agents, each on a task of its own.

    Returns:
      ``start: seed -> memory`` of agents who know nothing of their tasks;
      ``begin: (memory, obs[n, O], done[n], seed) -> memory`` at the start of every episode, with
      the observation that its first action is chosen on;
      ``act: (memory, obs[n, O], done[n], seed) -> action``, as the environment takes it;
      ``observe: (memory, action, reward[n], obs[n, O], done[n]) -> memory``, of what came of it.
      Seeds are ``uint32[]``; most agents draw nothing.
    """
    blank = agent.init_carry(n)
    form = jax.tree.structure(blank)

    def seen(obs: Float[Array, "n O"], done: Bool[Array, " n"]) -> Float[Array, "n O1"]:
        parts = [obs, done[:, None].astype(obs.dtype)]
        return jnp.concatenate(parts, axis=1) if agent.boundary.done_flag else obs

    def start(seed: UInt32[Array, ""]) -> tuple[Array, ...]:
        del seed
        return tuple(jax.tree.leaves(agent.init_carry(n)))

    def begin(memory: tuple, obs: Array, done: Array, seed: UInt32[Array, ""]) -> tuple[Array, ...]:
        carry, key = jax.tree.unflatten(form, memory), jax.random.key(seed)
        return tuple(jax.tree.leaves(agent.begin(params, carry, seen(obs, done), key)))

    def act(memory: tuple, obs: Array, done: Array, seed: UInt32[Array, ""]) -> Array:
        carry, key = jax.tree.unflatten(form, memory), jax.random.key(seed)
        action, _ = agent.act(params, carry, seen(obs, done), key, True)
        return agent.env_action(action)

    def observe(
        memory: tuple, action: Array, reward: Array, obs: Array, done: Array
    ) -> tuple[Array, ...]:
        happened = Transition(action, reward, seen(obs, done), jnp.ones(n, bool))
        carry = agent.observe(params, jax.tree.unflatten(form, memory), happened)
        return tuple(jax.tree.leaves(carry))

    return {"start": start, "begin": begin, "act": act, "observe": observe}


def write(
    file: Path,
    env: TaskEnv,
    agent: Agent,
    params: PyTree,
    *,
    n: int = 1,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Writes an agent as a ``.zip`` of what ``jax.export`` makes of its functions.

    Args:
      file: ends in ``.zip``.
      env: gives the shapes.
      agent: see ``functions``.
      params: likewise.
      n: likewise.
      platforms: that it is to run on.

    Raises:
      UserError: the file has another ending, or there is no agent.
    """
    if file.suffix != ".zip":
        raise UserError(f"an agent is exported to a .zip; got {file}")
    if n < 1:
        raise UserError(f"n is the number of agents, at least 1; got {n}")
    space = env.action_space
    if isinstance(space, Discrete):
        action, words = jax.ShapeDtypeStruct((n,), jnp.int32), f"int32 below {space.n}"
    else:
        action = jax.ShapeDtypeStruct((n, space.size), jnp.float32)
        words = f"float32[{space.size}]"
    numbers, flags = jax.ShapeDtypeStruct((n,), jnp.float32), jax.ShapeDtypeStruct((n,), bool)
    obs = jax.ShapeDtypeStruct((n, env.observation_size), jnp.float32)
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    made = functions(agent, params, n)
    memory = jax.eval_shape(made["start"], seed)
    inputs: dict[str, tuple[Any, ...]] = {
        "start": (seed,),
        "begin": (memory, obs, flags, seed),
        "act": (memory, obs, flags, seed),
        "observe": (memory, action, numbers, obs, flags),
    }
    about = {
        "agents": n,
        "observation_size": env.observation_size,
        "actions": words,
        "horizon": env.horizon,
        "episodes": env.episodes,
        "first_action_on": agent.boundary.observation,
        "jax": jax.__version__,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ABOUT, json.dumps(about, indent=2))
        for name, function in made.items():
            exported = export.export(jax.jit(function), platforms=platforms)(*inputs[name])
            archive.writestr(name, bytes(exported.serialize()))


def read(file: Path) -> dict[str, Callable]:
    """The functions of an exported agent; that is all that it takes, with no more than JAX."""
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name != ABOUT]
        return {name: export.deserialize(bytearray(archive.read(name))).call for name in names}
