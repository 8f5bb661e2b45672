"""On a machine with a GPU: are the served scores those of a recomputation?

    python -m gateway.engine.gpu_check [--base DIR] [--dtype bfloat16] [--eager] [--out docs/results/engine-gpu.json]

The engine's matrix test and its test of speculative decoding, in one command that takes no fp32 for granted: vLLM's
LoRA kernels on a GPU compute in bf16 or fp16, where no two implementations agree in every bit. Each answer's scores are
compared with a recomputation in fp32, and so is a recomputation in the engine's dtype: the served scores may be off as
far as that one, times SLACK. A wrong row, head or tap is off by about as much as the scores are large. Compiled and
with CUDA graphs unless --eager. It runs from a checkout, because traffic and recomputation are the tests'.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SLACK = 3.0


@dataclass(frozen=True)
class Row:
    """One answer's scored choices. `off` and `dtype_off` are norms of differences from the fp32 scores, of theirs;
    `floor` is what the tests allow in fp32, the rounding of scores to fixed point included."""

    case: str
    tokens: int
    norm: float
    off: float
    dtype_off: float
    floor: float
    unscored: int

    @property
    def agrees(self) -> bool:
        return not self.unscored and self.off <= SLACK * self.dtype_off + self.floor


def compare(answers: dict[str, Any], base: Path, dtype: str) -> Iterator[Row]:
    """A row for each answer of an adapter with head. Raises SystemExit for a request that failed."""
    import torch

    from tests.gateway.engine.recompute import Recomputer
    from tests.gateway.engine.served import ROUNDING_NATS, TOLERANCE

    exact, rounded = Recomputer(base), Recomputer(base, getattr(torch, dtype))
    for case, answer in answers.items():
        if answer.status != 200:
            raise SystemExit(f"{case}: {answer.body}")
        if answer.package is None or not answer.meter.get("contributors"):
            continue
        found = [(answer.package, prompt, tokens, served) for prompt, tokens, served in answer.rows()]
        served = torch.cat([one[3] for one in found])
        want, near = (torch.cat([one.scores(*row[:3]) for row in found]) for one in (exact, rounded))
        norm = want.norm().item()
        off, dtype_off = ((other - want).norm().item() / norm for other in (served, near))
        floor = TOLERANCE + ROUNDING_NATS * served.numel() ** 0.5 / norm
        yield Row(case, len(served), norm, off, dtype_off, floor, answer.meter["unscored_tokens"])


def serve(base: Path, data: Path, traffic: Any, *arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Answers to `traffic(engine)` and the engine's facts."""
    from tests.gateway.engine.served import running_engine

    with running_engine(data, base, *arguments) as engine:
        facts = engine.get("/openledger/engine").json()
        counters = ("num_preemptions", "spec_decode_num_draft_tokens", "spec_decode_num_accepted_tokens")
        answers = asyncio.run(traffic(engine))
        counted = {name: engine.metric(f"vllm:{name}_total") for name in counters}
    return answers, {"vllm": facts["vllm"], "torch": facts["torch"]} | counted


def matrix(base: Path, data: Path, options: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The matrix test's adapters, limits and traffic."""
    from tests.gateway.engine import test_matrix as matrix
    from tests.gateway.engine.packages import random_package

    packages = {
        seed: random_package(
            base, data / "adapters" / (seed * 64), seed=int(seed), contributors=contributors, k=k, d=d, m=m, r=r
        )
        for seed, (contributors, k, d, m, r) in matrix.HEADS.items()
    }
    limits = (str(part) for pair in matrix.LIMITS.items() for part in pair)
    return serve(base, data, lambda engine: matrix.traffic(engine, packages), *limits, *options)


def drafts(base: Path, data: Path, options: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The speculation test's adapters and traffic."""
    from tests.gateway.engine import test_speculation as speculation
    from tests.gateway.engine.packages import random_package

    one, two = (
        random_package(base, data / "adapters" / (seed * 64), seed=int(seed), contributors=["ada", "bob", "cyd"])
        for seed in "12"
    )

    async def traffic(engine: Any) -> dict[str, Any]:
        return {f"drafts {i}": answer for i, answer in enumerate(await speculation.traffic(engine, one, two))}

    draft = ("--speculative-config", json.dumps(speculation.DRAFTS), "--max-model-len", "2048")
    return serve(base, data, traffic, "--slots", "2", *draft, *options)


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=Path(".cache/base"), help="the demo's base model")
    parser.add_argument("--dtype", default="bfloat16", help="the engine's")
    parser.add_argument("--eager", action="store_true", help="no compilation, no CUDA graphs")
    parser.add_argument("--memory", default="0.3", help="the share of the GPU's memory that an engine takes")
    parser.add_argument("--out", type=Path, default=Path("docs/results/engine-gpu.json"))
    given = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    options = ("--dtype", given.dtype, "--max-lora-rank", "16", *(("--enforce-eager",) if given.eager else ()))
    options += ("--gpu-memory-utilization", given.memory) if on_gpu else ()
    rows, facts = [], {}
    for part in (matrix, drafts):
        with tempfile.TemporaryDirectory() as scratch:
            answers, facts[part.__name__] = part(given.base, Path(scratch) / "data", options)
            for row in compare(answers, given.base, given.dtype):
                rows.append(row)
                print(f"{row.case:28} {row.tokens:4} tokens  off {row.off:.2e}, {given.dtype} itself "
                      f"{row.dtype_off:.2e}  {'agrees' if row.agrees else 'DIFFERS'}", flush=True)  # fmt: skip
        print(part.__name__, facts[part.__name__])
    agree = all(row.agrees for row in rows)
    device = torch.cuda.get_device_name() if on_gpu else "cpu"
    tokens = sum(row.tokens for row in rows)
    print(f"{device}, {given.dtype}, {tokens} tokens: {'all agree' if agree else 'NOT ALL AGREE'}")
    if on_gpu:
        result: dict[str, Any] = {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "device": device}
        result |= {"dtype": given.dtype, "eager": given.eager, "tokens": tokens, "agree": agree, "engines": facts}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        result["rows"] = [asdict(row) | {"agrees": row.agrees} for row in rows]
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    raise SystemExit(0 if agree else 1)


if __name__ == "__main__":
    main()
