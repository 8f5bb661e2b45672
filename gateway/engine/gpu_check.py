"""One call for a session that has a GPU: are the served scores those of a recomputation?

    python -m gateway.engine.gpu_check [--base DIR] [--dtype float32] [--eager] [--out docs/results/engine-gpu.json]

Makes a small random llama (or takes --base), four adapters with random heads, starts the engine through the launcher,
sends mixed traffic (streams, n=2, stop strings, sampling, long prompts, more adapters than slots, prefix-cache hits),
recomputes every token in transformers, prints a table and writes it as JSON. Compiled and with CUDA graphs unless
--eager. It runs from a checkout, because the recomputation is the tests'.

It has not been run on a GPU yet. Without one it checks the CPU engine in the same way.
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "it",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "at",
]
PROMPTS = ("that is the", "it was as one", " ".join(WORDS * 8))


def random_base(directory: Path) -> Path:
    """A llama of 8 layers with random weights (D 512, V 2048), a word tokenizer and base.json."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    vocabulary |= {f"w{i}": i for i in range(len(vocabulary), 2048)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.save_pretrained(directory)
    shape = LlamaConfig(
        vocab_size=2048, hidden_size=512, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, initializer_range=0.08,
    )  # fmt: skip
    model = LlamaForCausalLM(shape)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.data.uniform_(0.5, 1.5)
    model.save_pretrained(directory)
    (directory / "base.json").write_text(json.dumps({"name": "random-llama", "digest": "sha256:" + "0" * 64}))
    return directory


async def traffic(engine: Any, name: str, packages: list[Path], stop: str) -> dict[str, Any]:
    """Answers by case, all requests at once; then the same prompts again, from the prefix cache."""
    from tests.gateway.engine.served import ask, stream

    async with engine.client() as http:
        named: dict[str, Any] = {}
        for i, package in enumerate(packages):
            to: dict[str, Any] = {"model": package.name, "package": package, "ignore_eos": True}
            for j, prompt in enumerate(PROMPTS):
                named[f"adapter {i}, prompt {j}"] = ask(http, prompt=[prompt], max_tokens=32, **to)
            named[f"adapter {i}, streamed"] = stream(http, prompt=[PROMPTS[0]], max_tokens=64, **to)
            named[f"adapter {i}, two choices"] = ask(http, prompt=[PROMPTS[1]], n=2, temperature=0.9, **to)
            named[f"adapter {i}, penalties"] = ask(
                http, prompt=[PROMPTS[1]], temperature=0.8, top_p=0.9, repetition_penalty=1.2, seed=i, **to
            )
            named[f"adapter {i}, stop string"] = ask(http, prompt=[PROMPTS[0]], stop=[stop], max_tokens=64, **to)
        named["base"] = ask(http, name, [PROMPTS[0]], max_tokens=64, ignore_eos=True)
        found = dict(zip(named, await asyncio.gather(*named.values()), strict=True))
        for i, package in enumerate(packages):
            found[f"adapter {i}, prompt 2 again"] = await ask(
                http, package.name, [PROMPTS[2]], package=package, max_tokens=8
            )
    return found


def compare(answers: dict[str, Any], base: Path) -> list[dict[str, Any]]:
    """One row per choice: tokens, largest recomputed score, largest error (nats)."""
    from tests.gateway.engine.recompute import Recomputer
    from tests.gateway.engine.served import agree

    recomputer, table = Recomputer(base), []
    for case, answer in answers.items():
        if answer.status != 200:
            raise SystemExit(f"{case}: {answer.body}")
        for prompt, tokens, served in answer.rows() if answer.package else ():
            want = recomputer.scores(answer.package, prompt, tokens)
            error, largest = (served - want).abs().max().item(), want.abs().max().item()
            row = {"case": case, "tokens": len(tokens), "largest_score": largest, "largest_error": error}
            table.append(row | {"agrees": agree(served, want), "unscored": answer.meter["unscored_tokens"]})
    return table


def main() -> None:
    import torch

    from tests.gateway.engine.packages import random_package
    from tests.gateway.engine.served import running_engine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, help="a llama-like model directory with base.json")
    parser.add_argument("--dtype", default="float32", help="the engine's; scores are compared with fp32 recomputation")
    parser.add_argument("--eager", action="store_true", help="no compilation, no CUDA graphs")
    parser.add_argument("--stop", default="w", help="a stop string")
    parser.add_argument("--out", type=Path, default=Path("docs/results/engine-gpu.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        base = options.base or random_base(Path(scratch) / "base")
        layers = range(json.loads((base / "config.json").read_text())["num_hidden_layers"])
        shapes = [("1", 3, 24, 8), ("2", 3, 24, 8), ("3", 9, 10, 4), ("4", 40, 64, 16)]
        packages = [
            random_package(base, data / "adapters" / (digit * 64), seed=int(digit), k=k, r=r, layers=layers,
                           contributors=[f"c{i:02d}" for i in range(m)])
            for digit, m, k, r in shapes
        ]  # fmt: skip
        extra = ["--enforce-eager"] if options.eager else []
        arguments = [
            "--slots",
            "3",
            "--max-num-batched-tokens",
            "256",
            "--max-num-seqs",
            "64",
            "--max-model-len",
            "512",
        ]
        arguments += ["--max-lora-rank", "16", "--dtype", options.dtype, *extra]
        with running_engine(data, base, *arguments) as engine:
            facts = engine.get("/openledger/engine").json()
            name = json.loads((base / "base.json").read_text())["name"]
            answers = asyncio.run(traffic(engine, name, packages, options.stop))
        table = compare(answers, base)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    for row in table:
        print(f"{row['case']:28} {row['tokens']:4} tokens  largest score {row['largest_score']:9.4f}  "
              f"largest error {row['largest_error']:.1e}  {'agrees' if row['agrees'] else 'DIFFERS'}")  # fmt: skip
    ok = all(row["agrees"] and not row["unscored"] for row in table)
    print(f"{device}, vLLM {facts['vllm']}, {options.dtype}: {'all agree' if ok else 'NOT ALL AGREE'}")
    if device != "cpu":
        result = {"device": device, "dtype": options.dtype, "eager": options.eager, "agree": ok, "rows": table}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result | {key: facts[key] for key in ("vllm", "torch")}, indent=1) + "\n")
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()
