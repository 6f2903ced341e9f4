"""Whether JAX finds the device that it was told to use."""

from __future__ import annotations

import os
import subprocess
import sys

import jax

from experiments.spec.errors import UserError

_NAMES = "import jax; print(', '.join(sorted({d.platform for d in jax.devices()})))"


def check_devices() -> None:
    """Starts JAX's backend.

    Raises:
      UserError: there is none of the kind that was asked for; names those that are there.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # of a backend, and of one without a plugin
        wanted = jax.config.values["jax_platforms"]
        raise UserError(
            f"JAX finds no device for JAX_PLATFORMS={wanted}; without it there is {_there()}: "
            "unset it, or install what the device needs, pip install 'roml-jax[cuda]' for a GPU"
        ) from error


def _there() -> str:
    """The platforms that another process finds, as this one cannot look twice."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run(
        [sys.executable, "-c", _NAMES], env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "none"
