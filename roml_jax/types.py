"""Axes, data that passes between modules, and the interfaces that they meet at.

Axis letters, used in every docstring of the project:

====  ==========================================================================
T     time steps of a meta-episode, ``T = K * H``; always the leading axis
K     episodes of one meta-episode
H     steps of one episode (the horizon)
B     tasks of one training step
N     samples, where it does not matter of what
D     components of a task
P     components of ``phi``, the parameter of a task distribution
O, A  components of an observation and of an action
L     components of the latent task variable
S     seeds
====  ==========================================================================

Returns are higher-is-better everywhere; losses enter as negative returns.
``alpha`` is always the fraction of worst tasks, in (0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

from roml_jax.checks import check_choice

PRNGKey: TypeAlias = Key[Array, ""]
Metrics: TypeAlias = dict[str, Array]
Extras: TypeAlias = dict[str, Array]  # leaves [B, …], what else a rollout says of each task
Alpha: TypeAlias = float | int | np.floating | Float[Array, ""]  # in (0, 1]; may be traced


# What a metric holds where there is nothing to say: infinity, for a NaN would stop those who have
# turned on ``jax_debug_nans`` to find where something is wrong.
UNTOLD = math.inf


class TimeStep(NamedTuple):
    """What one step of one environment returns (no batch axis)."""

    obs: Float[Array, " O"]  # observation after the step
    reward: Float[Array, ""]  # raw reward of the step
    terminated: Bool[Array, ""]  # the task's own end; never set by a time limit
    info: dict[str, Array]  # numbers for people, same structure at every step


class Discrete(NamedTuple):
    """Actions ``0 … n-1``, passed to the environment as an int32 scalar."""

    n: int


class Box(NamedTuple):
    """Real action vectors of ``size`` components.

    ``low``/``high`` bound what the environment acts upon; the policy is not
    clipped to them.
    """

    size: int
    low: float = -1.0
    high: float = 1.0


ActionSpace: TypeAlias = Discrete | Box


@runtime_checkable
class TaskEnv(Protocol):
    """One environment as a frozen dataclass of settings and pure methods.

    No batch axis, no automatic reset, and the task is an argument of every call
    that depends on it. ``rollout.py`` owns the boundaries of episodes and tasks.
    """

    @property
    def family(self) -> Family:
        """The distribution ``D_phi0`` of tasks, inside its parametric family."""

    @property
    def horizon(self) -> int:
        """H, steps of an episode."""

    @property
    def episodes(self) -> int:
        """K, episodes of a meta-episode on one task."""

    @property
    def observation_size(self) -> int:
        """O, without the done flag that ``rollout.py`` may append."""

    @property
    def action_space(self) -> ActionSpace:
        """Discrete(n) or Box(size)."""

    def reset(self, key: PRNGKey, task: Float[Array, " D"]) -> tuple[Any, Float[Array, " O"]]:
        """Starts an episode: ``(state, obs)``."""

    def step(
        self, key: PRNGKey, state: Any, action: Array, task: Float[Array, " D"]
    ) -> tuple[Any, TimeStep]:
        """Advances one step: ``(state, TimeStep)``."""


@runtime_checkable
class TaskData(Protocol):
    """Supervised problems as a frozen dataclass of settings and pure methods.

    What ``TaskEnv`` is to reinforcement learning: the task is hidden, and labelled examples
    of it are all that a learner sees.
    """

    @property
    def family(self) -> Family:
        """The distribution ``D_phi0`` of tasks, inside its parametric family."""

    def sample_batch(self, key: PRNGKey, task: Float[Array, " D"], n: int) -> tuple[Array, Array]:
        """Draws n examples of one task: inputs ``x[n, …]`` and labels ``y[n, …]``."""


class Family(NamedTuple):
    """A parametric family of task distributions ``D_phi`` that holds ``D`` at ``phi0``.

    Attributes:
      phi0: ``[P]``, the parameter of the original task distribution ``D = D_phi0``; NumPy,
        so that to make a family starts no device. All functions take it as it is.
      sample: ``(key, phi[P], n) -> tasks[n, D]``.
      log_prob: ``(tasks[n, D], phi[P]) -> [n]``, up to a constant that does not
        depend on ``phi``, so that differences are log importance weights.
      fit: ``(tasks[n, D], weights[n]) -> phi[P]``, the ``phi`` that suits the
        weighted tasks best; weights are non-negative with a positive sum.
      project: ``phi[P] -> phi[P]``, the same where it is valid, else a valid one near it;
        for whatever moves ``phi`` by gradients. Outside, densities do not follow ``phi``:
        their gradients vanish, or are NaN. ``fit`` ends with it.
      names: the D task components.
      phi_names: the P components of ``phi``.
      from_units: ``units[n, D] -> tasks[n, D]``, a map of the unit cube onto the tasks that takes
        the uniform distribution to ``D_phi0``; None where none is known.
      clipped_log_prob: as ``log_prob``, where the cross-entropy method is to weigh tasks by
        other, clipped densities, as in the original code; None for none.
    """

    phi0: Float[np.ndarray, " P"]
    sample: Callable[[PRNGKey, Array | np.ndarray, int], Array]
    log_prob: Callable[[Array, Array | np.ndarray], Array]
    fit: Callable[[Array, Array], Array]
    project: Callable[[Array | np.ndarray], Array]
    names: tuple[str, ...]
    phi_names: tuple[str, ...]
    clipped_log_prob: Callable[[Array, Array | np.ndarray], Array] | None = None
    from_units: Callable[[Array], Array] | None = None


class Draw(NamedTuple):
    """Tasks of one training step."""

    tasks: Float[Array, "n D"]
    weights: Float[Array, " n"]  # D_phi0(z) / D_phi(z); exactly 1 for reference draws, and 0
    # for draws that say nothing about D_phi0
    is_reference: Bool[Array, " n"]  # drawn from D_phi0, not from D_phi
    extras: Extras = {}  # noqa: RUF012  # leaves [n, …]: of the sampler, what it is to remember of
    # the draw, and of the learner, once the tasks have been played


class TaskSampler(NamedTuple):
    """Chooses the tasks to train on.

    Attributes:
      init: ``key -> state``.
      sample: ``(key, state, n) -> Draw`` of n tasks.
      update: ``(key, state, draw, returns[n]) -> (state, info)``; ``draw`` is that of
        ``sample``, with the learner's extras beside its own. Info holds scalars and small
        vectors for people, the same structure at every call; what it has nothing to say of is
        ``UNTOLD``.
      phi: ``state -> phi[P]``, where the task distribution stands; that of the original one
        for a sampler that does not move it.
    """

    init: Callable[[PRNGKey], Any]
    sample: Callable[[PRNGKey, Any, int], Draw]
    update: Callable[[PRNGKey, Any, Draw, Array], tuple[Any, Metrics]]
    phi: Callable[[Any], Float[Array, " P"]]


Weigh: TypeAlias = Callable[[Draw, Array], Array]  # (draw, returns[n]) -> float32[n]


class MetaAlgorithm(NamedTuple):
    """A robust meta-algorithm: which tasks to draw, and how much to learn from each.

    Attributes:
      sampler: the ``TaskSampler``.
      weigh: ``(draw, returns[n]) -> float[n]``, how much each task counts for the learner: 1
        in full, 0 not at all.
      alpha: fraction of worst tasks of the CVaR that is aimed at and reported, in (0, 1].
    """

    sampler: TaskSampler
    weigh: Weigh
    alpha: Alpha


Schedule: TypeAlias = Callable[[Array], MetaAlgorithm]  # int32[] step -> the method then


class Transition(NamedTuple):
    """One step of B tasks, as the agent's memory sees it (leading axes free)."""

    action: Array  # int32 [...] or float32 [..., A]: as the environment receives it
    reward: Float[Array, "..."]  # raw reward
    next_obs: Float[Array, "... O"]  # with the done flag, if there is one
    valid: Bool[Array, "..."]  # False once the episode has terminated (padding)


