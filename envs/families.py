"""The families of tasks, each made once: environments are asked for theirs again and again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable

from roml_jax import families
from roml_jax.types import Family


def _once(make: Callable[..., Family]) -> Callable[..., Family]:
    """The same factory, whose families are kept by its arguments; nobody can change them."""

    @functools.cache
    def made(*args: Hashable, **options: Hashable) -> Family:
        family = make(*args, **options)
        family.phi0.setflags(write=False)
        return family

    return made


beta = _once(families.beta)
disk = _once(families.disk)
exponential = _once(families.exponential)
log2_beta = _once(families.log2_beta)
