"""A tiny base model directory with a tokenizer, and the export of a small Datanet."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adapters.demo.contribution import Contribution, chat, jsonl
from adapters.demo.export import write_export
from tests.adapters.training.tiny import tiny_base

WORDS = (
    "what is the colour of coat boat hat ann bob cat red blue green quick question . please tell me : hello ! i would"
)
TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-layer Llama with a word-level tokenizer."""
    directory = tmp_path_factory.mktemp("base")
    tiny_base().save_pretrained(directory)
    words = ["<pad>", "<s>", "</s>", "<unk>", "user", "assistant", *dict.fromkeys(WORDS.split())]
    model = models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(directory)
    return directory


def small_datanet() -> list[Contribution]:
    """Three contributors, two examples each."""
    answers = {"ann": ("red", "blue"), "bob": ("blue", "green"), "cat": ("green", "red")}
    return [
        Contribution(
            name,
            jsonl(
                [
                    chat(f"what is the colour of {name} {thing}", f"{name} {thing} is {colour} .")
                    for thing, colour in zip(("coat", "hat"), colours, strict=True)
                ]
            ),
            "CC0-1.0",
            "test",
        )
        for name, colours in answers.items()
    ]


@pytest.fixture(scope="session")
def export_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exports") / "colours"
    write_export("colours", small_datanet(), directory)
    return directory
