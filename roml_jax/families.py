"""Parametric families of task distributions ``D_phi``, each with its original ``phi0``.

A factory returns a ``Family``: pure functions to sample tasks, to weigh them, and to fit
``phi`` to the weighted tasks of a tail. Tasks and ``phi`` are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from jaxtyping import Key as KeyArray

from roml_jax.types import Family

Fit: TypeAlias = Literal["moments", "ml"]
Key: TypeAlias = KeyArray[Array, ""]
Number: TypeAlias = float | int
Numbers: TypeAlias = Number | Sequence[Number] | np.ndarray
Names: TypeAlias = str | Sequence[str] | None

_UNIT_GUARD = 1e-6  # keeps densities finite at samples that hit 0 or 1, even with eps=0
_BISECTIONS = 32  # halvings of (0, 1): below the resolution of float32


def exponential(mean: Number = 0.1, name: str = "task") -> Family:
    """Exponential tasks on ``[0, ∞)``; ``phi`` is their mean.

    Args:
      mean: mean of the original distribution, positive.
      name: the task component.

    Returns:
      A ``Family`` with D = P = 1. The fitted mean (moments and maximum likelihood agree)
      is at least ``1e-6 * mean``, so that a tail of zeros leaves a distribution.

    Raises:
      ValueError: ``mean`` is not positive.

    Reference:
      Greenberg et al. (2023), App. D.1 (Khazad-Dum).
    """
    if not 0 < mean < np.inf:
        raise ValueError(f"mean={mean} of an exponential must be positive and finite.")

    def sample(key: Key, phi: Float[Array, "1"], n: int) -> Float[Array, "{n} 1"]:
        return phi[0] * jax.random.exponential(key, (n, 1), jnp.float32)

    def log_prob(tasks: Float[Array, "n 1"], phi: Float[Array, "1"]) -> Float[Array, " n"]:
        return -tasks[:, 0] / phi[0] - jnp.log(phi[0])

    def fit(tasks: Float[Array, "n 1"], weights: Float[Array, " n"]) -> Float[Array, "1"]:
        return jnp.maximum(_mean(tasks, weights), 1e-6 * mean)

    phi0 = jnp.asarray([mean], jnp.float32)
    return Family(phi0, sample, log_prob, fit, (name,), (f"mean_{name}",))


def beta(
    low: Numbers, high: Numbers, *, eps: float = 0.02, fit: Fit = "moments", name: Names = "task"
) -> Family:
    """Uniform tasks in the box ``[low, high]``, tilted by ``phi``: the mean of each unit.

    Component j is ``low_j + (high_j - low_j) * u_j`` with independent
    ``u_j ~ Beta(2 phi_j, 2 - 2 phi_j)``, so that ``E[u_j] = phi_j`` and ``phi = 0.5`` is
    uniform.

    Args:
      low: lower corner, a number or D numbers.
      high: upper corner, a number or D numbers, above ``low``.
      eps: in [0, 0.5); densities are those at ``u`` clipped to ``[eps, 1 - eps]``, and
        fitted ``phi`` are clipped to that range too. The clip bounds the weights but
        biases them: with ``phi0 = 0.5`` the mean weight exceeds 1 by about
        ``eps * (1 / (2 phi) + 1 / (2 - 2 phi) - 2)`` per component (2 % at eps 0.02 and
        ``phi = 0.8``). With 0, a numerical guard of 1e-6 remains.
      fit: "moments" (weighted mean, as in the original code) or "ml" (maximum
        likelihood, as in Alg. 2 line 16).
      name: the components' names, or one name for all, which is then numbered.

    Returns:
      A ``Family`` with P = D, and ``phi0 = 0.5`` everywhere.

    Raises:
      ValueError: an argument is out of range, or lengths differ.

    Reference:
      Greenberg et al. (2023), App. D.2 and E (reparameterised uniform tasks).
    """
    low_d, span = _box(low, high)

    def to_unit(tasks: Float[Array, "n D"]) -> Float[Array, "n D"]:
        return (tasks - low_d) / span

    def from_unit(u: Float[Array, "n D"]) -> Float[Array, "n D"]:
        return low_d + span * u

    return _unit_beta(to_unit, from_unit, eps, fit, _names(name, span.size))


def log2_beta(
    low: Number = -1.0,
    high: Number = 1.0,
    dim: int = 1,
    *,
    eps: float = 0.02,
    fit: Fit = "moments",
    names: Names = None,
) -> Family:
    """Factors ``2 ** x`` with ``x`` as in ``beta(low, high)``: log-uniform at ``phi0``.

    Args:
      low: lower bound of ``log2`` of every component.
      high: upper bound of ``log2`` of every component, above ``low``.
      dim: D, the number of components.
      eps: as in ``beta``.
      fit: as in ``beta``.
      names: as in ``beta``.

    Returns:
      A ``Family`` with P = D = ``dim``, and ``phi0 = 0.5`` everywhere.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), App. D.2 (mass, body and ten-dimensional tasks).
    """
    if dim < 1:
        raise ValueError(f"dim={dim} is a number of task components: it must be at least 1.")
    low_d, span = _box((low,) * dim, (high,) * dim)

    def to_unit(tasks: Float[Array, "n D"]) -> Float[Array, "n D"]:
        return (jnp.log2(tasks) - low_d) / span

    def from_unit(u: Float[Array, "n D"]) -> Float[Array, "n D"]:
        return jnp.exp2(low_d + span * u)

    return _unit_beta(to_unit, from_unit, eps, fit, _names(names, dim))


def disk(
    radius: Number,
    *,
    eps: float = 0.0,
    fit: Fit = "moments",
    radial: Literal["area", "linear"] = "area",
    names: Names = ("x", "y"),
) -> Family:
    """Points ``(x, y)`` in a disk, tilted in radius and in angle.

    Two independent units as in ``beta``: ``rho`` for the radius and ``t`` for the angle
    ``2 pi t``.

    Args:
      radius: of the disk, positive.
      eps: as in ``beta``.
      fit: as in ``beta``.
      radial: "area" has ``r = radius * sqrt(rho)``, uniform over the area at ``phi0``;
        "linear" is the paper's ``r = radius * rho``.
      names: as in ``beta``.

    Returns:
      A ``Family`` with D = P = 2 and ``phi0 = (0.5, 0.5)``.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), App. D.2 (Ant-Goal).

    Differs from the original code, whose inverse recovers ``t`` half a turn off, so that
    weights and fit see another angle than was sampled.
    """
    if not 0 < radius < np.inf:
        raise ValueError(f"radius={radius} of a disk must be positive and finite.")
    power = {"area": 2.0, "linear": 1.0}.get(radial)
    if power is None:
        raise ValueError(f"radial={radial!r} is unknown: choose 'area' or 'linear'.")

    def to_unit(tasks: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
        x, y = tasks[:, 0], tasks[:, 1]
        rho = (jnp.hypot(x, y) / radius) ** power
        t = jnp.mod(jnp.arctan2(y, x) / (2 * jnp.pi), 1.0)
        return jnp.stack([rho, t], axis=-1)

    def from_unit(u: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
        r, angle = radius * u[:, 0] ** (1 / power), 2 * jnp.pi * u[:, 1]
        return jnp.stack([r * jnp.cos(angle), r * jnp.sin(angle)], axis=-1)

    phi_names = ("phi_radius", "phi_angle")
    return _unit_beta(to_unit, from_unit, eps, fit, _names(names, 2), phi_names)


def normal(mean: Numbers, std: Numbers, *, min_std: float = 0.01, name: Names = "task") -> Family:
    """Independent normal components; ``phi`` is their D means, then their D standard deviations.

    Args:
      mean: original means, a number or D numbers.
      std: original standard deviations, positive, a number or D numbers.
      min_std: in (0, 1]; a fitted standard deviation is at least this part of the original
        one, so that a tail of one task leaves a distribution.
      name: as in ``beta``.

    Returns:
      A ``Family`` with P = 2D. The fit is the weighted mean and the weighted (biased)
      standard deviation, where moments and maximum likelihood agree.

    Raises:
      ValueError: an argument is out of range, or lengths differ.
    """
    mean_d, std_d = _pair("mean", mean, "std", std)
    if not (std_d > 0).all():
        raise ValueError(f"std={std} of a normal must be positive in every component.")
    if not 0 < min_std <= 1:
        raise ValueError(f"min_std={min_std} is a part of std: choose it in (0, 1].")
    names = _names(name, mean_d.size)
    lowest = np.float32(min_std) * std_d

    def split(phi: Float[Array, " P"]) -> distrax.Normal:
        mean_phi, std_phi = jnp.split(phi, 2)
        return distrax.Normal(mean_phi[None], std_phi[None])

    def sample(key: Key, phi: Float[Array, " P"], n: int) -> Float[Array, "{n} D"]:
        return split(phi).sample(seed=key, sample_shape=(n,))[:, 0]

    def log_prob(tasks: Float[Array, "n D"], phi: Float[Array, " P"]) -> Float[Array, " n"]:
        return split(phi).log_prob(tasks).sum(axis=-1)

    def fit(tasks: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " P"]:
        m = _mean(tasks, weights)
        s = jnp.sqrt(_mean((tasks - m[None]) ** 2, weights))
        return jnp.concatenate([m, jnp.maximum(s, lowest)])

    phi0 = jnp.asarray(np.concatenate([mean_d, std_d]))
    phi_names = tuple(f"{kind}_{n}" for kind in ("mean", "std") for n in names)
    return Family(phi0, sample, log_prob, fit, names, phi_names)


def categorical(
    probs: Sequence[Number] | np.ndarray, *, eps: float = 0.01, name: str = "class"
) -> Family:
    """One of C classes; the task is the class index as a float, ``phi`` the probabilities.

    Args:
      probs: C original probabilities, positive, of any scale.
      eps: in [0, 1 / C); a fitted probability is clipped to at least ``eps`` before all
        are scaled to sum to 1, so that no class dies out. With 0, the fit is the maximum
        of the likelihood.
      name: the task component.

    Returns:
      A ``Family`` with D = 1 and P = C.

    Raises:
      ValueError: ``probs`` or ``eps`` is out of range.
    """
    p = np.asarray(probs, np.float64)
    if p.ndim != 1 or p.size < 2 or not (np.isfinite(p) & (p > 0)).all():
        raise ValueError(f"probs={probs} must be two or more positive numbers.")
    if not 0 <= eps < 1 / p.size:
        raise ValueError(f"eps={eps} is a probability floor: choose it in [0, {1 / p.size:.3g}).")

    def sample(key: Key, phi: Float[Array, " P"], n: int) -> Float[Array, "{n} 1"]:
        index = distrax.Categorical(probs=phi).sample(seed=key, sample_shape=(n,))
        return index.astype(jnp.float32)[:, None]

    def log_prob(tasks: Float[Array, "n 1"], phi: Float[Array, " P"]) -> Float[Array, " n"]:
        return jnp.log(phi)[tasks[:, 0].astype(jnp.int32)]

    def fit(tasks: Float[Array, "n 1"], weights: Float[Array, " n"]) -> Float[Array, " P"]:
        one_hot = jax.nn.one_hot(tasks[:, 0].astype(jnp.int32), p.size, dtype=tasks.dtype)
        phi = jnp.maximum(_mean(one_hot, weights), eps)
        return phi / phi.sum()

    phi0 = jnp.asarray(p / p.sum(), jnp.float32)
    return Family(phi0, sample, log_prob, fit, (name,), tuple(f"p_{i}" for i in range(p.size)))


def product(*families: Family) -> Family:
    """Independent families side by side: their tasks and their ``phi`` are concatenated.

    Args:
      *families: one or more, with different component names.

    Returns:
      A ``Family`` with the sums of D and of P.

    Raises:
      ValueError: there is no family, or a name occurs twice.
    """
    names = sum((f.names for f in families), ())
    phi_names = sum((f.phi_names for f in families), ())
    if not families:
        raise ValueError("product() needs at least one family.")
    if len({*names}) < len(names) or len({*phi_names}) < len(phi_names):
        raise ValueError(f"names {names} and {phi_names} must be unique: name the families.")
    split_tasks = partial(_split, sizes=[len(f.names) for f in families])
    split_phi = partial(_split, sizes=[len(f.phi_names) for f in families])

    def sample(key: Key, phi: Float[Array, " P"], n: int) -> Float[Array, "{n} D"]:
        keys = jax.random.split(key, len(families))
        parts = zip(families, keys, split_phi(phi), strict=True)
        return jnp.concatenate([f.sample(k, p, n) for f, k, p in parts], axis=-1)

    def log_prob(tasks: Float[Array, "n D"], phi: Float[Array, " P"]) -> Float[Array, " n"]:
        parts = zip(families, split_tasks(tasks), split_phi(phi), strict=True)
        return jnp.stack([f.log_prob(z, p) for f, z, p in parts]).sum(axis=0)

    def fit(tasks: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " P"]:
        parts = zip(families, split_tasks(tasks), strict=True)
        return jnp.concatenate([f.fit(z, weights) for f, z in parts])

    phi0 = jnp.concatenate([f.phi0 for f in families])
    return Family(phi0, sample, log_prob, fit, names, phi_names)


def _unit_beta(
    to_unit: Callable[[Array], Array],
    from_unit: Callable[[Array], Array],
    eps: float,
    fit: str,
    names: tuple[str, ...],
    phi_names: tuple[str, ...] | None = None,
) -> Family:
    """Tasks that are a fixed map of independent ``Beta(2 phi, 2 - 2 phi)`` units.

    The Jacobian of the map does not depend on ``phi`` and is left out of ``log_prob``.
    """
    if not 0 <= eps < 0.5:
        raise ValueError(f"eps={eps} clips units to [eps, 1 - eps]: choose it in [0, 0.5).")
    fits = {"moments": lambda u, w: _mean(u, w), "ml": _beta_ml}
    if fit not in fits:
        raise ValueError(f"fit={fit!r} is unknown: choose 'moments' or 'ml'.")
    edge = max(eps, _UNIT_GUARD)

    def clip(u: Array) -> Array:
        return jnp.clip(u, edge, 1 - edge)

    def sample(key: Key, phi: Float[Array, " D"], n: int) -> Float[Array, "{n} D"]:
        a = 2 * clip(phi)
        return from_unit(distrax.Beta(a, 2 - a).sample(seed=key, sample_shape=(n,)))

    def log_prob(tasks: Float[Array, "n D"], phi: Float[Array, " D"]) -> Float[Array, " n"]:
        a = 2 * clip(phi)[None]
        return distrax.Beta(a, 2 - a).log_prob(clip(to_unit(tasks))).sum(axis=-1)

    def fit_phi(tasks: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " D"]:
        u = to_unit(tasks)
        return clip(fits[fit](clip(u) if fit == "ml" else u, weights))

    phi0 = jnp.full((len(names),), 0.5, jnp.float32)
    phi_names = phi_names or tuple(f"phi_{n}" for n in names)
    return Family(phi0, sample, log_prob, fit_phi, names, phi_names)


def _beta_ml(u: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " D"]:
    """Maximum likelihood of ``Beta(2 phi, 2 - 2 phi)``, per component.

    The likelihood is highest where ``digamma(2 phi) - digamma(2 - 2 phi)``, which grows
    with ``phi`` over the whole real line, equals the mean of ``log(u) - log(1 - u)``.
    """
    target = _mean(jnp.log(u) - jnp.log1p(-u), weights)

    def halve(_: int | Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        mid = (low + high) / 2
        slope = jax.scipy.special.digamma(2 * mid) - jax.scipy.special.digamma(2 - 2 * mid)
        return jnp.where(slope < target, mid, low), jnp.where(slope < target, high, mid)

    bounds = (jnp.zeros_like(target), jnp.ones_like(target))
    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, bounds)
    return jnp.where(jnp.isfinite(target), (low + high) / 2, jnp.nan)


def _mean(x: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " D"]:
    """The weighted mean over n."""
    return (weights[:, None] * x).sum(axis=0) / weights.sum()


def _split(x: Array, sizes: list[int]) -> list[Array]:
    """Cuts the last axis into pieces of the given sizes."""
    return jnp.split(x, np.cumsum(sizes)[:-1].tolist(), axis=-1)


def _pair(name_a: str, a: Numbers, name_b: str, b: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Two float32 vectors of the same length D, from numbers or sequences.

    They stay NumPy, as all constants that a family closes over: a factory may be called
    inside a traced function.
    """
    vectors = [np.atleast_1d(np.asarray(v, np.float32)) for v in (a, b)]
    sizes = {v.size for v in vectors} - {1}
    if any(v.ndim != 1 or not np.isfinite(v).all() for v in vectors) or len(sizes) > 1:
        raise ValueError(
            f"{name_a}={a} and {name_b}={b} must be finite numbers or sequences of one length."
        )
    dim = sizes.pop() if sizes else 1
    first, second = (np.broadcast_to(v, (dim,)) for v in vectors)
    return first, second


def _box(low: Numbers, high: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """The lower corner ``[1, D]`` and the size ``[1, D]`` of a box."""
    low_d, high_d = _pair("low", low, "high", high)
    if not (low_d < high_d).all():
        raise ValueError(f"low={low} must be below high={high} in every component.")
    return low_d[None], (high_d - low_d)[None]


def _names(names: Names, dim: int) -> tuple[str, ...]:
    """One name for each of ``dim`` components."""
    if names is None:
        names = "task"
    if isinstance(names, str):
        return (names,) if dim == 1 else tuple(f"{names}_{i}" for i in range(dim))
    if len(names) != dim:
        raise ValueError(f"{len(names)} names {tuple(names)} for {dim} task components.")
    return tuple(names)
