"""The bodies: equal to gymnasium's own, but for what the settings are there to change."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")

from envs.mujoco import models  # noqa: E402
from envs.mujoco.models import load_model, model_path  # noqa: E402

BODIES = ("half_cheetah", "ant", "humanoid")
TOTAL = {"half_cheetah": 14.0, "ant": 0.91088, "humanoid": 42.116}  # kg
LEGACY_TOTAL = {"half_cheetah": 14.0, "ant": 0.8787, "humanoid": 39.646}
DENSITY = {"half_cheetah": 1000.0, "ant": 5.0, "humanoid": 1000.0}
CAPSULE, SPHERE = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_SPHERE

# What the motion depends on. All other numbers of a model are compared, too.
PHYSICS = (
    "qpos0 qpos_spring body_parentid body_pos body_quat body_ipos body_iquat body_mass "
    "body_inertia body_subtreemass body_invweight0 body_gravcomp jnt_type jnt_pos jnt_axis "
    "jnt_stiffness jnt_range jnt_limited jnt_margin jnt_solref jnt_solimp dof_damping "
    "dof_armature dof_frictionloss dof_invweight0 dof_M0 geom_type geom_contype "
    "geom_conaffinity geom_condim geom_priority geom_size geom_pos geom_quat geom_rbound "
    "geom_aabb geom_friction geom_solref geom_solimp geom_solmix geom_margin geom_gap "
    "actuator_trntype actuator_trnid actuator_gear actuator_ctrllimited actuator_ctrlrange "
    "actuator_gainprm actuator_biasprm tendon_stiffness tendon_damping tendon_invweight0"
)
OPTIONS = (
    "timestep integrator solver iterations ls_iterations tolerance ls_tolerance impratio cone "
    "jacobian gravity wind density viscosity enableflags"
)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Loads gymnasium's file as gymnasium does; MuJoCo writes a warning next to it."""
    monkeypatch.chdir(tmp_path)
    return lambda body: mujoco.MjModel.from_xml_path(str(model_path(body)))


def arrays(model):
    """All numeric arrays of a model."""
    found = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    return {name: x for name, x in found.items() if isinstance(x, np.ndarray)}


def assert_same(actual, expected, names):
    for name in names:
        a, b = getattr(actual, name), getattr(expected, name)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=0, err_msg=name)


def random_steps(model, steps=60):
    """A simulation after some physics steps of random controls, on the floor at the end."""
    rng = np.random.default_rng(0)
    data = mujoco.MjData(model)
    data.qpos += rng.uniform(-0.1, 0.1, model.nq)
    while data.time < steps * model.opt.timestep or not data.ncon:
        data.ctrl[:] = rng.uniform(-1, 1, model.nu)
        mujoco.mj_step(model, data)
    return data


# --- the published body ----------------------------------------------------------------


@pytest.mark.parametrize("body", BODIES)
def test_a_body_is_the_published_one(body, published):
    expected, actual = published(body), load_model(body)
    names = set(arrays(expected))
    assert names >= set(PHYSICS.split()) and len(names) > 400
    assert_same(actual, expected, sorted(names))
    assert_same(actual.opt, expected.opt, OPTIONS.split())
    assert actual.stat.meaninertia == pytest.approx(expected.stat.meaninertia, rel=1e-12)
    assert actual.body_mass.sum() == pytest.approx(TOTAL[body], rel=1e-5)


@pytest.mark.parametrize("body", BODIES)
def test_a_body_moves_as_the_published_one(body, published):
    expected, actual = random_steps(published(body), 300), random_steps(load_model(body), 300)
    assert actual.time == expected.time
    np.testing.assert_array_equal(actual.qpos, expected.qpos)
    np.testing.assert_array_equal(actual.qvel, expected.qvel)


def test_the_flags_that_differ(published):
    for body in BODIES:
        expected, actual = published(body), load_model(body)
        disabled = mujoco.mjtDisableBit.mjDSBL_AUTORESET | mujoco.mjtDisableBit.mjDSBL_MIDPHASE
        assert expected.opt.disableflags == 0
        assert actual.opt.disableflags == disabled


def test_a_diverged_simulation_keeps_its_nan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its warning
    model = load_model("half_cheetah")
    data = mujoco.MjData(model)
    data.qvel[:] = np.nan
    mujoco.mj_step(model, data)
    assert np.isnan(data.qvel).all()


