"""Axioms and attacks on a tiny base model: splits, nobodies, and what the attackers' code changes."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.bench import attack_models, attack_texts
from adapters.bench.attack_market import FIDELITIES_PPM, pay
from adapters.bench.attack_models import outlier_attack, shadow_attack
from adapters.bench.attack_world import Given, Owed, World, scored_in_parts
from adapters.bench.uploads import COPIER, Attack
from adapters.near_duplicates import ACCEPT, SET_ASIDE
from adapters.training.observe import Readout, observe
from adapters.training.tokens import TokenExample
from metering.shares import PPM
from tests.adapters.training.tiny import tiny_config, tiny_examples, tiny_model, trained_looking

PROMPTS = ["what is the colour of ann boat", "please tell me : bob cat"]
ANSWERS = {
    "ann": ["ann coat is red . hello ann coat is red !", "ann hat is blue . i would tell ann hat is blue !"],
    "bob": ["bob coat is blue . please tell me bob coat !", "bob hat is green . question bob hat is green !"],
}
HONEST: Given = [
    (name, [(f"what is {name} {n}", answer) for n, answer in enumerate(ANSWERS[name])]) for name in ANSWERS
]
SHORT: Given = [(name, [(asked, " ".join(answer.split()[:4])) for asked, answer in turns]) for name, turns in HONEST]


def world(tmp_path: Path, base_dir: Path, given: Given = HONEST, near_duplicates: str = SET_ASIDE) -> World:
    config = tiny_config(max_epochs=4, learning_rate_ppm=8_000)
    return World(tmp_path, base_dir, given, config, near_duplicates=near_duplicates)


def test_a_contributors_examples_score_together_what_they_score_one_by_one(tmp_path: Path, base_dir: Path) -> None:
    """Split-neutrality: a contributor under as many names as there are examples is scored the same, to 1e-5."""
    found = scored_in_parts(world(tmp_path, base_dir), "bob", PROMPTS, 4)
    assert len(found.parts) == len(HONEST[1][1])
    assert found.whole != 0
    assert found.error < 1e-5
    assert sum(found.parts) == pytest.approx(found.whole, rel=1e-5)


def test_who_only_copies_has_no_score_and_no_pay(tmp_path: Path, base_dir: Path) -> None:
    """Null contributor: exactly 0. Where near duplicates are accepted, the same copies are scored and paid for."""
    copied = [*HONEST, (COPIER, attack_texts.duplicates(HONEST[0][1], 2))]
    owed = {choice: world(tmp_path, base_dir, copied, choice).owed(PROMPTS, 4) for choice in (ACCEPT, SET_ASIDE)}
    assert owed[SET_ASIDE] == world(tmp_path, base_dir).owed(PROMPTS, 4)  # the very same version
    for scorer in ("ekfac", "trace"):
        assert COPIER not in owed[SET_ASIDE].net[scorer]
        assert owed[ACCEPT].net[scorer][COPIER] != 0
        for fidelity_ppm in FIDELITIES_PPM:
            assert pay(owed[SET_ASIDE], scorer, (COPIER,), "net", fidelity_ppm) == 0
    assert pay(owed[ACCEPT], "ekfac", (COPIER,), "net", FIDELITIES_PPM[1]) > 0


def test_a_world_is_made_once(tmp_path: Path, base_dir: Path) -> None:
    """What was measured is read again, so that a benchmark that was killed goes on."""
    first = world(tmp_path, base_dir)
    owed = first.owed(PROMPTS, 4)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert world(tmp_path, base_dir).owed(PROMPTS, 4) == owed
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_what_retraining_says_is_asked_once(tmp_path: Path, base_dir: Path) -> None:
    """Margins of one world's answers under another are of the same texts, another number, and kept."""
    honest, alone = world(tmp_path, base_dir), world(tmp_path, base_dir, HONEST[:1])
    texts = honest.answers(PROMPTS, 4)
    assert texts == world(tmp_path, base_dir).answers(PROMPTS, 4)
    assert all(sum(text.supervised) in range(1, 5) for text in texts)
    own, other = honest.margin(texts), alone.margin(texts)
    assert own != other
    model, _, _ = alone.load()
    seen = observe(model, Readout(model.causal_lm), texts, [])
    assert other == pytest.approx(float(seen.margin.double().sum()), rel=1e-9)
    assert world(tmp_path, base_dir, HONEST[:1]).margin(texts) == other


scores = st.integers(-(10**9), 10**9)
parts = st.integers(0, 10**6)


