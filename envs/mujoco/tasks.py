"""What a task changes of a body: the fields of its model, and what follows from them.

Every variation of a body is a list of factors on fields of the MuJoCo model (``Scale``);
``apply_task`` multiplies them in. What MuJoCo computes from those fields when it compiles a
model is then stale, and ``Derived`` says what is done about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .host import gather, make_batch, on_host, scatter
from .physics import Model

DERIVED = ("raw", "consistent", "original")
Derived: TypeAlias = Literal["raw", "consistent", "original"]

_CAPSULE, _SPHERE = 3, 2  # mjtGeom
_AT_CENTRE = 2  # mjtSameFrame: the geom's frame is that of its body's inertia
_CONSTANTS = (  # what mj_setConst derives and a step depends on
    "body_subtreemass",
    "body_invweight0",
    "dof_invweight0",
    "dof_M0",
    "tendon_invweight0",
    "actuator_acc0",
)


class Scale(NamedTuple):
    """One component of the task as a factor on a field of the model, or on a part of it."""

    field: str  # of MjModel
    component: int  # of the task
    rows: tuple[int, ...] | None = None  # bodies, geoms, …; None for all
    column: int | None = None  # of the field's second axis; None for all


def nominal(model: Any, changes: Sequence[Scale], derived: Derived) -> dict[str, np.ndarray]:
    """The fields that differ from task to task, with the values of the unchanged body.

    Args:
      model: an ``MjModel``.
      changes: what tasks do to it.
      derived: see ``refresh``.

    Returns:
      Arrays by name.
    """
    names = {change.field for change in changes}
    if names & {"body_mass"}:
        names |= {"body_subtreemass"}
    if names & {"geom_size", "geom_rbound"} and derived != "original":
        names |= {"geom_size", "geom_rbound", "geom_aabb"}
    if names & {"body_ipos"}:
        names |= {"geom_pos"}
    if derived == "consistent" and names:
        names |= {name for name in _CONSTANTS if getattr(model, name).size}
        names |= {"body_inertia"} if "body_mass" in names else set()
    return {name: np.array(getattr(model, name)) for name in sorted(names)}


def apply_task(model: dict[str, Any], task: Float[Array, " D"], changes: Sequence[Scale]) -> Model:
    """The model's fields under a task; everything that follows from them is left stale.

    Args:
      model: the unchanged body, see ``nominal``.
      task: D factors.
      changes: where they enter.

    Returns:
      The same fields; those that no change names are as they were.
    """
    new = {name: jnp.asarray(value) for name, value in model.items()}
    for change in changes:
        factor = np.ones(model[change.field].shape, bool)
        if change.rows is not None:
            factor[np.setdiff1d(np.arange(len(factor)), change.rows)] = False
        if change.column is not None:
            factor[:, np.arange(factor.shape[1]) != change.column] = False
        new[change.field] *= jnp.where(factor, task[change.component], 1.0)
    return new


def refresh(fields: Model, model: Any, derived: Derived) -> Model:
    """Brings up to date what MuJoCo would derive from the fields of a task.

    Args:
      fields: from ``apply_task``.
      model: the ``MjModel`` of the unchanged body.
      derived: ``"raw"``: masses of subtrees and bounds of geoms follow, so that all engines
        see the same physics; rotational inertias and inverse weights, which soften
        constraints, stay those of the unchanged body, as in the original code.
        ``"consistent"``: inertias are scaled with the masses, and all constants are those
        of ``mj_setConst``. ``"original"``: as raw, but the bounds stay behind as well, and
        MuJoCo in C overlooks contacts of thick geoms. In all three, a geom that is centred on
        its body's mass stays so when ``body_ipos`` changes, as always in MuJoCo in C.

    Returns:
      The same fields.
    """
    fields = dict(fields)
    if "body_ipos" in fields:
        centre = fields["body_ipos"][model.geom_bodyid]
        at_centre = np.asarray(model.geom_sameframe == _AT_CENTRE)[:, None]
        fields["geom_pos"] = jnp.where(at_centre, centre, fields["geom_pos"])
    if derived == "consistent" and "body_mass" in fields:
        was = jnp.asarray(model.body_mass)
        ratio = jnp.where(was > 0, fields["body_mass"] / jnp.where(was > 0, was, 1.0), 1.0)
        fields["body_inertia"] *= ratio[:, None]
    if derived == "consistent" and fields:
        return _set_const(fields, model)
    if "body_subtreemass" in fields:
        fields["body_subtreemass"] = jnp.asarray(_subtrees(model)) @ fields["body_mass"]
    if "geom_aabb" in fields:
        fields |= _bounds(fields["geom_size"], model)
    return fields


def _subtrees(model: Any) -> Float[np.ndarray, "nbody nbody"]:
    """1 at ``[i, j]`` if body j is body i or hangs from it."""
    below = np.eye(model.nbody)
    for body in range(model.nbody - 1, 0, -1):  # a parent comes before its children
        below[model.body_parentid[body]] += below[body]
    return below


def _bounds(size: Float[Array, "ngeom 3"], model: Any) -> Model:
    """Bounding spheres and boxes of capsules and spheres; those of other geoms stay."""
    radius, half = size[:, 0], jnp.where(model.geom_type == _CAPSULE, size[:, 1], 0.0)
    round_ = np.isin(model.geom_type, (_CAPSULE, _SPHERE))
    box = jnp.stack([jnp.zeros_like(size), jnp.stack([radius, radius, radius + half], axis=1)])
    box = jnp.moveaxis(box, 0, 1).reshape(-1, 6)  # centre, half sizes
    return {
        "geom_rbound": jnp.where(round_, radius + half, jnp.asarray(model.geom_rbound)),
        "geom_aabb": jnp.where(round_[:, None], box, jnp.asarray(model.geom_aabb)),
    }


def _set_const(fields: Model, model: Any) -> Model:
    """``mj_setConst`` of every world, in one call of the host."""
    packed, unpack = ravel_pytree(fields)  # in the order of their names

    def constants(rows: np.ndarray) -> np.ndarray:
        batch = make_batch(model, len(rows))
        arrays = [batch.expand(name) for name in sorted(fields)]
        scatter(rows, arrays)
        batch.set_const()
        return gather(arrays, rows.dtype)

    return unpack(on_host(constants, packed, packed.size))
