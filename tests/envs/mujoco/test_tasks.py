"""What a task changes of a model, against models written by hand and ``mj_setConst``."""

from __future__ import annotations

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")

from envs import Ant, HalfCheetah, Humanoid  # noqa: E402
from envs.mujoco.half_cheetah import TEN_FACTORS  # noqa: E402
from envs.mujoco.models import load_model  # noqa: E402
from envs.mujoco.tasks import Scale, apply_task, nominal, refresh  # noqa: E402
from tests.envs.mujoco.oracle import (  # noqa: E402
    IDS,
    TEN,
    VARIATIONS,
    follow_bounds,
    write_task,
)

EVERY = pytest.mark.parametrize(("cls", "variation"), VARIATIONS, ids=IDS)
# What mj_setConst computes and no step of ours depends on: cameras and lights, frames and
# lengths at rest, the sizes of sleeping bodies, and boxes that collisions do not look at.
UNUSED = ("cam_", "light_", "length0", "lengthspring", "lengthrange", "dof_length", "bvh_aabb")


def draw(cls, variation, n, seed=0):
    size = len(cls(variation=variation).family.names)
    return (2 ** np.random.default_rng(seed).uniform(-1, 1, (n, size))).astype(np.float32)


@functools.cache
def maker(cls, variation, derived, fresh=True):
    """``task -> fields``, with or without what follows from them."""
    env = cls(variation=variation, physics="mujoco", derived=derived)
    model = load_model(cls.body)

    def make(task):
        fields = apply_task(nominal(model, env.changes, derived), task, env.changes)
        return refresh(fields, model, derived) if fresh else fields

    return jax.jit(make)


def arrays(model):
    found = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    return {name: x for name, x in found.items() if isinstance(x, np.ndarray) and x.size}


def at_centre(model):
    """A copy of a model that says where geoms at the centre of their body's mass are."""
    new = copy.copy(model)
    for i in range(model.ngeom):
        if model.geom_sameframe[i] == mujoco.mjtSameFrame.mjSAMEFRAME_INERTIA:
            new.geom_pos[i] = model.body_ipos[model.geom_bodyid[i]]
    return new


def assert_fields(fields, cls, expected, skip=(), rtol=1e-6):
    """Every array of a model, as the task's fields or else the unchanged body have it."""
    model = load_model(cls.body)
    assert set(fields) <= set(arrays(model))
    for name, value in arrays(expected).items():
        if not any(part in name for part in skip):
            actual = fields.get(name, getattr(model, name))
            np.testing.assert_allclose(actual, value, rtol=rtol, atol=1e-9, err_msg=name)


# --- apply_task ------------------------------------------------------------------------


@EVERY
def test_a_task_writes_the_fields_of_the_original_code(cls, variation):
    """Nothing else changes; what the motion does not depend on need not be written."""
    inert = [name for names in TEN.values() for name in names.split()]
    inert = [name for name in inert if not any(f.get(name) for f in TEN_FACTORS.values())]
    skip = inert if variation in TEN else ()
    for task in draw(cls, variation, 8):
        fields = maker(cls, variation, "original", fresh=False)(task)
        expected = write_task(load_model(cls.body), cls.body, variation, task)
        assert_fields(fields, cls, expected, skip)


def test_ten_factors_are_in_the_order_of_the_original_lists():
    assert {name: list(f) for name, f in TEN_FACTORS.items()} == {
        name: fields.split() for name, fields in TEN.items()
    }
    assert {name: sum(f.values()) for name, f in TEN_FACTORS.items()} == {
        "10d-a": 4,
        "10d-b": 3,
        "10d-c": 6,
    }


def test_a_scale_touches_its_rows_and_column_only():
    before = {"x": np.arange(1.0, 13.0).reshape(4, 3), "y": np.ones(2)}
    task = jnp.array([2.0, 10.0])

    def scaled(*changes):
        return apply_task(before, task, changes)["x"]

    expected = before["x"].copy()
    np.testing.assert_array_equal(scaled(), expected)
    expected[1:3, 2] *= 10
    np.testing.assert_array_equal(scaled(Scale("x", 1, (1, 2), 2)), expected)
    expected[3] *= 2
    np.testing.assert_array_equal(scaled(Scale("x", 1, (1, 2), 2), Scale("x", 0, (3,))), expected)
    expected[:, 0] *= 2
    changes = Scale("x", 1, (1, 2), 2), Scale("x", 0, (3,)), Scale("x", 0, None, 0)
    np.testing.assert_array_equal(scaled(*changes), expected)
    np.testing.assert_array_equal(apply_task(before, task, changes)["y"], before["y"])
    assert before["x"][0, 0] == 1  # the nominal body is left as it was


# --- refresh ---------------------------------------------------------------------------


@EVERY
def test_raw_refreshes_bounds_and_subtree_masses_only(cls, variation):
    for task in draw(cls, variation, 8, seed=1):
        expected = write_task(load_model(cls.body), cls.body, variation, task)
        fields = maker(cls, variation, "raw")(task)
        expected = follow_bounds(at_centre(expected))
        assert_fields(fields, cls, expected, ("bvh_aabb", *inert_fields(variation)))


@EVERY
def test_original_leaves_the_bounds_behind(cls, variation):
    """Subtree masses follow: MuJoCo 2 summed up masses whenever it needed a centre."""
    for task in draw(cls, variation, 4, seed=2):
        expected = at_centre(write_task(load_model(cls.body), cls.body, variation, task))
        expected.body_subtreemass[:] = follow_bounds(expected).body_subtreemass
        fields = maker(cls, variation, "original")(task)
        assert_fields(fields, cls, expected, skip=inert_fields(variation))
        bounds = "geom_rbound" in fields
        assert bounds == (variation == "10d-b") and "geom_aabb" not in fields


