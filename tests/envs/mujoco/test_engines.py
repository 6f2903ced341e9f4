"""The three engines against MuJoCo's own step, on models made by hand.

Nothing here uses the project's tasks or its batches: every world is an ``MjModel`` of its
own, stepped by ``mujoco.mj_step``; the engines get the fields in which the models differ.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")

from envs.mujoco import engine_mjx, engines  # noqa: E402
from envs.mujoco.engines import make_physics  # noqa: E402
from envs.mujoco.models import load_model, model_path  # noqa: E402
from envs.mujoco.physics import PhysicsState, is_sound  # noqa: E402

slow = pytest.mark.slow
N, T, SKIP = 20, 50, 5  # worlds, control steps, physics steps in each
BODIES = ("half_cheetah", "ant", "humanoid")
MODES = ("nominal", "randomised", "compiled")
SEEN = ("xpos", "xmat", "xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")
SCALED = [  # by the tasks made at random
    *("body_mass", "body_inertia", "body_ipos", "body_pos", "dof_damping", "actuator_gear"),
    *("geom_friction", "geom_solref", "geom_solimp", "jnt_stiffness", "jnt_range", "jnt_solref"),
]
FOLLOWING = [  # from others
    *("geom_size", "geom_rbound", "geom_aabb", "bvh_aabb", "body_subtreemass", "body_iquat"),
    *("body_invweight0", "dof_invweight0", "tendon_invweight0", "dof_M0", "actuator_acc0"),
]


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    """MuJoCo writes its warnings to a file."""
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- models made by hand


def fields_of(models):
    """What differs, or may differ, between models, ``[N, …]``."""
    names = [name for name in (*SCALED, *FOLLOWING) if getattr(models[0], name).size]
    return {name: np.stack([getattr(m, name) for m in models]) for name in names}


def randomised(model, rng):
    """A copy with other masses, lengths, springs and frictions; only what must follows."""
    model = copy.copy(model)
    for name in SCALED:
        getattr(model, name)[:] *= 2 ** rng.uniform(-0.25, 0.25)
    for body in range(model.nbody):
        inside = [b for b in range(model.nbody) if body in ancestors(model, b)]
        model.body_subtreemass[body] = model.body_mass[inside].sum()
    capsules = model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE
    model.geom_size[capsules, 0] *= 2 ** rng.uniform(-0.5, 0.5)
    radius, half = model.geom_size[capsules, 0], model.geom_size[capsules, 1]
    model.geom_rbound[capsules] = radius + half
    model.geom_aabb[capsules, 3:] = np.stack([radius, radius, radius + half], axis=1)
    return model


def ancestors(model, body):
    """A body, its parent, and so on."""
    return {body} if body == 0 else {body} | ancestors(model, model.body_parentid[body])


def recompiled(body, rng):
    """The body's file, edited and compiled anew, which derives all that follows."""
    spec = mujoco.MjSpec.from_file(str(model_path(body)))
    total, spec.compiler.settotalmass = spec.compiler.settotalmass, -1
    for geom in spec.geoms:
        geom.density *= 2 ** rng.uniform(-1, 1)
        geom.friction[0] *= 2 ** rng.uniform(-1, 1)
        if geom.type == mujoco.mjtGeom.mjGEOM_CAPSULE:
            geom.size[0] *= 2 ** rng.uniform(-0.5, 0.5)
    for joint in spec.joints:
        joint.damping *= 2 ** rng.uniform(-1, 1)
    for actuator in spec.actuators:
        actuator.gear[0] *= 2 ** rng.uniform(-1, 1)
    model = spec.compile()
    if total > 0:
        mujoco.mj_setTotalmass(model, total)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    model.opt.disableflags = load_model(body).opt.disableflags
    return model


def models(body, mode, contact_forces=False):
    """N models."""
    nominal, rng = load_model(body, contact_forces=contact_forces), np.random.default_rng(0)
    make = {
        "nominal": lambda: copy.copy(nominal),
        "randomised": lambda: randomised(nominal, rng),
        "compiled": lambda: recompiled(body, rng),
    }[mode]
    return [make() for _ in range(N)]


# ---------------------------------------------------------------- the oracle


