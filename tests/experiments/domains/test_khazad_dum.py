"""What people see of Khazad-Dum: outcomes, positions, ranges and tasks of the settings at hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from envs.khazad_dum import KhazadDum, KhazadDumState
from experiments.domains.khazad_dum.view import columns, khazad_dum_view, positions


def test_positions_are_read_off_observations():
    env, key = KhazadDum(), jax.random.key(0)
    zero = jnp.zeros((), jnp.int32)
    xy = jax.random.uniform(key, (50, 2), minval=0.5, maxval=jnp.array([[9.5, 7.5]]))
    obs = jax.vmap(lambda place: env.observe(KhazadDumState(place, zero, zero)))(xy)
    flagged = jnp.concatenate([obs, jnp.ones((50, 1))], axis=1)
    np.testing.assert_allclose(positions(np.asarray(flagged)), xy, atol=1e-5)


def test_columns_name_paths():
    info = {"path": np.array([[0, 1]]), "status": np.array([[0, -1]])}
    assert columns(info)["path"].tolist() == [["stay", "short_fall"]]


def test_the_view_grows_with_the_rain():
    usual, wet = (khazad_dum_view(KhazadDum(rain_mean=mean)) for mean in (0.1, 0.4))
    np.testing.assert_allclose(wet.tasks, 4 * usual.tasks, rtol=1e-6)
    np.testing.assert_allclose(wet.ranges, 4 * np.array(usual.ranges), rtol=1e-6)
    assert usual.ranges == (0.0, 0.05, 0.1, 0.2, 0.3, 0.46, np.inf)
