"""What a head is asked to reproduce: exact scores, provenance labels, or a mix of both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def provenance(owner: Tensor, token_counts: Sequence[int]) -> Tensor:
    """one_hot(owner) - n_c / N, [N_tokens, C] fp64: a contrast, so each row sums to zero.

    owner [N_tokens] int64, `token_counts` n_c over the tokens the head is fitted on. A contributor without a token has
    n_c = 0 and an exact zero column.
    """
    counts = torch.tensor(token_counts, dtype=torch.float64)
    labels = torch.nn.functional.one_hot(owner, len(counts)).double()
    return labels - counts / counts.sum()


def mix(scores: Tensor, labels: Tensor, label_weight: float) -> Tensor:
    """(1 - w) scores + w rms(scores) / rms(labels) labels: labels brought to the scores' scale, so the unit is nats."""
    ratio = scores.double().square().mean().sqrt() / labels.square().mean().sqrt().clamp_min(1e-30)
    return (1 - label_weight) * scores.double() + label_weight * ratio * labels
