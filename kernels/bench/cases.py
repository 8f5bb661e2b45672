"""The sizes at which the kernels are measured, and inputs of those sizes on any device ("meta" included)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import aot, copy_rows, readout, scores, trace
from kernels.reference import AdamW


@dataclass(frozen=True)
class Decode:
    """One decode step that emits n tokens over `active` adapters, each with a head for m contributors on `taps`
    modules; `table` is the dtype of W_P and of the heads."""

    name: str
    n: int
    active: int
    V: int
    D: int
    k: int
    m: int
    taps: int
    r: int
    table: torch.dtype

    def readout(self, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """logits (fp32, as vLLM's), emitted, normed, W_P, P_over_g."""
        return (
            torch.randn(self.n, self.V, device=device),
            torch.randint(self.V, (self.n,), device=device),
            torch.randn(self.n, self.D, device=device, dtype=self.table),
            torch.randn(self.V, self.k, device=device, dtype=self.table),
            torch.randn(self.D, self.k, device=device, dtype=self.table),
        )

    def scores(self, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u, h, K of the active slots, slot: tokens dealt to the slots in turn."""
        return (
            torch.randn(self.n, self.k, device=device),
            torch.randn(self.n, self.taps, self.r, device=device),
            torch.randn(self.active, self.m, self.taps, self.k, self.r, device=device, dtype=self.table),
            torch.arange(self.n, device=device, dtype=torch.int32) % self.active,
        )

    def readout_bytes(self) -> int:
        """Bytes that must move: logits, normed, both tables once, u out."""
        tables = (self.V + self.D) * self.k + self.n * self.D
        return 4 * self.n * (self.V + self.k) + self.table.itemsize * tables

    def scores_bytes(self) -> int:
        """Bytes that must move: each active head once, u and h in, scores out."""
        head = self.m * self.taps * self.k * self.r
        return self.table.itemsize * self.active * head + 4 * self.n * (self.k + self.taps * self.r + self.m)


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
    """A step of the 135M demo model: r = 8, 16 contributors, down_proj taps."""
    return Decode(f"135M, {n} adapters x 1 token", n, n, 49152, 576, 64, 16, 30, 8, torch.float32)


def llama8b(active: int, n: int) -> Decode:
    """A step of an 8B model: r = 16, 64 contributors, down_proj taps."""
    return Decode(f"8B, {active} adapters x {n} tokens", n, active, 128256, 4096, 64, 64, 32, 16, torch.bfloat16)


LORA_8B = Step("B [4096, 16], 64 contributors, 16 examples", 64, 16, 4096 * 16)
LORA_135M = Step("B [576, 8], 16 contributors, 16 examples", 16, 16, 576 * 8)
ON_GPU = (llama8b(8, 8), llama8b(64, 64), llama8b(64, 256))
ON_CPU = (smollm2(8), smollm2(32))


def compiled() -> Iterator[aot.Compiled]:
    """Every kernel, compiled ahead of time for a decode step of 64 adapters x 256 tokens and of 8 x 8."""
    for case in (llama8b(8, 8), llama8b(64, 256), smollm2(32)):
        yield from aot.compile_case(case.name, readout.readout, *case.readout("meta"))
        yield from aot.compile_case(case.name, scores.attribution_scores, *case.scores("meta"))
    yield from aot.compile_case(LORA_8B.name, trace.trace_update, *LORA_8B.states("meta"))
    shrink, kept = (torch.empty(s, 8192, 16, device="meta") for s in (2, 2))
    yield from aot.compile_case("tap of 2 x 8192 tokens", copy_rows.copy_rows, shrink, kept)
