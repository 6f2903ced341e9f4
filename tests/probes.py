"""Small environments with a known answer, and a scripted agent that remembers what it saw.

``Echo`` writes down what happened, for tests of layout and of boundaries. The others are
learning problems whose optimum is known in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from roml_jax import families
from roml_jax.types import Agent, Box, Discrete, TimeStep, Transition

ECHOES = families.normal((0.0, 0.0), (1.0, 1.0), name=("id", "length"))
ARMS = families.categorical([0.5, 0.5], name="arm")


class EchoState(NamedTuple):
    start: jax.Array  # the episode's own number, drawn at its reset
    step: jax.Array


@dataclass(frozen=True)
class Echo:
    """Observes ``(start, step, task, first component of the last action)``.

    Task: ``(id, length)``; the episode terminates with step ``length`` (never if it is
    longer than the horizon). Reward ``100 * id + step``, with steps counted from 1.
    """

    horizon: int = 4
    episodes: int = 3
    observation_size: int = 4
    action_space: Any = Box(2)  # noqa: RUF009

    @property
    def family(self):
        return ECHOES

    def reset(self, key, task):
        state = EchoState(jax.random.uniform(key), jnp.zeros(()))
        return state, self.observe(state, task, -1.0)

    def step(self, key, state, action, task):
        del key
        state = EchoState(state.start, state.step + 1)
        reward = 100 * task[0] + state.step
        out = TimeStep(
            self.observe(state, task, action[0]),
            reward,
            state.step == task[1],
            {"step": state.step, "id": task[0]},
        )
        return state, out

    def observe(self, state, task, action):
        return jnp.stack([state.start, state.step, task[0], jnp.asarray(action, jnp.float32)])


class Memory(NamedTuple):
    """What a scripted agent has taken in."""

    count: jax.Array  # [n] float32
    last: Transition  # the latest one, valid or not


def scripted_agent(obs_size: int) -> Agent:
    """Acts ``(number of steps seen, noise)``; the environment receives ten times that.

    ``params`` is added to the first component. Extras: the count and the observation.
    """

    def init_carry(n):
        zeros = jnp.zeros(n)
        last = Transition(jnp.zeros((n, 2)), zeros, jnp.zeros((n, obs_size)), jnp.zeros(n, bool))
        return Memory(zeros, last)

    def act(params, carry, obs, key, deterministic):
        noise = jnp.zeros if deterministic else lambda shape: jax.random.normal(key, shape)
        action = jnp.stack([carry.count + params, noise(carry.count.shape)], axis=1)
        return action, {"count": carry.count, "obs": obs, "last": carry.last}

    def observe(params, carry, transition):
        del params
        return Memory(carry.count + transition.valid, transition)

    return Agent(init_carry, act, observe, lambda action: 10 * action)


class ProbeState(NamedTuple):
    step: jax.Array
    mark: jax.Array  # what the episode's start drew


@dataclass(frozen=True)
class Probe:
    """One learning problem; every episode terminates with step ``length`` of ``horizon``.

    ``kind``:

    * ``"constant"``: reward 1 whatever is done or seen.
    * ``"two"``: the observation is -1 or 1, and so is the reward.
    * ``"last"``: the observation is the step, one-hot; reward 1 with the last step.
    * ``"match"``: reward 1 for the action that the observation names.
    * ``"follow"``: reward ``-(action - observation)^2`` for a real action.
    * ``"arms"``: reward 1 for the action that the (unseen) task names.
    """

    kind: str
    length: int = 1
    horizon: int = 2
    episodes: int = 1

    @property
    def family(self):
        return ARMS

    @property
    def observation_size(self):
        return self.length + 1 if self.kind == "last" else 1

    @property
    def action_space(self):
        return Box(1) if self.kind == "follow" else Discrete(2)

    def reset(self, key, task):
        del task
        state = ProbeState(jnp.zeros(()), jax.random.rademacher(key, (), jnp.float32))
        return state, self.observe(state)

    def observe(self, state):
        if self.kind == "last":
            return jax.nn.one_hot(state.step.astype(int), self.length + 1)
        if self.kind in ("constant", "arms"):
            return jnp.zeros(1)
        return state.mark[None]

    def step(self, key, state, action, task):
        del key
        last = state.step + 1 == self.length
        reward = {
            "constant": lambda: jnp.ones(()),
            "two": lambda: state.mark,
            "last": lambda: last.astype(jnp.float32),
            "match": lambda: ((action == 1) == (state.mark > 0)).astype(jnp.float32),
            "follow": lambda: -jnp.square(action[0] - state.mark),
            "arms": lambda: (action.astype(jnp.float32) == task[0]).astype(jnp.float32),
        }[self.kind]()
        state = ProbeState(state.step + 1, state.mark)
        return state, TimeStep(self.observe(state), reward, last, {"step": state.step})
