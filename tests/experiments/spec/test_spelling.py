"""Values as sweep tools, YAML and JSON write them."""

import pytest

from experiments import cli
from experiments.spec.errors import UserError
from experiments.spec.experiment import settings

SPELLINGS = [
    (["--strict=True"], {"strict": True}),
    (["--strict=false"], {"strict": False}),
    (["--strict", "False"], {"strict": False}),
    (["--no-strict"], {"strict": False}),
    (["--policy.normalize-obs=0"], {"policy.normalize_obs": False}),
    (["--policy.normalize_obs=yes"], {"policy.normalize_obs": True}),
    (["--policy.no-normalize-obs"], {"policy.normalize_obs": False}),
    (["--batch=null"], {"batch": None}),
    (["--batch=None"], {"batch": None}),
    (["--evaluation-seed", "Null"], {"evaluation_seed": None}),
    (["--wandb=null"], {"wandb": None}),
    (["--name=none"], {"name": None}),
    (["--policy.layers=[40,40]"], {"policy.layers": (40, 40)}),
    (["--policy.layers=40,40"], {"policy.layers": (40, 40)}),
    (["--policy.layers=(40,)"], {"policy.layers": (40,)}),
    (["--policy.layers", "[40,", "30]"], {"policy.layers": (40, 30)}),
    (["--policy.layers", "40", "30"], {"policy.layers": (40, 30)}),
    (["--alphas=[0.1, 0.2]"], {"alphas": (0.1, 0.2)}),
    (["--seeds=[0,1]"], {"seeds": (0, 1)}),
    (["--seeds=0..3"], {"seeds": (0, 1, 2, 3)}),
    (["--strict", "--nu", "0.3"], {"strict": True, "nu": 0.3}),
    (["--num_tasks=7", "--frames=8e6"], {"num_tasks": 7, "frames": 8_000_000}),
    (["--frames", "1.5M"], {"frames": 1_500_000}),
    (["--frames", "700k"], {"frames": 700_000}),
    (["--frames=2_000K"], {"frames": 2_000_000}),
    (["--frames=1G"], {"frames": 10**9}),
]


@pytest.mark.parametrize(("words", "wanted"), SPELLINGS, ids=lambda x: " ".join(map(str, x)))
def test_as_other_tools_write_it(words, wanted):
    found = settings(cli.parse_train(["khazad-dum", "--num-tasks", "8", *words])[1])
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--strict=maybe"], "maybe"),
        (["--batch=nothing"], "nothing"),
        (["--policy.layers=[40,x]"], "layers"),
        (["--nu=null"], "nu"),
        (["--frames=8Mi"], "frames"),
        (["--frames=0.5"], "frames"),
        (["--stict=True"], "did you mean --strict"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_one_line(words, told):
    with pytest.raises(UserError, match=told) as error:
        cli.parse_train(["khazad-dum", *words])
    assert len(str(error.value).splitlines()) == 1


def test_variants_of_a_comparison():
    from experiments.study.schedule import parse_spec

    method, words = parse_spec("roml:batch=null,strict=false")
    found = settings(cli.parse_train(["khazad-dum", "--method", method, *words])[1])
    assert found["batch"] is None and found["strict"] is False
