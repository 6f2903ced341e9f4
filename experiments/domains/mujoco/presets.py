"""The paper's twelve families of continuous control, and wide variants for accelerators."""

from __future__ import annotations

import dataclasses
from typing import Any

from envs.mujoco import Ant, HalfCheetah, Humanoid
from envs.mujoco.body_env import BodyEnv
from experiments.domains.mujoco.others import PEARL, REFINE
from experiments.domains.mujoco.view import about_body, body_view, physics_words
from experiments.domains.paper import published
from experiments.domains.preset import ORIGINAL_BELIEF, ORIGINAL_POLICY, Preset
from experiments.spec.experiment import Experiment
from roml_jax.learners import PolicyConfig, PPOConfig, RL2Config, VariBADConfig
from roml_jax.learners.memory import RecurrentConfig
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

_FRAMES_PER_TASK = 2 * 200  # of one training step: K episodes of H steps
_WIDE_TASKS, _WIDE_STEPS = 1024, 600

_FRAMES = {
    "half-cheetah-vel": 30_000_000,
    "half-cheetah-mass": 30_000_000,
    "half-cheetah-body": 60_000_000,
    "half-cheetah-10d-a": 80_000_000,
    "half-cheetah-10d-b": 80_000_000,
    "half-cheetah-10d-c": 80_000_000,
    "humanoid-vel": 30_000_000,
    "humanoid-mass": 30_000_000,
    "humanoid-body": 60_000_000,
    "ant-goal": 100_000_000,
    "ant-mass": 100_000_000,
    "ant-body": 70_000_000,
}
_HARD = {"vel": (0.8,), "mass": (0.8,)}  # phi of the oracle: fast, and heavy


def presets() -> dict[str, Preset]:
    """The twelve families by name, then their wide variants."""
    usual = {name: _preset(name) for name in _FRAMES}
    return usual | {f"{name}-wide": _wide(preset) for name, preset in usual.items()}


def _preset(name: str) -> Preset:
    """The original code's settings of one family."""
    body = next(body for body in _BODIES if name.startswith(body))
    variation = name.removeprefix(f"{body}-")
    env, varibad = _BODIES[body](variation, _FRAMES[name])
    ten = variation.startswith("10d")
    alpha = 0.05
    cem: dict[str, Any] = {"beta": 0.2, "nu": 0.2, "batch": 512 if ten else 128, "soft_update": 0.5}
    methods: dict[str, Any] = {
        "baseline": BaselineConfig(alpha),
        "cvar-ml": CVaRMLConfig(alpha),
        "roml": RoMLConfig(alpha, **cem),
        "naive": NaiveConfig(alpha, pool=100),
        "oracle": OracleConfig(alpha, phi=_HARD.get(variation), nu=0.2),
        "cesor": CeSoRConfig(alpha, **cem),
        "paired": PAIREDConfig(alpha),
        # the second unit of a goal in a disk is its angle
        "mixture-cem": MixtureCEMConfig(alpha, circular=(1,) if variation == "goal" else ()),
    }
    experiment = Experiment(
        env=env,
        learner=varibad,
        method=methods["roml"],
        learner_name="varibad",
        method_name="roml",
        frames=_FRAMES[name],
        validation_tasks=32,
        validation_every=25,
        test_tasks=1008,
    )
    learners: dict[str, Any] = {
        "varibad": varibad,
        "ppo": PPOConfig(num_tasks=varibad.num_tasks, policy=varibad.policy),
        "rl2": _rl2(varibad.num_tasks, varibad.policy),
        "pearl": PEARL,
    }
    summary = f"MuJoCo: {', '.join(env.family.names) if not ten else 'ten factors'}"
    return Preset(
        summary,
        experiment,
        learners,
        methods,
        body_view,
        published(name),
        about=about_body,
        packages=("mujoco", "mujoco-mjx", "warp-lang", "gymnasium"),
        plan=lambda env: {"physics": physics_words(env)},
        refine=REFINE if body == "half-cheetah" else {},
    )


