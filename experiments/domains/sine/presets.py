"""Settings of the published experiment on sine regression."""

from __future__ import annotations

from math import nan
from typing import Any

from envs.sine import Sine
from experiments.domains.preset import Preset, Published
from experiments.domains.sine.view import sine_view
from experiments.spec.experiment import Experiment
from roml_jax.learners import MAMLConfig
from roml_jax.methods import (
    BaselineConfig,
    CeSoRConfig,
    CVaRMLConfig,
    MixtureCEMConfig,
    NaiveConfig,
    OracleConfig,
    PAIREDConfig,
    RoMLConfig,
)


def presets() -> dict[str, Preset]:
    """All of them, by name."""
    return {"sine": sine()}


def sine() -> Preset:
    """The original code's settings: 10,000 meta-iterations of 20 tasks, nu 0."""
    maml = MAMLConfig(
        num_tasks=20,
        support=10,
        query=10,
        test_query=32,
        inner_steps=1,
        test_steps=5,
        inner_learning_rate=0.01,
        first_order=False,
        learning_rate=1e-3,
        average="batch",
        layers=(40, 40),
        activation="relu",
    )
    alpha = 0.05
    cem: dict[str, Any] = {"beta": 0.2, "nu": 0.0, "batch": 200, "soft_update": 0.5}
    methods: dict[str, Any] = {
        "baseline": BaselineConfig(alpha),
        "cvar-ml": CVaRMLConfig(alpha),
        "roml": RoMLConfig(alpha, **cem),
        "naive": NaiveConfig(alpha, pool=100),
        # high amplitudes, frequencies a little higher
        "oracle": OracleConfig(alpha, phi=(0.95, 0.5, 0.6), nu=0.0),
        "cesor": CeSoRConfig(alpha, **cem),
        "paired": PAIREDConfig(alpha),
        "mixture-cem": MixtureCEMConfig(alpha),
    }
    experiment = Experiment(
        env=Sine(),
        learner=maml,
        method=methods["roml"],
        learner_name="maml",
        method_name="roml",
        frames=10_000 * 20 * (10 + 10),
        validation_tasks=100,
        validation_every=2000,
        test_tasks=10_000,
        evaluation_seed=0,
        tested="best",
    )
    losses = {  # mean and CVaR 0.05 after 0 … 4 inner steps, 30 seeds, read off plots to ±0.1
        "baseline": ((4.3, 13.0), (2.93, 11.1), (2.69, 11.45), (2.68, 12.4), (2.70, 13.1)),
        "cvar-ml": ((4.3, 12.95), (3.65, 11.45), (3.39, 11.45), (3.29, 11.8), (3.24, 12.2)),
        "roml": ((4.4, 13.1), (3.33, 10.85), (3.11, 10.7), (3.00, 10.8), (2.97, 11.0)),
    }
    published = {}
    for name, course in losses.items():
        mean, tail = course[maml.inner_steps]
        returns = tuple((-mean, -tail) for mean, tail in course)
        published[name] = Published((-mean, nan, nan), (-tail, nan, nan), returns)
    summary = "supervised: sine regression of the published numbers"
    return Preset(summary, experiment, {"maml": maml}, methods, sine_view, published)
