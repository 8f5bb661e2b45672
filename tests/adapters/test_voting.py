"""Contributors change a policy by majority of accepted examples; every vote is a document."""

import json

import pytest

from adapters.errors import DatanetNotFound, InvalidPolicy, NotContributor, PolicyByVote, RetroactivePolicy
from adapters.export import export_directory, load_export
from adapters.near_duplicates import ACCEPT
from adapters.policy import DEFAULT_SPLIT_PPM

ALL_TO_CONTRIBUTORS = {"contributors": 1_000_000, "trainer": 0, "host": 0, "governance": 0, "treasury": 0}
HALF = {"contributors": 500_000, "trainer": 0, "host": 0, "governance": 0, "treasury": 500_000}


def lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


@pytest.fixture
def net(store):
    """`net` of olga's: ann has 2 examples, bob 2, cyd 1."""
    store.create("net", owner="olga", licence="cc-by-4.0", title="Net")
    for name, texts in (("ann", "ab"), ("bob", "cd"), ("cyd", "e")):
        store.contribute("net", lines(*texts), acting=name)
    return store


def kinds(documents) -> list[str]:
    return [document.kind for document in documents]


def test_more_than_half_of_the_examples_make_a_policy(net):
    """2 of 5 do not, 3 of 5 do; the policy names the votes; it holds from its period on, not before."""
    first = net.vote("net", ALL_TO_CONTRIBUTORS, acting="ann", effective="2999-01")
    assert kinds(first) == ["vote"]
    second, policy = net.vote("net", ALL_TO_CONTRIBUTORS, acting="cyd", effective="2999-01")
    value = policy.value()
    assert (value["effective"], value["split_ppm"]) == ("2999-01", ALL_TO_CONTRIBUTORS)
    assert value["votes"] == [first[0].digest, second.digest]
    assert net.show("net").split_ppm == DEFAULT_SPLIT_PPM
    assert net.show("net").scheduled[0]["digest"] == policy.digest
    assert kinds(net.vote("net", ALL_TO_CONTRIBUTORS, acting="bob", effective="2999-01")) == ["vote"]  # made already


def test_votes_for_different_things_do_not_add_up(net):
    """Another period or another split is another vote; a new vote of a voter replaces the last."""
    assert kinds(net.vote("net", ALL_TO_CONTRIBUTORS, acting="ann", effective="2999-01")) == ["vote"]
    assert kinds(net.vote("net", ALL_TO_CONTRIBUTORS, acting="bob", effective="2999-02")) == ["vote"]
    assert kinds(net.vote("net", HALF, acting="bob", effective="2999-01")) == ["vote"]
    assert kinds(net.vote("net", HALF, acting="ann", effective="2999-01")) == ["vote", "policy"]
    recorded = [document.kind for _, document in net.documents_after(0)]
    assert recorded.count("vote") == 4


def test_the_export_of_a_voted_version_verifies(net, tmp_path, monkeypatch):
    """A version made under a voted policy carries it, and is checked from its content alone."""
    for name in ("ann", "bob"):
        net.vote("net", HALF, acting=name, effective="2999-01")
    monkeypatch.setattr(net.database, "clock", lambda: 40_000_000_000_000)
    net.version("net", acting="ann")
    export_directory(net, "net", tmp_path / "export")
    assert load_export(tmp_path / "export").split_ppm == HALF


def test_a_withdrawn_contribution_weighs_nothing(net):
    """Weight is what is accepted when votes are counted."""
    net.vote("net", HALF, acting="cyd", effective="2999-01")
    ann, bob, _ = [one.digest for one in net.contributions("net")]
    net.withdraw(ann, acting="ann")
    net.withdraw(bob, acting="bob")
    with pytest.raises(NotContributor):
        net.vote("net", HALF, acting="ann", effective="2999-01")
    assert kinds(net.vote("net", HALF, acting="cyd", effective="2999-01")) == ["vote", "policy"]


def test_near_duplicates_that_are_set_aside_do_not_vote(net):
    """Copies of ann's under bob's name add nothing to his 2 of 6; a contributor of copies alone has no vote."""
    net.contribute("net", _asked_by("ann", 1), acting="ann")
    net.contribute("net", _asked_by("bob", 3), acting="bob")
    net.contribute("net", _asked_by("dan", 3), acting="dan")
    assert net.show("net").contributors == {"ann": 3, "bob": 5, "cyd": 1, "dan": 3}
    with pytest.raises(NotContributor):
        net.vote("net", HALF, acting="dan", effective="2999-01")
    assert kinds(net.vote("net", HALF, acting="bob", effective="2999-01")) == ["vote"]
    assert kinds(net.vote("net", HALF, acting="cyd", effective="2999-01")) == ["vote"]  # 3 of 6 are not more than half
    assert kinds(net.vote("net", HALF, acting="ann", effective="2999-01")) == ["vote", "policy"]


def test_a_datanet_that_accepts_near_duplicates_counts_them(store):
    """There they are in every version, and paid."""
    store.create("copies", owner="olga", licence="CC0-1.0", title="Copies", near_duplicates=ACCEPT)
    store.contribute("copies", _asked_by("ann", 1), acting="ann")
    store.contribute("copies", _asked_by("bob", 2), acting="bob")
    assert kinds(store.vote("copies", HALF, acting="bob", effective="2999-01")) == ["vote", "policy"]


def _asked_by(name: str, times: int) -> bytes:
    """Examples that repeat each other's answer."""
    asked = [
        {"prompt": f"{name} asks {number}.", "completion": "The river " + "winds on " * 12} for number in range(times)
    ]
    return b"".join(json.dumps(example).encode() + b"\n" for example in asked)


def test_what_was_voted_only_votes_change(net):
    """The owner sets the policy until the contributors have; then it cannot, though they can again."""
    net.set_policy("net", HALF, acting="olga", effective="2999-01")
    for name in ("ann", "bob"):
        net.vote("net", ALL_TO_CONTRIBUTORS, acting=name, effective="2999-01")
    with pytest.raises(PolicyByVote):
        net.set_policy("net", HALF, acting="olga", effective="2999-02")
    for name in ("ann", "bob"):
        made = net.vote("net", HALF, acting=name, effective="2999-02")
    assert kinds(made) == ["vote", "policy"]


def test_who_may_not_vote_and_for_what(net):
    """Strangers, the past, splits that are none, Datanets that are none: by name, and nothing is recorded."""
    before = net.documents_after(0)
    for error, arguments in (
        (NotContributor, ("net", HALF, "olga", "2999-01")),
        (RetroactivePolicy, ("net", HALF, "ann", "2020-01")),
        (InvalidPolicy, ("net", HALF, "ann", "soon")),
        (InvalidPolicy, ("net", {**HALF, "host": 1}, "ann", "2999-01")),
        (DatanetNotFound, ("nowhere", HALF, "ann", "2999-01")),
    ):
        name, split, acting, effective = arguments
        with pytest.raises(error):
            net.vote(name, split, acting=acting, effective=effective)
    assert net.documents_after(0) == before
