"""From signed scores to integer shares (ATTRIBUTION.md section 4)."""

from __future__ import annotations

from collections.abc import Mapping

PPM = 1_000_000


def share_weights(scores: Mapping[str, int], declared: Mapping[str, int], fidelity_ppm: int) -> dict[str, int]:
    """Integers in the exact proportion of

        w_c = f max(S_c, 0) / sum max(S, 0) + (1 - f) d_c / sum d,     f = fidelity_ppm / 10^6

    for every contributor of `declared`; d_c when no score is positive. Multiplying by 10^6 sum(max(S,0)) sum(d) leaves
    integers, so nothing is rounded here. `scores` may lack contributors (0); those outside `declared` are a ValueError.
    """
    if not scores.keys() <= declared.keys():
        raise ValueError(f"scores of undeclared contributors: {sorted(scores.keys() - declared.keys())}")
    positive = {name: score for name, score in scores.items() if score > 0}
    if fidelity_ppm == 0 or not positive:
        return dict(declared)
    by_score = fidelity_ppm * sum(declared.values())
    by_weight = (PPM - fidelity_ppm) * sum(positive.values())
    score_of = positive.get
    return {name: by_score * score_of(name, 0) + by_weight * weight for name, weight in declared.items()}


def largest_remainder(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Integers in proportion to `weights` that add up to `total` exactly (Hamilton's method).

    Each gets floor(total * w / sum w); the units left over go to the largest remainders, ties to the name that sorts
    first by code points. `total` and weights are not negative; the weights' sum is positive unless total is 0.
    """
    if total == 0:
        return dict.fromkeys(weights, 0)
    weight_sum = sum(weights.values())
    if total < 0 or weight_sum <= 0 or min(weights.values()) < 0:
        raise ValueError("largest_remainder needs total >= 0, weights >= 0 and a positive sum")
    shares: dict[str, int] = {}
    remainders: list[tuple[int, str]] = []
    left = total
    for name, weight in weights.items():
        share, remainder = divmod(total * weight, weight_sum)
        shares[name] = share
        left -= share
        remainders.append((-remainder, name))
    if left:
        for _, name in sorted(remainders)[:left]:
            shares[name] += 1
    return shares


def shares_ppm(scores: Mapping[str, int], declared: Mapping[str, int], fidelity_ppm: int) -> dict[str, int]:
    """Shares in parts per million that add up to 10^6; {} when nobody is declared. A request's provisional shares."""
    if not declared:
        return {}
    return largest_remainder(PPM, share_weights(scores, declared, fidelity_ppm))
