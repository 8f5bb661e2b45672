"""A composed adapter computes the weighted sum of its parts, and its head scores the weighted sum of theirs."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from adapters.base import BaseModel
from adapters.compose import compose
from adapters.demo.export import write_export
from adapters.training.config import GENERALISED, MEMORISED, HeadConfig
from adapters.training.fit import fit_head
from adapters.training.head import AttributionHead
from adapters.training.model import load_adapted, load_base
from adapters.training.observe import Readout, observe
from adapters.training.tokens import TokenExample
from adapters.training.train import train_adapter
from tests.adapters.training.conftest import small_datanet
from tests.adapters.training.tiny import tiny_config

WEIGHTS_PPM = (700_000, 300_000)
IDS = torch.arange(4, 20)[None]


@pytest.fixture(scope="module")
def parts(base_dir: Path, export_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two trained adapters of different ranks, modules, contributors and widths of P."""
    root = tmp_path_factory.mktemp("parts")
    write_export("fewer", small_datanet()[1:], root / "fewer")
    first, second = root / "first", root / "second"
    configs = (
        tiny_config(max_epochs=1),
        tiny_config(max_epochs=1, r=2, lora_alpha=6, target_modules=("q_proj", "down_proj")),
    )
    for out, export, config, k in ((first, export_dir, configs[0], 8), (second, root / "fewer", configs[1], 6)):
        train_adapter(export, base_dir, out, seed=k, config=config, trainer="tess", host="hal")
        regime = MEMORISED if k == 8 else GENERALISED
        config_of_head = HeadConfig(k=k, regime=regime, report_examples=2, max_new_tokens=3, threads=1)
        fit_head(out, export, base_dir, config=config_of_head)
    return first, second


@pytest.fixture(scope="module")
def composed(parts: tuple[Path, Path], base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("composed") / "sum"
    compose(list(zip(parts, WEIGHTS_PPM, strict=True)), BaseModel.from_directory(base_dir), out)
    return out


@torch.no_grad()
def test_its_logits_are_those_of_the_weighted_sum_of_the_parts(
    parts: tuple[Path, Path], composed: Path, base_dir: Path
) -> None:
    """PEFT loads the package, and computes what its own concatenation of the two adapters computes."""
    theirs = PeftModel.from_pretrained(load_base(base_dir), str(parts[0]), adapter_name="a")
    theirs.load_adapter(str(parts[1]), adapter_name="b")
    theirs.add_weighted_adapter(["a", "b"], [w / 1e6 for w in WEIGHTS_PPM], "sum", combination_type="cat")
    theirs.set_adapter("sum")
    ours = PeftModel.from_pretrained(load_base(base_dir), str(composed))
    torch.testing.assert_close(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)
    theirs.set_adapter("a")
    assert not torch.allclose(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits, atol=1e-3)


def test_its_scores_are_the_weighted_sum_of_both_heads_on_the_same_activations(
    parts: tuple[Path, Path], composed: Path, base_dir: Path
) -> None:
    """score_c = 0.7 a_c + 0.3 b_c for every token and every contributor of either, to the rounding of fp32."""
    model = load_adapted(base_dir, composed)
    head = AttributionHead.load(composed / "attribution_head.safetensors")
    example = TokenExample(-1, tuple(IDS[0].tolist()), (False,) * 4 + (True,) * 12)
    seen = observe(model, Readout(model.causal_lm), [example], [])
    names = list(model.modules)
    got = head.tensors.scores(seen.u, seen.h[:, [names.index(tap) for tap in head.taps]])
    expected = torch.zeros_like(got)
    base = load_base(base_dir)
    for path, weight_ppm in zip(parts, WEIGHTS_PPM, strict=True):
        own = AttributionHead.load(path / "attribution_head.safetensors")
        lora_a = {name: pair[0].weight for name, pair in load_adapted(base_dir, path).modules.items()}
        h = torch.stack([_shrink(model, example, tap) @ lora_a[tap].T for tap in own.taps], dim=1)
        u = observe(model, Readout(base), [example], []).u
        columns = [head.contributors.index(name) for name in own.contributors]
        expected[:, columns] += weight_ppm / 1e6 * own.tensors.scores(u, h)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()) + 1e-7)
    assert head.contributors == ("ann", "bob", "cat")
    assert head.tensors.P.shape[1] == 8 + 6  # nothing in common: the readouts stand side by side


@torch.no_grad()
def _shrink(model, example: TokenExample, tap: str) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """The input of a tapped module at the positions that predict the supervised tokens."""
    kept: list[torch.Tensor] = []
    module = model.modules[tap][0]
    hook = module.register_forward_hook(lambda _module, args, _output: kept.append(args[0][0]))
    try:
        model.peft(input_ids=torch.tensor([example.ids]))
    finally:
        hook.remove()
    return kept[0][[at - 1 for at, own in enumerate(example.supervised) if own]]
