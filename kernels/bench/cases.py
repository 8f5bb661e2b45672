"""The sizes at which the kernels are measured, and inputs of those sizes on any device ("meta" included)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import aot, copy_rows, readout, scores, trace
from kernels.reference import AdamW


@dataclass(frozen=True)
class Decode:
    """One decode step that emits n tokens over `active` adapters, each with a head of k readout and d tap directions
    for m contributors on `taps` modules; `table` is the dtype of the unembedding and of the heads."""

    name: str
    n: int
    active: int
    V: int
    D: int
    k: int
    m: int
    taps: int
    r: int
    d: int
    table: torch.dtype

    def readout(self, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """logits (fp32, as vLLM's), emitted, normed, unembedding, mean_row, g. As in text, the word of rank i has about
        1 / i of the mass of the first."""
        ranks = torch.arange(1, self.V + 1, device=device, dtype=torch.float32)
        return (
            torch.randn(self.n, self.V, device=device) / 2 - ranks.log(),
            torch.randint(self.V, (self.n,), device=device),
            torch.randn(self.n, self.D, device=device, dtype=self.table),
            torch.randn(self.V, self.D, device=device, dtype=self.table),
            torch.randn(self.D, device=device),
            torch.ones(self.D, device=device),
        )

    def slots(self, device: str) -> Tensor:
        """Tokens dealt to the slots in turn."""
        return torch.arange(self.n, device=device, dtype=torch.int32) % self.active

    def narrow_u(self, device: str) -> tuple[Tensor, Tensor, Tensor]:
        """u, P of the active slots, slot."""
        P = torch.randn(self.active, self.k, self.D, device=device, dtype=self.table)
        return torch.randn(self.n, self.D, device=device), P, self.slots(device)

    def narrow_h(self, device: str) -> tuple[Tensor, Tensor, Tensor]:
        """h of all taps, H of the active slots, slot."""
        H = torch.randn(self.active, self.d, self.taps * self.r, device=device, dtype=self.table)
        return torch.randn(self.n, self.taps * self.r, device=device), H, self.slots(device)

    def scores(self, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u, h, K of the active slots, slot, after both have been narrowed."""
        return (
            torch.randn(self.n, self.k, device=device),
            torch.randn(self.n, 1, self.d, device=device),
            torch.randn(self.active, self.m, 1, self.k, self.d, device=device, dtype=self.table),
            self.slots(device),
        )

    def readout_bytes(self) -> int:
        """Bytes that must move: logits once, normed, the emitted words' rows, u out. Other words' rows come on top."""
        return 4 * self.n * (self.V + self.D) + self.table.itemsize * 2 * self.n * self.D

    def product_bytes(self, a: int, b: int) -> int:
        """Bytes that must move: each active head's b x a matrix once, x in, y out."""
        return self.table.itemsize * self.active * a * b + 4 * self.n * (a + b)

    def scores_bytes(self) -> int:
        """Bytes that must move: each active head's K once, u and h in, scores out."""
        return self.table.itemsize * self.active * self.m * self.k * self.d + 4 * self.n * (self.k + self.d + self.m)


@dataclass(frozen=True)
class Step:
    """One trace update of a parameter of `size` numbers."""

    name: str
    contributors: int
    examples: int
    size: int

    def states(self, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, AdamW]:
        """The arguments of `trace_update`: gradients of examples dealt to the contributors in turn."""
        C, N = self.contributors, self.size
        return (
            torch.randn(N, device=device),
            torch.zeros(C, N, device=device),
            torch.zeros(C, N, device=device),
            torch.ones(N, device=device),
            torch.randn(self.examples, N, device=device),
            torch.arange(self.examples, device=device) % C,
            AdamW(lr=1e-3, step=2, weight_decay=0.01),
        )

    def bytes(self) -> int:
        """Bytes that must move: the states in and out, the gradients in."""
        return 4 * self.size * (2 * (2 * self.contributors + 2) + self.examples)


def smollm2(n: int) -> Decode:
    """A step of the 135M demo model: r = 8, 16 contributors, all linear layers of the top 8."""
    return Decode(f"135M, {n} adapters x 1 token", n, n, 49152, 576, 64, 16, 56, 8, 8, torch.float32)


def llama8b(active: int, n: int) -> Decode:
    """A step of an 8B model: r = 16, 64 contributors, all linear layers."""
    return Decode(f"8B, {active} adapters x {n} tokens", n, active, 128256, 4096, 64, 64, 224, 16, 8, torch.bfloat16)


LORA_8B = Step("B [4096, 16], 64 contributors, 16 examples", 64, 16, 4096 * 16)
LORA_135M = Step("B [576, 8], 16 contributors, 16 examples", 16, 16, 576 * 8)
ON_GPU = (llama8b(8, 8), llama8b(64, 64), llama8b(64, 256))
ON_CPU = (smollm2(8), smollm2(32))


def compiled() -> Iterator[aot.Compiled]:
    """Every kernel, compiled ahead of time for a decode step of 64 adapters x 256 tokens and of 8 x 8."""
    for case in (llama8b(8, 8), llama8b(64, 256), smollm2(32)):
        yield from aot.compile_case(case.name, readout.readout, *case.readout("meta"))
        yield from aot.compile_case(case.name, scores.head_products, *case.narrow_u("meta"))
        yield from aot.compile_case(case.name, scores.attribution_scores, *case.scores("meta"))
    yield from aot.compile_case(LORA_8B.name, trace.trace_update, *LORA_8B.states("meta"))
    shrink, kept = (torch.empty(s, 8192, 16, device="meta") for s in (2, 2))
    yield from aot.compile_case("tap of 2 x 8192 tokens", copy_rows.copy_rows, shrink, kept)
