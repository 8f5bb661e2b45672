"""The sizes at which the kernels are measured, and inputs of those sizes on any device ("meta" included)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import aot, readout, sampled, scores, trace
from kernels.reference import AdamW


@dataclass(frozen=True)
class Decode:
    """One decode step that emits n tokens over `active` adapters, each with a head of k readout and d tap directions
    for m contributors on `taps` modules; `table` is the dtype of the model's logits and unembedding, heads are fp32."""

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
        """logits, emitted, normed, unembedding, mean_row, g. Each token has its own likely words: the word of rank i
        has about i^-1.3 of the mass of the first, so that 182 are above RARE; the 135M model has 40 to 210 in text."""
        ranks = 1.0 + torch.rand(self.n, self.V, device=device).argsort(1)
        return (
            (torch.randn(self.n, self.V, device=device) / 2 - 1.3 * ranks.log()).to(self.table),
            torch.randint(self.V, (self.n,), device=device),
            torch.randn(self.n, self.D, device=device, dtype=self.table),
            torch.randn(self.V, self.D, device=device, dtype=self.table),
            torch.randn(self.D, device=device),
            torch.ones(self.D, device=device),
        )

    def slots(self, device: str) -> Tensor:
        """Tokens dealt to the slots in turn."""
        return torch.arange(self.n, device=device, dtype=torch.int32) % self.active

    def heads(self, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """u, h, P, H and K of the active slots, slot: all of a step after its readout."""
        return (
            torch.randn(self.n, self.D, device=device),
            torch.randn(self.n, self.taps, self.r, device=device),
            torch.randn(self.active, self.k, self.D, device=device),
            torch.randn(self.active, self.d, self.taps * self.r, device=device),
            torch.randn(self.active, self.m, 1, self.k, self.d, device=device),
            self.slots(device),
        )

    def wide_scores(self, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u, h, K of the active slots, slot, of heads whose taps keep all their directions."""
        return (
            torch.randn(self.n, self.k, device=device),
            torch.randn(self.n, self.taps, self.r, device=device),
            torch.randn(self.active, self.m, self.taps, self.k, self.r, device=device, dtype=dtype),
            self.slots(device),
        )

    def readout_bytes(self) -> int:
        """Bytes that must move: logits once, normed, the emitted words' rows, u out. Other words' rows come on top."""
        return self.n * (self.table.itemsize * (self.V + 2 * self.D) + 4 * self.D)

    def scores_bytes(self, directions: int, dtype: torch.dtype) -> int:
        """Bytes that must move: each active head's K of so many tap directions once, u and h in, scores out."""
        head = dtype.itemsize * self.m * self.k * directions
        return self.active * head + 4 * self.n * (self.k + directions + self.m)

    def heads_bytes(self) -> int:
        """Bytes that must move: each active head once, u and h in, scores out."""
        head = self.k * self.D + self.d * self.taps * self.r + self.m * self.k * self.d
        return 4 * (self.active * head + self.n * (self.D + self.taps * self.r + self.m))


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
        yield from aot.compile_case(case.name, scores.head_scores, *case.heads("meta"))
        yield from aot.compile_case(
            f"{case.name}, wide", scores.attribution_scores, *case.wide_scores("meta", case.table)
        )
    yield from aot.compile_case(LORA_8B.name, trace.trace_update, *LORA_8B.states("meta"))
    kept, rows = torch.empty(224, 8192, 16, device="meta"), torch.empty(224, dtype=torch.int64, device="meta")
    yield from aot.compile_case("224 taps, 64 tokens", sampled.sampled, kept, rows, rows[:1], rows, rows[:64], 16)
