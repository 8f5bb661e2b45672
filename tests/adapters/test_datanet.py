"""Datanets: who may do what, what is refused, and what a version is."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.database import Database
from adapters.datanet import DatanetStore
from adapters.digests import digest
from adapters.errors import (
    AlreadyWithdrawn,
    ContributionNotFound,
    DatanetNotFound,
    DuplicateExample,
    EmptyDatanet,
    InvalidExample,
    InvalidLicence,
    InvalidName,
    InvalidPolicy,
    NamespaceTaken,
    NotOwner,
    RetroactivePolicy,
    VersionNotFound,
)
from adapters.policy import DEFAULT_SPLIT_PPM
from adapters.version import version_facts

ALL_TO_CONTRIBUTORS = {"contributors": 1_000_000, "trainer": 0, "host": 0, "governance": 0, "treasury": 0}


def lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


@pytest.fixture
def net(store):
    """The Datanet `net` of olga's."""
    store.create("net", owner="olga", licence="cc-by-4.0", title="Net", description="A net.")
    return store


def test_create_makes_two_documents(store):
    """A new Datanet leaves its own document and its first policy; both are canonical and named by their digests."""
    datanet, policy = store.create("net", owner="olga", licence="cc-by-4.0", title="Net")
    assert (datanet.kind, policy.kind) == ("datanet", "policy")
    assert datanet.digest == digest(datanet.content)
    assert datanet.value()["licence"] == "CC-BY-4.0"
    assert policy.value()["split_ppm"] == DEFAULT_SPLIT_PPM
    assert policy.value()["previous"] is None


@pytest.mark.parametrize("name", ["", "Net", "-net", "a/b", "a" * 64, "net\n", "ñet", "net:1"])
def test_names(store, name):
    """A Datanet's name is one lower-case path segment."""
    with pytest.raises(InvalidName):
        store.create(name, owner="olga", licence="CC0-1.0", title="Net")


@pytest.mark.parametrize("licence", ["", " ", "free", "GPL", "CC-BY-4.0 OR", None])
def test_licence_is_required(store, net, licence):
    """What is no SPDX identifier or expression is refused, for a Datanet and for a contribution."""
    with pytest.raises(InvalidLicence):
        store.create("other", owner="olga", licence=licence, title="Other")
    if licence is not None:
        with pytest.raises(InvalidLicence):
            net.contribute("net", lines("a"), acting="ann", licence=licence)


def test_namespaces_are_taken_once(net):
    """A second Datanet of the same name is refused, also to its owner, and leaves no document."""
    before = net.documents_after(0)
    for owner in ("olga", "ann"):
        with pytest.raises(NamespaceTaken):
            net.create("net", owner=owner, licence="CC0-1.0", title="Again")
    assert net.documents_after(0) == before


@pytest.mark.parametrize(
    "change", [{"trainer": 1}, {"trainer": -1, "host": 1}, {"trainer": True}, {"trainer": 0.0}, {"bonus": 0}]
)
def test_policy_is_checked(net, change):
    """A split names exactly the roles, in non-negative integers that add up to a million."""
    with pytest.raises(InvalidPolicy):
        net.set_policy("net", {**ALL_TO_CONTRIBUTORS, **change}, acting="olga")


