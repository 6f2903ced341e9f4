"""Whether an environment is one: what is wrong with it, in one line, before anything is trained."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from roml_jax.types import Box, Discrete, PRNGKey, TaskEnv, TimeStep

_MEMBERS = ("family", "horizon", "episodes", "observation_size", "action_space", "reset", "step")


def check_env(env: Any, key: PRNGKey, n: int = 16) -> list[str]:
    """Traces and plays an environment, an episode on each of n tasks with one action held.

    What it cannot know is whether good actions are rewarded, and whether an episode ends when it
    should.

    Args:
      env: to be a ``TaskEnv``.
      key: typed key, of tasks, actions and noise.
      n: number of tasks, at least 1.

    Returns:
      What may be meant so and is rarely, a line each: tasks that change nothing, a horizon of one
      step, rewards that are all negative where episodes end early. Empty for none.

    Raises:
      ValueError: it is no sound ``TaskEnv``: names the member, what it gives and what it should.
    """
    missing = [name for name in _MEMBERS if not hasattr(env, name)]
    if missing:
        raise ValueError(
            f"{type(env).__name__} has no {', '.join(missing)}, which a TaskEnv needs."
        )
    for name in ("horizon", "episodes", "observation_size"):
        _check_count(name, getattr(env, name))
    task_key, action_key, play_key = jax.random.split(key, 3)
    tasks = _check_family(env, task_key, n)
    actions = _actions(env, action_key, n)
    _check_step(env, _check_reset(env, tasks[0]), actions[0], tasks[0])
    first, out = _play(env, play_key, tasks, actions)
    _check_finite("reset", "obs", first, tasks)
    for name, values in {"obs": out.obs, "reward": out.reward, **out.info}.items():
        _check_finite("step", name, jnp.swapaxes(values, 0, 1), tasks)
    return _hints(env, play_key, tasks, actions, out)


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a Python integer of at least 1; got {value!r}")


def _check_family(env: TaskEnv, key: PRNGKey, n: int) -> Array:
    """Tasks of the original distribution, if the family can draw and weigh them."""
    family = env.family
    dim, size = len(family.names), len(family.phi_names)
    if np.shape(family.phi0) != (size,):
        told = f"{size} names and the shape {list(np.shape(family.phi0))}"
        raise ValueError(f"family.phi0 must have a component for each of phi_names; got {told}")
    tasks = jax.jit(family.sample, static_argnums=2)(key, family.phi0, n)
    _check_array("family.sample", tasks, (n, dim), jnp.floating)
    weights = jax.jit(family.log_prob)(tasks, family.phi0)
    _check_array("family.log_prob", weights, (n,), jnp.floating)
    if not jnp.isfinite(tasks).all() or not jnp.isfinite(weights).all():
        raise ValueError("family.sample draws tasks that are not finite, or have no density.")
    return tasks


def _actions(env: TaskEnv, key: PRNGKey, n: int) -> Array:
    space = env.action_space
    if isinstance(space, Discrete):
        return jax.random.randint(key, (n,), 0, space.n, jnp.int32)
    if isinstance(space, Box):
        return jax.random.uniform(key, (n, space.size), jnp.float32, minval=-1.0)
    raise ValueError(f"action_space is Discrete(n) or Box(size); got {type(space).__name__}")


def _check_reset(env: TaskEnv, task: Array) -> PyTree:
    """The shapes of a state."""
    given = jax.eval_shape(env.reset, jax.random.key(0), task)
    if not isinstance(given, tuple) or len(given) != 2:
        raise ValueError(f"reset must give (state, obs); got {type(given).__name__}")
    state, obs = given
    _check_array("the observation of reset", obs, (env.observation_size,), jnp.float32)
    return state


def _check_step(env: TaskEnv, state: PyTree, action: Array, task: Array) -> None:
    """Holds the shapes of what a step gives against those of what it was given."""
    given = jax.eval_shape(env.step, jax.random.key(0), state, action, task)
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[1], TimeStep):
        raise ValueError(f"step must give (state, TimeStep); got {type(given).__name__}")
    after, out = given
    was: Any = jax.tree.structure(state)
    now: Any = jax.tree.structure(after)
    if was != now:
        raise ValueError(f"step must give a state of the structure of reset's, {was}; got {now}")
    pairs = zip(jax.tree.leaves_with_path(state), jax.tree.leaves(after), strict=True)
    for (path, before), leaf in pairs:
        if _kind(before) != _kind(leaf):
            where = f"state{jax.tree_util.keystr(path)}"
            raise ValueError(f"step changes {where} from {_kind(before)} to {_kind(leaf)}")
    _check_array("TimeStep.obs", out.obs, (env.observation_size,), jnp.float32)
    _check_array("TimeStep.reward", out.reward, (), jnp.float32)
    _check_array("TimeStep.terminated", out.terminated, (), jnp.bool_)
    if not isinstance(out.info, dict):
        raise ValueError(f"TimeStep.info must be a dictionary; got {type(out.info).__name__}")


def _check_array(name: str, x: Any, shape: tuple[int, ...], dtype: Any) -> None:
    right = jnp.issubdtype(x.dtype, dtype) if hasattr(x, "dtype") else False
    if not right or tuple(x.shape) != shape:
        wanted = "float" if dtype is jnp.floating else jnp.dtype(dtype).name
        got = _kind(x) if hasattr(x, "dtype") else f"a Python {type(x).__name__}"
        raise ValueError(f"{name} must be {wanted}{list(shape)}; got {got}")


def _kind(x: Any) -> str:
    return f"{x.dtype.name}{list(x.shape)}"


def _play(env: TaskEnv, key: PRNGKey, tasks: Array, actions: Array) -> tuple[Array, TimeStep]:
    """First observations ``[n, O]``, and what every step gave ``[H, n, …]``."""
    reset_key, step_key = jax.random.split(key)

    @jax.jit
    def play(reset_keys: Array, step_keys: Array) -> tuple[Array, TimeStep]:
        state, obs = jax.vmap(env.reset)(reset_keys, tasks)

        def step(state: PyTree, keys: Array) -> tuple[PyTree, TimeStep]:
            return jax.vmap(env.step)(keys, state, actions, tasks)

        return obs, jax.lax.scan(step, state, step_keys)[1]

    n = tasks.shape[0]
    step_keys = jax.random.split(step_key, (env.horizon, n))
    return play(jax.random.split(reset_key, n), step_keys)


def _check_finite(where: str, name: str, values: Array, tasks: Array) -> None:
    """Values ``[n, …]``, those of a task in each row."""
    wrong = ~np.isfinite(np.asarray(values, np.float64)).reshape(len(tasks), -1).all(axis=1)
    if wrong.any():
        task = ", ".join(f"{x:g}" for x in np.asarray(tasks)[wrong.argmax()])
        raise ValueError(f"{where} gives a {name} that is not finite, for the task ({task}).")


def _hints(env: TaskEnv, key: PRNGKey, tasks: Array, actions: Array, out: TimeStep) -> list[str]:
    """What may be meant so, and is rarely."""
    hints = []
    if env.horizon == 1:
        hints.append(
            'H = 1: with PolicyConfig(time_limit="ignore"), the default, the last reward of an '
            'episode is left out, which is the only one: choose "bootstrap" or "continue".'
        )
    n = tasks.shape[0]
    same = jnp.broadcast_to(tasks[:1], tasks.shape)
    alike = _play(env, jax.random.clone(key), same, actions)[1]  # the same noise
    if n > 1 and jnp.array_equal(alike.reward, out.reward) and (tasks != same).any():
        hints.append("The task changes no reward of these episodes: is it used?")
    ends = np.asarray(out.terminated).any()
    if ends and (np.asarray(out.reward) <= 0).all() and (np.asarray(out.reward) < 0).any():
        hints.append(
            "Episodes end early where no reward is positive: being over is better, it gives zero."
        )
    return hints