def _wide(preset: Preset) -> Preset:
    """Ours: 1,024 tasks a step, so a CVaR of 52 tasks, and few large updates."""
    base = preset.experiment
    policy = dataclasses.replace(
        base.learner.policy,
        minibatches=32,
        clip=0.2,
        learning_rate=1e-3,
        anneal_updates=_WIDE_STEPS,
    )
    belief = dataclasses.replace(
        base.learner.belief, updates=16, elbo_terms=50, decode_terms=50, truncation=50
    )
    varibad = dataclasses.replace(base.learner, num_tasks=_WIDE_TASKS, policy=policy, belief=belief)
    every_step = {
        name: dataclasses.replace(preset.methods[name], batch=None) for name in ("roml", "cesor")
    }
    experiment = dataclasses.replace(
        base,
        learner=varibad,
        method=every_step["roml"],
        frames=_WIDE_STEPS * _WIDE_TASKS * _FRAMES_PER_TASK,
        validation_tasks=1024,
        validation_every=10,
    )
    learners = {
        "varibad": varibad,
        "ppo": PPOConfig(num_tasks=_WIDE_TASKS, policy=policy),
        "rl2": _rl2(_WIDE_TASKS, policy),
    }
    return preset._replace(
        summary="1,024 tasks a step, for accelerators",
        experiment=experiment,
        learners=learners,
        methods=preset.methods | every_step,
        published={},
        refine={},
    )


def _rl2(num_tasks: int, policy: PolicyConfig) -> RL2Config:
    """Sizes of the recurrent baseline of VariBAD's authors, above the policy of VariBAD."""
    minibatches = max(m for m in range(1, policy.minibatches + 1) if num_tasks % m == 0)
    return RL2Config(
        num_tasks=num_tasks,
        policy=dataclasses.replace(
            policy, latent_embedding=None, normalize_latent=False, minibatches=minibatches
        ),
        memory=RecurrentConfig(hidden_size=128, latent_size=128),
    )


# ------------------------------------------------------------------ bodies

_POLICY = dataclasses.replace(ORIGINAL_POLICY, layers=(128, 128), discount=0.97, entropy_coef=0.01)


def _half_cheetah(variation: Any, frames: int) -> tuple[BodyEnv, VariBADConfig]:
    del frames  # the learning rate does not fall
    learner = VariBADConfig(
        num_tasks=16, warmup_frames=5000, policy=_POLICY, belief=ORIGINAL_BELIEF
    )
    return HalfCheetah(variation=variation), learner


def _ant(variation: Any, frames: int) -> tuple[BodyEnv, VariBADConfig]:
    """A step of 3,200 frames: 8 whole meta-episodes for the original's 16 halves."""
    num_tasks = 8
    policy = dataclasses.replace(
        _POLICY,
        initialization="orthogonal",
        normalize_latent=False,
        learning_rate=1e-3,
        anneal_updates=frames // (num_tasks * _FRAMES_PER_TASK),
        minibatches=1,
        clip=0.05,
    )
    terms = 100 if variation == "mass" else None
    belief = dataclasses.replace(
        ORIGINAL_BELIEF,
        latent_size=10,
        updates=5,
        truncation=None,
        elbo_terms=terms,
        decode_terms=terms,
    )
    learner = VariBADConfig(num_tasks=num_tasks, policy=policy, belief=belief)
    return Ant(variation=variation), learner


def _humanoid(variation: Any, frames: int) -> tuple[BodyEnv, VariBADConfig]:
    """A step of 12,800 frames: 32 tasks for the original's 16 times two in a row."""
    num_tasks = 32
    policy = dataclasses.replace(
        _POLICY,
        layers=(512, 256),
        initialization="orthogonal",
        obs_embedding=None,
        latent_embedding=None,
        squash=True,
        normalize_latent=False,
        discount=0.99,
        anneal_updates=frames // (num_tasks * _FRAMES_PER_TASK),
        epochs=4,
        minibatches=2,
        entropy_coef=0.001,
    )
    belief = dataclasses.replace(
        ORIGINAL_BELIEF,
        latent_size=10,
        updates=10,
        truncation=None,
        elbo_terms=100,
        decode_terms=100,
    )
    learner = VariBADConfig(num_tasks=num_tasks, policy=policy, belief=belief)
    return Humanoid(variation=variation), learner


_BODIES = {"half-cheetah": _half_cheetah, "humanoid": _humanoid, "ant": _ant}