class Course(NamedTuple):
    """What an engine is given, and what MuJoCo made of it."""

    fields: dict[str, np.ndarray]  # [N, …]
    controls: np.ndarray  # [T, N, nu]
    states: PhysicsState  # [T + 1, N, …]; the first is that of a reset
    steep: np.ndarray  # [T + 1, N]: a capsule that stands on the floor on the way there


@functools.cache
def course(body, mode, dtype, *, height=0.0, contact_forces=False):
    """N worlds over T control steps, by mj_step.

    Episodes start, unless there is a height to fall from, in the middle of motions with
    random controls. Inputs, and the state after every control step, are rounded to the
    precision that engines keep it in.
    """
    worlds = models(body, mode, contact_forces)
    fields = {name: x.astype(dtype) for name, x in fields_of(worlds).items()}
    rng, simulations = np.random.default_rng(1), []
    for i, model in enumerate(worlds):
        for name, value in fields.items():
            getattr(model, name)[:] = value[i]
        simulations.append((model, begin(model, rng, height, dtype)))
    shape = (T, N, worlds[0].nu)
    controls = 1.2 * worlds[0].actuator_ctrlrange[:, 1] * rng.uniform(-1, 1, shape)
    controls, states = controls.astype(dtype), [photo(simulations)]
    steep = [[stands(*simulation) for simulation in simulations]]
    for ctrls in controls:
        steep.append([step(*x, contact_forces) for x in zip(simulations, ctrls, strict=True)])
        states.append(photo(simulations))
        for _, data in simulations:
            for x in (data.qpos, data.qvel, data.qacc_warmstart):
                x[:] = x.astype(dtype)
    states = jax.tree.map(lambda *x: np.stack(x).astype(dtype), *states)
    return Course(fields, controls, states, np.array(steep))


def step(simulation, ctrl, contact_forces):
    """A control step; whether a capsule stood on the floor meanwhile."""
    model, data = simulation
    data.ctrl[:], steep = ctrl, stands(model, data)
    for _ in range(SKIP):
        mujoco.mj_step(model, data)
        steep |= stands(model, data)
    if contact_forces:
        mujoco.mj_forward(model, data)
    return steep


def stands(model, data):
    """Whether a capsule touches the floor with an axis less than half of which is level."""
    touching = data.contact.geom[:, 1]
    axes = data.geom_xmat.reshape(-1, 3, 3)[touching, :, 2]
    capsule = model.geom_type[touching] == mujoco.mjtGeom.mjGEOM_CAPSULE
    return bool((capsule & (np.linalg.norm(axes[:, :2], axis=1) < 0.55)).any())


def begin(model, rng, height, dtype):
    """A simulation at its start."""
    data = mujoco.MjData(model)
    data.qpos[:] += 0.1 * rng.uniform(-1, 1, model.nq)
    data.qvel[:] = 0.1 * rng.normal(size=model.nv)
    free = model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
    data.qpos[2 if free else 1] += height
    for _ in range(0 if height else 60):
        data.ctrl[:] = model.actuator_ctrlrange[:, 1] * rng.uniform(-1, 1, model.nu)
        mujoco.mj_step(model, data, SKIP)
    qpos, qvel = data.qpos.astype(dtype), data.qvel.astype(dtype)
    mujoco.mj_resetData(model, data)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    return data


def photo(simulations):
    """The states of all simulations, ``[N, …]``."""

    def of(name):
        return np.stack([getattr(data, name).copy() for _, data in simulations])

    seen = {name: of(name) for name in SEEN}
    return PhysicsState(of("qpos"), of("qvel"), of("qacc_warmstart"), seen)


# ---------------------------------------------------------------- engines


def physics_of(body, engine, contact_forces=False):
    return make_physics(body, engine, frame_skip=SKIP, seen=SEEN, contact_forces=contact_forces)


