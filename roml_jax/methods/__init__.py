"""The robust meta-algorithms: which tasks to draw, paired with how much to learn from each.

``METHODS`` is the table that command lines and comparisons choose from; a new method is one
module and one line in it, or, from outside, ``METHODS["name"] = MethodKind(…)``.
"""

from roml_jax.methods.baseline import BASELINE, BaselineConfig, baseline
from roml_jax.methods.capped import CAPPED, CappedConfig, capped, with_cap
from roml_jax.methods.cesor import CESOR, CeSoRConfig, cesor
from roml_jax.methods.cvar_ml import CVAR_ML, CVaRMLConfig, cvar_ml, soft_cvar_ml
from roml_jax.methods.dro import DRO, DROConfig, dro
from roml_jax.methods.kind import MethodKind
from roml_jax.methods.learnability import LEARNABILITY, LearnabilityConfig, learnability
from roml_jax.methods.mixture_cem import MIXTURE_CEM, MixtureCEMConfig, mixture_cem
from roml_jax.methods.naive import NAIVE, NaiveConfig, naive
from roml_jax.methods.oracle import ORACLE, OracleConfig, oracle
from roml_jax.methods.paired import PAIRED, PAIREDConfig, paired
from roml_jax.methods.replay import REPLAY, ReplayConfig, replay
from roml_jax.methods.roml import ROML, RoMLConfig, roml

METHODS: dict[str, MethodKind] = {
    "baseline": BASELINE,
    "cvar-ml": CVAR_ML,
    "roml": ROML,
    "naive": NAIVE,
    "cesor": CESOR,
    "paired": PAIRED,
    "mixture-cem": MIXTURE_CEM,
    "capped": CAPPED,
    "replay": REPLAY,
    "dro": DRO,
    "learnability": LEARNABILITY,
    "oracle": ORACLE,
}

__all__ = [
    "METHODS",
    "BaselineConfig",
    "CVaRMLConfig",
    "CappedConfig",
    "CeSoRConfig",
    "DROConfig",
    "LearnabilityConfig",
    "MethodKind",
    "MixtureCEMConfig",
    "NaiveConfig",
    "OracleConfig",
    "PAIREDConfig",
    "ReplayConfig",
    "RoMLConfig",
    "baseline",
    "capped",
    "cesor",
    "cvar_ml",
    "dro",
    "learnability",
    "mixture_cem",
    "naive",
    "oracle",
    "paired",
    "replay",
    "roml",
    "soft_cvar_ml",
    "with_cap",
]