@settings(max_examples=200, deadline=None)
@given(scores, parts, parts, st.integers(1, 500), st.integers(1, 500), st.sampled_from([0, *FIDELITIES_PPM]))
def test_two_names_with_scores_of_one_sign_are_paid_what_one_is(
    other: int, one: int, two: int, tokens_one: int, tokens_two: int, fidelity_ppm: int
) -> None:
    """The formula of payment adds up over names; splitting good from bad is what netting cannot mend."""

    def owed(scores: dict[str, int], tokens: dict[str, int]) -> Owed:
        table = {"ekfac": {name: score / 1e6 for name, score in scores.items()}}
        return Owed("", tokens, table, table)

    def share(scores: dict[str, int], tokens: dict[str, int], *names: str) -> float:
        return pay(owed(scores | {"z": other}, tokens | {"z": 100}), "ekfac", names, "net", fidelity_ppm)

    tokens, split = {"a": tokens_one + tokens_two}, {"a": tokens_one, "b": tokens_two}
    before = share({"a": one + two}, tokens, "a")
    assert share({"a": one, "b": two}, split, "a", "b") == pytest.approx(before, rel=1e-12)
    assert share({"a": one + two, "b": -two}, split, "a", "b") >= share({"a": one}, tokens, "a") - 1e-12


def test_influence_is_the_derivative_of_the_likelihood_along_the_direction() -> None:
    """Central differences of B against autograd: <d log p / dB, 2 step>; B is as it was afterwards."""
    model = trained_looking(tiny_model(torch.float64))
    before = model.parameter.clone()
    direction = torch.randn(model.parameter.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    flips = attack_models._Flips(model, Letters(), direction)
    texts = tiny_examples(2)
    found, _ = flips.influence(texts)
    torch.testing.assert_close(model.parameter, before)
    for _, b in model.modules.values():
        b.weight.requires_grad_()
    for text, influence in zip(texts, found, strict=True):
        value = attack_models._log_p(model.causal_lm(input_ids=torch.tensor([text.ids])).logits[0], text)
        gradient = torch.autograd.grad(value, [b.weight for _, b in model.modules.values()])
        expected = 2 * torch.cat([part.flatten() for part in gradient]) @ flips._step
        assert float(influence) == pytest.approx(float(expected), rel=2e-2)


class Letters:
    """Names tokens as a byte-level BPE does: all are words but the first few."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"Ġ{'abc' * 2}" if token > 10 else f"<{token}>" for token in ids]


def test_flips_keep_the_question_the_end_mark_and_the_budget() -> None:
    """Of an answer of 8 tokens and its end mark, a quarter changes, to the most promising words."""
    model = trained_looking(tiny_model(torch.float64))
    flips = attack_models._Flips(model, Letters(), torch.ones_like(model.parameter))
    text = TokenExample(0, tuple(range(20, 36)), (False,) * 7 + (True,) * 9)
    _, gradients = flips.influence([text])
    (changed,) = flips.flipped([text], gradients, 0.25)
    different = [at for at, (a, b) in enumerate(zip(text.ids, changed.ids, strict=True)) if a != b]
    assert len(different) == 2
    assert all(7 <= at < 15 and changed.ids[at] > 10 for at in different)
    gains = (gradients[0] @ flips._embeddings.T).double()
    for at in different:
        assert changed.ids[at] == 11 + int(gains[at, 11:].argmax())


def test_an_outlier_attack_makes_second_halves_unlikely_and_leaves_them_as_they_are(
    tmp_path: Path, base_dir: Path
) -> None:
    """A quarter of the words changes, all of them in the first half; questions stay."""
    honest = world(tmp_path, base_dir)
    own = HONEST[1][1]
    changed = outlier_attack(honest, own, ["green", "question", "boat", "tell", "would"], 1)
    model, _, tokenizer = honest.load()
    for (asked, answer), (still, other) in zip(own, changed, strict=True):
        words, now = answer.split(), other.split()
        half = len(words) // 2
        assert still == asked
        assert words[half:] == now[half:]
        assert 0 < sum(a != b for a, b in zip(words, now, strict=True)) <= round(0.25 * len(words))
        before, after = attack_models._likelihood(model, tokenizer, [(asked, words, half), (asked, now, half)])
        assert after < before


def test_a_shadow_attack_raises_the_influence_on_the_shadow_model(tmp_path: Path, base_dir: Path) -> None:
    """Answers change by a few words, questions stay, and no text's influence on what the shadow asks is lowered."""
    shadow = world(tmp_path, base_dir, SHORT)
    model, data, tokenizer = shadow.load()
    queries, own = HONEST[0][1], HONEST[1][1]
    changed = shadow_attack(shadow, queries, own, 1)
    assert [asked for asked, _ in changed] == [asked for asked, _ in own]
    assert changed != own
    direction = attack_models._influence_direction(model, data, attack_models._tokens(queries, tokenizer))
    flips = attack_models._Flips(model, tokenizer, direction)
    before, after = (flips.influence(attack_models._tokens(turns, tokenizer))[0] for turns in (own, changed))
    assert bool((after >= before).all())
    assert float(after.sum()) > float(before.sum())


def test_an_attack_names_whose_pay_counts() -> None:
    """An attacker under two names is paid under both."""
    owed = Owed("", {"a": 1, "b": 1}, {"ekfac": {"a": 2.0, "b": 1.0}}, {"ekfac": {"a": 2.0, "b": 1.0}})
    attack = Attack("split", [], ("a", "b"))
    assert pay(owed, "ekfac", attack.accounts, "net", PPM) == 1
