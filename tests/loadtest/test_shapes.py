"""The benchmark's base models of a given shape."""

import json
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters.base import BaseModel
from loadtest.bench.shapes import SHAPES, make_base
from loadtest.packages import Base
from loadtest.prompts import prompt


def test_a_shape_is_a_model_that_loads_and_tells_words_apart(tmp_path: Path) -> None:
    """transformers reads weights and tokenizer; norms are 1, no two rows of the unembedding are alike, and the words of
    the benchmark's prompts are known."""
    directory = make_base(tmp_path / "tiny", "tiny")
    model = AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    rows = model.lm_head.weight.detach()
    assert rows.shape == (SHAPES["tiny"]["vocab_size"], SHAPES["tiny"]["hidden_size"])
    assert len(rows.unique(dim=0)) == len(rows)
    assert (model.model.norm.weight == 1).all()
    ids = tokenizer(prompt(random.Random(0), 20)).input_ids
    assert tokenizer.unk_token_id not in ids
    assert model(torch.tensor([ids])).logits.isfinite().all()
    assert (
        tokenizer.apply_chat_template([{"role": "user", "content": "time year"}], tokenize=False).strip() == "time year"
    )


def test_the_gateway_and_the_adapter_maker_see_the_same_shapes(tmp_path: Path) -> None:
    """Adapters are made for the modules that the gateway reads from the weights."""
    directory = make_base(tmp_path / "tiny", "tiny")
    seen = BaseModel.from_directory(directory)
    made = Base.read(directory)
    assert made.digest == json.loads((directory / "base.json").read_text())["digest"] == seen.digest
    assert made.layers == seen.layers
    for module, (out_features, in_features) in made.shapes.items():
        shape = seen.modules[f"model.layers.1.{module}"]
        assert (shape.out_features, shape.in_features) == (out_features, in_features)
