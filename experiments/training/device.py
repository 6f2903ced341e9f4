"""What runs on the device: training chunks, validation and test, compiled ahead of time.

Several seeds are vmapped into one computation; each keeps its own directory.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree

from experiments.spec.build import Built
from experiments.training import checkpoints, hosts, placement
from experiments.training.checkpoints import Best, Saved
from experiments.training.runs import Run
from roml_jax.evaluate import Evaluation, Purpose, evaluate, evaluation_key, sample_tasks
from roml_jax.risk import cvar
from roml_jax.types import PRNGKey
from roml_jax.wrappers import by_seed

FINITE = "finite"  # the metric that says whether a step can be trusted
VALIDATED = ("mean", "cvar")  # of the returns of a validation, in this order


class Functions(NamedTuple):
    """What runs on the device, compiled."""

    init: Callable[[PRNGKey], PyTree]
    run_chunk: Callable[[PyTree, Any], tuple[PyTree, dict[str, Array]]]
    validate: Callable[[PyTree], np.ndarray]  # parameters of all seeds to [S, 2]
    chunk: int  # most steps of a chunk


DrawTasks: TypeAlias = Callable[[PRNGKey, int], Array]  # (key, n) -> tasks[n, D]


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

    @property
    def several(self) -> bool:
        """Whether what trains has an axis of seeds."""
        return len(self.runs) > 1

    def one(self, tree: PyTree, i: int) -> PyTree:
        """The part of the i-th seed; on the host, if it lies over several devices."""
        if self.built.mesh is not None:
            return placement.to_host(tree, self.built.mesh, i if self.several else None)
        return jax.tree.map(lambda x: x[i], tree) if self.several else tree

    def agents(self, state: PyTree) -> PyTree:
        """``agent`` of all seeds: a learner knows the state of one, and may look inside of it."""
        find = functools.partial(agent, self.built)
        return jax.vmap(find)(state) if self.several else find(state)

    def whole(self, tree: PyTree) -> PyTree:
        """All seeds on the host."""
        mesh = self.built.mesh
        return jax.tree.map(np.array, tree) if mesh is None else placement.to_host(tree, mesh)

    def lay(self, state: PyTree) -> PyTree:
        """A training state where the training expects it."""
        if self.built.mesh is None:
            return state
        return placement.lay(state, placement.layout(self.built, self.several))


def make_evaluate(
    built: Built,
    n: int,
    purpose: Purpose,
    mesh: Mesh | None = None,
    draw: DrawTasks | None = None,
) -> Callable[[PyTree, PRNGKey, PRNGKey], Evaluation]:
    """``(params, task_key, noise_key) -> Evaluation`` on n tasks.

    Args:
      built: the experiment.
      n: number of tasks.
      purpose: what it is for.
      mesh: whose axis "tasks" they lie over, where they come out even.
      draw: ``(key, n) -> tasks[n, D]``; None for those of the original distribution.
    """

    def run(params: PyTree, task_key: PRNGKey, noise_key: PRNGKey) -> Evaluation:
        tasks = draw(task_key, n) if draw else sample_tasks(task_key, built.env, n)
        context: Any = contextlib.nullcontext()
        if mesh is not None and n % mesh.shape["tasks"] == 0:
            by_task = NamedSharding(mesh, PartitionSpec("tasks"))
            tasks = jax.lax.with_sharding_constraint(tasks, by_task)
            context = jax.sharding.use_abstract_mesh(mesh.abstract_mesh)
        with context:
            return evaluate(noise_key, built.env, built.agent, params, tasks, purpose=purpose)

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
    built, several = session.built, session.several
    init, step = (_side_by_side(session, f) for f in (built.init, watch(built)))
    if session.alphas:
        alphas = jnp.asarray(session.alphas, jnp.float32)
        at_alphas = _side_by_side(session, lambda alpha, one: watch(built, alpha)(one))

        def step(state: PyTree) -> tuple[PyTree, dict[str, Array]]:
            return at_alphas(alphas, state)

    chunk = min(built.experiment.validation_every, built.total_steps)
    run_chunk = make_run_chunk(step, chunk)
    validate, arguments = _make_validate(session)
    if jax.config.values["jax_disable_jit"]:  # nothing can be compiled ahead
        return Functions(init, run_chunk, _all_seeds(session, validate), chunk), 0.0
    key = jax.eval_shape(lambda: jax.random.key(0))
    keys = jax.ShapeDtypeStruct((len(session.runs),), key.dtype) if several else key
    state, count = jax.eval_shape(init, keys), jax.ShapeDtypeStruct((), jnp.int32)
    laid: tuple[Any, Any, Any] = (None, None, None)
    if built.mesh is not None:
        everywhere, layout = placement.replicated(built.mesh), placement.layout(built, several)
        state = jax.tree.map(lambda x, at: x.update(sharding=at), state, layout)
        laid = (layout, everywhere), layout, everywhere
        keys = keys.update(sharding=everywhere)
    jit_chunk = functools.partial(jax.jit, donate_argnums=() if keep else 0)
    lowered = [
        jit_chunk(run_chunk, out_shardings=laid[0]).lower(state, count),
        jax.jit(init, out_shardings=laid[1]).lower(keys),
        jax.jit(validate, out_shardings=laid[2]).lower(*arguments),
    ]
    with ThreadPoolExecutor(len(lowered)) as pool:
        compiled = list(pool.map(lambda x: x.compile(), lowered))
    if built.mesh is not None:
        compiled = [placement.settled(program) for program in compiled]
    run_chunk, init, validate = compiled
    functions = Functions(init, run_chunk, _all_seeds(session, validate), chunk)
    return functions, time.perf_counter() - start


def _side_by_side(session: Session, fn: Callable) -> Callable:
    """A function of one seed as one of all that train: ``vmap``, over devices if there are some."""
    mesh = session.built.mesh
    if not session.several:
        return fn
    return jax.vmap(fn) if mesh is None else by_seed(fn, mesh)


def _make_validate(session: Session) -> tuple[Callable, tuple]:
    """``(params, key, alpha) -> [2]``, and the shapes of its arguments.

    Over several devices it is a function of all seeds at once. On one it is of one at a time,
    which takes the least memory.
    """
    built, mesh = session.built, session.built.mesh
    evaluate = make_evaluate(built, built.experiment.validation_tasks, "validation", mesh)

    def validate(params: PyTree, key: PRNGKey, alpha: Float[Array, ""]) -> Float[Array, "2"]:
        returns = evaluate(params, *jax.random.split(key)).returns
        return jnp.stack([jnp.mean(returns), cvar(returns, alpha)])

    params = jax.eval_shape(built.learner.params, built.state_shape.learner)
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = params, key, jax.ShapeDtypeStruct((), jnp.float32)
    if mesh is None:
        return validate, shapes
    lead = (len(session.runs),) if session.several else ()
    at = placement.by_seeds(mesh, session.several)
    laid = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype, sharding=at), shapes
    )
    return _side_by_side(session, validate), laid


def _all_seeds(session: Session, validate: Callable) -> Callable[[PyTree], np.ndarray]:
    """``params -> [S, 2]``: the validation of every seed, on its own tasks."""
    mesh, runs = session.built.mesh, session.runs
    keys = [evaluation_key(run.evaluation_seed, "validation") for run in runs]
    alphas = [np.float32(run.experiment.alpha) for run in runs]

    def one_by_one(params: PyTree) -> np.ndarray:
        each = zip(range(len(runs)), keys, alphas, strict=True)
        return np.stack([np.asarray(validate(session.one(params, i), *rest)) for i, *rest in each])

    if mesh is None:
        return one_by_one
    at = placement.by_seeds(mesh, session.several)
    told = (jnp.stack(keys), np.stack(alphas)) if session.several else (keys[0], alphas[0])
    laid = placement.lay(told, at)

    def at_once(params: PyTree) -> np.ndarray:
        return np.asarray(validate(placement.lay(params, at), *laid)).reshape(len(runs), 2)

    return at_once


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
        saved = hosts.first(
            lambda: [checkpoints.restore(path, shape, step) for path in session.paths]
        )
        best = [one.best for one in saved]
        states = [saved.pop(0).state for _ in range(len(saved))]
        return session.lay(checkpoints.to_device(states, shape.state)), best
    seeds = [jax.random.key(seed) for seed in session.seeds]
    keys = seeds[0] if len(seeds) == 1 else jnp.stack(seeds)
    if session.built.mesh is not None:
        keys = placement.lay(keys, placement.replicated(session.built.mesh))
    return functions.init(keys), [{} for _ in seeds]
