"""Sine regression: fit ``y = A sin(ω x + b)`` from a few examples.

The task is ``(amplitude A, phase b, frequency ω)``. The higher the amplitude, the larger
the errors: a learner that is good on average can be poor on the worst tasks.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from envs import families
from roml_jax.families import Fit
from roml_jax.types import Family, PRNGKey

TASK_NAMES = ("amplitude", "phase", "frequency")
PERIOD = 2 * math.pi  # inputs are drawn from [0, PERIOD)


@dataclasses.dataclass(frozen=True)
class Sine:
    """Settings of the problem, and its pure functions; a ``roml_jax.types.TaskData``.

    Attributes:
      amplitude: range of A, in units of y.
      phase: range of b, in radians.
      frequency: range of ω, in radians per unit of x.
      eps: see ``families.beta``.
      fit: see ``families.beta``.
      clip_density: RoML weighs tasks by clipped densities, as the original code does; see
        ``families.beta``.

    Reference: Greenberg et al. (2023), Section 6.3 and Appendix E, after Finn et al. (2017).
    """

    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, PERIOD)
    frequency: tuple[float, float] = (0.3, 3.0)
    eps: float = 0.001
    fit: Fit = "moments"
    clip_density: bool = True

    @property
    def family(self) -> Family:
        """Uniform tasks in the box, tilted by the mean of each component (App. E).

        Raises:
          ValueError: a range is empty, or ``eps`` or ``fit`` is out of range.
        """
        low, high = zip(self.amplitude, self.phase, self.frequency, strict=True)
        return families.beta(
            low,
            high,
            eps=self.eps,
            fit=self.fit,
            name=TASK_NAMES,
            clip_density=self.clip_density,
        )

    def sample_batch(
        self, key: PRNGKey, task: Float[Array, "3"], n: int
    ) -> tuple[Float[Array, "{n}"], Float[Array, "{n}"]]:
        """Draws n examples of one task.

        Args:
          key: of the inputs; the labels are without noise.
          task: ``[3]``, amplitude, phase and frequency.
          n: number of examples.

        Returns:
          ``x[n]``, uniform in ``[0, 2π)``, and ``y[n]``.
        """
        x = jax.random.uniform(key, (n,), maxval=PERIOD)
        return x, self.label(task, x)

    def label(self, task: Float[Array, "3"], x: Float[Array, " N"]) -> Float[Array, " N"]:
        """``A sin(ω x + b)`` for ``x[N]``."""
        amplitude, phase, frequency = task
        return amplitude * jnp.sin(frequency * x + phase)