BOUNDARIES = ("terminal", "start")


@dataclass(frozen=True)
class Boundary:
    """What the agent sees around the end of an episode inside a meta-episode.

    Attributes:
      observation: ``"terminal"``: the first action of episodes 2 … K is chosen on the
        last observation of the episode before, and the true start is never seen (the
        original code). ``"start"``: it is chosen on the new episode's first
        observation.
      done_flag: append a component that is 1 on the last observation of every episode
        and 0 elsewhere, so that the encoder can tell a reset from a jump.
    """

    observation: Literal["terminal", "start"] = "terminal"
    done_flag: bool = True

    def __post_init__(self) -> None:
        """Checks the choice."""
        check_choice("boundary.observation", self.observation, BOUNDARIES)

    def observation_size(self, env: TaskEnv) -> int:
        """O as the agent sees it."""
        return env.observation_size + self.done_flag


def keep_carry(params: Any, carry: PyTree, obs: Array, key: PRNGKey) -> PyTree:
    """The ``Agent.begin`` of an agent for whom a new episode is nothing special."""
    del params, obs, key
    return carry


class Agent(NamedTuple):
    """How a trained learner behaves, for rollouts and for deployment.

    Attributes:
      init_carry: ``n -> carry``, the memory of n agents who know nothing of their task.
      act: ``(params, carry, obs[n, O], key, deterministic) -> (action, extras)``;
        extras is a pytree of arrays ``[n, …]`` that the learner wants stored.
        ``deterministic`` is a Python bool.
      observe: ``(params, carry, transition) -> carry``.
      env_action: ``action -> action`` as the environment receives it (a squashed
        policy stores the value before the squash).
      begin: ``(params, carry, obs[n, O], key) -> carry`` at the start of every episode, the
        first included, with the observation that its first action will be chosen on; an agent
        that draws a guess of its task and holds it does so here.
      boundary: what it sees between the episodes of a meta-episode.
    """

    init_carry: Callable[[int], PyTree]
    act: Callable[[Any, PyTree, Array, PRNGKey, bool], tuple[Array, PyTree]]
    observe: Callable[[Any, PyTree, Transition], PyTree]
    env_action: Callable[[Array], Array]
    begin: Callable[[Any, PyTree, Array, PRNGKey], PyTree] = keep_carry
    boundary: Boundary = Boundary()


