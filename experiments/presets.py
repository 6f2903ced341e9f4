"""The presets that commands offer, by name: a line for each folder of ``domains``."""

from __future__ import annotations

from experiments.domains.khazad_dum import presets as khazad_dum
from experiments.domains.mujoco import presets as mujoco
from experiments.domains.point import presets as point
from experiments.domains.preset import Preset, Published
from experiments.domains.sine import presets as sine

PRESETS: dict[str, Preset] = {
    **khazad_dum.presets(),
    **sine.presets(),
    **point.presets(),
    **mujoco.presets(),
}
DEFAULT_ENV = "khazad-dum"

__all__ = ["DEFAULT_ENV", "PRESETS", "Preset", "Published"]
