"""What a training step costs each of 1, 2, 4, 8 devices, as its compiled program says.

``python -m experiments.bench.scaling [ENV] [--learner NAME]`` keeps the tasks of a device and lets
their number grow. Nothing runs: a CPU that plays eight devices would say little about time. So the
program is read instead: floating-point operations and bytes of memory for each device, which should
stay, and bytes that devices exchange in a step, beside those of the gradients of all its updates.
Operations in a loop count once. ``--out FILE.csv`` keeps the rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.bench import timing
from experiments.presets import DEFAULT_ENV, PRESETS
from experiments.spec.words import one_of


@dataclasses.dataclass(frozen=True)
class Options:
    """Which training, over how many devices.

    Attributes:
      env: the environment.
      learner: its learner; None for the usual one.
      method: robust meta-algorithm.
      devices: numbers of them.
      tasks: of a training step, on each device.
      out: CSV file for the rows.
    """

    env: Annotated[str, tyro.conf.Positional] = DEFAULT_ENV
    learner: str | None = None
    method: str = "roml"
    devices: tuple[int, ...] = (1, 2, 4, 8)
    tasks: int = 32
    out: Path | None = None


def main(argv: Sequence[str]) -> int:
    """Compiles the step for every number of devices.

    Raises:
      UserError: an option is not valid, or there are not so many devices.
    """
    import jax

    options = timing.parse(Options(), argv, "experiments.bench.scaling", __doc__)
    if max(options.devices) > 1:
        jax.config.update("jax_num_cpu_devices", max(options.devices))
    table = timing.Table(options.out)
    for devices in options.devices:
        table.add(_row(options, devices))
    return 0


def _row(options: Options, devices: int) -> dict[str, Any]:
    """The program of one number of devices."""
    import jax

    from experiments.bench.programs import collectives
    from experiments.spec.build import build
    from experiments.training import placement

    preset = PRESETS[one_of("environment", options.env, PRESETS)]
    experiment = preset.choose(options.learner, options.method)
    tasks = options.tasks * devices
    learner: Any = dataclasses.replace(experiment.learner, num_tasks=tasks)
    if belief := getattr(learner, "belief", None):  # which learns from as much on each device
        more = {name: devices * getattr(belief, name) for name in ("batch_size", "buffer_size")}
        learner = dataclasses.replace(learner, belief=dataclasses.replace(belief, **more))
    method: Any = experiment.method
    if getattr(method, "batch", 0):  # CEM batches of whole steps, as on one device
        method = dataclasses.replace(method, batch=max(method.batch, options.tasks) * devices)
    experiment = dataclasses.replace(experiment, learner=learner, method=method)
    mesh = placement.make_mesh(devices, f"tasks={devices}", 1, tasks)
    built = build(placement.in_groups(experiment, mesh, None), mesh)
    state = built.state_shape
    if mesh is not None:
        layout = placement.layout(built, several=False)
        state = jax.tree.map(lambda x, at: x.update(sharding=at), state, layout)
    program = jax.jit(built.step).lower(state).compile()
    cost: Any = program.cost_analysis()
    found = collectives(program.as_text() or "")
    gradients = _gradients(experiment.learner, built.state_shape.learner)
    return {
        "devices": devices,
        "tasks": tasks,
        "mflop": round(cost["flops"] / 1e6, 2),
        "mbytes": round(cost["bytes accessed"] / 1e6, 2),
        "exchanges": sum(one.times for one in found),
        "exchanged_kb": round(sum(one.total for one in found) / 1e3, 1),
        "gradients_kb": round(gradients / 1e3, 1),
        "largest_gather_kb": round(
            max((one.size for one in found if one.kind == "all-gather"), default=0) / 1e3, 2
        ),
    }


def _gradients(learner: Any, state: Any) -> int:
    """Bytes of the gradients of all updates of a step, of the on-policy learners; else 0."""
    from roml_jax.trees import size_in_bytes

    if not hasattr(learner, "policy"):
        return 0
    learned = state.policy.params.network
    total = 0
    if belief := getattr(learner, "belief", None):
        total += belief.updates * size_in_bytes(state.memory.belief.params)
    else:
        learned = learned, state.memory  # which learns with the policy, if at all
    return total + learner.policy.epochs * learner.policy.minibatches * size_in_bytes(learned)


if __name__ == "__main__":
    timing.run(main)
