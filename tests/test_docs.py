"""The Python of the README and of all pages in docs/ runs as it stands, and does what is said.

The blocks of a page run in order in one namespace, with the strict settings of all tests.
"""

import contextlib
import importlib
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cli, compare, evaluate, figures, render
from experiments.presets import PRESETS
from experiments.spec.errors import UserError
from experiments.spec.learners import LEARNERS
from roml_jax.methods import METHODS

ROOT = Path(__file__).parents[1]
README = "README.md"
PAGES = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))]

# The check of key reuse takes a vmap of a scan over keys for reuse: it is off in these blocks.
FALSE_ALARMS = ("jax.vmap(init)", "jax.vmap(search", "jax.vmap(tail_after_training)", "seeds=range")


class Block(NamedTuple):
    code: str
    line: int  # lines of the page before it

    @property
    def checks_keys(self):
        return not any(text in self.code for text in FALSE_ALARMS)


def blocks(page):
    text = (ROOT / page).read_text()
    found = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [Block(m[1], text[: m.start(1)].count("\n")) for m in found]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """``(page, blocks) -> namespace``; presets and learners that a page adds are taken away."""
    tables = [PRESETS, LEARNERS, METHODS, *(preset.learners for preset in PRESETS.values())]
    monkeypatch.chdir(tmp_path)

    def run(page, chosen):
        module = types.ModuleType("page")  # as classes want one that they are defined in
        monkeypatch.setitem(sys.modules, "page", module)
        for block in chosen:
            code = compile("\n" * block.line + block.code, ROOT / page, "exec")
            with jax.debug_key_reuse(block.checks_keys):
                exec(code, module.__dict__)
        return types.SimpleNamespace(**module.__dict__)

    with contextlib.ExitStack() as stack:
        for table in tables:
            stack.enter_context(mock.patch.dict(table))
        yield run


# ------------------------------------------------------------------ README


def test_readme_shows_two_programs():
    assert len(blocks(README)) == 2


def test_lifted_functions_run(run, capsys):
    run(README, blocks(README)[:1])
    phi, *references = re.findall(r"-?\d+\.\d+", capsys.readouterr().out)
    assert float(phi) > 0.2  # harder than the original mean of 0.1
    assert float(references[1]) < float(references[0])  # the CVaR is below the mean


@pytest.mark.slow
def test_whole_training_runs(run):
    assert run(README, blocks(README)[1:]).state.step.tolist() == [1, 1, 1]


# ------------------------------------------------------------------ docs/


def your_environment(page):
    test = page.test(page.trained.learner).returns
    assert test.mean() > page.test(page.untrained.learner).returns.mean() + 0.3
    phi = dict(zip(page.family.phi_names, page.trained.sampler.phi.tolist(), strict=True))
    assert phi["std_current"] > 0.1 and phi["phi_load"] > 0.55  # 0.08 and 0.5 at first
    assert page.env.family.phi0.tolist() == pytest.approx([0, 0.08, 0.5])
    assert "boat" in PRESETS and page.built.env == page.Boat()


def your_environment_finds_faults(page):
    class Wrong(page.Boat):
        def step(self, key, state, action, task):
            state, out = super().step(key, state, action, task)
            return state, out._replace(**self.fault)

    faults = {"obs": jnp.zeros(2), "reward": jnp.nan * jnp.zeros(()), "terminated": jnp.zeros(())}
    for name, value in faults.items():
        env = Wrong()
        object.__setattr__(env, "fault", {name: value})
        with pytest.raises(ValueError, match=name):
            page.check_env(env, jax.random.key(0))


def your_learner(page):
    assert page.last > page.first + 0.3
    assert page.state.step == 60
    assert page.built.experiment.learner == page.ReinforceConfig()

    def leaks(key, state, data, weights):
        return page.learner.update(key, state, data, jnp.ones_like(weights))

    with pytest.raises(AssertionError):
        page.check(jax.random.key(0), page.env, page.learner._replace(update=leaks))


