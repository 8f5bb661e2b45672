"""A Datanet version as token examples, with its contributors and what each of them gave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.export import load_export
from adapters.training.errors import NothingToLearn
from adapters.training.tokens import TokenExample, tokenize
from adapters.version import DatanetVersion


@dataclass(frozen=True)
class TokenDataset:
    """`examples` are in the version's canonical order; `owner` of each indexes `contributors` (sorted)."""

    version: DatanetVersion
    contributors: tuple[str, ...]
    examples: tuple[TokenExample, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Examples and supervised tokens of each contributor: what declared shares default to."""
        counts = {name: {"examples": 0, "tokens": 0} for name in self.contributors}
        for example in self.examples:
            count = counts[self.contributors[example.owner]]
            count["examples"] += 1
            count["tokens"] += sum(example.supervised)
        return counts


def load_dataset(export_dir: Path, tokenizer: Any) -> TokenDataset:
    """Read and check an export, and tokenise it.

    Examples without a supervised token are left out. Raises ExportMismatch, ExampleTooLong, NothingToLearn.
    """
    version = load_export(export_dir)
    index = {name: i for i, name in enumerate(version.contributors)}
    examples = [tokenize(item.example, tokenizer, index[item.contributor]) for item in version.examples]
    examples = [example for example in examples if any(example.supervised[1:])]
    if not examples:
        raise NothingToLearn(f"no example of {version.digest} has a token to learn")
    return TokenDataset(version, version.contributors, tuple(examples))


def load_tokenizer(base_dir: Path) -> Any:
    """The tokenizer of a base model, from local files only."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_dir, local_files_only=True)