@functools.cache
def program(body, engine, contact_forces=False):
    """A reset and T control steps of N worlds, from states of its own or from given ones."""
    physics = physics_of(body, engine, contact_forces)

    def run(fields, controls, given, forced):
        def step(state, x):
            given, ctrl = x
            state = jax.tree.map(lambda a, b: jnp.where(forced, a, b), given, state)
            state = jax.vmap(physics.step)(fields, state, ctrl)
            return state, state

        first = jax.vmap(physics.reset)(fields, given.qpos[0], given.qvel[0])
        _, states = jax.lax.scan(step, first, (jax.tree.map(lambda x: x[:-1], given), controls))
        return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, states)

    run.count = 0

    def counted(*args):
        run.count += 1
        return run(*args)

    compiled = jax.jit(counted)
    compiled.traces = lambda: run.count
    return compiled


def follow(body, engine, wanted, *, forced=False, contact_forces=False, dtype=np.float32):
    """The states of an engine on the inputs of a course, ``[T + 1, N, …]``."""
    fields, controls, given = jax.tree.map(lambda x: jnp.asarray(x, dtype), wanted[:3])
    states = program(body, engine, contact_forces)(fields, controls, given, jnp.asarray(forced))
    return jax.tree.map(np.asarray, states)


def errors(got, wanted):
    """Norms of differences over norms, ``[T + 1, N]``."""
    got, wanted = (x.astype(float).reshape(*x.shape[:2], -1) for x in (got, wanted))
    return np.linalg.norm(got - wanted, axis=-1) / (1e-6 + np.linalg.norm(wanted, axis=-1))


def equal(a, b):
    """Asserts that two trees of arrays are the same, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


# ---------------------------------------------------------------- MuJoCo in C


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("body", BODIES)
def test_c_is_mj_step_bit_for_bit(body, mode):
    wanted = course(body, mode, np.float32)
    equal(follow(body, "mujoco", wanted), wanted.states)


@pytest.mark.parametrize("body", BODIES[1:])
def test_contact_forces_are_those_of_the_state_after_a_step(body):
    wanted = course(body, "nominal", np.float32, contact_forces=True)
    assert np.abs(wanted.states.seen["cfrc_ext"]).max() > 1
    equal(follow(body, "mujoco", wanted, contact_forces=True), wanted.states)


# ---------------------------------------------------------------- MJX and Warp


QUICK = ("mjx", "half_cheetah")  # compiling and running the others takes minutes
ENGINES = pytest.mark.parametrize(
    ("engine", "body"),
    [
        pytest.param(engine, body, marks=() if (engine, body) == QUICK else slow)
        for engine in ("mjx", "warp")
        for body in BODIES
    ],
)


def need(engine):
    if engine == "warp":
        pytest.importorskip("warp")


@pytest.mark.parametrize("mode", MODES)
@ENGINES
def test_a_step_is_that_of_mujoco(engine, body, mode):
    """From every state on MuJoCo's way, one control step in float32.

    The exceptions are contacts of steep capsules with the floor: MuJoCo lays the edges of the
    friction pyramid along the capsule, MJX and Warp along the axes of the world.
    """
    need(engine)
    wanted = course(body, mode, np.float32)
    got = follow(body, engine, wanted, forced=True)
    error = errors(got.qvel, wanted.states.qvel)
    assert np.median(error) < 1e-5
    assert np.mean(error[~wanted.steep] < 1e-3) > 0.95
    for name in SEEN:  # they lag
        assert np.median(errors(got.seen[name], wanted.states.seen[name])[1:]) < 1e-5
        assert errors(got.seen[name], wanted.states.seen[name])[0].max() < 1e-5  # of the reset
    assert np.median(errors(got.warmstart, wanted.states.warmstart)) < 1e-4


# Errors grow about tenfold in ten control steps, for any two simulations whose last bits
# differ: contacts make the motion chaotic. The Ant's grow from its steep capsules.
BOUNDS = {"half_cheetah": (1e-5, 1e-3, 0.5), "ant": (1e-4, 0.3, 1.0), "humanoid": (1e-5, 1e-3, 0.5)}


@pytest.mark.parametrize("mode", MODES)
@ENGINES
def test_a_trajectory_stays_with_mujoco(engine, body, mode):
    """From the same start, median over worlds of the relative error of the velocities."""
    need(engine)
    wanted = course(body, mode, np.float32)
    error = np.median(errors(follow(body, engine, wanted).qvel, wanted.states.qvel), axis=1)
    assert (error[[1, 10, 50]] < BOUNDS[body]).all(), error[[1, 10, 50]]


@ENGINES
def test_in_the_air_a_trajectory_stays_with_mujoco(engine, body):
    """Over all 50 control steps; the Humanoid's limbs touch each other there as well."""
    need(engine)
    wanted = course(body, "randomised", np.float32, height=100.0)
    got = follow(body, engine, wanted)
    for a, b in ((got.qpos, wanted.states.qpos), (got.qvel, wanted.states.qvel)):
        assert np.median(errors(a, b), axis=1).max() < (3e-5 if body == "humanoid" else 1e-5)


