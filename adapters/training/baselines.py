"""Attributions that know nothing of the model: what a head has to beat."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor


def oracle(truth: Sequence[int], contributors: int) -> Tensor:
    """1 for the true contributor [Q, C]."""
    return torch.nn.functional.one_hot(torch.tensor(truth), contributors).double()


def uniform(queries: int, contributors: int) -> Tensor:
    """The same score for everyone."""
    return torch.zeros(queries, contributors, dtype=torch.float64)


def data_size(queries: int, tokens: Sequence[int]) -> Tensor:
    """Training tokens of each contributor: the best constant answer there is."""
    return torch.tensor(tokens, dtype=torch.float64).expand(queries, -1)


def bm25(
    queries: Sequence[str],
    texts: Sequence[str],
    owner: Sequence[int],
    contributors: int,
    k1: float = 1.2,
    b: float = 0.75,
) -> Tensor:
    """Okapi BM25 of each query against every example; a contributor scores as its best example [Q, C].

    sum over query words w of idf(w) f (k1 + 1) / (f + k1 (1 - b + b |d| / mean |d|)),
    idf(w) = log(1 + (N - n_w + 0.5) / (n_w + 0.5)). Words are lower-cased runs of letters and digits.
    """
    documents = [Counter(_words(text)) for text in texts]
    lengths = [sum(document.values()) for document in documents]
    mean = sum(lengths) / len(lengths)
    holders = Counter(word for document in documents for word in document)
    scores = torch.zeros(len(queries), contributors, dtype=torch.float64)
    for q, query in enumerate(queries):
        for d, document in enumerate(documents):
            total = 0.0
            for word in _words(query):
                f = document.get(word, 0)
                idf = math.log(1 + (len(documents) - holders[word] + 0.5) / (holders[word] + 0.5))
                total += idf * f * (k1 + 1) / (f + k1 * (1 - b + b * lengths[d] / mean))
            scores[q, owner[d]] = max(float(scores[q, owner[d]]), total)
    return scores


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
