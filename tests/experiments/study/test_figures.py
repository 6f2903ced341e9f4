"""Figures of a comparison: what is drawn is what the tables say, and all of it can be read."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from scipy import stats

from experiments import cli, figures, style
from experiments.presets import PRESETS
from experiments.spec.words import join_row, split_row
from experiments.study import comparison as comparison_figures
from experiments.study import drawing, figure_parts, intervals
from experiments.study import results as compact
from experiments.study.figure_parts import NothingToDrawError
from experiments.study.options import FigureOptions

VARIANT = "cvar-ml:policy.unselected=constant_advantage"
METHODS = ["baseline", "roml", VARIANT]
NAMES = {"baseline": "VariBAD", "roml": "RoML"}
NAMES[VARIANT] = "CVaR-ML, policy.unselected=constant_advantage"
LEARNERS = ["varibad", "ppo", "rl2"]
PRODUCT = [join_row(learner, m, "varibad") for learner in LEARNERS for m in METHODS]
PLAIN = [row for row in PRODUCT if VARIANT not in row]
SEEDS = 4
FRAMES = np.array([0, 1_000_000, 2_000_000])
EDGES = [0.0, 0.05, 0.46, np.inf]
TASKS = [500, 400, 100]  # of each range
SHARES = {  # of each method: short_done, short_fall, long_done, long_fall, stay
    "baseline": (0.55, 0.05, 0.396, 0.001, 0.003),
    "roml": (0.03, 0.004, 0.964, 0.0, 0.002),
    VARIANT: (0.08, 0.0, 0.62, 0.0, 0.3),
}
OUTCOMES = ("short_done", "short_fall", "long_done", "long_fall", "stay")


def mean_of(method, seed):
    """The mean return of a method and a seed: spread unevenly, so that a mean is no median."""
    learner, plain = split_row(method)
    own = -0.05 * (LEARNERS.index(learner) if learner else 0)
    return own - 0.2 - 0.1 * METHODS.index(plain) - 0.01 * seed**2


def cvar_of(method, seed):
    return mean_of(method, seed) - 0.3


def rows_of(method, seed):
    """The rows of the test of one seed, the first of them over all tasks."""
    shares = dict(zip(OUTCOMES, SHARES[split_row(method)[1]], strict=True))
    row = {"method": method, "seed": seed, **shares}
    values = {"mean": mean_of(method, seed), "cvar": cvar_of(method, seed)}
    yield row | values | {"low": np.nan, "high": np.nan, "tasks": sum(TASKS)}
    for i, (low, high) in enumerate(itertools.pairwise(EDGES)):
        mean = mean_of(method, seed) - 0.05 * i
        yield row | {"low": low, "high": high, "tasks": TASKS[i], "mean": mean, "cvar": np.nan}


def episode_of(method, task, index, episode):
    """A path that goes up in one column, a different one in the last episode."""
    x = 2.0 if episode == 0 else 8.0
    own = {"method": method, "seed": 0, "task_0": task, "task_index": index, "episode": episode}
    ends = {"x": x, "outcome": "short_done" if episode == 0 else "long_fall"}
    return [own | ends | {"step": step, "y": 1.0 + step} for step in range(4)]


def make_results(methods=METHODS, seeds=SEEDS, moving=("roml",)):
    pairs = list(itertools.product(methods, range(seeds)))
    run = {"env": "khazad-dum", "alpha": 0.01}
    validation = [
        {"method": m, "seed": s, "step": i, "frames": f, "mean": mean_of(m, s) * (3 - i)}
        | {"cvar": cvar_of(m, s) * (3 - i)}
        for (m, s), (i, f) in itertools.product(pairs, enumerate(FRAMES))
    ]
    sampler = [
        {"method": m, "seed": s, "step": i, "frames": f, "phi_mean_rain": 0.1 + 0.1 * i + 0.01 * s}
        | {"sample_mean": -0.3 - 0.1 * s, "reference_mean": -0.2 - 0.1 * s}
        | {"reference_cvar": -0.6 - 0.1 * s}
        for (m, s), (i, f) in itertools.product(pairs, enumerate(FRAMES))
        if m in moving
    ]
    columns = ["method", "seed", "step", "frames", "phi_mean_rain", "sample_mean"]
    columns += ["reference_mean", "reference_cvar"]
    episodes = [
        row
        for m, task, i, k in itertools.product(methods, (0.02, 0.5), range(3), (0, 3))
        for row in episode_of(m, task, i, k)
    ]
    return compact.Results(
        pd.DataFrame(
            [
                run | {"method": m, "learner": split_row(m)[0] or "varibad", "seed": s}
                for m, s in pairs
            ]
        ),
        pd.DataFrame([row for m, s in pairs for row in rows_of(m, s)]),
        pd.DataFrame(validation),
        pd.DataFrame(sampler, columns=columns),
        pd.DataFrame(episodes),
        pd.DataFrame(columns=["method", "seed", "steps", "alpha", "cvar"]),
    )


def write(folder, results):
    folder.mkdir(parents=True)
    for name, table in results._asdict().items():
        table.to_csv(folder / f"{name}.csv", index=False)


def draw(name, results=None, methods=(), env="khazad-dum"):
    """The figure of a name, as the command draws it."""
    results = make_results() if results is None else results
    comparison = drawing.compare(FigureOptions(env, methods=tuple(methods)), results)
    return comparison_figures.FIGURES[name](results, comparison).figure


def line(ax, label):
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write(folder / "khazad-dum", make_results())
    return folder


def run(folder, out, *words):
    return cli.run(
        figures.main, ["khazad-dum", "--results", str(folder), "--out", str(out), *words]
    )


# ------------------------------------------------------------------ the command


def test_the_command_writes_and_names_every_file(folder, tmp_path, capsys):
    assert run(folder, tmp_path) == 0
    out = tmp_path / "khazad-dum"
    names = ("learning", "episodes", "test", "sampler", "paths", "ranges")
    files = [f"{name}.{kind}" for name in names for kind in ("png", "pdf")]
    files += ["captions.md", "table.md"]
    assert capsys.readouterr().out.split() == [str(out / file) for file in files]
    others = {"table.csv", "table.tex", "pairs.csv"}
    assert {file.name for file in out.iterdir()} == {*files, *others}
    captions = (out / "captions.md").read_text()
    assert all(f"**{name}.**" in captions for name in names) and "Student's t" in captions
    for name in names:
        data = (out / f"{name}.pdf").read_bytes()
        assert b"/FontFile2" in data and b"/CIDFontType2" in data  # TrueType
        assert b"/Type3" not in data and b"/FontType 3" not in data
        assert b"/CreationDate" not in data


def test_a_subset_keeps_order_and_looks(folder, tmp_path, capsys):
    words = ["--format", "png", "--methods", VARIANT, "baseline"]
    assert run(folder, tmp_path, *words) == 0
    told = capsys.readouterr().out.splitlines()
    assert "sampler: left out, no method here has a course of a task sampler" in told
    assert not (tmp_path / "khazad-dum" / "sampler.png").exists() and len(told) == 8
    whole, part = (draw("test", methods=m).axes[0] for m in ([], [VARIANT, "baseline"]))
    ticks = [label.get_text().split(",")[0] for label in part.get_yticklabels()]
    assert ticks == ["VariBAD", "CVaR-ML"]
    for name in (NAMES["baseline"], NAMES[VARIANT]):
        one, other = line(whole, name), line(part, name)
        assert one.get_color() == other.get_color() and one.get_marker() == other.get_marker()


def test_a_variant_keeps_its_look_without_the_others():
    row = {"learner": "varibad", "alpha": 0.01}
    specs = ["roml:nu=0", "roml", VARIANT]
    results = make_results()._replace(runs=pd.DataFrame([row | {"method": m} for m in specs]))
    options = FigureOptions("khazad-dum")
    whole = {m.spec: m.look for m in drawing.compare(options, results).methods}
    for spec in specs:
        options = FigureOptions("khazad-dum", methods=(spec,))
        (alone,) = drawing.compare(options, results).methods
        assert alone.look == whole[spec]
    assert len({look.color for look in whole.values()}) == 3


def test_presets_beside_each_other(tmp_path):
    ours, other = make_results(), make_results(methods=["roml"], seeds=2)
    tests = other.tests.assign(cvar=other.tests["cvar"] + 0.1)
    write(tmp_path / "khazad-dum", ours)
    write(tmp_path / "khazad-dum-paper", other._replace(tests=tests))
    words = ["--beside", "khazad-dum-paper", "--methods", "roml", "roml@khazad-dum-paper"]
    assert run(tmp_path, tmp_path / "out", "--format", "png", *words) == 0
    folder = tmp_path / "out" / "khazad-dum+khazad-dum-paper"
    assert "2 to 4 seeds" in (folder / "captions.md").read_text()

    both = compact.beside(
        *map(compact.read, sorted(tmp_path.glob("khazad-dum*"))), "khazad-dum-paper"
    )
    ax = draw("test", both, methods=("roml", "roml@khazad-dum-paper")).axes[1]
    (own,) = line(ax, NAMES["roml"]).get_xdata()
    (more,) = line(ax, "RoML, khazad-dum-paper").get_xdata()
    np.testing.assert_allclose(own, np.mean([cvar_of("roml", s) for s in range(4)]))
    np.testing.assert_allclose(more, 0.1 + np.mean([cvar_of("roml", s) for s in range(2)]))


@pytest.mark.parametrize("words, told", [
    (["khazad-dum", "--beside", "ant"], "unknown preset 'ant'; valid: khazad-dum-paper"),
    (["khazad-dun"], "did you mean khazad-dum?"),
    (["khazad-dum", "--methods", "romi"], "did you mean roml? valid: baseline, roml, cvar-ml:"),
    (["khazad-dum", "--format", "svg"], "unknown format 'svg'; valid: png, pdf"),
    (["khazad-dum", "--colour", "red"], "unknown flag --colour"),
    (["khazad-dum-paper"], "experiments.compare khazad-dum-paper;"),
    (["khazad-dum-paper"], "has results of: khazad-dum"),
    ([], "ENV: khazad-dum, khazad-dum-paper"),
])  # fmt: skip
def test_errors_are_one_line_that_says_what_is_valid(words, told, folder, tmp_path, capsys):
    tail = ["--results", str(folder), "--out", str(tmp_path / "out")] if words else []
    assert cli.run(figures.main, [*words, *tail]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and told in error
    assert not (tmp_path / "out").exists()


def test_missing_parts_leave_out_their_figures_only(tmp_path, capsys):
    results = make_results(moving=())
    tests = results.tests[results.tests["low"].isna()].drop(columns=list(OUTCOMES))
    results = results._replace(tests=tests, episodes=results.episodes[:0])
    write(tmp_path / "khazad-dum", results)
    assert run(tmp_path, tmp_path / "out", "--format", "pdf") == 0
    told = capsys.readouterr().out.splitlines()
    assert [words.split(":")[0] for words in told if "left out" in words] == [
        "episodes", "sampler", "paths", "ranges",
    ]  # fmt: skip
    written = {file.name for file in (tmp_path / "out" / "khazad-dum").iterdir()}
    words = {"captions.md", "table.md", "table.tex", "table.csv", "pairs.csv"}
    assert written == {"learning.pdf", "test.pdf", *words}


def test_an_environment_without_a_map(monkeypatch):
    preset = PRESETS["khazad-dum"]
    bare = preset._replace(view=lambda env: preset.view_of(env)._replace(map=None))
    monkeypatch.setitem(PRESETS, "khazad-dum", bare)
    with pytest.raises(NothingToDrawError, match="no map"):
        draw("episodes")


# ------------------------------------------------------------------ what is drawn


def test_learning_curves():
    figure = draw("learning")
    for ax, value in zip(figure.axes, (mean_of, cvar_of), strict=True):
        for i, method in enumerate(METHODS):
            seeds = np.array([[value(method, s) * (3 - k) for k in range(3)] for s in range(SEEDS)])
            drawn = line(ax, NAMES[method])
            np.testing.assert_array_equal(drawn.get_xdata(), FRAMES)
            np.testing.assert_allclose(drawn.get_ydata(), seeds.mean(0))
            half = stats.t.ppf(0.975, SEEDS - 1) * seeds.std(0, ddof=1) / np.sqrt(SEEDS)
            corners = ax.collections[i].get_paths()[0].vertices
            for x, y, h in zip(FRAMES, seeds.mean(0), half, strict=True):
                ends = corners[corners[:, 0] == x][:, 1]
                np.testing.assert_allclose([ends.min(), ends.max()], [y - h, y + h])
        assert "published" in [text.get_text() for text in ax.texts]
    published = PRESETS["khazad-dum"].published
    diamonds = [line for line in figure.axes[1].lines if line.get_marker() == "D"]
    assert [line.get_ydata()[0] for line in diamonds] == [published[m].cvar[0] for m in METHODS]
    assert [label.get_text() for label in figure.legends[0].get_texts()] == list(NAMES.values())


def test_bands_of_few_seeds_reach_from_the_lowest_to_the_highest():
    results, few = make_results(), SEEDS - 1
    part = results.validation[results.validation["seed"] < few]
    figure = draw("learning", results._replace(validation=part))
    seeds = np.array([[mean_of("roml", s) * (3 - k) for k in range(3)] for s in range(few)])
    corners = figure.axes[0].collections[METHODS.index("roml")].get_paths()[0].vertices
    for x, values in zip(FRAMES, seeds.T, strict=True):
        ends = corners[corners[:, 0] == x][:, 1]
        np.testing.assert_allclose([ends.min(), ends.max()], [values.min(), values.max()])


@pytest.mark.parametrize(
    "counts, words",
    [
        ((1, 1), ""),
        ((1, 3), "; bands: from the lowest to the highest seed"),
        ((4, 9), "; bands: 95 % confidence intervals over seeds by Student's t"),
        ((2, 4), ", or from the lowest to the highest seed of fewer than 4"),
    ],
)
def test_captions_say_what_bands_are(counts, words):
    rows = [(spec, s) for spec, n in zip("ab", counts, strict=True) for s in range(n)]
    methods = [figure_parts.Series(spec, "varibad", spec, None, None) for spec in "ab"]
    said = figure_parts.band_words(pd.DataFrame(rows, columns=["method", "seed"]), methods)
    assert said.endswith(words) and bool(said) == bool(words)


def test_short_names_stand_beside_their_lines():
    figure = draw("learning", methods=["baseline", "roml"])
    assert not figure.legends
    heights = {text.get_text(): text.get_position()[1] for text in figure.axes[1].texts}
    assert heights["VariBAD"] > heights["RoML"]  # as their last CVaR, -0.535 and -0.635


def test_tests_by_method():
    figure = draw("test")
    published = PRESETS["khazad-dum"].published
    columns = zip(figure.axes, (mean_of, cvar_of), ("mean", "cvar"), strict=True)
    for ax, value, column in columns:
        for i, method in enumerate(METHODS):
            seeds = np.array([value(method, seed) for seed in range(SEEDS)])
            assert ax.patches[i].get_width() == pytest.approx(seeds.mean())
            assert line(ax, NAMES[method]).get_xdata()[0] == pytest.approx(seeds.mean())
            drawn = [
                line.get_xdata() for line in ax.lines if i - 0.5 < line.get_ydata()[0] < i + 0.5
            ]
            interval = intervals.over_seeds(seeds)
            expected = published[method]._asdict()[column]
            for numbers in (seeds, interval[1:3], expected[1:], expected[:1]):
                assert any(len(xs) == len(numbers) and np.allclose(xs, numbers) for xs in drawn), (
                    method,
                    numbers,
                )


def test_a_learner_without_published_values():
    results = make_results()
    runs = results.runs.assign(learner="ppo")
    for name in ("test", "learning"):
        figure = draw(name, results._replace(runs=runs))
        assert not [line for line in figure.axes[0].lines if line.get_marker() == "D"]
        assert "published" not in [text.get_text() for text in figure.findobj(Text)]
    assert "PPO" in [label.get_text() for label in figure.legends[0].get_texts()]


# ------------------------------------------------------------------ learners


def test_colours_are_of_methods_and_dashes_of_learners():
    comparison = drawing.compare(FigureOptions("khazad-dum"), make_results(PRODUCT))
    looks = {m.spec: m.look for m in comparison.methods}
    assert len({str(look) for look in looks.values()}) == len(PRODUCT)
    for row, look in looks.items():
        learner, plain = split_row(row)
        assert (look.color, look.marker) == (looks[plain].color, looks[plain].marker)
        assert look.dash == looks[join_row(learner or "varibad", "roml", "varibad")].dash
    alone = drawing.compare(
        FigureOptions("khazad-dum", methods=("rl2/roml",)), make_results(PRODUCT)
    )
    assert alone.methods[0].look == looks["rl2/roml"]
    one = drawing.compare(FigureOptions("khazad-dum"), make_results(PRODUCT[3:6]))
    assert [m.look for m in one.methods] == list(style.looks(METHODS).values())  # as ever


def test_learning_curves_have_a_row_for_each_learner():
    figure = draw("learning", make_results(PLAIN))
    left, right = figure.axes[::2], figure.axes[1::2]
    assert [ax.get_title(loc="left") for ax in left] == ["VariBAD", "PPO", "RL²"]
    assert len({ax.get_ylim() for ax in right}) == 1  # so that learners can be compared
    for ax, learner in zip(left, LEARNERS, strict=True):
        rows = [join_row(learner, method, "varibad") for method in ("baseline", "roml")]
        drawn = [line for line in ax.lines if len(line.get_xdata()) == len(FRAMES)]
        for one, row in zip(drawn, rows, strict=True):
            means = np.mean([mean_of(row, seed) for seed in range(SEEDS)]) * np.array([3, 2, 1])
            np.testing.assert_allclose(one.get_ydata(), means)
    for ax in right:
        assert {"baseline", "RoML"} <= {text.get_text() for text in ax.texts}
    shown = ["published" in [text.get_text() for text in ax.texts] for ax in right]
    assert shown == [True, False, False]


@pytest.mark.parametrize("name", comparison_figures.FIGURES)
def test_figures_of_unknown_words(name):
    rows = ["roml", "dreamer/dream", "dreamer/baseline"]
    results = make_results(["roml", "ppo/roml", "ppo/baseline"], moving=("roml", "ppo/roml"))
    named = dict(zip(["ppo/roml", "ppo/baseline"], rows[1:], strict=True))
    results = compact.Results(*(t.replace({"method": named}) for t in results))
    results = results._replace(runs=results.runs.replace({"learner": {"ppo": "dreamer"}}))
    draw(name, results).draw_without_rendering()


def test_sampler_course():
    left, right = draw("sampler").axes
    phi = 0.115 + 0.1 * np.arange(3)  # mean over seeds 0 … 3 of 0.01 seed, and steps
    drawn = line(left, "mean_rain")
    np.testing.assert_allclose(drawn.get_ydata(), phi)
    single = [line.get_ydata() for line in left.lines if line.get_linewidth() < 0.5]
    np.testing.assert_allclose(single, [phi - 0.015 + 0.01 * seed for seed in range(SEEDS)])
    (level,) = [ys for ys in (line.get_ydata() for line in left.lines) if len(ys) == 2]
    np.testing.assert_allclose(level, 0.1)  # phi0: the mean rain of the preset
    ends = sorted(line.get_ydata()[0] for line in right.lines if line.get_xdata()[-1] == FRAMES[-1])
    np.testing.assert_allclose(ends, [-0.75, -0.45, -0.35])
    assert left.get_ylabel() == "φ: mean of rain"


def test_a_row_for_each_method_with_a_sampler():
    axes = draw("sampler", make_results(moving=("roml", VARIANT))).axes
    assert [ax.get_title(loc="left").split(",")[0] for ax in axes[::2]] == ["RoML", "CVaR-ML"]


def test_shares_of_outcomes():
    ax = draw("paths").axes[0]
    bars = ax.containers
    drawn = [[(bar.get_label(), bar.patches[0].get_width()) for bar in bars[i : i + 5]]
             for i in (0, 5, 10)]  # fmt: skip
    for method, slices in zip(METHODS, drawn, strict=True):
        expected = dict(zip(OUTCOMES, SHARES[method], strict=True))
        rare = expected.pop("long_fall")  # below 0.5 % with all methods
        assert [name for name, _ in slices] == [*expected, "other"]
        assert [width for _, width in slices] == pytest.approx([*expected.values(), rare])
    texts = [text.get_text() for text in ax.texts]
    assert {"short, done 55 %", "long, done 96 %", "stay 30 %", "short, fall 5.0 %"} <= set(texts)
    lefts = [bar.patches[0].get_x() for bar in bars[:5]]
    np.testing.assert_allclose(lefts, np.cumsum([0, 0.55, 0.05, 0.396, 0.003]))


def test_returns_by_range():
    results = make_results()
    empty = (results.tests["seed"] == 3) & (results.tests["low"] == 0.46)
    results.tests.loc[empty, ["tasks", "mean"]] = [0, np.nan]
    ax = draw("ranges", results).axes[0]
    for method in METHODS:
        seeds = np.array([mean_of(method, seed) for seed in range(SEEDS)])
        means = [seeds.mean(), seeds.mean() - 0.05, seeds[:3].mean() - 0.1]
        np.testing.assert_allclose(line(ax, NAMES[method]).get_ydata(), means)
        ends = intervals.over_seeds(seeds)[1:3]
        pairs = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == 2]
        assert any(np.allclose(pair, ends) for pair in pairs)
    # 12 runs of 500, 400 and 100 tasks, 3 of which lack the last
    shares = 100 * np.array([6000, 4800, 900]) / 11_700
    labels = [label.get_text().split("\n") for label in ax.get_xticklabels()]
    assert [words for words, _ in labels] == ["0\N{EN DASH}0.05", "0.05\N{EN DASH}0.46", "≥ 0.46"]
    assert [text for _, text in labels] == [
        f"{s:.0f} %" if s > 9.95 else f"{s:.1f} %" for s in shares
    ]


def test_last_episodes_are_on_the_map():
    axes = draw("episodes").axes
    assert len(axes) == 2 * len(METHODS)
    assert [ax.get_title(loc="left") for ax in axes[:2]] == ["rain 0.02", "rain 0.5"]
    for ax in axes:
        paths = [p.vertices for part in ax.collections for p in part.get_paths() if len(p) == 4]
        up = [path for path in paths if (path[:, 0] == 8.0).all()]
        assert len(up) == 3 and all((path[:, 1] == [1, 2, 3, 4]).all() for path in up)
        assert not any((path[:, 0] == 2.0).all() for path in paths)  # the first episode
    looks = [
        marks.get_facecolor()[0][:3]
        for marks in axes[0].collections
        if len(marks.get_offsets()) == 3
    ]
    fell = (0xE8 / 255, 0x59 / 255, 0x0C / 255)  # of render_khazad_dum
    assert any(np.allclose(color, fell) for color in looks)


@pytest.mark.filterwarnings("error")
def test_one_seed_has_no_intervals():
    results = make_results(seeds=1)
    for name in comparison_figures.FIGURES:
        draw(name, results).draw_without_rendering()
    assert not draw("learning", results).axes[0].collections


# ------------------------------------------------------------------ whether it can be read


def shown_texts(figure):
    """All texts of a figure but the labels of ticks outside their axes."""
    hidden = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low <= tick.get_loc() <= high:
                    hidden |= {tick.label1, tick.label2}
    texts = [text for text in figure.findobj(Text) if text not in hidden]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("name", comparison_figures.FIGURES)
@pytest.mark.parametrize(
    "rows, methods", [(METHODS, ()), (METHODS, ("baseline", "roml")), (PLAIN, ()), (PRODUCT, ())]
)
def test_no_text_is_clipped_or_overlaps(name, rows, methods):
    figure = draw(name, make_results(rows, moving=[m for m in rows if "roml" in m]), methods)
    figure.draw_without_rendering()
    boxes = {text: text.get_window_extent() for text in shown_texts(figure)}
    width, height = figure.bbox.size
    for text, box in boxes.items():
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1
        assert inside, text.get_text()
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        depth = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(depth) < 1, (one.get_text(), other.get_text())


def test_methods_are_told_apart_without_colour():
    specs = ["baseline", "cvar-ml", "roml", "naive", "oracle"]
    variants = [f"roml:nu={i}" for i in range(12)]
    looks = style.looks([*specs, *variants])
    for a, b in itertools.combinations(specs + variants[:3], 2):
        assert looks[a].dash != looks[b].dash or looks[a].marker != looks[b].marker
        apart = abs(style.luminance(looks[a].color) - style.luminance(looks[b].color))
        assert apart > 0.05 or looks[a].dash != looks[b].dash, (a, b)
    assert len({str(look) for look in looks.values()}) == len(looks)
    alone = style.looks(["roml", *variants[:2]])
    assert all(looks[spec] == look for spec, look in alone.items())


def test_luminance_and_ink():
    assert style.luminance("#000000") == 0 and style.luminance("#FFFFFF") == pytest.approx(1)
    assert style.luminance("#808080") == pytest.approx(0.2159, abs=1e-4)  # sRGB 128
    for color in (style.ORANGE, style.YELLOW, style.SKY):
        assert 4.5 <= 1.05 / (style.luminance(style.ink(color)) + 0.05) < 5.2
    assert style.ink(style.BLACK) == style.BLACK


def test_labels_are_spread_and_wrapped():
    np.testing.assert_allclose(style.spread([0.5, 0.5, 0.9], [0.2] * 3), [0.5, 0.7, 0.9])
    np.testing.assert_allclose(style.spread([0.95, 0.95], [0.2] * 2), [0.7, 0.9])
    np.testing.assert_allclose(style.spread([-1.0, 0.6], [0.2] * 2), [0.1, 0.6])
    assert style.wrap("RoML, nu=0, soft_update=0") == "RoML, nu=0,\nsoft_update=0"
    wrapped = style.wrap(NAMES[VARIANT])
    assert wrapped == "CVaR-ML,\npolicy.unselected=\nconstant_advantage"


def test_save_writes_png_of_the_right_size(tmp_path):
    figure, _ = style.new_figure(2.0, 1.0)
    style.save(figure, tmp_path / "a.png")
    from matplotlib.image import imread

    assert imread(tmp_path / "a.png").shape[:2] == (200, 400)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
