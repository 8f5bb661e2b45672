"""Does an implementation do what `kernels.reference` says? One function per operation, used by the tests and by the
benchmark.

Each makes random inputs of the given sizes, calls the operation and returns its worst error in units of what is
allowed: 1 is the limit, NaN counts as infinite. An error is measured against the sum of the absolute values of the
terms that were added up, which bounds what rounding can do, and allowed is a small multiple of the arithmetic's own
precision: see TOLERANCE.

Every input lies inside memory full of NaN (integers: an index far outside), and memory that the operation itself
allocates is NaN before it is written, so reading one element too many or leaving one unwritten shows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kernels import reference
from kernels.reference import AdamW

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-5}  # a bf16 table meets 16 of an operand's 24 bits
_OUTSIDE = 2**30
_MARGIN = 64


def readout_error(
    operation: Callable[..., tuple[Tensor, Tensor]],
    *,
    n: int,
    V: int,
    D: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> float:
    """Error of a `reference.readout`. One logit in seven is -inf; the first token's own logit is 60 above the rest.

    An error of q at the ramp is an error of w up to three times as large.
    """
    make = torch.Generator(device).manual_seed(n + V + D)
    logits = 4 * torch.randn(n, V, generator=make, device=device)
    emitted = torch.randint(V, (n,), generator=make, device=device)
    logits[:, ::7] = -torch.inf
    logits[torch.arange(n, device=device), emitted] = torch.randn(n, generator=make, device=device)
    logits[0, emitted[0]] += 60
    normed, W = (torch.randn(s, generator=make, device=device) for s in ((n, D), (V, D)))
    g = 0.5 + torch.rand(D, generator=make, device=device)
    args = (
        _in_rows(logits.to(dtype)),
        _inside(emitted),
        _in_rows(normed.to(dtype)),
        _in_rows(W.to(dtype)),
        _inside(W.mean(0)),
        _inside(g.to(dtype)),
    )
    with poisoned_allocations():
        u, margin = operation(*args)
    z, y, normed, W, mean_row, g = (t.double() if t.is_floating_point() else t for t in args)
    expected_u, expected_margin = reference.readout(z, y, normed, W, mean_row, g)
    z_y = z.gather(1, y[:, None])
    others = z.scatter(1, y[:, None], -torch.inf)
    q = others.softmax(1)
    q_abs = (q * torch.where(q > 0, z.abs(), 0)).sum(1, keepdim=True)
    slope = (z_y.abs() + q_abs) / normed.shape[1]
    terms = g * (W[y].abs() + 3 * q @ W.abs() + mean_row.abs()) + slope * normed.abs() / g
    errors = (
        _worst(u, expected_u, terms),
        _worst(margin, expected_margin, (z_y.abs() + others.logsumexp(1, keepdim=True).abs())[:, 0]),
    )
    return max(errors) / TOLERANCE[dtype]


def scores_error(
    operation: Callable[..., Tensor],
    *,
    n: int,
    slots: int,
    m: int,
    taps: int,
    k: int,
    r: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    active: int | None = None,
) -> float:
    """Error of a `reference.attribution_scores`: tokens spread over `active` slots, every fifth without head (its u and
    h are NaN)."""
    make = torch.Generator(device).manual_seed(n + slots + m + taps + k + r)
    u, h, K = (torch.randn(s, generator=make, device=device) for s in ((n, k), (taps, n, r), (slots, m, taps, k, r)))
    slot = slots - 1 - torch.randint(active or slots, (n,), generator=make, device=device)
    slot[::5] = -1
    u[::5] = torch.nan
    h[:, ::5] = torch.nan
    args = _in_rows(u), _in_rows(h).transpose(0, 1), _inside(K.to(dtype)), _inside(slot.to(torch.int32))
    with poisoned_allocations():
        scores = operation(*args)
    u, h, K = (t.double() for t in args[:3])
    expected, terms = (reference.attribution_scores(*t, slot) for t in ((u, h, K), (u.abs(), h.abs(), K.abs())))
    without_head = slot < 0
    if not (scores[without_head] == 0).all():
        return float("inf")
    return _worst(scores[~without_head], expected[~without_head], terms[~without_head]) / TOLERANCE[dtype]


def products_error(
    operation: Callable[..., Tensor],
    *,
    n: int,
    slots: int,
    a: int,
    b: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> float:
    """Error of a `reference.head_products`; every fifth token has no head (its x is NaN)."""
    make = torch.Generator(device).manual_seed(n + slots + a + b)
    x, W = (torch.randn(s, generator=make, device=device) for s in ((n, a), (slots, b, a)))
    slot = torch.randint(slots, (n,), generator=make, device=device)
    slot[::5] = -1
    x[::5] = torch.nan
    args = _in_rows(x), _inside(W.to(dtype)), _inside(slot.to(torch.int32))
    with poisoned_allocations():
        y = operation(*args)
    x, W = (t.double() for t in args[:2])
    expected, terms = (reference.head_products(*t, slot) for t in ((x, W), (x.abs(), W.abs())))
    without_head = slot < 0
    if not (y[without_head] == 0).all():
        return float("inf")
    return _worst(y[~without_head], expected[~without_head], terms[~without_head]) / TOLERANCE[dtype]


def batch_dependence(operation: Callable[..., Tensor], device: str = "cpu") -> float:
    """How much the scores of the first tokens change when the rest of the batch is left away."""
    make = torch.Generator(device).manual_seed(0)
    u, h, K = (torch.randn(s, generator=make, device=device) for s in ((50, 20), (50, 9, 6), (3, 5, 9, 20, 6)))
    slot = torch.randint(3, (50,), generator=make, device=device)
    whole = operation(u, h, K, slot)
    return max(
        (operation(u[:kept], h[:kept], K, slot[:kept]) - whole[:kept]).abs().max().item() for kept in (1, 2, 5, 30)
    )


def trace_error(
    operation: Callable[..., None],
    *,
    contributors: int,
    examples: int,
    size: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> float:
    """Error of an in-place `reference.trace_update`; every sixth example is padding, contributor 0 has none."""
    make = torch.Generator(device).manual_seed(contributors + examples + size)
    states = [torch.randn(s, generator=make, device=device) for s in ((size,), *[(contributors, size)] * 2, (size,))]
    states[3] = states[3].abs() + 0.1
    gradient = torch.randn(examples, size, generator=make, device=device).to(dtype)
    owner = torch.randint(1, max(2, contributors), (examples,), generator=make, device=device) % contributors
    owner[::6] = -1
    gradient[::6] = torch.nan
    adamw = AdamW(lr=1e-2, step=3, weight_decay=0.1)
    args = [_inside(t) for t in (*states, gradient, owner)]
    parameter, trace, m, v = (t.double() for t in states)
    expected = reference.trace_update(parameter, trace, m, v, gradient, owner, adamw)
    with poisoned_allocations():
        operation(*args, adamw)
    moved = (contributors + 1) * adamw.lr / adamw.correction1 / 0.3  # the furthest step: |m| / sqrt(0.1) each
    worst = max(_worst(a, e, e.abs() + moved) for a, e in zip(args[:4], expected, strict=True))
    return worst / TOLERANCE[torch.float32]


def copy_error(
    operation: Callable[[Tensor, Tensor], None],
    *,
    slices: int,
    tokens: int,
    r: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> float:
    """0 if every element was copied and no other was written, else infinite."""
    source = torch.randn(slices, tokens, r, device=device)
    target = torch.full((slices + 2, tokens + 3, r + 2), torch.nan, dtype=dtype, device=device)
    expected = target.clone()
    expected[1:-1, :tokens, :r] = source.to(dtype)
    operation(_in_rows(source), target[1:-1, :tokens, :r])
    return 0.0 if torch.equal(target.nan_to_num(-1e30), expected.nan_to_num(-1e30)) else float("inf")


@contextmanager
def poisoned_allocations() -> Iterator[None]:
    """Within, torch.empty returns NaN."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _inside(t: Tensor) -> Tensor:
    """A contiguous copy of t in the middle of poisoned memory."""
    poison: Any = torch.nan if t.is_floating_point() else _OUTSIDE
    memory = t.new_full((t.numel() + 2 * _MARGIN,), poison)
    return memory[_MARGIN : _MARGIN + t.numel()].view(t.shape).copy_(t)


def _in_rows(t: Tensor) -> Tensor:
    """A copy of t whose last dimension lies in wider, poisoned rows."""
    memory = t.new_full((*t.shape[:-1], t.shape[-1] + 5), torch.nan)
    return memory[..., : t.shape[-1]].copy_(t)


def _worst(actual: Tensor, expected: Tensor, terms: Tensor) -> float:
    if not actual.numel():
        return 0.0
    worst = ((actual.double() - expected).abs() / terms.clamp(min=1e-30)).max().item()
    return worst if worst == worst else float("inf")