def lift_a_function(page):
    # Squared errors of the worst tenth cannot be less than those of the best line for it.
    np.testing.assert_allclose(page.line[1], 2, atol=0.2)
    assert page.loss < 0.5 and page.params["out"].shape == (16,)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(
            lambda x: page.gru_scan(x, page.kernel, jnp.zeros(24), page.valid, page.cut).sum(),
            (page.inputs,),
            (page.inputs,),
        )


def supervised(page):
    mean, tail = ({name: course[1][i] for name, course in page.losses.items()} for i in range(2))
    assert tail["RoML"] < tail["MAML"] and mean["MAML"] < mean["RoML"]
    for course in page.losses.values():
        assert course[1][0] < course[0][0]  # a step helps
    # The readings of quick thermometers are the hard ones to fit.
    assert 0.2 < page.delays[0] < page.delays[2] < 3.0
    assert page.built.total_steps == 2000 and "thermometer" in PRESETS


def continuous_control(page):
    assert len(set(page.returns.tolist())) == 8 and jnp.isfinite(page.returns).all()
    assert 0.2 < page.state.seen["xpos"][1, 2] < 0.75  # it falls on its feet
    fields = page.refresh(page.fields, page.cheetah, "raw")
    np.testing.assert_allclose(fields["body_subtreemass"][0], 28, rtol=1e-6)
    np.testing.assert_allclose(fields["dof_damping"], page.cheetah.dof_damping / 2, rtol=1e-6)


def learners(page):
    assert page.state.step == 10 and page.learner.agent.init_carry(3)[0].shape == (3,)
    assert jnp.isfinite(page.metrics["return_mean"]).all()
    total, count = page.running_mean().init_carry(2)
    seen = page.running_mean().read((), (total - 3.0, count + 2.0))
    np.testing.assert_allclose(seen[0], [-1.5, np.log(3)], rtol=1e-6)
    assert page.left.shape == (2, 1000) and (page.left >= 0).all()
    told = re.search(r"# (-\S+), (-\S+)\n", (ROOT / "docs/learners.md").read_text(encoding="utf-8"))
    got = page.best.mean(), page.played.returns.mean()
    np.testing.assert_allclose(got, [float(number) for number in told.groups()], atol=0.005)


def python(page):
    assert list(page.scores.index) == [0, 1] and page.roml.finished
    assert {"mean", "cvar"} <= {*page.scores} and "cvar_by_halves" in page.again
    assert page.agent.step == page.roml.agent().step and page.agent.phi["mean_rain"] > 0
    assert list(page.comparison.table.index)[:2] == ["PPO", "RoML on PPO"]
    assert page.own.paths[0].parts[-3:] == ("khazad-dum", "some-rain-ppo", "seed-0")
    assert page.own.runs[0].experiment.env.horizon == 16
    assert page.action.shape == (1,) and 0 <= page.action[0] < 5


def quick_start(page):
    assert page.state.step == 3 and jnp.isfinite(page.metrics["return_mean"])
    assert page.state.sampler.phi[0] > 0.1  # more rain than in the original distribution


RESULTS = {
    "docs/python.md": (python,),
    "docs/quick-start.md": (quick_start,),
    "docs/learners.md": (learners,),
    "docs/continuous-control.md": (continuous_control,),
    "docs/your-environment.md": (your_environment, your_environment_finds_faults),
    "docs/your-learner.md": (your_learner,),
    "docs/lift-a-function.md": (lift_a_function,),
    "docs/supervised.md": (supervised,),
}


def as_case(page):
    """A page that trains as the commands do is slow; ``test_api`` has what it says, smaller."""
    return pytest.param(page, marks=pytest.mark.slow) if page == "docs/python.md" else page


@pytest.mark.parametrize("page", [as_case(page) for page in PAGES if blocks(page)])
def test_page_runs(page, run, capsys):
    result = run(page, blocks(page))
    print(capsys.readouterr().out)
    for check in RESULTS[page]:
        check(result)