def test_policy_changes_are_recorded(net):
    """A new policy names the one before; the same split again changes nothing; only the owner sets it."""
    first = net.show("net").policy_digest
    changed = net.set_policy("net", ALL_TO_CONTRIBUTORS, acting="olga")
    assert changed.value()["previous"] == first
    assert net.set_policy("net", ALL_TO_CONTRIBUTORS, acting="olga") == changed
    assert (net.show("net").split_ppm, net.show("net").policy_digest) == (DEFAULT_SPLIT_PPM, first)  # until its period
    assert [one["digest"] for one in net.show("net").scheduled] == [changed.digest]
    with pytest.raises(NotOwner):
        net.set_policy("net", DEFAULT_SPLIT_PPM, acting="ann")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_a_policy_holds_from_its_period_on(net, monkeypatch):
    """Month or day, not a moment before; of changes for one time the last recorded; versions name the one in force."""

    def at(text: str) -> None:
        monkeypatch.setattr(net.database, "clock", lambda: ms(text))

    def split() -> str:
        return max(net.show("net").split_ppm, key=net.show("net").split_ppm.__getitem__)

    def all_to(role: str) -> dict[str, int]:
        return {**dict.fromkeys(ALL_TO_CONTRIBUTORS, 0), role: 1_000_000}

    at("2099-11-20T10:00:00")
    next_month = net.set_policy("net", all_to("trainer"), acting="olga")
    assert next_month.value()["effective"] == "2099-12"
    net.set_policy("net", all_to("host"), acting="olga", effective="2099-12-05")
    withdrawn = net.set_policy("net", all_to("treasury"), acting="olga", effective="2100-01")
    net.set_policy("net", all_to("governance"), acting="olga", effective="2100-01")
    assert [one["effective"] for one in net.show("net").scheduled] == ["2099-12", "2099-12-05", "2100-01", "2100-01"]
    net.contribute("net", lines("a"), acting="ann")
    assert net.version("net", acting="ann").value()["policy"] == net.show("net").policy_digest
    for moment, role in (
        ("2099-11-30T23:59:59.999", "contributors"),
        ("2099-12-01T00:00:00", "trainer"),
        ("2099-12-04T23:59:59.999", "trainer"),
        ("2099-12-05T00:00:00", "host"),
        ("2100-01-01T00:00:00", "governance"),
    ):
        at(moment)
        assert split() == role
    assert net.show("net").scheduled == ()
    assert net.document(withdrawn.digest) == withdrawn  # what was replaced before it held stays on record
    net.contribute("net", lines("b"), acting="ann")
    assert net.version("net", acting="ann").value()["policy"] == net.show("net").policy_digest


@pytest.mark.parametrize("effective", ["2099-11", "2099-11-20", "2099-11-21", "2098-12", "1999-01-01"])
def test_no_policy_is_retroactive(net, monkeypatch, effective):
    """A period that has begun, or begins within a minute, is refused; nothing is recorded."""
    monkeypatch.setattr(net.database, "clock", lambda: ms("2099-11-20T23:59:30"))
    before = net.documents_after(0)
    with pytest.raises(RetroactivePolicy):
        net.set_policy("net", ALL_TO_CONTRIBUTORS, acting="olga", effective=effective)
    assert net.documents_after(0) == before


@pytest.mark.parametrize("effective", ["soon", "2099-13", "2099-02-30", "2099", "2099-12-05T00:00:00Z", 7])
def test_a_period_is_a_month_or_a_day(net, effective):
    """Anything else is refused by name."""
    with pytest.raises(InvalidPolicy) as refused:
        net.set_policy("net", ALL_TO_CONTRIBUTORS, acting="olga", effective=effective)
    assert refused.value.code == "invalid_policy"


def test_contribution_is_named_by_its_document(net):
    """A contribution's document names contributor, submitter, licence and the root of its examples."""
    document = net.contribute("net", lines("a", "b"), acting="ann", licence="mit")
    (listed,) = net.contributions("net")
    assert (listed.digest, listed.sequence, listed.examples) == (document.digest, 1, 2)
    value = document.value()
    assert (value["contributor"], value["submitted_by"], value["licence"]) == ("ann", "ann", "MIT")
    assert net.document(document.digest) == document
    assert listed.withdrawn is False


def test_only_the_owner_posts_for_others(net):
    """The Datanet's owner may contribute on behalf of another, and is named; nobody else may."""
    value = net.contribute("net", lines("a"), acting="olga", contributor="ann").value()
    assert (value["contributor"], value["submitted_by"], value["licence"]) == ("ann", "olga", "CC-BY-4.0")
    with pytest.raises(NotOwner):
        net.contribute("net", lines("b"), acting="bob", contributor="ann")


