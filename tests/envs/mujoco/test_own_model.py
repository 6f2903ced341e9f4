"""A body from an MJCF file of one's own, in the place of gymnasium's."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")

from envs import Ant, HalfCheetah, Humanoid  # noqa: E402
from envs.mujoco.models import load_model, model_path  # noqa: E402
from experiments import cli  # noqa: E402
from experiments.presets import PRESETS  # noqa: E402
from experiments.spec.build import build  # noqa: E402
from experiments.spec.errors import UserError  # noqa: E402


def changed(tmp_path, body="half_cheetah", name="own.xml", **words):
    """A copy of a body with some words of its file replaced."""
    text = model_path(body).read_text()
    for old, new in words.items():
        assert old in text, old
        text = text.replace(old, new)
    file = tmp_path / name
    file.write_text(text)
    return file


def renamed(tmp_path, kind, old, new):
    """A copy of the HalfCheetah with one of its parts under another name."""
    spec = mujoco.MjSpec.from_file(str(model_path("half_cheetah")))
    getattr(spec, kind)(old).name = new
    spec.compile()
    return _write(tmp_path / "own.xml", spec.to_xml())


@pytest.fixture
def strong(tmp_path):
    """A HalfCheetah whose back thigh has half the gear."""
    return changed(tmp_path, **{'gear="120"': 'gear="60"'})


def test_a_body_of_ones_own(strong):
    usual, own = HalfCheetah(physics="mujoco"), HalfCheetah(physics="mujoco", model=str(strong))
    assert own.mj_model.actuator_gear[0, 0] == 60 and usual.mj_model.actuator_gear[0, 0] == 120
    assert own != usual and own.model == str(strong.resolve())
    task, steps = jnp.array([1.0]), []
    for env, action in ((usual, 0.5), (own, 1.0), (own, 0.5)):
        state, _ = env.reset(jax.random.key(0), task)
        control = jnp.zeros(6).at[0].set(action)
        steps.append(jax.jit(env.step)(jax.random.key(1), state, control, task)[1].obs)
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-5, atol=1e-6)  # the same torque
    assert abs(steps[0] - steps[2]).max() > 1e-3


@pytest.mark.parametrize("cls", [HalfCheetah, Ant, Humanoid])
def test_every_body_can_be_of_its_own_file(cls):
    env = cls(model=str(model_path(cls.body)))
    np.testing.assert_array_equal(env.mj_model.body_mass, load_model(cls.body).body_mass)
    for variation in cls.variations:
        cls(model=str(model_path(cls.body)), variation=variation)


REFUSED = {
    "another body": (lambda t: model_path("ant"), r"needs each body of the half_cheetah"),
    "no file": (lambda t: t / "none.xml", r"none\.xml is no file"),
    "a folder": (lambda t: t, r"is no file"),
    "no XML": (lambda t: _write(t / "x.xml", "<mujoco>"), r"cannot be read: .*XML"),
    "a body of another name": (
        lambda t: renamed(t, "body", "bfoot", "paw"),
        r"needs each body .* bfoot",
    ),
    "a geom of another name": (
        lambda t: renamed(t, "geom", "torso", "trunk"),
        r"needs each geom of the half_cheetah, in order: torso, head",
    ),
}


def _write(file, text):
    file.write_text(text)
    return file


@pytest.mark.parametrize("case", REFUSED)
def test_others_are_refused_in_one_line(case, tmp_path, capfd):
    make, told = REFUSED[case]
    with pytest.raises(ValueError, match=told) as error:
        HalfCheetah(variation="mass", model=str(make(tmp_path)))
    assert len(str(error.value).splitlines()) == 1


def test_geoms_that_no_task_changes_may_differ(tmp_path):
    file = renamed(tmp_path, "geom", "torso", "trunk")
    assert HalfCheetah(variation="vel", model=str(file)).mj_model.geom(1).name == "trunk"


def test_on_the_command_line(strong, tmp_path):
    name, command = cli.parse_train(["half-cheetah-mass", "--model", str(strong)])
    built = build(command.experiment)
    assert built.env.mj_model.actuator_gear[0, 0] == 60
    preset = PRESETS[name]
    assert re.fullmatch(r"[0-9a-f]{64}", preset.about(built.env)["model_sha256"])
    assert str(strong) in preset.plan(built.env)["physics"]
    assert cli.parse_train(["half-cheetah-mass", "--model=null"])[1].experiment.env.model is None
    with pytest.raises(UserError, match="is no file"):
        cli.parse_train(["half-cheetah-mass", "--model", str(tmp_path / "none.xml")])
    assert Path(built.env.model).is_absolute()