@EVERY
def test_consistent_is_set_const_of_a_scaled_body(cls, variation):
    model = load_model(cls.body)
    for task in draw(cls, variation, 8, seed=3):
        expected = at_centre(write_task(model, cls.body, variation, task))
        if variation in ("mass", "body"):
            for i in range(model.nbody):
                expected.body_inertia[i] = model.body_inertia[i] * float(task[0])
        elif variation == "10d-c":  # the factor of the masses
            expected.body_inertia[:] = model.body_inertia * float(task[1])
        mujoco.mj_setConst(expected, mujoco.MjData(expected))
        fields = maker(cls, variation, "consistent")(task)
        assert_fields(fields, cls, expected, (*UNUSED, *inert_fields(variation)))


def inert_fields(variation):
    return [name for name, moves in TEN_FACTORS.get(variation, {}).items() if not moves]


@pytest.mark.parametrize("derived", ["raw", "consistent"])
@pytest.mark.parametrize("cls", [HalfCheetah, Ant, Humanoid])
def test_a_task_of_ones_is_the_nominal_body(cls, derived):
    fields = maker(cls, "body", derived)(np.ones(3, np.float32))
    assert_fields(fields, cls, load_model(cls.body))


@pytest.mark.parametrize("derived", ["raw", "consistent"])
def test_batches_are_their_members(derived):
    make, tasks = maker(Humanoid, "body", derived), draw(Humanoid, "body", 6, seed=4)
    batch = jax.jit(jax.vmap(jax.vmap(make)))(tasks.reshape(2, 3, 3))
    for i, task in enumerate(tasks):
        for name, value in make(task).items():
            np.testing.assert_allclose(batch[name].reshape(6, *value.shape)[i], value, rtol=1e-6)


def test_bounds_hold_their_geoms():
    """Corners of the box and the sphere's radius are those of the thickened capsule."""
    model = load_model("half_cheetah")
    fields = maker(HalfCheetah, "body", "raw")(np.array([2.0, 1.0, 0.5], np.float32))
    np.testing.assert_allclose(fields["geom_rbound"][2], 0.15 / 2 + 0.092, rtol=1e-6)
    np.testing.assert_allclose(fields["geom_aabb"][2], [0, 0, 0, 0.092, 0.092, 0.167], rtol=1e-6)
    np.testing.assert_array_equal(fields["geom_rbound"][0], model.geom_rbound[0])
    np.testing.assert_array_equal(fields["geom_aabb"][0], np.float32(model.geom_aabb[0]))


def test_fields_of_the_reward_alone_are_none():
    for cls, variation in ((HalfCheetah, "vel"), (Ant, "goal"), (Humanoid, "vel")):
        for derived in ("raw", "consistent", "original"):
            task = draw(cls, variation, 1)[0]
            assert maker(cls, variation, derived)(task) == {}


def test_geoms_follow_the_centre_of_mass_on_every_engine():
    """MuJoCo in C takes the frame of the inertia for them; other engines read ``geom_pos``."""
    model = copy.copy(load_model("half_cheetah"))
    model.body_ipos[:] *= 1.4
    moved = at_centre(model)  # as raw does it, see above
    assert np.abs(moved.geom_pos - model.geom_pos)[model.geom("bthigh").id].max() > 0.01
    np.testing.assert_array_equal(motion(moved), motion(model))
    moved.geom_sameframe[:] = 0  # an engine without the shortcut
    np.testing.assert_allclose(motion(moved, 100), motion(model, 100), atol=1e-5)


# --- which of the ten factors move anything --------------------------------------------


def motion(model, steps=300):
    """Positions along strong controls: the cheetah falls about, and its joints hit their limits."""
    rng = np.random.default_rng(5)
    data, path = mujoco.MjData(model), []
    data.qpos[:] = rng.uniform(-0.1, 0.1, model.nq)
    for step in range(steps):
        if step % 25 == 0:
            data.ctrl[:] = rng.choice([-1, 1], model.nu)
        mujoco.mj_step(model, data)
        path.append(data.qpos.copy())
    return np.stack(path)


@functools.cache
def _unchanged_motion():
    return motion(load_model("half_cheetah"))


FIELDS = [(v, field, moves) for v, f in TEN_FACTORS.items() for field, moves in f.items()]


@pytest.mark.parametrize(("variation", "field", "moves"), FIELDS)
@pytest.mark.parametrize("factor", [0.75, 1.4])
def test_a_factor_moves_something_or_is_left_out(variation, field, moves, factor):
    model = copy.copy(load_model("half_cheetah"))
    getattr(model, field)[:] *= factor
    same = np.array_equal(motion(model), _unchanged_motion())
    overlooks = field != "geom_rbound" or factor < 1  # a larger bound finds no more contacts
    assert same == (not (moves and overlooks))


def test_small_bounds_only_matter_where_they_stay_behind():
    """Raw and consistent put bounds right again, whatever their factor."""
    task = np.ones(10, np.float32)
    task[list(TEN_FACTORS["10d-b"]).index("geom_rbound")] = 0.75
    bound = load_model("half_cheetah").geom_rbound
    for derived, factor in (("raw", 1), ("consistent", 1), ("original", 0.75)):
        fields = maker(HalfCheetah, "10d-b", derived)(task)
        np.testing.assert_allclose(fields["geom_rbound"], factor * bound, rtol=1e-6)
