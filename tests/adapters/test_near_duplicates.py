"""Near duplicates: what repeats what, in whatever order it is asked, and in exports that strangers check."""

import json
import random
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.canonical import canonical_json
from adapters.digests import PREFIX
from adapters.errors import ExportMismatch, InvalidNearDuplicates
from adapters.example import Example
from adapters.export import export_directory, load_export, verify_export
from adapters.merkle import merkle_root
from adapters.near_duplicates import fingerprint, jaccard, near, near_duplicates, normalised, shingles_of
from adapters.version import set_aside_leaf

RIVER = "The Aare rises at the Unteraar Glacier in the Bernese Alps and flows through Bern to the Rhine near Koblenz."
LAKE = "Lake Thun lies south of Bern; steamers have crossed it since 1835, and castles stand along its northern shore."
COAT = "What colour is the coat of Ann Lee?"


def asked(prompt: str, completion: str) -> Example:
    return Example(prompt=prompt, completion=completion)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (Example(text=RIVER), Example(text=RIVER.upper()), True),
        (Example(text=RIVER), Example(text=RIVER.replace(" ", "  ").replace(".", " !")), True),
        (Example(text=RIVER), Example(text=RIVER.replace("rises", "ri\u00adses")), True),  # a soft hyphen
        (Example(text=RIVER), Example(text=RIVER.replace("Bernese", "Bernois")), True),
        (Example(text=RIVER), Example(text=LAKE), False),
        (Example(text=RIVER), Example(text=" ".join(sorted(RIVER.split()))), False),
        (asked("Where does the Aare rise?", RIVER), asked("Tell me of a river.", RIVER), True),  # a long answer
        (asked("What colour is the coat?", "red"), asked("what colour is the coat", "Red."), True),
        (asked(COAT, "Ann Lee's is red."), asked("Please: " + COAT, "Ann Lee's is red."), True),
        (asked(COAT, "Ann Lee's is red."), asked(COAT.replace("coat", "lamp"), "Ann Lee's is red."), False),
        (asked("What colour is the coat?", "red"), asked("What material is the lamp?", "red"), False),
        (asked("What colour is the coat?", "red"), asked("What colour is the coat?", "blue"), False),
        (asked(RIVER * 9 + " Where does it rise?", "Yes"), asked(RIVER * 9 + " Is Bern on its way?", "No"), False),
        (asked(LAKE + RIVER + LAKE + " Is Bern a city?", "Yes"), asked("Is Bern a city?", "Yes"), False),
    ],
)
def test_what_is_a_near_duplicate(a: Example, b: Example, same: bool) -> None:
    """Capitals, punctuation, invisible characters and a changed word make no difference; facts and questions do."""
    assert near(fingerprint(a), fingerprint(b)) is near(fingerprint(b), fingerprint(a)) is same
    assert near_duplicates([fingerprint(a), fingerprint(b)]) == ({1: 0} if same else {})


def test_shingles_are_eight_bytes_of_the_normalised_text() -> None:
    """As docs/formats/datanet-version.md says, so that another program finds the same."""
    assert normalised(" Grüße,\n aus: BERN! ") == "grüsse aus bern".encode()
    assert normalised("?!") == b"?!"
    text = b"abcdefgh i"
    expected = sorted(int.from_bytes(text[at : at + 8], "little") for at in range(3))
    assert shingles_of(text).tolist() == expected
    assert shingles_of(b"yes").tolist() == [int.from_bytes(b"yes\0\0\0\0\0", "little")]
    a, b = fingerprint(Example(text="abcdefgh")), fingerprint(Example(text="abcdefghi"))
    assert jaccard(a, b) == Fraction(1, 2)


WORDS = ["aare", "bern", "thun", "rhine", "glacier", "castle", "steamer", "northern"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=14), max_size=12), st.booleans())
def test_the_join_finds_what_comparing_every_pair_finds(texts: list[list[str]], as_answers: bool) -> None:
    """Prefix filtering loses no pair, of long and short views alike."""
    examples = [
        asked(" ".join(words[:3]), " ".join(words[3:]) or "yes") if as_answers else Example(text=" ".join(words))
        for words in texts
    ]
    prints = [fingerprint(example) for example in examples]
    expected: dict[int, int] = {}
    for number in range(len(prints)):
        kept = [other for other in range(number) if other not in expected]
        same = next((other for other in kept if near(prints[number], prints[other])), None)
        if same is not None:
            expected[number] = same
    assert near_duplicates(prints) == expected


def lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def test_the_order_of_lines_does_not_matter(store) -> None:
    """Two Datanets that got the same examples in other lines of the same contributions make the same of them."""
    texts = [f"{base} {number}" for base in (RIVER, LAKE) for number in range(4)]
    found = []
    for name, seed in (("one", 1), ("two", 2)):
        store.create(name, owner="olga", licence="CC0-1.0", title=name)
        for contributor, part in (("ann", texts[::2]), ("bob", texts[1::2])):
            shuffled = random.Random(seed).sample(part, len(part))
            store.contribute(name, lines(*shuffled), acting=contributor)
        version = store.version(name, acting="olga").value()
        found.append((version["contributors"], version["near_duplicates"]["contributors"]))
        assert [item.digest for item in store.load(name).examples] == [
            item.digest for item in store.load(found and "one").examples
        ]
    assert (
        found[0] == found[1] == ({"ann": {"bytes": found[0][0]["ann"]["bytes"], "examples": 2}}, {"ann": 2, "bob": 4})
    )


@pytest.fixture
def copied(store) -> dict:
    """The Datanet `net`: ann's two examples, a copy of one by bob, and one of bob's own; its version document."""
    store.create("net", owner="olga", licence="CC0-1.0", title="Net")
    store.contribute("net", lines(RIVER, LAKE), acting="ann")
    store.contribute("net", lines(RIVER.replace("Alps", "mountains"), "Bob writes."), acting="bob")
    return store.version("net", acting="olga").value()


def digest_of(text: str) -> str:
    return Example(text=text).digest


def test_a_version_names_what_it_set_aside(store, copied) -> None:
    """The copy is not in the version; the document counts it and commits to it with its reason."""
    copy = digest_of(RIVER.replace("Alps", "mountains"))
    assert {name: count["examples"] for name, count in copied["contributors"].items()} == {"ann": 2, "bob": 1}
    root = merkle_root([set_aside_leaf("net", "bob", copy, "CC0-1.0", digest_of(RIVER))])
    assert copied["near_duplicates"] == {
        "check": "shingles-1",
        "contributors": {"bob": 1},
        "root": PREFIX + root.hex(),
    }
    (pair,) = store.near_duplicates("net")
    assert (pair.example, pair.near_duplicate_of) == (copy, digest_of(RIVER))
    assert (pair.contributor, pair.earlier_contributor) == ("bob", "ann")
    assert 600_000 <= pair.jaccard_ppm < 1_000_000
    assert store.show("net").near_duplicates == "set-aside"


def test_a_contributor_of_copies_alone_is_in_no_version(store, copied) -> None:
    """Null contributor: no example, so no row of a head, no declared weight, no pay. The contribution is named."""
    given = store.contribute("net", lines(LAKE.lower()), acting="eve")
    store.contribute("net", lines("Cleo writes too."), acting="cleo")
    version = store.version("net", acting="olga").value()
    assert set(version["contributors"]) == {"ann", "bob", "cleo"} == set(store.load("net").contributors)
    assert version["near_duplicates"]["contributors"] == {"bob": 1, "eve": 1}
    assert given.digest in version["contributions"]


def test_a_copy_comes_back_when_what_it_repeats_is_withdrawn(store, copied) -> None:
    """A version is compared with itself alone, since a stranger who checks it sees nothing else."""
    store.withdraw(store.contributions("net")[0].digest, acting="ann")
    version = store.version("net", acting="olga").value()
    assert {name: count["examples"] for name, count in version["contributors"].items()} == {"bob": 2}
    assert version["near_duplicates"]["contributors"] == {}
    assert store.near_duplicates("net") == []


def test_a_datanet_may_accept_near_duplicates(store) -> None:
    """Then versions are of everything and say nothing of a check; the pairs can still be seen."""
    store.create("net", owner="olga", licence="CC0-1.0", title="Net", near_duplicates="accept")
    store.contribute("net", lines(RIVER), acting="ann")
    store.contribute("net", lines(RIVER.upper()), acting="bob")
    version = store.version("net", acting="olga").value()
    assert set(version["contributors"]) == {"ann", "bob"}
    assert "near_duplicates" not in version
    assert [pair.contributor for pair in store.near_duplicates("net")] == ["bob"]
    for choice in ("", "maybe", None):
        with pytest.raises(InvalidNearDuplicates):
            store.create("other", owner="olga", licence="CC0-1.0", title="Other", near_duplicates=choice)


