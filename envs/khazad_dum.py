"""Khazad-Dum: cross an abyss by a short bridge in the rain or by a long covered one.

The map, as ``[x, y]`` cells of 11 by 9 (``#`` wall, ``.`` free, ``~`` abyss, ``G`` goal)::

    8  # # # # # # # # # # #
    7  # . G . . . . . . . #
    6  # . . . . . . . . . #
    5  # ~ . ~ ~ ~ ~ . . . #
    4  # ~ . ~ ~ ~ ~ . . . #
    3  # ~ . ~ ~ ~ ~ . . . #
    2  # . . . . . . . . . #
    1  # . . . . . . . . . #
    0  # # # # # # # # # # #
       0 1 2 3 4 5 6 7 8 9 10

The position is continuous; its cell is each coordinate rounded to the nearest
integer, ties to even. So the open floor is ``0.5 < x < 9.5`` and ``0.5 < y < 7.5``,
and a half-way position belongs to the even one of its two neighbours.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, SupportsInt

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from envs import families
from roml_jax.checks import check_at_least, check_positive
from roml_jax.types import Discrete, Family, PRNGKey, TimeStep

WIDTH, HEIGHT = 11, 9  # cells along x and along y
GOAL = (2.0, 7.0)  # centre of the goal cell
START = (0.5, 2.5)  # range of both coordinates at the start of an episode
ABYSS, BRIDGE, FREE, WALL = 0, 1, 2, 3  # what cell_kind returns

UNDER_WAY, AT_GOAL, FALLEN = 0, 1, -1  # KhazadDumState.status
PATH_NAMES = ("stay", "short", "long")  # names of KhazadDumState.path
_STAY, _SHORT, _LONG = range(3)
_STATUS_SUFFIX = {UNDER_WAY: "", AT_GOAL: "_done", FALLEN: "_fall"}

_COST_SCALE = 5.0  # L1 distance to the goal that costs 1
_GOAL_BONUS = 5.0
_DAMAGE = 3.0  # per noisy step and unit of rain


class KhazadDumState(NamedTuple):
    """What the next step needs to know."""

    xy: Float[Array, "2"]  # position, in cells; [0.5, 9.5) x [0.5, 7.5)
    status: Int[Array, ""]  # UNDER_WAY = 0, AT_GOAL = 1, FALLEN = -1
    path: Int[Array, ""]  # last bridge stood upon, an index of PATH_NAMES


def path_label(path: SupportsInt, status: SupportsInt) -> str:
    """Names an episode by its bridge and its end, for people (on the host).

    Args:
      path: index of ``PATH_NAMES``, as in ``TimeStep.info["path"]`` of the last step.
      status: 0 under way, 1 at the goal, -1 fallen, as in ``info["status"]``.

    Returns:
      ``"stay"``, ``"short"`` or ``"long"``, followed by ``"_done"`` or ``"_fall"``
      once the episode is decided: ``"short_done"``, ``"stay_fall"``, ….
    """
    return PATH_NAMES[int(path)] + _STATUS_SUFFIX[int(status)]


def cell_kind(xy: Float[Array, "2"]) -> Int[Array, ""]:
    """Kind of the cell under a position.

    Args:
      xy: any position, in cells.

    Returns:
      int32: ``ABYSS``, ``BRIDGE`` (one of the two), ``FREE`` (the goal cell
      included) or ``WALL`` (also everywhere outside the map).
    """
    x, y = jnp.round(xy)
    wall = (x <= 0) | (x >= WIDTH - 1) | (y <= 0) | (y >= HEIGHT - 1)
    middle = (y >= 3) & (y <= 5)
    bridge = (x == 2) | (x >= 7)
    kind = jnp.where(middle, jnp.where(bridge, BRIDGE, ABYSS), FREE)
    return jnp.where(wall, WALL, kind).astype(jnp.int32)


def _in_rain(xy: Float[Array, "2"]) -> Bool[Array, ""]:
    """Whether a step that starts here is exposed to the rain."""
    x, y = xy
    return (y > 2.5) & (y < 5.5) & (x < 3.0)


def _displacement(action: Int[Array, ""]) -> Float[Array, "2"]:
    """The move that an action asks for, in cells."""
    right_up, left_down = action == jnp.array([1, 3]), action == jnp.array([0, 2])
    return right_up.astype(jnp.float32) - left_down.astype(jnp.float32)


def _latest_path(xy: Float[Array, "2"], path: Int[Array, ""]) -> Int[Array, ""]:
    """The bridge under a position, or else the bridge before."""
    x, y = xy
    crossing = (y > 2.5) & (y < 5.5)
    path = jnp.where(crossing & (x > 1.5) & (x < 2.5), _SHORT, path)
    return jnp.where(crossing & (x > 6.5) & (x < 9.5), _LONG, path)


@dataclasses.dataclass(frozen=True)
class KhazadDum:
    """The Khazad-Dum task environment.

    Task: ``float32[1]``, the rain ``tau >= 0``. A step that starts on the short
    bridge (x = 2) of a running episode is noisy: its target moves by ``N(0, tau²)``
    in each coordinate, and it costs ``3 tau``. The long bridge (x = 7 … 9) is covered.

    Actions: 0 left, 1 right, 2 down, 3 up, each one cell long.

    Reward: every term is divided by the horizon, so that an episode that stays away
    from the goal returns about -1. After the goal nothing happens any more, after a
    fall every step costs 1; the episode lasts ``horizon`` steps in each case, hence
    ``terminated`` is never set.

    Observation: ``float32[99]``, see ``observe``.

    The start is uniform over ``[0.5, 2.5)²``, whose lower edge rounds to the wall
    cells 0. An agent that starts with one coordinate at exactly 0.5 can only step off
    that wall (right from x = 0.5, up from y = 0.5); every other move leads into
    another wall cell and is refused. At (0.5, 0.5) every move does so: the agent is
    stuck there for the whole episode, which then returns -1. The rule is kept as it
    is: float32 draws hit that point with probability 2**-46.

    Attributes:
      horizon: H, steps of an episode, and the divisor of all rewards.
      episodes: K, episodes of a meta-episode.
      rain_mean: mean of the exponential distribution of ``tau``.

    Reference: Greenberg et al. (2023), "Train Hard, Fight Easy", Section 6.1
      and Appendix D.1; the rules are those of the original code.
    Differs from the paper: the damage ``3 tau`` is paid at every noisy step rather
      than once, and a step is noisy by where it starts, as in the original code.
    """

    horizon: int = 32
    episodes: int = 4
    rain_mean: float = 0.1

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_at_least(self, 1, "horizon", "episodes")
        check_positive(self, "rain_mean")

    @property
    def family(self) -> Family:
        """Exponential rain, by its mean."""
        return families.exponential(mean=self.rain_mean, name="rain")

    @property
    def observation_size(self) -> int:
        """O = 99, one number per cell."""
        return WIDTH * HEIGHT

    @property
    def action_space(self) -> Discrete:
        """Left, right, down, up."""
        return Discrete(4)

    def reset(
        self, key: PRNGKey, task: Float[Array, "1"]
    ) -> tuple[KhazadDumState, Float[Array, "99"]]:
        """Starts an episode at a uniform position of the lower left corner.

        Args:
          key: PRNG key.
          task: the rain ``tau``; the start does not depend on it.

        Returns:
          The state, and its observation.
        """
        del task
        xy = jax.random.uniform(key, (2,), jnp.float32, START[0], START[1])
        zero = jnp.zeros((), jnp.int32)
        state = KhazadDumState(xy=xy, status=zero, path=zero)
        return state, self.observe(state)

    def step(
        self, key: PRNGKey, state: KhazadDumState, action: Int[Array, ""], task: Float[Array, "1"]
    ) -> tuple[KhazadDumState, TimeStep]:
        """Advances one step.

        Args:
          key: PRNG key of the rain.
          state: from ``reset`` or ``step``.
          action: 0 left, 1 right, 2 down, 3 up.
          task: the rain ``tau``.

        Returns:
          The next state, and its ``TimeStep``; ``info`` holds ``path`` and ``status``
          as int32 scalars (see ``path_label``).
        """
        noise = jax.random.normal(key, (2,), jnp.float32)
        state, reward = self.transition(state, action, task, noise)
        info = {"path": state.path, "status": state.status}
        return state, TimeStep(self.observe(state), reward, jnp.zeros((), bool), info)

    def transition(
        self,
        state: KhazadDumState,
        action: Int[Array, ""],
        task: Float[Array, "1"],
        noise: Float[Array, "2"],
    ) -> tuple[KhazadDumState, Float[Array, ""]]:
        """The rules of a step, a deterministic function of its noise.

        Args:
          state: from ``reset`` or ``transition``.
          action: 0 left, 1 right, 2 down, 3 up.
          task: the rain ``tau``; no noise and no damage unless it is positive.
          noise: two standard normals, along x and along y; used in a noisy step only.

        Returns:
          The next state, and the reward, at most ``5 / horizon``.
        """
        tau = task[0]
        under_way = state.status == UNDER_WAY
        noisy = under_way & (tau > 0) & _in_rain(state.xy)

        target = state.xy + _displacement(action) + jnp.where(noisy, tau, 0.0) * noise
        # The original clips the target to the map, whose rim is wall: refused either way.
        moves = under_way & (cell_kind(target) != WALL)
        xy = jnp.where(moves, target, state.xy)

        goal = jnp.array(GOAL, jnp.float32)
        at_goal = jnp.all(jnp.round(xy) == goal)
        cost = jnp.minimum(jnp.abs(xy - goal).sum() / _COST_SCALE, 1.0)
        reward = -cost - jnp.where(noisy, _DAMAGE * tau, 0.0) + jnp.where(at_goal, _GOAL_BONUS, 0.0)
        reward = jnp.where(under_way, reward, jnp.where(state.status == FALLEN, -1.0, 0.0))

        outcome = jnp.where(at_goal, AT_GOAL, jnp.where(cell_kind(xy) == ABYSS, FALLEN, UNDER_WAY))
        status = jnp.where(under_way, outcome, state.status)
        return KhazadDumState(xy, status, _latest_path(xy, state.path)), reward / self.horizon

    def observe(self, state: KhazadDumState) -> Float[Array, "99"]:
        """The position as a soft one-hot over the cells.

        Args:
          state: from ``reset`` or ``step``.

        Returns:
          The bilinear weights of the position on the four cells around it, 0 on all
          others, in [0, 1] and of sum 1; cell (x, y) is at index ``9 x + y``.
        """
        x, y = state.xy
        cell_x = jnp.repeat(jnp.arange(WIDTH, dtype=jnp.float32), HEIGHT)
        cell_y = jnp.tile(jnp.arange(HEIGHT, dtype=jnp.float32), WIDTH)
        weight_x = jnp.maximum(1.0 - jnp.abs(x - cell_x), 0.0)
        weight_y = jnp.maximum(1.0 - jnp.abs(y - cell_y), 0.0)
        return weight_x * weight_y
