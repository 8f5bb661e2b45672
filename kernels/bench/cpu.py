"""On a CPU: the batched torch path against the specification, in paired alternation."""

from collections.abc import Iterator
from functools import partial

from kernels import ops, reference
from kernels.bench import cases
from kernels.bench.timing import Ratio, paired


def measure() -> Iterator[tuple[str, str, Ratio]]:
    """(operation, case, ratio), for the demo model's sizes."""
    for case in cases.ON_CPU:
        arguments = case.readout("cpu")
        yield "readout", case.name, paired(partial(ops.readout, *arguments), partial(reference.readout, *arguments))
        heads = case.heads("cpu")
        yield "head_scores", case.name, paired(partial(ops.head_scores, *heads), partial(reference.head_scores, *heads))
    states = cases.LORA_135M.states("cpu")
    update = paired(partial(ops.trace_update, *states), partial(reference.trace_update, *states))
    yield "trace_update", cases.LORA_135M.name, update