def test_a_bad_line_refuses_all(net):
    """Of an upload with one bad line nothing is accepted."""
    with pytest.raises(InvalidExample) as refusal:
        net.contribute("net", lines("a", "b") + b"{}\n", acting="ann")
    assert refusal.value.line == 3
    assert net.show("net").examples == 0
    with pytest.raises(InvalidExample, match="no example"):
        net.contribute("net", b"\n\n", acting="ann")


def test_duplicates_name_line_and_owner(net):
    """An example that somebody contributed before is refused with its line and the earlier contribution."""
    first = net.contribute("net", lines("a", "b"), acting="ann")
    with pytest.raises(DuplicateExample) as refusal:
        net.contribute("net", lines("c") + b'\n{ "text" : "\\u0062" }\n', acting="bob")
    assert (refusal.value.line, refusal.value.contributor, refusal.value.contribution) == (3, "ann", first.digest)
    assert "ann contributed this example before" in refusal.value.message
    assert net.show("net").contributors == {"ann": 2}
    with pytest.raises(DuplicateExample, match="same example as line 1 of this upload") as refusal:
        net.contribute("net", lines("c", "c"), acting="bob")
    assert refusal.value.contributor is None


def test_another_datanet_is_another_matter(net):
    """The same example may be in two Datanets; their versions have different digests."""
    net.create("net2", owner="olga", licence="CC-BY-4.0", title="Net 2")
    roots = set()
    for name in ("net", "net2"):
        net.contribute(name, lines("a"), acting="ann")
        roots.add(net.version(name, acting="ann").value()["version"])
    assert len(roots) == 2


def test_withdrawal_holds_for_later_versions(net):
    """A withdrawn contribution stays in earlier versions, is in no later one, and is withdrawn once."""
    kept = net.contribute("net", lines("a"), acting="ann")
    gone = net.contribute("net", lines("b", "c"), acting="bob")
    before = net.version("net", acting="olga").value()["version"]
    with pytest.raises(NotOwner):
        net.withdraw(gone.digest, acting="ann")
    assert net.withdraw(gone.digest, acting="bob").value()["contribution"] == gone.digest
    with pytest.raises(AlreadyWithdrawn):
        net.withdraw(gone.digest, acting="bob")
    with pytest.raises(ContributionNotFound):
        net.withdraw(digest(b""), acting="bob")
    after = net.version("net", acting="olga").value()
    assert after["contributions"] == [kept.digest]
    assert {item.contributor for item in net.load("net", before).examples} == {"ann", "bob"}
    assert net.load("net").contributors == ("ann",)


def test_withdrawn_examples_stay_their_owners(net):
    """Nobody else may contribute what somebody withdrew; its contributor may, and the old version comes back."""
    document = net.contribute("net", lines("a", "b"), acting="ann")
    version = net.version("net", acting="olga")
    net.withdraw(document.digest, acting="olga")
    with pytest.raises(EmptyDatanet):
        net.version("net", acting="olga")
    with pytest.raises(DuplicateExample, match="withdrawn"):
        net.contribute("net", lines("a"), acting="bob")
    net.contribute("net", lines("b", "a"), acting="ann")
    assert net.version("net", acting="olga") == version
    with pytest.raises(DuplicateExample):
        net.contribute("net", lines("b"), acting="ann")


def test_a_version_is_its_content(net):
    """The same examples, contributors and licences give the same root, whatever the order and the number of uploads."""
    net.create("again", owner="olga", licence="CC-BY-4.0", title="Net")
    for text, who in (("a", "ann"), ("b", "bob"), ("c", "ann")):
        net.contribute("net", lines(text), acting=who)
    first = net.version("net", acting="olga")
    assert net.version("net", acting="ann") == first
    net.contribute("again", lines("b"), acting="bob")
    net.contribute("again", lines("c", "a"), acting="ann")
    order = [(item.contributor, item.digest, item.licence) for item in net.load("again", _make(net, "again")).examples]
    assert order == [(item.contributor, item.digest, item.licence) for item in net.load("net").examples]
    assert order == sorted(order)
    net.contribute("net", lines("d"), acting="ann")
    assert net.version("net", acting="olga").value()["version"] != first.value()["version"]
    assert [summary.sequence for summary in net.versions("net")] == [1, 2]