@pytest.mark.parametrize("engine", ["mjx", "warp"])
@pytest.mark.parametrize("body", BODIES)
@slow
def test_contact_forces_are_those_of_mujoco(engine, body):
    need(engine)
    wanted = course(body, "nominal", np.float32, contact_forces=True)
    got = follow(body, engine, wanted, forced=True, contact_forces=True)
    forces, true = got.seen["cfrc_ext"], wanted.states.seen["cfrc_ext"]
    assert np.abs(true).max() > 1
    touching = (np.abs(true).max(axis=(2, 3)) > 0) & ~wanted.steep
    assert np.median(errors(forces, true)[touching]) < 1e-3
    assert np.median(errors(got.seen["xpos"], wanted.states.seen["xpos"])) < 1e-5


# ---------------------------------------------------------------- programs and worlds


MJX = ["mjx", pytest.param("warp", marks=slow)]
ALL_ENGINES = pytest.mark.parametrize("engine", ["mujoco", *MJX])


@ALL_ENGINES
def test_results_repeat_and_values_do_not_recompile(engine):
    need(engine)
    first, other = (course("half_cheetah", mode, np.float32) for mode in MODES[:2])
    once = follow("half_cheetah", engine, first)
    traced = program("half_cheetah", engine).traces()
    assert errors(follow("half_cheetah", engine, other).qvel, once.qvel).max() > 0.1
    equal(follow("half_cheetah", engine, first), once)
    assert program("half_cheetah", engine).traces() == traced


@pytest.mark.parametrize(
    "engine", ["mujoco", *(pytest.param(e, marks=slow) for e in ("mjx", "warp"))]
)
def test_nested_vmap_is_flat_vmap(engine):
    """Tasks times episodes, with the task's fields in common, in a scan; bit for bit."""
    need(engine)
    wanted = course("half_cheetah", "randomised", np.float32)
    physics, tasks, episodes = physics_of("half_cheetah", engine), N // 5, 5

    def grid(x, axis=0):
        return x.reshape(*x.shape[:axis], tasks, episodes, *x.shape[axis + 1 :])

    @jax.jit
    def run(fields, state, controls):
        step = jax.vmap(jax.vmap(physics.step, in_axes=(None, 0, 0)))
        return jax.lax.scan(lambda s, ctrl: (step(fields, s, ctrl), None), state, controls)[0]

    fields = {name: x[::episodes] for name, x in wanted.fields.items()}
    repeated = {name: np.repeat(x, episodes, axis=0) for name, x in fields.items()}
    start = jax.tree.map(lambda x: x[0].astype(np.float32), wanted.states)
    nested = run(fields, jax.tree.map(grid, start), grid(wanted.controls, 1)[:5])
    flat = follow("half_cheetah", engine, wanted._replace(fields=repeated))
    equal(jax.tree.map(lambda x: x.reshape(N, *x.shape[2:]), nested), at(flat, 5))


