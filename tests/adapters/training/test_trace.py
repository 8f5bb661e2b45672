"""The update trace against an independent run of the library's optimizer."""

import copy
from pathlib import Path

import pytest
import torch

from adapters.training.config import TrainingConfig
from adapters.training.loop import epoch_batches, learning_rate, run_training
from adapters.training.model import HiddenCache, add_lora
from adapters.training.packs import common_prefix
from adapters.training.trace import TraceState
from tests.adapters.training.tiny import CONTRIBUTORS, tiny_base, tiny_config, tiny_examples, tiny_model


def independent_run(
    dtype: torch.dtype, config: TrainingConfig, owners: set[int] | None = None
) -> dict[str, torch.Tensor]:
    """What plain PEFT + torch.optim.AdamW trains, by our names: one example a row, no packs, no cache, no trace."""
    examples = tiny_examples()
    ours = add_lora(tiny_base(dtype), config, "tiny", seed=0)
    cache = HiddenCache(ours, examples, common_prefix(examples))
    model = copy.deepcopy(ours.peft)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_B" in name or (config.train_a and "lora_A" in name))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        trained.values(),
        betas=(config.beta1_ppm / 1e6, config.beta2_ppm / 1e6),
        eps=config.epsilon_ppt / 1e12,
        weight_decay=config.weight_decay_ppm / 1e6,
        foreach=False,
    )
    planned, step = config.max_epochs * len(epoch_batches(cache, config, 0, 0)), 0
    for epoch in range(config.max_epochs):
        for batch in epoch_batches(cache, config, 0, epoch):
            step += 1
            optimizer.param_groups[0]["lr"] = learning_rate(step, planned, config)
            loss, count = torch.zeros((), dtype=dtype), 0
            for index in [i for pack in batch for i in pack.members]:
                ids = torch.tensor([examples[index].ids])
                labels = torch.where(torch.tensor([examples[index].supervised]), ids, -100)
                logits = model(input_ids=ids).logits[0, :-1]
                loss = loss + torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
                count += int((labels[0, 1:] >= 0).sum())
            optimizer.zero_grad()
            (loss / count).backward()
            torch.nn.utils.clip_grad_norm_(trained.values(), config.clip_norm_ppm / 1e6)
            optimizer.step()
    return {
        name.removeprefix("base_model.model.").removesuffix(".default.weight").removesuffix(".lora_B"): p.detach()
        for name, p in trained.items()
    }


@pytest.mark.parametrize("train_a", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_the_sum_of_the_traces_is_what_an_independent_adamw_reaches(
    tmp_path: Path, dtype: torch.dtype, tolerance: float, train_a: bool
) -> None:
    """B = sum_c B_c and A = decay A_0 + sum_c A_c within 1e-5 relative, each, of plain PEFT under torch.optim.AdamW.

    With clipping (of A and B together) and weight decay. In fp64, where the library's own rounding of A is out of the
    way, the sums are as near to what training added to A_0.
    """
    # epsilon 1e-5: Adam would blow up fp32's rounding of tiny gradients
    config = tiny_config(epsilon_ppt=10_000_000, train_a=train_a)
    model, examples = tiny_model(dtype, train_a=train_a), tiny_examples()
    cache = HiddenCache(model, examples, common_prefix(examples))
    state, _ = run_training(model, cache, CONTRIBUTORS, config, seed=0, run="r", checkpoint=tmp_path / "c.safetensors")
    expected = independent_run(dtype, config)
    summed, left = model.split(state.trace.sum(0)), model.split(state.initial)
    assert set(summed) == set(expected)
    assert state.identity_error() < 1e-12
    for side in ("", ".lora_A") if train_a else ("",):
        names = [name for name in expected if name.endswith(".lora_A") == bool(side)]
        ours = torch.cat([summed[name].flatten() for name in names])
        whole = torch.cat([expected[name].double().flatten() for name in names])
        theirs = whole - torch.cat([left[name].flatten() for name in names])
        assert theirs.abs().max() > 1e-3
        assert (ours - theirs).norm() <= tolerance * (theirs if dtype is torch.float64 else whole).norm()


def test_a_contributor_without_examples_has_an_exactly_zero_trace(tmp_path: Path) -> None:
    """Rows of a contributor whose gradient is always zero stay 0.0, not merely small."""
    config, model, examples = tiny_config(), tiny_model(), tiny_examples()
    cache = HiddenCache(model, examples, common_prefix(examples))
    state, _ = run_training(
        model, cache, CONTRIBUTORS + 1, config, seed=0, run="r", checkpoint=tmp_path / "c.safetensors"
    )
    assert torch.count_nonzero(state.trace[CONTRIBUTORS]) == 0
    assert torch.count_nonzero(state.in_run[CONTRIBUTORS]) == 0
    assert torch.count_nonzero(state.trace[:CONTRIBUTORS]) > 0


def test_splitting_a_contributor_splits_its_trace() -> None:
    """The traces of two halves of a contributor add up to the trace of the whole, to 1e-5."""
    config, draw = tiny_config(), torch.Generator().manual_seed(0)
    whole = TraceState.start(torch.zeros(50, dtype=torch.float64), 2)
    halves = TraceState.start(torch.zeros(50, dtype=torch.float64), 3)
    for step in range(1, 30):
        gradient = torch.randn(3, 50, generator=draw, dtype=torch.float64)
        halves.step(gradient, step, 1e-3, config)
        whole.step(torch.stack([gradient[0] + gradient[1], gradient[2]]), step, 1e-3, config)
    torch.testing.assert_close(halves.trace[0] + halves.trace[1], whole.trace[0], rtol=1e-5, atol=1e-12)