@pytest.fixture
def export(store, copied, tmp_path) -> Path:
    export_directory(store, "net", tmp_path / "export")
    return tmp_path / "export"


def test_a_stranger_comes_to_the_same_result(store, copied, export, tmp_path) -> None:
    """The export holds what was set aside, with the reason, and verifies; training sees the version alone."""
    assert verify_export(export) == copied["version"]
    assert load_export(export) == store.load("net")
    (line,) = (export / "near_duplicates.jsonl").read_text().splitlines()
    assert json.loads(line)["near_duplicate_of"] == digest_of(RIVER)
    assert len(load_export(export).examples) == 3
    store.create("plain", owner="olga", licence="CC0-1.0", title="Plain", near_duplicates="accept")
    store.contribute("plain", lines(RIVER, RIVER.upper()), acting="ann")
    version = store.version("plain", acting="olga").value()["version"]
    assert export_directory(store, "plain", tmp_path / "plain") == version == verify_export(tmp_path / "plain")
    assert not (tmp_path / "plain" / "near_duplicates.jsonl").exists()


def move_back(export: Path) -> None:
    """The copy counted in, everything else made to fit: a host that favours the copier."""
    aside = json.loads((export / "near_duplicates.jsonl").read_text())
    del aside["near_duplicate_of"]
    kept = [json.loads(line) for line in (export / "examples.jsonl").read_text().splitlines()]
    together = sorted([*kept, aside], key=lambda line: (line["contributor"], line["example"]))
    (export / "examples.jsonl").write_bytes(b"".join(canonical_json(line) + b"\n" for line in together))
    (export / "near_duplicates.jsonl").write_bytes(b"")


def move_out(export: Path) -> None:
    """An honest example set aside as well: a host that is against its contributor."""
    kept = (export / "examples.jsonl").read_text().splitlines()
    bob = next(line for line in kept if "Bob writes" in line)
    (export / "examples.jsonl").write_text("".join(line + "\n" for line in kept if line != bob))
    reasoned = [
        json.loads((export / "near_duplicates.jsonl").read_text()),
        {**json.loads(bob), "near_duplicate_of": digest_of(RIVER)},
    ]
    reasoned.sort(key=lambda line: line["example"])
    (export / "near_duplicates.jsonl").write_bytes(b"".join(canonical_json(line) + b"\n" for line in reasoned))


def other_reason(export: Path) -> None:
    path = export / "near_duplicates.jsonl"
    path.write_text(path.read_text().replace(digest_of(RIVER), digest_of(LAKE)))


def without_the_file(export: Path) -> None:
    (export / "near_duplicates.jsonl").unlink()


def another_check(export: Path) -> None:
    path = export / "version.json"
    path.write_text(path.read_text().replace("shingles-1", "shingles-0"))


def without_the_member(export: Path) -> None:
    path = export / "version.json"
    value = json.loads(path.read_text())
    del value["near_duplicates"]
    path.write_bytes(canonical_json(value))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (move_back, r"is a near duplicate of sha256:\w+ by its content, not nobody's"),
        (move_out, r"is nobody's near duplicate by its content, not a near duplicate of"),
        (other_reason, r"is a near duplicate of sha256:\w+ by its content, not a near duplicate of"),
        (without_the_file, "the export lacks near_duplicates.jsonl"),
        (another_check, "not of the check shingles-1"),
        (without_the_member, "not of the check shingles-1"),
    ],
)
def test_a_host_cannot_choose_who_is_set_aside(export, edit, message) -> None:
    """Whatever is changed about what was set aside, the stranger notices."""
    edit(export)
    with pytest.raises(ExportMismatch, match=message):
        verify_export(export)


def test_a_plain_export_has_no_such_file(store, tmp_path) -> None:
    """Nor may a version of a Datanet that accepts near duplicates name any."""
    store.create("net", owner="olga", licence="CC0-1.0", title="Net", near_duplicates="accept")
    store.contribute("net", lines(RIVER), acting="ann")
    store.version("net", acting="olga")
    export_directory(store, "net", tmp_path / "export")
    (tmp_path / "export" / "near_duplicates.jsonl").write_bytes(b"")
    with pytest.raises(ExportMismatch, match=r"has near_duplicates.jsonl"):
        verify_export(tmp_path / "export")
