"""A program of its own: a small learner on one device and on all that JAX has, compared.

``python -m tests.learners.on_devices LEARNER`` prints what it found as JSON, on its last line.
"""

import dataclasses
import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from experiments.bench.programs import collectives
from roml_jax.train import make_train
from roml_jax.wrappers import by_seed, rivals, sharded
from tests.learners.small import BELIEF, make_learner, make_method

STEPS, SEEDS, TASKS = 50, 2, 16
SIZES = {
    "varibad": {"belief": dataclasses.replace(BELIEF, batch_size=10, buffer_size=64)},
    "pearl": {"slots": 32, "meta_batch": 8, "gradient_steps": 1},
}


def small(name, groups):
    """The learner, in groups of tasks that each fit a device."""
    own = {} if name == "maml" else {"groups": groups}
    return make_learner(name, num_tasks=TASKS, **own, **SIZES.get(name, {}))


def run_steps(init, step):
    """Seeds side by side: states, mean returns and phi of all steps; and the compiled program."""
    keys = jax.random.split(jax.random.key(0), SEEDS)

    def run(keys):
        return jax.lax.scan(lambda state, _: step(state), init(keys), None, length=STEPS)

    program = jax.jit(run).lower(keys).compile()
    state, metrics = program(keys)
    return state.learner, (metrics["return_mean"], metrics["phi"]), program


def apart(a, b):
    """The largest difference."""
    gaps = jax.tree.map(lambda x, y: np.max(np.abs(np.asarray(x) - np.asarray(y)), initial=0), a, b)
    return float(max(jax.tree.leaves(gaps)))


def places(x):
    """In how many different parts an array lies."""
    return len({str(shard.index) for shard in x.addressable_shards})


def main(name):
    """Trains on one device, and with seeds and tasks over all of them."""
    mesh = Mesh(
        np.array(jax.devices()).reshape(SEEDS, -1),
        ("seeds", "tasks"),
        axis_types=(AxisType.Auto,) * 2,
    )
    method, learner = make_method("roml", batch=32), small(name, mesh.shape["tasks"])
    state, told, _ = run_steps(*map(jax.vmap, make_train(learner, method)))
    several = make_train(sharded(learner, mesh), method)
    spread, there, program = run_steps(*(by_seed(fn, mesh) for fn in several))
    found = [one._replace(times=one.times / STEPS) for one in collectives(program.as_text())]
    params = jax.vmap(learner.params)
    axes = jax.tree.leaves(learner.task_axes(jax.tree.map(lambda x: x[0], state)))
    pairs = zip(axes, jax.tree.leaves(spread), strict=True)
    report = {
        "devices": mesh.size,
        "moved": [apart(x[:1], x) for x in map(np.asarray, told)],
        "apart": {"told": apart(there, told), "params": apart(params(spread), params(state))},
        "parts": [places(leaf) for axis, leaf in pairs if axis >= 0],
        "gathered": max(one.size for one in found if one.kind != "all-reduce"),
        "exchanged": sum(one.total for one in found),
        "params": sum(x.size * 4 for x in jax.tree.leaves(params(state))) // SEEDS,
    }
    print(json.dumps(report))


def rival_axes():
    """Where the state of two rivals can be apart, and where that of one."""
    learner = small("varibad", 8)
    of = (rivals(learner), learner)
    return [one.task_axes(jax.eval_shape(one.init, jax.random.key(0))) for one in of]


if __name__ == "__main__":
    main(sys.argv[1])