@pytest.mark.parametrize("tasks_axis", [None, 0])
@pytest.mark.parametrize("qpos_axis", [None, 0])
def test_any_nesting_of_vmap_reaches_mjx_as_one_batch(tasks_axis, qpos_axis):
    """Here with an engine that adds; seeds share nothing, tasks and episodes may share."""
    batches = []

    def worlds(fields, inputs):
        batches.append((len(fields["mass"]), len(inputs[0])))
        qpos, qvel, warm, ctrl = inputs
        return PhysicsState(qpos + fields["mass"], 2 * qvel, warm, {"sum": ctrl.sum(axis=1)})

    one = engine_mjx._as_one_batch(worlds)
    mass = jnp.arange(6.0).reshape(2, 3)[:, : 3 if tasks_axis == 0 else 1, None]
    mass = mass if tasks_axis == 0 else mass[:, 0]
    qpos = jnp.arange(24.0).reshape(2, 3, 4, 1)
    qpos = qpos if qpos_axis == 0 else qpos[:, :, 0]
    ctrl = jnp.arange(48.0).reshape(2, 3, 4, 2)
    episodes = jax.vmap(one, in_axes=(None, (qpos_axis, None, None, 0)))
    tasks = jax.vmap(episodes, in_axes=(tasks_axis, (0, None, None, 0)))
    seeds = jax.vmap(tasks, in_axes=(0, (0, None, None, 0)))
    got = jax.jit(seeds)({"mass": mass}, (qpos, jnp.ones(1), jnp.zeros(1), ctrl))
    mass = mass.reshape(2, -1, 1, 1)
    qpos = qpos if qpos_axis == 0 else qpos[:, :, None]
    np.testing.assert_array_equal(got.qpos, np.broadcast_to(qpos, (2, 3, 4, 1)) + mass)
    np.testing.assert_array_equal(got.qvel, np.full((2, 3, 4, 1), 2))
    np.testing.assert_array_equal(got.seen["sum"], ctrl.sum(axis=3))
    assert batches[-1] == (24, 24)


def test_what_all_worlds_share_is_not_copied():
    batches = []

    def worlds(fields, inputs):
        batches.append((len(fields["mass"]), len(inputs[0])))
        return PhysicsState(inputs[0] + fields["mass"], *inputs[1:3], {})

    one = engine_mjx._as_one_batch(worlds)
    many = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(None, 0))
    got = many({"mass": jnp.ones(1)}, tuple(jnp.zeros((3, 4, 1)) for _ in range(4)))
    np.testing.assert_array_equal(got.qpos, np.ones((3, 4, 1)))
    assert batches[-1] == (1, 12)


def at(states, t):
    """One time of states ``[T + 1, …]``."""
    return jax.tree.map(lambda x: x[t], states)


@ALL_ENGINES
def test_a_broken_world_stays_alone(engine):
    need(engine)
    wanted = course("half_cheetah", "nominal", np.float32)
    clean = follow("half_cheetah", engine, wanted)
    qpos, qvel = wanted.states.qpos.copy(), wanted.states.qvel.copy()
    qvel[:, 3, 5], qpos[:, 7, 2] = np.nan, np.inf
    broken = wanted._replace(states=wanted.states._replace(qpos=qpos, qvel=qvel))
    got = follow("half_cheetah", engine, broken)
    others = np.setdiff1d(np.arange(N), [3, 7])
    equal(*(jax.tree.map(lambda x: x[:, others], states) for states in (got, clean)))
    sound = jax.vmap(jax.vmap(is_sound))(jax.tree.map(jnp.asarray, got))
    assert not sound[1:, [3, 7]].any() and sound[:, others].all()


@ALL_ENGINES
def test_a_reset_returns_what_it_was_given(engine):
    need(engine)
    wanted = course("half_cheetah", "nominal", np.float32)
    got = at(follow("half_cheetah", engine, wanted), 0)
    np.testing.assert_array_equal(got.qpos, wanted.states.qpos[0].astype(np.float32))
    np.testing.assert_array_equal(got.qvel, wanted.states.qvel[0].astype(np.float32))
    assert not got.warmstart.any()


def test_on_a_cpu_mjx_factorises_one_matrix_at_a_time():
    """Batches of them, when two are factorised at once, can wait for each other for ever."""
    wanted = course("half_cheetah", "nominal", np.float32)
    args = jax.tree.map(jnp.asarray, (*wanted[:3], False))
    text = program("half_cheetah", "mjx").lower(*args).as_text()
    calls = re.findall(r"custom_call @(lapack\w+|blas\w+).*?: \(tensor<([\dx]+)xf", text)
    assert {name for name, _ in calls} >= {"lapack_spotrf_ffi"}
    assert {shape for _, shape in calls} == {"9x9"}


