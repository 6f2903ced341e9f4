"""The check of environments: sound ones pass, and each fault is one line that names its place."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from envs.khazad_dum import KhazadDum
from envs.point import Point
from roml_jax import families
from roml_jax.check_env import check_env
from roml_jax.types import Box, TimeStep
from tests.probes import Echo, Probe


@dataclass(frozen=True)
class Hill:
    """Reward: the height of a place that moves with the action; the task is the slope."""

    horizon: int = 3
    episodes: int = 2
    observation_size: int = 1
    action_space: Any = Box(1)  # noqa: RUF009
    fault: str = ""

    @property
    def family(self):
        return families.exponential(1.0, name="slope")

    def reset(self, key, task):
        if self.fault == "reset":
            return jnp.zeros(1)
        obs = jnp.zeros(2 if self.fault == "obs" else 1, "int32" if self.fault == "int" else None)
        return {"x": jnp.zeros(())}, obs

    def step(self, key, state, action, task):
        x = state["x"] + 0.1 * jnp.clip(action[0], -1, 1)
        fault = self.fault
        reward = task[0] * x
        if fault == "nan":
            reward = reward / jnp.zeros(())
        reward = {"vector": reward[None], "python": 1.0}.get(fault, reward)
        if fault == "alike":
            reward = x
        if fault == "negative":
            reward = -jnp.abs(x) * task[0]
        over = jnp.abs(x) > 0.01 if fault == "negative" else jnp.zeros((), bool)
        over = over.astype(jnp.float32) if fault == "float" else over
        info = (x,) if fault == "info" else {"x": x / 0 if fault == "nan info" else x}
        out = TimeStep(x[None], reward, over, info)
        if fault == "tuple":
            return {"x": x}, x, reward
        state = {"dtype": {"x": x.astype(jnp.float16)}, "more": {"x": x, "y": x}}
        return state.get(fault, {"x": x}), out


@pytest.mark.parametrize(
    "env",
    [KhazadDum(), Point(), Probe("match", 3, 3), Probe("follow", 3, 4), Echo(), Hill()],
    ids=lambda env: type(env).__name__,
)
def test_sound_environments_pass(env):
    hints = check_env(env, jax.random.key(0))
    if isinstance(env, Probe):  # whose task is another's business
        hints = [hint for hint in hints if not hint.startswith("The task")]
    assert hints == [] or env.kind == "follow"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("reset", r"reset must give \(state, obs\); got ArrayImpl|ShapeDtypeStruct"),
        ("obs", r"the observation of reset must be float32\[1\]; got float32\[2\]"),
        ("int", r"the observation of reset must be float32\[1\]; got int32\[1\]"),
        ("vector", r"TimeStep\.reward must be float32\[\]; got float32\[1\]"),
        ("float", r"TimeStep\.terminated must be bool\[\]; got float32\[\]"),
        ("info", r"TimeStep\.info must be a dictionary; got tuple"),
        ("tuple", r"step must give \(state, TimeStep\); got tuple"),
        ("dtype", r"step changes state\['x'\] from float32\[\] to float16\[\]"),
        ("more", "step must give a state of the structure of reset's"),
        ("nan", r"step gives a reward that is not finite, for the task \([0-9.]+\)"),
        ("nan info", r"step gives a x that is not finite, for the task \([0-9.]+\)"),
    ],
)
def test_each_fault_is_a_line(fault, told):
    with pytest.raises(ValueError, match=told) as error:
        check_env(Hill(fault=fault), jax.random.key(0))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"horizon": 0}, "horizon must be a Python integer of at least 1; got 0"),
        ({"episodes": 1.5}, r"episodes must be a Python integer of at least 1; got 1\.5"),
        ({"observation_size": None}, "observation_size must be"),
        ({"action_space": 3}, r"action_space is Discrete\(n\) or Box\(size\); got int"),
    ],
)
def test_settings_that_cannot_be(settings, told):
    with pytest.raises(ValueError, match=told):
        check_env(replace(Hill(), **settings), jax.random.key(0))


def test_what_lacks_members_is_no_environment():
    with pytest.raises(
        ValueError, match=r"object has no family, horizon, .*, step, which a TaskEnv"
    ):
        check_env(object(), jax.random.key(0))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"horizon": 1}, "H = 1"),
        ({"fault": "alike"}, "The task changes no reward"),
        ({"fault": "negative"}, "Episodes end early where no reward is positive"),
    ],
)
def test_what_is_seldom_meant_is_hinted_at(settings, told):
    (hint,) = check_env(replace(Hill(), **settings), jax.random.key(0))
    assert hint.startswith(told) and "\n" not in hint
