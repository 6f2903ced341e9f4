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

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Array, Bool, Float, Int, Key, PyTree

PRNGKey: TypeAlias = Key[Array, ""]
Metrics: TypeAlias = dict[str, Array]


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
      phi0: ``[P]``, the parameter of the original task distribution ``D = D_phi0``.
      sample: ``(key, phi[P], n) -> tasks[n, D]``.
      log_prob: ``(tasks[n, D], phi[P]) -> [n]``, up to a constant that does not
        depend on ``phi``, so that differences are log importance weights.
      fit: ``(tasks[n, D], weights[n]) -> phi[P]``, the ``phi`` that suits the
        weighted tasks best; weights are non-negative with a positive sum.
      names: the D task components.
      phi_names: the P components of ``phi``.
    """

    phi0: Float[Array, " P"]
    sample: Callable[[PRNGKey, Array, int], Array]
    log_prob: Callable[[Array, Array], Array]
    fit: Callable[[Array, Array], Array]
    names: tuple[str, ...]
    phi_names: tuple[str, ...]


class Draw(NamedTuple):
    """Tasks of one training step."""

    tasks: Float[Array, "n D"]
    weights: Float[Array, " n"]  # D_phi0(z) / D_phi(z); exactly 1 for reference draws
    is_reference: Bool[Array, " n"]  # drawn from D_phi0, not from D_phi


class TaskSampler(NamedTuple):
    """Chooses the tasks to train on.

    Attributes:
      init: ``() -> state``.
      sample: ``(key, state, n) -> Draw`` of n tasks.
      update: ``(key, state, draw, returns[n]) -> (state, info)``; info holds scalars
        and small vectors for people.
    """

    init: Callable[[], Any]
    sample: Callable[[PRNGKey, Any, int], Draw]
    update: Callable[[PRNGKey, Any, Draw, Array], tuple[Any, Metrics]]


class MetaAlgorithm(NamedTuple):
    """A robust meta-algorithm: which tasks to draw, and which of them to learn from.

    Attributes:
      sampler: the ``TaskSampler``.
      select: ``returns[n] -> bool[n]``, the tasks that the learner may use.
    """

    sampler: TaskSampler
    select: Callable[[Float[Array, " n"]], Bool[Array, " n"]]


class Transition(NamedTuple):
    """One step of B tasks, as the agent's memory sees it (leading axes free)."""

    action: Array  # int32 [...] or float32 [..., A]: the policy's own action
    reward: Float[Array, "..."]  # raw reward
    next_obs: Float[Array, "... O"]  # with the done flag, if there is one
    valid: Bool[Array, "..."]  # False once the episode has terminated (padding)


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
    """

    init_carry: Callable[[int], PyTree]
    act: Callable[[Any, PyTree, Array, PRNGKey, bool], tuple[Array, PyTree]]
    observe: Callable[[Any, PyTree, Transition], PyTree]
    env_action: Callable[[Array], Array]


class Predictor(NamedTuple):
    """How a trained supervised learner behaves, for tests and for deployment.

    All three speak of one task; vmap them over tasks. A batch is a pair ``(x, y)`` of
    inputs ``[n, …]`` and labels ``[n, …]``.

    Attributes:
      adapt: ``(params, support, steps) -> params`` after ``steps`` (a Python int) inner
        steps on the batch ``support``.
      predict: ``(params, x[n, …]) -> prediction[n, …]``.
      loss: ``(params, batch) -> scalar``, the mean over the batch.
    """

    adapt: Callable[[PyTree, PyTree, int], PyTree]
    predict: Callable[[PyTree, Array], Array]
    loss: Callable[[PyTree, PyTree], Array]


class Learner(NamedTuple):
    """A meta-learner as a black box: tasks to rollouts, rollouts to a better policy.

    For a supervised learner, read labelled examples for rollouts, and the negative loss after
    adaptation for the return.

    Attributes:
      init: ``key -> state``.
      collect: ``(key, state, tasks[B, D]) -> (state, rollout, returns[B])``.
      update: ``(key, state, rollout, mask[B]) -> (state, metrics)``; tasks whose mask
        is False do not enter the policy update.
      agent: the behaviour, with ``params(state)`` as its parameters: an ``Agent``, or the
        ``Predictor`` of a supervised learner.
      params: ``state -> agent parameters``.
      num_tasks: B, the number of tasks of a training step.
      frames_per_step: environment steps, or labelled examples, of one ``collect``.
    """

    init: Callable[[PRNGKey], Any]
    collect: Callable[[PRNGKey, Any, Array], tuple[Any, Any, Array]]
    update: Callable[[PRNGKey, Any, Any, Array], tuple[Any, Metrics]]
    agent: Any
    params: Callable[[Any], Any]
    num_tasks: int
    frames_per_step: int


__all__ = [
    "ActionSpace",
    "Agent",
    "Array",
    "Bool",
    "Box",
    "Discrete",
    "Draw",
    "Family",
    "Float",
    "Int",
    "Learner",
    "MetaAlgorithm",
    "Metrics",
    "PRNGKey",
    "Predictor",
    "TaskData",
    "TaskEnv",
    "TaskSampler",
    "TimeStep",
    "Transition",
]
