"""What retraining says of a window's totals, and weights of training tokens."""

import numpy as np
import pytest
import torch

from adapters.bench.base_predicted import AS_IT_IS, WEIGHTS, effects, pay_ppm
from adapters.training.lds import Outcomes


def test_the_effect_is_what_subsets_with_a_contributor_have_more() -> None:
    """Outcomes that add up over members give each member's own number back, over queries and seeds."""
    worth = np.array([[3.0, 1.0], [-2.0, 0.5], [0.0, 0.0], [1.0, 1.0]])  # contributors x queries
    members = np.array([[a, b, c, d] for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)], float)
    half = np.stack([members @ worth, members @ worth + 7.0])
    measured = Outcomes(members=members, half=half, full=half[:, -1], left_out=None, owner=np.zeros(2, int))
    found = effects(measured)
    assert found == pytest.approx(worth.sum(1))
    assert [pay_ppm(found, who) for who in range(4)] == [666_667, 0, 0, 333_333]
    assert pay_ppm(-found - 10, 0) == 0


def test_a_token_that_the_base_model_would_say_weighs_nothing() -> None:
    """Its first choice weighs 0 where a weight compares with the best, and every weight grows with surprise."""
    own, best = torch.tensor([0.6, 0.3, 0.01]).log(), torch.tensor([0.6, 0.6, 0.6]).log()
    found = {name: weight(own, best).tolist() for name, weight in WEIGHTS.items()}
    assert found.pop(AS_IT_IS) == [1, 1, 1]
    assert found["not-first-choice"] == [0, 1, 1]
    assert found["beside-best"] == pytest.approx([0, 0.5, 1 - 0.01 / 0.6], abs=1e-6)
    assert found["unlikely"] == pytest.approx([0.4, 0.7, 0.99], abs=1e-6)
