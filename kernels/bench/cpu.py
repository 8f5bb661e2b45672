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
        for name, inputs in (("head_products, P", case.narrow_u("cpu")), ("head_products, H", case.narrow_h("cpu"))):
            products = paired(partial(ops.head_products, *inputs), partial(reference.head_products, *inputs))
            yield name, case.name, products
        heads = case.scores("cpu")
        scores = paired(partial(ops.attribution_scores, *heads), partial(reference.attribution_scores, *heads))
        yield "attribution_scores", case.name, scores
    states = cases.LORA_135M.states("cpu")
    update = paired(partial(ops.trace_update, *states), partial(reference.trace_update, *states))
    yield "trace_update", cases.LORA_135M.name, update