class Predictor(NamedTuple):
    """How a trained supervised learner behaves, for tests and for deployment.

    The three functions speak of one task; vmap them over tasks. A batch is a pair ``(x, y)``
    of inputs ``[n, …]`` and labels ``[n, …]``.

    Attributes:
      adapt: ``(params, support, steps) -> params`` after ``steps`` (a Python int) inner
        steps on the batch ``support``.
      predict: ``(params, x[n, …]) -> prediction[n, …]``.
      loss: ``(params, batch) -> scalar``, the mean over the batch.
      support: examples of a task that it is adapted to.
      query: other examples of it, that validation measures it by.
      steps: inner steps of the adaptation that counts, at least 0.
      test_query: as ``query``, in the test.
      test_steps: most inner steps in the test, at least ``steps``.
    """

    adapt: Callable[[PyTree, PyTree, int], PyTree]
    predict: Callable[[PyTree, Array], Array]
    loss: Callable[[PyTree, PyTree], Array]
    support: int
    query: int
    steps: int
    test_query: int
    test_steps: int


def no_extras(rollout: Any) -> Extras:
    """The ``Learner.extras`` of a learner who has nothing to add to the returns."""
    del rollout
    return {}


def no_task_axes(state: Any) -> Any:
    """The ``Learner.task_axes`` of a learner whose whole state must be on every device."""
    return jax.tree.map(lambda _: -1, state)


class Learner(NamedTuple):
    """A meta-learner as a black box: tasks to rollouts, rollouts to a better policy.

    For a supervised learner, read labelled examples for rollouts, and the negative loss after
    adaptation for the return.

    Attributes:
      init: ``key -> state``.
      collect: ``(key, state, tasks[B, D]) -> (state, rollout, returns[B])``.
      update: ``(key, state, rollout, weights[B]) -> (state, metrics)``; a task counts with
        its weight, and not at all if that is 0. Metrics must stay finite.
      agent: the behaviour, with ``params(state)`` as its parameters: an ``Agent``, or the
        ``Predictor`` of a supervised learner.
      params: ``state -> agent parameters``.
      num_tasks: B, the number of tasks of a training step.
      frames_per_step: environment steps, or labelled examples, of one ``collect``.
      extras: ``rollout -> {name: [B, …]}``, what samplers and weighings may read of each
        task beside its return, as ``Draw.extras``: whether it was solved, for instance.
      task_axes: ``state -> axes``, integers in place of the leaves: along which of its axes a leaf
        can lie on several devices, as tasks do; -1 for what each of them must have.
      informed: ``n -> Learner``, the same learner with a critic that is told n numbers beside
        each observation, ``Rollout.told[K, H + 1, B, n]`` of what ``update`` is given: what the
        agent does not know, but its reward depends on. None if it has no critic of rollouts.
    """

    init: Callable[[PRNGKey], Any]
    collect: Callable[[PRNGKey, Any, Array], tuple[Any, Any, Array]]
    update: Callable[[PRNGKey, Any, Any, Array], tuple[Any, Metrics]]
    agent: Agent | Predictor
    params: Callable[[Any], Any]
    num_tasks: int
    frames_per_step: int
    extras: Callable[[Any], Extras] = no_extras
    task_axes: Callable[[Any], Any] = no_task_axes
    informed: Callable[[int], Learner] | None = None