@pytest.mark.parametrize("most", [0, 1, 4, 50])
def test_line_searches_end_with_the_same_numbers(most):
    from mujoco.mjx._src import solver

    def search(x):  # for the square root, by Newton
        def more(at):
            return abs(at[0] ** 2 - x) > 1e-3

        def better(at):
            return (at[0] + x / at[0]) / 2, at[1] + 1

        return solver._while_loop_scan(more, better, (x / 2, jnp.array(0)), most)

    usual, x = solver._while_loop_scan, jnp.array([4.0, 2.0, 9.0, 1e4])
    expected = jax.vmap(search)(x)
    with engine_mjx._line_searches_end():
        found = jax.vmap(search)(x)
        program = str(jax.make_jaxpr(jax.vmap(search))(x))
    assert "while" in program and "scan" not in program
    assert solver._while_loop_scan is usual
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)


@slow
def test_all_worlds_at_once_are_as_one_after_another(monkeypatch):
    """What accelerators run; few worlds, so that a CPU does it safely."""
    wanted = course("half_cheetah", "randomised", np.float32)
    want = at(follow("half_cheetah", "mjx", wanted, forced=True), 1)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *x, cpu, default: default(*x))
    fields, controls, given = jax.tree.map(jnp.asarray, wanted[:3])
    physics = physics_of("half_cheetah", "mjx")
    got = jax.jit(jax.vmap(physics.step))(fields, at(given, 0), controls[0])
    assert np.median(errors(np.asarray(got.qvel)[None], want.qvel[None])) < 1e-5


@pytest.mark.parametrize("engine", MJX)
def test_fields_that_cannot_differ_are_refused(engine):
    need(engine)
    physics, model = physics_of("half_cheetah", engine), load_model("half_cheetah")
    fields = {"geom_condim": jnp.ones(model.ngeom)}
    with pytest.raises(ValueError, match="geom_condim once for all worlds"):
        jax.eval_shape(physics.reset, fields, jnp.zeros(model.nq), jnp.zeros(model.nv))


# ---------------------------------------------------------------- choice of an engine


def test_auto_is_mujoco_on_a_cpu():
    assert jax.default_backend() == "cpu"
    assert make_physics("half_cheetah", "auto").engine == "mujoco"


@pytest.mark.parametrize(
    ("nvidia", "warp", "engine"),
    [(True, True, "warp"), (True, False, "mujoco"), (False, True, "mjx")],
)
def test_auto_on_an_accelerator(monkeypatch, nvidia, warp, engine):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu" if nvidia else "tpu")
    monkeypatch.setattr(engines, "is_nvidia", lambda: nvidia)
    monkeypatch.setattr(engines, "find_spec", lambda name: name != "warp" or warp or None)
    assert engines.resolve_engine("auto") == engine


def test_an_unknown_engine_is_refused():
    resolve = inspect.unwrap(engines.resolve_engine)  # type checks of the tests come first
    with pytest.raises(ValueError, match="auto, mjx, warp, mujoco"):
        resolve("isaac")


@pytest.mark.parametrize(
    ("engine", "missing", "extra"),
    [
        ("mujoco", "mujoco", "mujoco"),
        ("mjx", "mujoco.mjx", "mujoco"),
        ("warp", "mujoco.mjx", "warp"),
        ("warp", "warp", "warp"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, engine, missing, extra):
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == missing else True)
    with pytest.raises(ImportError, match=rf"{engine} needs {missing}: .*roml-jax\[{extra}\]"):
        make_physics("ant", engine, frame_skip=7)  # of this test alone, so that none is kept


# ---------------------------------------------------------------- double precision, last


@pytest.fixture
def double():
    """For all threads, callbacks included; no trace of one precision may meet the other."""
    jax.clear_caches()
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
    jax.clear_caches()


@pytest.mark.parametrize("body", BODIES)
@slow
def test_in_double_precision_c_is_mj_step_and_mjx_is_near_it(body, double):
    wanted = course(body, "compiled", np.float64)
    equal(follow(body, "mujoco", wanted, dtype=np.float64), wanted.states)
    got = follow(body, "mjx", wanted, forced=True, dtype=np.float64)
    assert got.qvel.dtype == np.float64
    tolerance = 1e-13 if body != "humanoid" else 1e-5  # of the solver: C has another one there
    assert np.median(errors(got.qvel, wanted.states.qvel)) < tolerance
