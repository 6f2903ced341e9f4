"""PAIRED: tasks of an adversary that seeks the regret against a rival."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from roml_jax import risk, samplers
from roml_jax.checks import check_choice
from roml_jax.methods.kind import MethodKind
from roml_jax.types import Alpha, Family, MetaAlgorithm
from roml_jax.wrappers import rivals

Adversary: TypeAlias = Literal["phi", "network"]
ADVERSARIES = ("phi", "network")


@dataclass(frozen=True)
class PAIREDConfig:
    """Settings of PAIRED.

    Attributes:
      alpha: fraction of worst tasks in the reported CVaR, in (0, 1].
      adversary: what it moves: the parameter of the task distribution (phi), or single tasks
        (network), as in the published runs.
      clip_regret: take negative regrets for 0.
      phi_learning_rate: of an adversary over phi, in deviations of the task distribution.
      nu: fraction of tasks from the original distribution, beside an adversary over phi.
      network_learning_rate: of an adversary over tasks; the rest likewise.
      network_layers: sizes of its hidden layers.
      noise: uniform random numbers that it sees.
      network_epochs: passes over the tasks of a step.
      network_minibatches: of each pass; must divide the tasks of a step.
      network_clip: bound on the probability ratio.
      network_entropy: weight of the entropy of its tasks.
    """

    alpha: float = 0.05
    adversary: Adversary = "phi"
    clip_regret: bool = True
    phi_learning_rate: float = 0.1
    nu: float = 0.0
    network_learning_rate: float = 3e-4
    network_layers: tuple[int, ...] = (64, 64)
    noise: int = 50
    network_epochs: int = 8
    network_minibatches: int = 4
    network_clip: float = 0.2
    network_entropy: float = 0.01

    def __post_init__(self) -> None:
        """Checks what the samplers do not."""
        risk.check_alpha(self.alpha)
        check_choice("adversary", self.adversary, ADVERSARIES)


def paired(
    family: Family, alpha: Alpha = 1.0, *, adversary: Adversary = "phi", **settings: Any
) -> MetaAlgorithm:
    """PAIRED's adversary; the learner below it is to be ``wrappers.rivals``.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks in the reported CVaR, in (0, 1].
      adversary: "phi", ``samplers.adversary``, or "network", ``samplers.designer``.
      **settings: of that sampler.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Dennis et al. (2020), Alg. 1; Greenberg et al. (2023), Section 6.
    """
    check_choice("adversary", adversary, ADVERSARIES)
    make: Any = {"phi": samplers.adversary, "network": samplers.designer}[adversary]
    return MetaAlgorithm(make(family, **settings), risk.everything(), risk.check_alpha(alpha))


def _make(family: Family, config: PAIREDConfig, steps: int) -> MetaAlgorithm:
    own: dict[str, Any] = {"learning_rate": config.phi_learning_rate, "nu": config.nu}
    if config.adversary == "network":
        own = {
            "learning_rate": config.network_learning_rate,
            "layers": config.network_layers,
            "noise": config.noise,
            "epochs": config.network_epochs,
            "minibatches": config.network_minibatches,
            "clip": config.network_clip,
            "entropy_coef": config.network_entropy,
        }
    return paired(
        family,
        config.alpha,
        adversary=config.adversary,
        clip_regret=config.clip_regret,
        **own,
    )


PAIRED = MethodKind(
    PAIREDConfig,
    _make,
    label="PAIRED",
    wrap=lambda learner, config: rivals(learner),
    look=("#56B4E9", "X", (0, (8, 2))),
)