def test_loading_is_silent_and_shared(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    load_model.cache_clear()
    for body in BODIES:
        assert load_model(body) is load_model(body)
        assert load_model(body, legacy_inertia=True) is not load_model(body)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_without_gymnasium_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'roml-jax\[mujoco\]'"):
        model_path("ant")


def test_environments_import_without_mujoco():
    """The other environments need neither of the packages."""
    block = "import sys\nfor name in ('mujoco', 'gymnasium', 'warp'): sys.modules[name] = None\n"
    use = "import envs; envs.Ant(); envs.Humanoid(); assert envs.HalfCheetah().family.names"
    subprocess.run([sys.executable, "-c", block + use], check=True)


# --- masses of MuJoCo 2.0 --------------------------------------------------------------


def legacy_geom_mass(geom_type, size, density):
    """A capsule counted as a cylinder, half a radius longer at each end."""
    radius, length = size[0], 2 * size[1]
    if geom_type == CAPSULE:
        return density * np.pi * radius**2 * (length + radius)
    return density * 4 / 3 * np.pi * radius**3 if geom_type == SPHERE else 0.0


@pytest.mark.parametrize("body", BODIES)
def test_legacy_masses_have_a_closed_form(body):
    model = load_model(body, legacy_inertia=True)
    mass = np.zeros(model.nbody)
    for geom in range(1, model.ngeom):
        parts = (model.geom_type[geom], model.geom_size[geom], DENSITY[body])
        mass[model.geom_bodyid[geom]] += legacy_geom_mass(*parts)
    if body == "half_cheetah":
        mass *= 14 / mass.sum()
    np.testing.assert_allclose(model.body_mass, mass, rtol=1e-9)
    assert model.body_mass.sum() == pytest.approx(LEGACY_TOTAL[body], rel=1e-4)


@pytest.mark.parametrize("body", BODIES)
def test_legacy_inertias_are_those_of_cylinders(body):
    """Of bodies that are one capsule; their frames of inertia stay."""
    model, exact = load_model(body, legacy_inertia=True), load_model(body)
    count = 0
    for i in range(1, model.nbody):
        if model.body_geomnum[i] != 1 or model.geom_type[model.body_geomadr[i]] != CAPSULE:
            continue
        radius, half, _ = model.geom_size[model.body_geomadr[i]]
        length, mass = 2 * half + radius, model.body_mass[i]
        across, along = mass * (3 * radius**2 + length**2) / 12, mass * radius**2 / 2
        expected = sorted([across, across, along])
        np.testing.assert_allclose(sorted(model.body_inertia[i]), expected, rtol=1e-9)
        np.testing.assert_allclose(model.body_ipos[i], exact.body_ipos[i], atol=1e-12)
        count += 1
    assert count >= 6


@pytest.mark.parametrize("body", BODIES)
def test_legacy_inertia_changes_nothing_else(body):
    legacy, exact = load_model(body, legacy_inertia=True), load_model(body)
    follows = ("invweight0", "M0", "acc0", "subtreemass", "inertia", "mass", "ipos", "iquat")
    follows += ("dof_length", "cam_", "light_", "bvh_aabb")  # relative to centres of mass
    for name in arrays(exact):
        if not any(part in name for part in follows):
            np.testing.assert_array_equal(getattr(legacy, name), getattr(exact, name), name)
    derived = copy.copy(legacy)
    mujoco.mj_setConst(derived, mujoco.MjData(derived))
    assert_same(derived, legacy, PHYSICS.split())
    first, second = random_steps(exact), mujoco.MjData(legacy)
    second.qpos[:] = first.qpos
    for model, data in ((exact, first), (legacy, second)):
        mujoco.mj_kinematics(model, data)
    np.testing.assert_allclose(second.geom_xpos, first.geom_xpos, atol=1e-12)
    np.testing.assert_allclose(second.geom_xmat, first.geom_xmat, atol=1e-12)


# --- contact forces --------------------------------------------------------------------


@pytest.mark.parametrize("body", BODIES)
def test_contact_forces_are_computed_only_if_asked_for(body):
    silent = random_steps(load_model(body))
    assert not silent.cfrc_ext.any()
    model = load_model(body, contact_forces=True)
    data = random_steps(model)
    np.testing.assert_array_equal(data.qpos, silent.qpos)  # nobody feels the sensor
    mujoco.mj_forward(model, data)
    mujoco.mj_forward(load_model(body), silent)
    assert not silent.cfrc_ext.any()
    mujoco.mj_rnePostConstraint(load_model(body), silent)
    assert np.abs(silent.cfrc_ext).max() > 1e-3
    np.testing.assert_allclose(data.cfrc_ext, silent.cfrc_ext, rtol=1e-12)
