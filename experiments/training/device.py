"""What runs on the device: training chunks, validation and test, compiled ahead of time.

Several seeds are vmapped into one computation; each keeps its own directory.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from experiments.spec.build import Built
from experiments.training import checkpoints
from experiments.training.checkpoints import Best, Saved
from experiments.training.runs import Run
from roml_jax.evaluate import Evaluation, Purpose, evaluate, sample_tasks
from roml_jax.risk import cvar
from roml_jax.types import PRNGKey

FINITE = "finite"  # the metric that says whether a step can be trusted
VALIDATED = ("mean", "cvar")  # of the returns of a validation, in this order


class Functions(NamedTuple):
    """What runs on the device, compiled."""

    init: Callable[[PRNGKey], PyTree]
    run_chunk: Callable[[PyTree, Any], tuple[PyTree, dict[str, Array]]]
    validate: Callable[[PyTree, PRNGKey, Any], Float[Array, "2"]]  # parameters, key, alpha
    chunk: int  # most steps of a chunk


class Session(NamedTuple):
    """The runs that train side by side, and where each of them is written.

    They have different seeds, or, in a sweep, different pairs of seed and ``alpha``.
    """

    built: Built  # of the first of them
    runs: list[Run]
    paths: list[Path]

    @property
    def seeds(self) -> list[int]:
        """The seed of each run."""
        return [run.seed for run in self.runs]

    @property
    def alphas(self) -> list[float]:
        """The levels of a sweep, one for each run; none if they all have the same."""
        alphas = [run.experiment.alpha for run in self.runs]
        return alphas if len(set(alphas)) > 1 else []

    def one(self, tree: PyTree, i: int) -> PyTree:
        """The part of the i-th seed."""
        return tree if len(self.runs) == 1 else jax.tree.map(lambda x: x[i], tree)


def make_evaluate(
    built: Built, n: int, purpose: Purpose
) -> Callable[[PyTree, PRNGKey], Evaluation]:
    """``(params, key) -> Evaluation`` on n tasks of the original distribution."""

    def run(params: PyTree, key: PRNGKey) -> Evaluation:
        task_key, evaluate_key = jax.random.split(key)
        tasks = sample_tasks(task_key, built.env, n)
        return evaluate(evaluate_key, built.env, built.agent, params, tasks, purpose=purpose)

    return run


def agent(built: Built, state: PyTree) -> PyTree:
    """What a test needs of the state: the parameters, and where the task sampler stands."""
    return built.learner.params(state.learner), state.sampler


def saved_shape(built: Built) -> Saved:
    """What a checkpoint of one seed holds, as ``ShapeDtypeStruct``."""
    best = Best(
        jax.eval_shape(lambda state: agent(built, state), built.state_shape),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.float32),
    )
    return Saved(built.state_shape, dict.fromkeys(VALIDATED, best))


def watch(built: Built, alpha: Array | None = None) -> Callable:
    """The training step with one more metric: "finite", of losses, returns and parameters.

    Args:
      built: the experiment.
      alpha: traced; None for that of the experiment.
    """

    def step(state: PyTree) -> tuple[PyTree, dict[str, Array]]:
        state, metrics = built.step(state) if alpha is None else built.step_at(alpha, state)
        watched = [metrics[name] for name in built.watched]
        numbers = jax.tree.leaves((watched, built.learner.params(state.learner)))
        finite = jnp.stack([jnp.isfinite(x).all() for x in numbers]).all()
        return state, metrics | {FINITE: finite}

    return step


def skip(old: PyTree, new: PyTree, skipped: Array) -> PyTree:
    """A step that did not happen: ``old`` where ``skipped``, but for the key and the count."""
    state = jax.tree.map(lambda a, b: jnp.where(skipped, a, b), old, new)
    return state._replace(key=new.key, step=new.step)


@functools.cache
def compiled_skip(several: bool) -> Callable[[PyTree, PyTree, Any], PyTree]:
    """``skip`` for one seed, or for several at once with a mask ``[S]``."""
    return jax.jit(jax.vmap(skip) if several else skip)


def make_run_chunk(step: Callable, chunk: int) -> Callable:
    """``(state, n) -> (state, metrics[chunk, …])``: n <= chunk steps, n not static."""

    def run_chunk(state: PyTree, n: Array) -> tuple[PyTree, PyTree]:
        shapes = jax.eval_shape(step, state)[1]
        record = jax.tree.map(lambda x: jnp.zeros((chunk, *x.shape), x.dtype), shapes)

        def body(i: Array, loop: tuple) -> tuple:
            state, metrics = step(loop[0])
            return state, jax.tree.map(lambda all_, new: all_.at[i].set(new), loop[1], metrics)

        return jax.lax.fori_loop(0, n, body, (state, record))

    return run_chunk


def compile_functions(session: Session, keep: bool = False) -> tuple[Functions, float]:
    """Compiles everything that training needs, at the same time; also returns the seconds.

    Args:
      session: what trains.
      keep: ``run_chunk`` leaves the state that it is given alone, for twice the memory.
    """
    start = time.perf_counter()
    built, several = session.built, len(session.runs) > 1
    init, step = (jax.vmap(f) if several else f for f in (built.init, watch(built)))
    if session.alphas:
        alphas = jnp.asarray(session.alphas, jnp.float32)

        def step(state: PyTree) -> tuple[PyTree, dict[str, Array]]:
            return jax.vmap(lambda alpha, one: watch(built, alpha)(one))(alphas, state)

    chunk = min(built.experiment.validation_every, built.total_steps)
    evaluate = make_evaluate(built, built.experiment.validation_tasks, "validation")

    def validate(params: PyTree, key: PRNGKey, alpha: Float[Array, ""]) -> Float[Array, "2"]:
        returns = evaluate(params, key).returns
        return jnp.stack([jnp.mean(returns), cvar(returns, alpha)])

    if jax.config.values["jax_disable_jit"]:  # nothing can be compiled ahead
        return Functions(init, make_run_chunk(step, chunk), validate, chunk), 0.0
    key = jax.eval_shape(lambda: jax.random.key(0))
    keys = jax.ShapeDtypeStruct((len(session.runs),), key.dtype) if several else key
    state = jax.eval_shape(init, keys)
    params = jax.eval_shape(built.learner.params, built.state_shape.learner)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    lowered = [
        jax.jit(make_run_chunk(step, chunk), donate_argnums=() if keep else 0).lower(state, count),
        jax.jit(init).lower(keys),
        jax.jit(validate).lower(params, key, jax.ShapeDtypeStruct((), jnp.float32)),
    ]
    with ThreadPoolExecutor(len(lowered)) as pool:
        run_chunk, compiled_init, compiled_validate = pool.map(lambda x: x.compile(), lowered)
    functions = Functions(compiled_init, run_chunk, compiled_validate, chunk)
    return functions, time.perf_counter() - start


def start_state(
    session: Session, functions: Functions, step: int | None
) -> tuple[PyTree, list[dict[str, Best]]]:
    """The state to begin with, and the best agents so far of every seed.

    Args:
      session: what trains.
      functions: compiled.
      step: of the checkpoints to go on from; None for a fresh start.
    """
    if step is not None:
        shape = saved_shape(session.built)
        saved = [checkpoints.restore(path, shape, step) for path in session.paths]
        best = [one.best for one in saved]
        states = [saved.pop(0).state for _ in range(len(saved))]
        return checkpoints.to_device(states, shape.state), best
    keys = [jax.random.key(seed) for seed in session.seeds]
    state = functions.init(keys[0] if len(keys) == 1 else jnp.stack(keys))
    return state, [{} for _ in keys]