def _make(store: DatanetStore, name: str) -> str:
    return store.version(name, acting="olga").value()["version"]


def test_show_and_list(net):
    """Counts are of accepted examples; the latest version is the one asked for last."""
    net.create("art", owner="ann", licence="CC0-1.0", title="Art")
    assert [datanet.name for datanet in net.list()] == ["art", "net"]
    net.contribute("net", lines("a", "b"), acting="ann")
    shown = net.show("net")
    assert (shown.owner, shown.title, shown.description, shown.examples) == ("olga", "Net", "A net.", 2)
    assert shown.latest_version is None
    version = _make(net, "net")
    assert net.show("net").latest_version == version
    assert net.version_split("net", version) == DEFAULT_SPLIT_PPM
    assert net.find_version(version)["datanet"] == "net"
    assert net.find_version(digest(b"")) is None


def test_unknown_datanets(net):
    """Every act on an unknown Datanet, and a version nobody made, are refused by name."""
    for act in (net.show, net.contributions, net.versions, net.load):
        with pytest.raises(DatanetNotFound):
            act("nowhere")
    with pytest.raises(DatanetNotFound):
        net.contribute("nowhere", lines("a"), acting="ann")
    with pytest.raises(DatanetNotFound):
        net.version("nowhere", acting="ann")
    with pytest.raises(DatanetNotFound):
        net.set_policy("nowhere", ALL_TO_CONTRIBUTORS, acting="olga")
    for version in (None, digest(b"")):
        with pytest.raises(VersionNotFound):
            net.load("net", version)


def test_documents_wait_for_the_log(net):
    """Every document is kept, in the order of the acts, for a caller that asks from where it stopped."""
    contribution = net.contribute("net", lines("a"), acting="ann")
    version = net.version("net", acting="olga")
    waiting = net.documents_after(0)
    assert [document.kind for _, document in waiting] == ["datanet", "policy", "contribution", "datanet-version"]
    assert [document for _, document in net.documents_after(waiting[1][0])] == [contribution, version]


def test_two_processes_see_one_store(net, tmp_path):
    """What one connection commits, another one reads; migrations run once."""
    other = DatanetStore(Database(tmp_path / "registry.db"))
    net.contribute("net", lines("a"), acting="ann")
    assert other.show("net").examples == 1
    with pytest.raises(DuplicateExample):
        other.contribute("net", lines("a"), acting="bob")
    other.database.close()


KILLED = """
import sys, itertools
from pathlib import Path
from adapters.database import Database
from adapters.datanet import DatanetStore

store = DatanetStore(Database(Path(sys.argv[1])))
for number in itertools.count(int(sys.argv[2])):
    upload = b"".join(b'{"text": "%d.%d"}\\n' % (number, line) for line in range(50))
    print(store.contribute("net", upload, acting="ann").digest, flush=True)
"""


def test_kill_while_contributing(net, tmp_path):
    """Killed at any moment, a contributor finds every acknowledged contribution whole, and at most one more."""
    for run in range(3):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "registry.db"), str(run * 1000)]
        root = Path(__file__).parents[2]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
            acknowledged = [process.stdout.readline().strip() for _ in range(3 + run)]
            os.kill(process.pid, signal.SIGKILL)
            acknowledged += process.stdout.read().split()
        listed = [item.digest for item in net.contributions("net")]
        assert set(acknowledged) <= set(listed)
        assert net.show("net").examples == 50 * len(listed)
        assert len(net.load("net", _make(net, "net")).examples) == 50 * len(listed)


def test_a_contribution_during_a_version(net, monkeypatch):
    """A contribution that comes in while a version is hashed is in that version: none is lost between two."""
    net.contribute("net", lines("a"), acting="ann")
    late = [lines("b"), lines("c")]

    def hash_slowly(*arguments):
        facts = version_facts(*arguments)
        if late:
            net.contribute("net", late.pop(), acting="bob")
        return facts

    monkeypatch.setattr("adapters.datanet.version_facts", hash_slowly)
    assert net.version("net", acting="olga").value()["examples"] == 3
    assert len(net.versions("net")) == 1
