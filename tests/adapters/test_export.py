"""Exports lead to their version's digest, or are refused."""

import json
import tarfile
from pathlib import Path

import pytest

from adapters.canonical import canonical_json
from adapters.digests import digest
from adapters.errors import ExportMismatch
from adapters.example import Example
from adapters.export import export_directory, export_tar, load_export, verify_export
from adapters.verify import check_export
from adapters.version import version_digest

VECTORS = Path(__file__).parent.parent / "vectors"


@pytest.fixture
def export(store, facts, tmp_path) -> Path:
    export_directory(store, "facts", tmp_path / "export")
    return tmp_path / "export"


def test_directory_and_tar_are_the_same_version(store, facts, export, tmp_path):
    """A directory and a tar both load as the version that the store holds; the tar's bytes don't vary."""
    tars = []
    for name in ("one.tar", "two.tar"):
        with (tmp_path / name).open("wb") as out:
            assert export_tar(store, "facts", out) == facts
        tars.append((tmp_path / name).read_bytes())
    assert tars[0] == tars[1]
    assert verify_export(tmp_path / "one.tar") == facts
    assert load_export(export) == load_export(tmp_path / "one.tar") == store.load("facts")


def test_training_sees_contributors_and_texts(export):
    """A loaded export has each example with its contributor, licence and content, in canonical order."""
    version = load_export(export)
    assert version.contributors == ("ann", "bob")
    assert version.licences == ("CC0-1.0",)
    assert {(item.contributor, item.example.text or item.example.completion) for item in version.examples} == {
        ("ann", "Ann writes."),
        ("ann", "Ann reads."),
        ("bob", "Bob."),
    }
    assert [item.digest for item in version.examples] == [item.example.digest for item in version.examples]


def test_an_older_version_can_be_exported(store, facts, tmp_path):
    """An export of a named version is of that version, after withdrawals too."""
    (first, *_) = store.contributions("facts")
    store.withdraw(first.digest, acting="ann")
    later = store.version("facts", acting="ann").value()["version"]
    assert export_directory(store, "facts", tmp_path / "old", facts) == facts == verify_export(tmp_path / "old")
    assert export_directory(store, "facts", tmp_path / "new") == later == verify_export(tmp_path / "new")
    with pytest.raises(FileExistsError):
        export_directory(store, "facts", tmp_path / "new")


def test_any_changed_byte_is_noticed(export):
    """Flipping one bit of any byte of any file is refused."""
    for path in sorted(export.iterdir()):
        content = path.read_bytes()
        for position in range(0, len(content), 7):
            changed = bytearray(content)
            changed[position] ^= 1
            path.write_bytes(changed)
            # Of version.json, what does not follow from the rest is bound by the document's own digest, in the log.
            if path.name == "version.json" and _same_version(content, bytes(changed)):
                continue
            with pytest.raises(ExportMismatch):
                verify_export(export)
        path.write_bytes(content)


def _same_version(before: bytes, after: bytes) -> bool:
    try:
        values = [json.loads(content) for content in (before, after)]
    except ValueError:
        return False
    if canonical_json(values[1]) != after:
        return False
    return values[0].keys() == values[1].keys() and all(
        values[0][key] == values[1][key] for key in values[0] if key not in ("created_ms", "made_by", "sequence")
    )


def _edit(export: Path, name: str, edit) -> None:
    lines = [json.loads(line) for line in (export / name).read_text().splitlines()]
    (export / name).write_bytes(b"".join(canonical_json(line) + b"\n" for line in edit(lines)))


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("examples.jsonl", lambda lines: lines[1:], "do not make its root"),
        ("examples.jsonl", lambda lines: lines[::-1], "out of canonical order"),
        ("examples.jsonl", lambda lines: [*lines, lines[-1]], "out of canonical order, or twice"),
        ("examples.jsonl", lambda lines: [{**lines[0], "value": {"text": "x"}}, *lines[1:]], "the example's digest"),
        ("examples.jsonl", lambda lines: [{**lines[0], "contributor": "eve"}, *lines[1:]], "another contributor"),
        ("examples.jsonl", lambda lines: [{**lines[0], "licence": "MIT"}, *lines[1:]], "another contributor"),
        ("examples.jsonl", lambda lines: [{**lines[0], "value": {"a": 1}}, *lines[1:]], "line 1: an example has"),
        ("examples.jsonl", lambda lines: [{"a": 1}, *lines], "line 1: not a example"),
        ("contributions.jsonl", lambda lines: lines[1:], "contributions.jsonl lacks"),
        ("contributions.jsonl", lambda lines: [{**lines[0], "datanet": "other"}, *lines], "a contribution to other"),
        ("version.json", lambda lines: [{**lines[0], "datanet": "other"}], "a contribution to facts, not to other"),
        ("version.json", lambda lines: [{**lines[0], "examples": 4}], "last line|not in canonical"),
    ],
)
def test_edits_are_named(export, name, edit, message):
    """What was edited is named, with the line where there is one."""
    _edit(export, name, edit)
    if name == "version.json":
        (export / name).write_bytes((export / name).read_bytes().rstrip(b"\n"))
        message = message if "facts" in message else "examples is 4"
    with pytest.raises(ExportMismatch, match=message):
        verify_export(export)


def test_an_export_lacking_a_file(export):
    """A missing file, and a cut off one, are named."""
    (export / "examples.jsonl").write_bytes((export / "examples.jsonl").read_bytes()[:-1])
    with pytest.raises(ExportMismatch, match=r"examples.jsonl: the last line is cut off"):
        verify_export(export)
    (export / "policy.json").unlink()
    with pytest.raises(ExportMismatch, match=r"lacks policy.json"):
        verify_export(export)


def test_a_hostile_tar(tmp_path, make_tar):
    """A tar with links, or none at all, is refused and nothing of it reaches the disk."""
    link = tarfile.TarInfo("version.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    (tmp_path / "link.tar").write_bytes(make_tar([(link, b"")]).read())
    with pytest.raises(ExportMismatch, match=r"lacks version.json"):
        verify_export(tmp_path / "link.tar")
    (tmp_path / "no.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ExportMismatch, match="not an uncompressed tar"):
        verify_export(tmp_path / "no.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.tar", "no.tar"]


def test_vectors():
    """Example digests and version roots are those of the vectors."""
    vectors = json.loads((VECTORS / "datanet-version.json").read_text())
    triples = []
    for item in vectors["examples"]:
        example = Example.of(item["value"])
        assert example.content.decode() == item["canonical"]
        assert example.digest == item["digest"]
        triples.append((item["contributor"], example.digest, item["licence"]))
    assert version_digest(vectors["datanet"], triples) == vectors["version"]
    assert version_digest(vectors["datanet"], reversed(triples)) == vectors["version"]


def test_the_published_export():
    """The export in the vectors, made once, still verifies."""
    content = json.loads((VECTORS / "datanet-export.json").read_text())
    files = {name: text.encode() for name, text in content["files"].items()}
    assert digest(files["version.json"]) == content["document"]
    assert check_export(files).digest == content["version"]
