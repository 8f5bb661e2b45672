"""No operation is timed that fails its check."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch

from kernels import checks, ops
from kernels.bench.device import device_checks


class WrongResult(Exception):
    """An operation's error is beyond what its arithmetic explains."""


def checked(device: str) -> Iterator[dict[str, Any]]:
    """Every operation that will be timed on `device`, with its worst error in units of the allowed one.

    Raises WrongResult at the first that is above 1.
    """
    for name, check in device_checks() if device == "cuda" else _cpu_checks():
        error = check()
        if not error <= 1:
            raise WrongResult(f"{name}: error {error:.3g} times the allowed one")
        yield {"check": name, "error_in_units_of_allowed": error}


def _cpu_checks() -> Iterable[tuple[str, Callable[[], float]]]:
    sizes: dict[str, Any] = {"n": 70, "slots": 9, "m": 65, "taps": 11, "k": 33, "r": 6}
    product: dict[str, Any] = {"n": 70, "slots": 9, "a": 600, "b": 33}
    head: dict[str, Any] = {**sizes, "D": 517, "d": 5}
    step: dict[str, Any] = {"contributors": 5, "examples": 13, "size": 519}
    for dtype in (torch.float32, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        yield f"readout, {kind}", partial(checks.readout_error, ops.readout, n=37, V=5003, D=600, dtype=dtype)
        yield f"head_products, {kind}", partial(checks.products_error, ops.head_products, **product, dtype=dtype)
        yield f"attribution_scores, {kind}", partial(checks.scores_error, ops.attribution_scores, **sizes, dtype=dtype)
        yield f"head_scores, {kind}", partial(checks.head_scores_error, ops.head_scores, **head, dtype=dtype)
        yield f"trace_update, {kind}", partial(checks.trace_error, ops.trace_update, **step, dtype=dtype)
