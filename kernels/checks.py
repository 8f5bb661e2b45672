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
from kernels.tap import Taps

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
    return _with_heads(scores, expected, terms, slot) / TOLERANCE[dtype]


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
    return _with_heads(y, expected, terms, slot) / TOLERANCE[dtype]


def head_scores_error(
    operation: Callable[..., Tensor],
    *,
    n: int,
    slots: int,
    m: int,
    taps: int,
    k: int,
    r: int,
    D: int,
    d: int | None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> float:
    """Error of a `reference.head_scores`, without H if d is None; every fifth token has no head (its u and h are NaN).

    Two roundings follow each other: three times the tolerance of one.
    """
    make = torch.Generator(device).manual_seed(n + slots + m + taps + k + r + D)
    of_K = (slots, m, taps, k, r) if d is None else (slots, m, 1, k, d)
    shapes = ((n, D), (n, taps, r), (slots, k, D), (slots, d or 1, taps * r), of_K)
    u, h, P, H, K = (torch.randn(s, generator=make, device=device) for s in shapes)
    slot = torch.randint(slots, (n,), generator=make, device=device)
    slot[::5] = -1
    u[::5] = h[::5] = torch.nan
    narrowing = None if d is None else _inside(H.to(dtype))
    args = _in_rows(u), _inside(h), _inside(P.to(dtype)), narrowing, _inside(K.to(dtype)), _inside(slot.to(torch.int32))
    with poisoned_allocations():
        scores = operation(*args)
    wide: list[Any] = [None if t is None else t.double() for t in args[:5]]
    absolute: list[Any] = [None if t is None else t.abs() for t in wide]
    expected, terms = (reference.head_scores(t[0], t[1], t[2], t[3], t[4], slot) for t in (wide, absolute))
    return _with_heads(scores, expected, terms, slot) / (3 * TOLERANCE[dtype])


def batch_dependence(operation: Callable[..., Tensor], device: str = "cpu") -> float:
    """How much the `head_scores` of the first tokens change when the rest of the batch is left away."""
    make = torch.Generator(device).manual_seed(0)
    shapes = ((50, 300), (50, 9, 6), (3, 20, 300), (3, 4, 54), (3, 5, 1, 20, 4), (3, 5, 9, 20, 6))
    u, h, P, H, narrow, wide = (torch.randn(s, generator=make, device=device) for s in shapes)
    slot = torch.randint(3, (50,), generator=make, device=device)
    changes = []
    for head in ((P, H, narrow), (P, None, wide)):
        whole = operation(u, h, *head, slot)
        for kept in (1, 2, 5, 30):
            changes.append((operation(u[:kept], h[:kept], *head, slot[:kept]) - whole[:kept]).abs().max().item())
    return max(changes)


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


def sampled_error(
    *,
    slices: tuple[int, ...],
    most: int,
    tokens: int,
    r: int,
    rank: int,
    gather: Callable[..., Tensor] | None = None,
    device: str = "cpu",
) -> float:
    """0 if `Taps.sampled`, or `gather` in its place, finds every element that modules of so many slices left in a step,
    else infinite."""
    first = [sum(slices[:i]) for i, count in enumerate(slices) for _ in range(count)]
    taps = Taps(first, most, r, device)
    taps.kept.fill_(torch.nan)
    taps.begin(tokens)
    h = torch.randn(len(first), tokens, rank, device=device)
    for row, count in zip(dict.fromkeys(first), slices, strict=True):
        taps.rows(row, count, tokens)[..., :rank] = h[row : row + count]
    wanted = torch.arange(len(first) - 1, -1, -1, device=device)[::2].contiguous()
    positions = torch.randint(tokens, (9,), device=device)
    with poisoned_allocations():
        found = (
            gather(taps.kept, taps.first, taps.tokens, wanted, positions, rank)
            if gather
            else taps.sampled(wanted, positions, rank)
        )
    return 0.0 if torch.equal(found, h[wanted][:, positions].transpose(0, 1)) else float("inf")


@contextmanager
def poisoned_allocations() -> Iterator[None]:
    """Within, torch.empty returns NaN."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _with_heads(actual: Tensor, expected: Tensor, terms: Tensor, slot: Tensor) -> float:
    """The worst error of tokens with a head; infinite unless the others' rows are exactly 0."""
    has_head = slot >= 0
    if not (actual[~has_head] == 0).all():
        return float("inf")
    return _worst(actual[has_head], expected[has_head], terms[has_head])


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