def test_presets_are_as_before():
    assert not {"boat", "thermometer"} & set(PRESETS) and "reinforce" not in LEARNERS
    assert "reinforce" not in PRESETS["khazad-dum"].learners


@pytest.mark.parametrize("page", [README, *PAGES])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


# ------------------------------------------------------------------ the site

with mock.patch.object(sys, "path", [str(ROOT / "docs"), *sys.path]):
    api = importlib.import_module("api")


def test_all_that_is_public_has_a_docstring_and_a_page():
    assert api.faults() == []


def test_public_is_what_can_be_imported():
    """Against the modules themselves, which ``docs/api.py`` only reads."""
    loaded = {name: importlib.import_module(name) for name in api.modules() if "envs" not in name}
    told = {
        (module, name.name): vars(loaded[module])[name.name]
        for module, names in api.public().items()
        if module in loaded
        for name in names
    }
    for module in loaded.values():
        for name in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]):
            value = vars(module)[name]
            own = getattr(value, "__module__", None) == module.__name__
            if hasattr(module, "__all__") or (own and "._" not in module.__name__):
                shown = [told[place] for place in told if place[1] == name]
                assert any(value is other for other in shown), (module.__name__, name)


def test_faults_are_named(tmp_path):
    blocks = ["roml_jax.risk\nroml_jax.nowhere", "roml_jax.risk"]
    page = "".join(f"```{{api}}\n{block}\n```\n" for block in blocks)
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    faults = api.faults(tmp_path)
    assert "No page shows roml_jax.quantiles." in faults
    assert "No page shows roml_jax.risk." not in faults
    assert "roml_jax.risk is shown twice." in faults
    assert "A page shows roml_jax.nowhere: no such module." in faults
    bare = api.ast.parse("def bare(): pass").body[0]
    assert not api.Name("roml_jax.risk", "bare", bare, "roml_jax.risk").has_docstring


def test_every_page_is_in_a_table_of_contents():
    found = {"docs/index.md"}
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for block in re.findall(r"^```{toctree}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
            for entry in block.split():
                if not entry.startswith(":"):
                    paths = (ROOT / page).parent.glob(f"{entry}.md")
                    found |= {str(path.relative_to(ROOT)) for path in paths}
    assert found == set(PAGES)


@pytest.mark.slow
def test_site_is_built_without_a_warning(tmp_path):
    for needed in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(needed)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", tmp_path]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    estimators = (tmp_path / "reference/estimators.html").read_text(encoding="utf-8")
    assert 'id="roml_jax.risk.cvar_two_sample"' in estimators
    assert "jaxlib" not in estimators and ":param" not in estimators


# ------------------------------------------------------------------ commands

COMMAND = re.compile(r"^(?:\$ )?python -m experiments\.(\w+)((?:[^\n]*\\\n)*[^\n]*)$", re.MULTILINE)
PARSERS = {
    "train": cli.parse_train,
    "compare": compare._parse,
    "evaluate": evaluate._parse,
    "figures": figures._parse,
    "render": render._parse,
}


def commands(page):
    """Every line of a shell block that calls a command: ``(name, words)``."""
    text = (ROOT / page).read_text()
    for block in re.findall(r"^```bash\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        for name, rest in COMMAND.findall(block):
            words = shlex.split(rest.replace("\\\n", " "), comments=True)
            yield name, words[: words.index("&")] if "&" in words else words


@pytest.mark.parametrize("page", [README, "experiments/results/README.md", *PAGES])
def test_commands_are_understood(page):
    for name, words in commands(page):
        asks = words == ["--list"]  # nothing to parse
        if name in PARSERS and not asks and not any("$" in word for word in words):
            PARSERS[name](words)


def test_commands_are_found():
    assert len(list(commands(README))) > 5
    with pytest.raises(UserError, match="did you mean --horizon"):
        PARSERS["train"](["khazad-dum", "--env.horizon", "5"])
