"""Replays, bodies, pictures and videos; what needs OpenGL is skipped where there is none."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.mujoco import Ant, HalfCheetah, Humanoid
from envs.mujoco.models import load_model
from experiments import cli, render
from experiments.presets import PRESETS
from experiments.spec.build import build
from experiments.spec.errors import UserError
from experiments.training import checkpoints, device, runs
from experiments.training.checkpoints import Best, Saved
from experiments.training.runs import Run
from experiments.videos import bodies, drawing, plan, video
from experiments.videos import replay as replays
from experiments.videos.bodies import Painter, choose_backend, frame, task_model
from experiments.videos.options import RenderOptions
from experiments.videos.replay import Replay, choose, replay
from experiments.videos.video import Caption
from roml_jax.rollout import rollout
from roml_jax.types import Agent, Boundary

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")
Image = pytest.importorskip("PIL.Image")

ENV = HalfCheetah(horizon=6, episodes=2)
PRESET = "half-cheetah-mass"


# ------------------------------------------------------------------ parts of a test


def tiny(env=ENV, method="roml", learner="ppo"):
    """An experiment with the smallest of networks."""
    usual = PRESETS[PRESET].choose(learner, method)
    small = {"obs_embedding": 4, "latent_embedding": 4, "layers": (4,), "minibatches": 2}
    policy = dataclasses.replace(usual.learner.policy, **small)
    config = dataclasses.replace(usual.learner, num_tasks=4, policy=policy)
    settings = {"batch": None} if method == "roml" else {}
    method = dataclasses.replace(usual.method, **settings)
    return dataclasses.replace(usual, env=env, learner=config, method=method, frames=1000)


built_of = functools.cache(build)


@pytest.fixture(scope="module")
def folder(compilation, tmp_path_factory):
    """Two untrained runs, baseline of seed 0 and roml of seed 1, as training leaves them."""
    out = tmp_path_factory.mktemp("runs")
    with compilation():
        for seed, method in enumerate(("baseline", "roml")):
            run = Run(PRESET, tiny(method=method), seed)
            built, path = built_of(run.experiment), run.path(out)
            state = jax.jit(built.init)(jax.random.key(seed))
            best = Best(device.agent(built, state), jnp.int32(0), jnp.float32(0))
            path.mkdir(parents=True)
            runs.write_config(path, run, [seed])
            checkpoints.save(path, 0, Saved(state, dict.fromkeys(device.VALIDATED, best)), {})
    return out / PRESET


@pytest.fixture
def both(folder, monkeypatch):
    monkeypatch.setattr(replays, "build", built_of)
    return [str(folder / "baseline-ppo" / "seed-0"), str(folder / "roml-ppo" / "seed-1")]


@pytest.fixture(scope="module")
def gl():
    """Skips a test where nothing can be drawn."""
    try:
        choose_backend()
        bodies.check_drawing(ENV)
    except UserError as error:
        if os.environ.get("ROML_JAX_NEEDS_GL"):  # where it has been installed
            raise
        pytest.skip(str(error))


def pusher(gain):
    """An agent with a memory, which everything that it sees changes."""

    def act(params, carry, obs, key, deterministic):
        del key
        assert deterministic
        return jnp.tanh(params * obs[:, :6] + carry[:, None]), ()

    def observe(params, carry, transition):
        seen = transition.next_obs.sum(axis=1) + transition.action.sum(axis=1)
        return jnp.tanh(carry + 0.1 * seen + transition.reward)

    return Agent(jnp.zeros, act, observe, lambda action: gain * action)


def colored(picture):
    """Where a body is: its colours are warm, those of floor and sky are not."""
    red, blue = picture[..., 0].astype(int), picture[..., 2].astype(int)
    return red - blue > 25


def at_rest(model, n=1):
    return np.tile(model.qpos0, (n, 1))


# ------------------------------------------------------------------ replays


@pytest.mark.parametrize("boundary", [Boundary(), Boundary("start", False)])
def test_a_replay_is_the_rollout(boundary):
    tasks, key = jnp.array([[0.5], [1.0], [2.0]]), jax.random.key(3)
    agent, params = pusher(1.0)._replace(boundary=boundary), jnp.float32(0.7)
    data = jax.jit(lambda: rollout(
        jax.random.clone(key), ENV, agent, params, tasks, deterministic=True
    ))()  # fmt: skip
    one = jax.jit(lambda: replay(key, ENV, agent, params, tasks))()
    assert one.qpos.shape == (2, 7, 3, 9) and one.reward.shape == (2, 6, 3)
    assert np.array_equal(one.reward.reshape(12, 3), data.reward)
    assert np.array_equal(one.qpos[:, 1:, :, 1:], data.obs[:, 1:, :, :8])
    start = np.asarray(one.qpos[:, 0])
    assert (np.abs(start) <= 0.1).all() and start.std() > 0.02  # also where no agent sees it
    assert not np.array_equal(start[0], start[1])
    if boundary.observation == "start":
        assert np.array_equal(start[..., 1:], data.obs[:, 0, :, :8])
    # Speed and height, less the control cost, are the reward.
    progress = np.diff(one.qpos[..., 0], axis=1) / ENV.dt + one.qpos[:, 1:, :, 1]
    cost = 0.05 * np.square(data.action).sum(-1).reshape(one.reward.shape)
    assert np.allclose(progress - cost, one.reward, atol=1e-4)


def test_replays_of_runs_are_those_of_their_agents(both, folder):
    members = [(folder / path, runs.read_config(folder / path)) for path in both]
    tasks = np.array([[0.6], [1.7]], np.float32)
    first, second = replays.replay_runs(members, tasks, seed=4)
    assert np.array_equal(first.qpos[:, 0], second.qpos[:, 0])  # the same starts
    assert not np.array_equal(first.reward, second.reward)
    path, run = members[1]
    built = built_of(run.experiment)
    (params, _), _ = replays.agents.load_agent(path, built)
    key = jax.random.fold_in(replays.evaluation_key(4, "test"), 2)
    again = jax.jit(lambda: rollout(
        key, built.env, built.learner.agent, params, jnp.asarray(tasks),
        deterministic=True,
    ))()  # fmt: skip
    # Two programs round differently, and the bodies soon part; the agents did so at once.
    start = slice(0, 10)
    assert np.allclose(second.reward.reshape(-1, 2)[start], again.reward[start], atol=1e-3)
    assert not np.allclose(first.reward.reshape(-1, 2)[start], again.reward[start], atol=1e-3)


def test_easy_median_and_hard_by_the_mean_of_all_agents():
    returns = np.array([[4.0, 0.0, 2.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0, 9.0]])
    rewards = np.stack([np.zeros_like(returns), returns], axis=1)  # [agents, K, n]
    both = [Replay(np.zeros((2, 2, 5, 9)), one[:, None]) for one in rewards]
    assert choose(both) == {"easy": 4, "median": 2, "hard": 1}
    part = both[0].at([4, 1])
    assert part.qpos.shape == (2, 2, 2, 9) and part.reward[1, 0].tolist() == [3, 0]


# ------------------------------------------------------------------ bodies and pictures


def test_the_body_that_is_drawn_is_that_of_the_task():
    nominal = load_model("half_cheetah")
    before = nominal.geom_size.copy()
    drawn = task_model(HalfCheetah(variation="body"), np.array([2.0, 0.7, 0.5]))
    assert np.allclose(drawn.geom_size[1:, 0], 2.0 * before[1:, 0])
    assert np.allclose(drawn.body_mass, 2.0 * nominal.body_mass)
    assert np.allclose(drawn.geom_size[2, 1], 0.5 * before[2, 1])
    assert np.allclose(drawn.geom_size[3:, 1], before[3:, 1])
    assert np.array_equal(nominal.geom_size, before)  # the shared one is as it was


def test_a_thin_and_a_thick_body(gl):
    areas = []
    models = [task_model(ENV, np.array([task])) for task in (0.5, 1.0, 2.0)]
    camera = frame(ENV, models, [at_rest(model) for model in models], [None] * 3, 1.5)
    for model in models:
        with Painter(model, camera, 192, 128) as painter:
            picture = painter.draw(model.qpos0)
        assert picture.shape == (128, 192, 3) and picture.dtype == np.uint8
        areas.append(colored(picture).mean())
    assert areas[0] > 0.01 and areas[1] > 1.4 * areas[0] and areas[2] > 1.4 * areas[1]


@pytest.mark.parametrize(
    "env", [ENV, Ant(variation="mass"), Humanoid(variation="mass")], ids=lambda env: env.body
)
def test_the_whole_body_is_seen_wherever_it_goes(env, gl):
    model = task_model(env, np.array([1.3]))
    path = at_rest(model, 5)
    path[:, 0] += [0, 0.4, 7.3, -60, 250]  # far over the floor, turned and lifted
    if env.body == "half_cheetah":
        path[:, 1:3] += [[0, 0], [0.8, 3], [0, 1.5], [0.3, -1.5], [0.1, 0.3]]
    else:
        path[:, 2] += [0, 0.9, 0.1, 0, 0.3]
        path[2, 3:7] = [0.7, 0, 0.7, 0]
    camera = frame(env, [model], [path], [None], 4 / 3)
    used = np.zeros((120, 160), bool)
    with Painter(model, camera, 160, 120) as painter:
        for qpos in path:
            body = colored(painter.draw(qpos))
            border = np.concatenate([body[0], body[-1], body[:, 0], body[:, -1]])
            assert body.sum() > 60 and not border.any()
            used |= body
    rows, columns = used.any(axis=1), used.any(axis=0)
    assert max(rows.mean(), columns.mean()) > 0.75  # and it is not small


def test_the_floor_moves_below_the_body_and_never_ends(gl):
    model = task_model(ENV, np.array([1.0]))
    path = at_rest(model, 4)
    path[:, 0] = [0, 0.5, 200, 200.5]
    camera = frame(ENV, [model], [path], [None], 1.0)
    with Painter(model, camera, 96, 96) as painter:
        here, later, far, far_later = (painter.draw(qpos).astype(int) for qpos in path)
    assert np.abs(here - later)[60:].mean() > 1
    assert np.abs(here - far).mean() < 0.2 and np.abs(later - far_later).mean() < 0.2


def test_a_goal_is_marked_where_it_is(gl):
    env, goal = Ant(variation="goal"), np.array([1.5, -1.0], np.float32)
    assert bodies.goal_of(ENV, goal) is None
    assert bodies.goal_of(env, goal).tolist() == [1.5, -1.0]
    model = task_model(env, goal)
    path = at_rest(model, 2)
    path[1, :2] = [1.0, -3.0]
    camera = frame(env, [model], [path], [goal], 1.0)
    seen = []
    with Painter(model, camera, 128, 128, goal) as painter:
        for qpos in path:
            picture = painter.draw(qpos).astype(int)
            green = picture[..., 1] - np.maximum(picture[..., 0], picture[..., 2]) > 40
            assert green.any()
            seen.append(np.argwhere(green).mean(axis=0))
    assert seen[1][0] < seen[0][0] - 10  # behind the body now, so higher up


def test_what_opengl_is_chosen(monkeypatch):
    there = set()
    monkeypatch.setattr(bodies, "_loads", there.__contains__)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "modules", {})  # reload nothing
    for libraries, chosen in (({"EGL", "OSMesa"}, "egl"), ({"OSMesa"}, "osmesa")):
        monkeypatch.delenv("MUJOCO_GL", raising=False)
        there.clear()
        there |= libraries
        choose_backend()
        assert bodies.os.environ["MUJOCO_GL"] == chosen
    monkeypatch.setenv("MUJOCO_GL", "glfw")  # the user's own
    choose_backend()
    assert bodies.os.environ["MUJOCO_GL"] == "glfw"
    monkeypatch.delenv("MUJOCO_GL")
    there.clear()
    with pytest.raises(UserError, match=r"libegl1 libegl-mesa0 .* libgl1, or libosmesa6"):
        choose_backend()
    monkeypatch.setattr(sys, "platform", "darwin")
    choose_backend()
    assert "MUJOCO_GL" not in bodies.os.environ


def test_an_opengl_that_does_not_work_is_one_line(monkeypatch):
    import mujoco

    def broken(*args):
        raise mujoco.FatalError("no context\nat all")

    monkeypatch.setattr(mujoco, "Renderer", broken)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(
        UserError, match=r"^MUJOCO_GL=glfw does not work here \(no context\): .*egl"
    ):
        bodies.check_drawing(ENV)


# ------------------------------------------------------------------ grids and files


def test_a_grid_of_panels():
    panel = np.full((40, 81, 3), 10, np.uint8)
    caption = Caption("RoML", "return -12", "a task of many words that are far too long for this")
    picture = video.grid([[(panel, caption)] * 3] * 2)
    gap, room = video._GAP, 27
    height, width = 2 * (room + 40 + gap) + gap, 3 * (81 + gap) + gap
    assert picture.shape == (height, width + 1, 3)  # even, even
    dark = (picture == 10).all(axis=2)
    for i in range(2):
        for j in range(3):
            top, left = gap + i * (room + 40 + gap), gap + j * (81 + gap)
            assert dark[top + room : top + room + 40, left : left + 81].all()
            assert not dark[top : top + room].any()
            assert (picture[top : top + room, left : left + 81] < 128).any()  # words
            assert (picture[:, left - gap : left] == 255).all()  # which stay in their panels


@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.parametrize("n", [1, 7])
def test_files_hold_what_was_added(n, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    pictures = np.full((n, 64, 600, 3), 240, np.uint8)
    for i, picture in enumerate(pictures):
        picture[:, 80 * i : 80 * i + 50] = (200, 60, 20)
    for ending in video.FORMATS:
        with video.open_video(tmp_path / f"new/video.{ending}", 25.0) as writer:
            for picture in pictures:
                writer.add(picture)
    reader = ffmpeg.read_frames(str(tmp_path / "new/video.mp4"))
    meta = next(reader)
    frames = [np.frombuffer(data, np.uint8).reshape(64, 600, 3) for data in reader]
    assert meta["size"] == (600, 64) and meta["fps"] == 25 and meta["codec"] == "h264"
    assert len(frames) == n
    for frame_, picture in zip(frames, pictures, strict=True):
        assert np.abs(frame_.astype(int) - picture).mean() < 4
    with Image.open(tmp_path / "new/video.gif") as gif:
        assert gif.size == (480, 51) and gif.n_frames == (n + 1) // 2
        for i in range(gif.n_frames):
            gif.seek(i)
            shown = np.asarray(gif.convert("RGB").resize((600, 64)), int)
            assert np.abs(shown - pictures[2 * i]).mean() < 4
            assert gif.n_frames == 1 or gif.info["duration"] == 80
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["video.gif", "video.mp4"]


@pytest.mark.parametrize("ending", video.FORMATS)
def test_a_video_that_fails_leaves_the_old_one(ending, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    file = tmp_path / f"video.{ending}"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), video.open_video(file, 10.0) as writer:
        writer.add(np.zeros((64, 64, 3), np.uint8))
        raise KeyboardInterrupt
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


# ------------------------------------------------------------------ the command


def run_main(words, capsys):
    """``(exit code, standard output, last line of standard error)``."""
    code = cli.run(render.main, words)
    told = capsys.readouterr()
    return code, told.out, told.err.strip().splitlines()[-1] if told.err else ""


@pytest.mark.filterwarnings("ignore:os.fork")
def test_two_runs_and_two_tasks(both, gl, capsys, monkeypatch):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    seen = []
    grid = video.grid
    monkeypatch.setattr(video, "grid", lambda panels: seen.append(panels) or grid(panels))
    words = [*both, "--tasks", "0.5", "2", "--size", "96x65", "--stride", "2", "--fps", "10"]
    code, out, _ = run_main(words, capsys)
    for path, run in zip(both, (tiny(method="baseline"), tiny()), strict=True):
        assert f"{path}: agent of step 0 of {built_of(run).total_steps}\n" in out
    name = "video-beside-roml-ppo-seed-1"
    assert code == 0 and f"{name}.mp4" in out and f"{name}.gif" in out
    mp4 = Path(both[0]) / f"{name}.mp4"
    size = (2 * (96 + 10) + 10, 2 * (27 + 65 + 10) + 10)
    meta = next(ffmpeg.read_frames(str(mp4)))
    assert ffmpeg.count_frames_and_secs(str(mp4))[0] == 4 and meta["size"] == size
    assert meta["fps"] == 10
    with Image.open(mp4.with_suffix(".gif")) as gif:
        assert gif.size == size and gif.n_frames == 2 and gif.info["duration"] == 200
    captions = [[[caption for _, caption in row] for row in panels] for panels in seen]
    assert len(captions) == 4
    for row, task in zip(captions[-1], ("0.5", "2"), strict=True):
        assert [caption.title for caption in row] == ["PPO", "RoML on PPO"]
        assert {caption.subtitle for caption in row} == {f"mass {task}, episode 2"}
    assert {c.value for row in captions[0] for c in row} == {"return 0"}
    # The rows show other bodies, and the runs other motions.
    (thin, other), (thick, _) = ([picture for picture, _ in row] for row in seen[-1])
    assert colored(thick).sum() > 1.5 * colored(thin).sum()
    assert not np.array_equal(thin, other)


def test_tasks_and_episodes_that_are_shown(both, monkeypatch, capsys, tmp_path):
    drawn = {}

    def fake(members, tasks, seed, which):
        drawn.update(tasks=tasks, seed=seed, which=which, runs=len(members))
        qpos = np.zeros((2, 7, len(tasks), 9)) + np.arange(2)[:, None, None, None]
        reward = np.broadcast_to(tasks[:, 0], (2, 6, len(tasks)))
        return [Replay(qpos, reward * np.array([1, 10])[:, None, None])] * len(members)

    captured = []
    monkeypatch.setattr(bodies, "choose_backend", lambda: None)
    monkeypatch.setattr(bodies, "check_drawing", lambda env: None)
    monkeypatch.setattr(drawing, "replay_runs", fake)
    monkeypatch.setattr(video, "open_video", lambda *args: captured_writer())
    cells = drawing._cells
    monkeypatch.setattr(drawing, "_cells", lambda *args: captured.extend(cells(*args)) or captured)
    monkeypatch.setattr(drawing, "_painters", lambda *args: contextlib.nullcontext())
    monkeypatch.setattr(drawing, "_panels", lambda *args: [[(np.zeros((64, 64, 3), np.uint8), "")]])
    monkeypatch.setattr(video, "grid", lambda panels: panels[0][0][0])

    class captured_writer:
        def __enter__(self):
            return SimpleNamespace(add=lambda picture: None)

        def __exit__(self, *error):
            (tmp_path / "new.gif").touch()

    words = [both[0], "--size", "64x64", "--out", str(tmp_path / "new.gif")]
    code, _, _ = run_main([*words, "--checkpoint", "newest", "--stride", "6"], capsys)
    assert code == 0 and drawn["tasks"].shape == (64, 1)
    assert (drawn["seed"], drawn["which"], drawn["runs"]) == (0, "final", 1)
    ranked = np.sort(drawn["tasks"][:, 0])
    told = [
        f"mass {ranked[i]:.3g} ({name}), episode 2" for i, name in ((60, "easy"), (32, "median"))
    ]
    assert [cell.task for cell in captured[:2]] == told
    assert np.allclose(captured[0].returns, [0, 60 * ranked[60]])  # of the last episode
    assert (captured[0].qpos == 1).all() and captured[0].qpos.shape == (2, 9)
    captured.clear()
    words += ["--tasks", "1.5", "--episode", "1", "--stride", "4", "--seed", "7"]
    code, _, _ = run_main([*words, "--checkpoint", "best-cvar"], capsys)
    assert code == 0 and drawn["tasks"].tolist() == [[1.5]]
    assert (drawn["seed"], drawn["which"]) == (7, "best-cvar")
    assert captured[0].returns.tolist() == [0, 6, 9] and (captured[0].qpos == 0).all()


def test_real_time():
    made = {}
    for env in (ENV, Humanoid(variation="mass")):
        options = RenderOptions(("x",), out=Path("x.gif"))
        member = (Path("x"), Run(PRESET, tiny(env), 5))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plan, "find_runs", lambda root: [root])
            patch.setattr(runs, "read_config", lambda path, run=member[1]: run)
            patch.setattr(bodies, "choose_backend", lambda: None)
            patch.setattr(bodies, "check_drawing", lambda env: None)
            made[env.body] = plan.make_plan(options)
    assert made["half_cheetah"].stride == 1 and made["half_cheetah"].fps == pytest.approx(20)
    assert made["humanoid"].stride == 3 and made["humanoid"].fps == pytest.approx(1 / 0.045)
    assert made["half_cheetah"].seed == 5


def test_labels_tell_runs_apart():
    def label(*members):
        return plan.run_labels(members)

    first = Run(PRESET, tiny(learner="varibad"), 0)
    other = Run(PRESET, tiny(method="baseline", learner="varibad"), 0)
    assert label(first) == ["RoML"] and label(first, other) == ["RoML", "VariBAD"]
    assert label(first, first._replace(seed=3)) == ["RoML, seed 0", "RoML, seed 3"]
    assert label(first, first.at_alpha(0.5)) == ["RoML, alpha 0.05", "RoML, alpha 0.5"]
    wide = first._replace(env=f"{PRESET}-wide")
    assert label(first, wide) == [f"RoML, {PRESET}", f"RoML, {PRESET}-wide"]
    assert label(first, first._replace(name="big")) == ["RoML", "RoML, big"]


def test_names_of_files(tmp_path):
    def names(*paths, **options):
        options = RenderOptions(**options)
        files = plan.choose_files(options, [tmp_path / path for path in paths])
        return [str(file.relative_to(tmp_path)) for file in files]

    (tmp_path / "a/seed-0").mkdir(parents=True)
    assert names("a/seed-0") == ["a/seed-0/video.mp4", "a/seed-0/video.gif"]
    assert names("a/seed-0", "b/seed-1", format="gif") == ["a/seed-0/video-beside-b-seed-1.gif"]
    many = [f"method-{i}-with-a-long-name/seed-0" for i in range(8)]
    assert names("a/seed-0", *many, format="mp4") == ["a/seed-0/video-of-9-runs.mp4"]
    assert names("a/seed-0", out=tmp_path / "x/y") == ["x/y.mp4", "x/y.gif"]
    assert names("a/seed-0", out=tmp_path / "v1.5") == ["v1.5.mp4", "v1.5.gif"]
    assert names("a/seed-0", out=tmp_path / "y.gif") == ["y.gif"]
    assert names("a/seed-0", out=tmp_path / "a", format="mp4") == ["a/video.mp4"]
    with pytest.raises(UserError, match=r"y\.gif does not end as --format mp4 does"):
        names("a/seed-0", out=tmp_path / "y.gif", format="mp4")


# ------------------------------------------------------------------ what goes wrong


@pytest.fixture
def nothing_runs(monkeypatch):
    """Fails a test as soon as something is traced or drawn."""

    def fail(*args, **kwargs):
        raise AssertionError("too late for an error")

    monkeypatch.setattr(replays, "build", fail)
    monkeypatch.setattr(bodies, "check_drawing", fail)
    monkeypatch.setattr(bodies, "choose_backend", fail)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--tasks abc", "--tasks abc: that is no number"),
        ("--tasks 1,", "--tasks 1,: that is no number"),
        ("--tasks 1 0.5,1", "--tasks 0.5,1: a task has 1 component, mass"),
        ("--tasks 1 2.1", "--tasks 2.1: mass lies between 0.5 and 2"),
        ("--tasks 0", "--tasks 0: mass lies between 0.5 and 2"),
        ("--tasks nan", "--tasks nan: mass lies between"),
        ("--tasks 1 1 1 1 1 1 1 1 1 1 1 1 1", "at most 12 tasks can be shown; got 13"),
        ("--episode 3", "--episode is one of 1 to 2; got 3"),
        ("--episode 0", "--episode is one of 1 to 2; got 0"),
        ("--size 320", "--size is WIDTHxHEIGHT in pixels, each from 64 to 1920"),
        ("--size 32x320", "got 32x320"),
        ("--fps 0", "--fps must be positive; got 0"),
        ("--fps nan", "--fps must be positive; got nan"),
        ("--stride -1", "--stride must be positive; got -1"),
        ("--stride 7", "--stride must be at most the 6 steps of an episode"),
        ("--seed -1", "--seed is a number from 0 to 4294967295; got -1"),
        ("--format avi", "--format 'avi' is unknown"),
        ("--out x.gif --format mp4", "--out x.gif does not end as --format mp4 does"),
        ("--task 1", "unknown flag --task, did you mean --tasks?"),
        ("--checkpoint best", "--checkpoint 'best' is unknown"),
    ],
)
def test_wrong_values_are_one_line_before_anything_runs(words, message, both, nothing_runs, capsys):
    code, _, told = run_main([both[0], *words.split()], capsys)
    assert code == 2 and told.startswith("error: ") and message in told


def test_runs_that_cannot_be_drawn(both, folder, nothing_runs, tmp_path, capsys):
    def told(*words):
        code, _, line = run_main(list(words), capsys)
        assert code == 2
        return line

    assert "say which runs first: python -m experiments.render RUN" in told()
    assert "is no directory" in told(str(tmp_path / "none"))
    assert "holds no run" in told(str(tmp_path))
    place = {"khazad-dum": tmp_path / "a", f"{PRESET}": tmp_path / "b"}
    wide = dataclasses.replace(ENV, horizon=7)
    for (env, path), experiment in zip(
        place.items(), (PRESETS["khazad-dum"].experiment, tiny(wide)), strict=True
    ):
        (path / "checkpoint" / "1").mkdir(parents=True)
        runs.write_config(path, Run(env, experiment, 0), [0])
    line = told(both[0], str(tmp_path / "a"))
    assert "is a run of khazad-dum, which has no body to draw" in line
    assert "those of ant, half-cheetah, humanoid have one" in line
    assert "cannot stand side by side: their tasks differ" in told(both[0], str(tmp_path / "b"))
    many = []
    for i in range(8):
        (tmp_path / f"{i}" / "checkpoint" / "1").mkdir(parents=True)
        runs.write_config(tmp_path / f"{i}", Run(PRESET, tiny(), i), [i])
        many.append(str(tmp_path / f"{i}"))
    assert "at most 8 runs can be shown; got 9" in told(both[0], *many)
    assert "all its runs" not in told(str(folder), "--episode", "9")  # a folder of runs will do


def test_an_engine_does_not_keep_runs_apart():
    here, there = (
        (Path(name), Run(PRESET, tiny(dataclasses.replace(ENV, physics=name)), 0))
        for name in ("mujoco", "mjx")
    )
    assert plan.shared_env([here, there]) == here[1].experiment.env


def test_vectors_are_tasks_too():
    env = Ant(variation="goal")
    assert plan.parse_tasks(env, ["1,-2", "-1e-1,0"]).tolist() == [[1, -2], [np.float32(-0.1), 0]]
    options = render._parse(["x", "--tasks", "-1,2", "3,4"])
    assert options.tasks == ("-1,2", "3,4")
    with pytest.raises(UserError, match="a task has 2 components, x,y"):
        plan.parse_tasks(env, ["1"])
    body = HalfCheetah(variation="body")
    assert plan.parse_tasks(body, ["0.5,1,2"]).shape == (1, 3)
    with pytest.raises(UserError, match=r"damping lies between 0\.5 and 2"):
        plan.parse_tasks(body, ["1,4,1"])
    assert plan.task_words(body, np.array([0.5, 1, 2])) == "mass 0.5, damping 1, head size 2"
    ten = HalfCheetah(variation="10d-a")
    assert plan.task_words(ten, np.full(10, 0.75)).startswith("task 0.75, 0.75")


def test_missing_packages_are_named(monkeypatch):
    missing = {"PIL", "imageio_ffmpeg"}
    monkeypatch.setattr(video, "find_spec", lambda name: None if name in missing else name)
    with pytest.raises(UserError, match=r"need PIL and imageio_ffmpeg: .*roml-jax\[video\]"):
        video.check_packages(["mp4", "gif"])
    missing.discard("PIL")
    video.check_packages(["gif"])
    with pytest.raises(UserError, match=r"^videos need imageio_ffmpeg: pip install"):
        video.check_packages(["mp4"])


def test_without_an_encoder(monkeypatch, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")

    def none():
        raise RuntimeError("no ffmpeg exe could be found")

    monkeypatch.setattr(ffmpeg, "get_ffmpeg_exe", none)
    with (
        pytest.raises(UserError, match="there is no ffmpeg for MP4 here"),
        video.open_video(tmp_path / "x.mp4", 10.0),
    ):
        pass
