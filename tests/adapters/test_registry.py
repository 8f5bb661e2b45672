"""The registry: names lead to immutable adapters, whole or not at all."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from adapters.database import Database
from adapters.digests import digest, hex_of
from adapters.errors import (
    AdapterNotFound,
    AdapterRevoked,
    AdapterTaken,
    BadTrainingRecord,
    DeclaredFixed,
    HeadMismatch,
    InvalidDeclared,
    InvalidName,
    NamespaceNotFound,
    NamespaceTaken,
    NotOwner,
    PickleFile,
    StagingNotFound,
    VersionNotFound,
    WrongTensorName,
)
from adapters.package import manifest_bytes, pack
from adapters.registry import Registry

ROOT = Path(__file__).parents[2]


def installed(registry: Registry) -> set[str]:
    """Names of the installed packages; fails when work in progress is left."""
    directory = registry._installation.directory
    assert list((directory / ".staging").iterdir()) == []
    return {path.name for path in directory.iterdir()} - {".staging"}


def kinds(documents) -> list[str]:
    return [document.kind for document in documents]


def test_register_and_resolve(registry, kit):
    """A registered package resolves by name and by tag to its digest, and lies whole under its digest."""
    registration = registry.register("pia/poet", kit.write(), acting="pia")
    adapter = registry.resolve("pia/poet")
    assert adapter == registry.resolve("pia/poet:latest") == registration.adapter
    assert adapter.directory.name == hex_of(adapter.digest)
    assert digest(manifest_bytes(adapter.directory, kit.base.digest)) == adapter.digest
    assert digest((adapter.directory / "manifest.json").read_bytes()) == adapter.digest
    assert (adapter.publisher, adapter.method, adapter.declared) == ("pia", "declared", {"pia": 1})
    assert kinds(registration.documents) == ["adapter", "registration", "tag", "promotion"]
    assert registration.documents[0].digest == adapter.digest
    assert installed(registry) == {hex_of(adapter.digest)}


def test_a_tar_is_the_same_adapter(registry, kit):
    """A directory and its tar have one digest; what is not part of a package is left out."""
    directory = kit.write()
    (directory / "README.md").write_text("written by PEFT")
    first = registry.register("pia/poet", directory, acting="pia")
    out = io.BytesIO()
    pack(directory, out)
    out.seek(0)
    again = registry.register("pia/poet", out, acting="pia")
    assert again.adapter == first.adapter
    assert again.documents == ()
    assert len(installed(registry)) == 1


def test_a_full_package_carries_its_terms(registry, kit, facts):
    """Datanet, trainer, host, head, method and fidelity come from the package; declared weights from trained tokens."""
    kit.write()
    kit.write_record("facts", facts, {"ann": 30, "bob": 12})
    kit.write_head(facts, ["ann", "bob"])
    registration = registry.register("pia/poet", kit.directory, acting="pia")
    adapter = registration.adapter
    assert (adapter.datanet, adapter.datanet_version) == ("facts", facts)
    assert (adapter.trainer, adapter.host) == ("tina", "hugo")
    assert (adapter.method, adapter.fidelity_ppm, adapter.contributors) == ("trace", 250_000, ("ann", "bob"))
    assert adapter.declared == {"ann": 30, "bob": 12}
    assert kinds(registration.documents)[:4] == ["adapter", "training-record", "head", "registration"]
    record = (adapter.directory / "training_record.json").read_bytes()
    assert registration.documents[1].content == record
    assert registration.documents[2].value()["head"] == adapter.head


def test_a_head_without_record_declares_accepted_bytes(registry, kit, facts, store):
    """Without training record the head's version names the Datanet; accepted bytes are the declared weights."""
    kit.write()
    kit.write_head(facts, ["ann", "bob"])
    adapter = registry.register("pia/poet", kit.directory, acting="pia").adapter
    assert adapter.datanet == "facts"
    counts = store.find_version(facts)["contributors"]
    assert adapter.declared == {name: count["bytes"] for name, count in counts.items()}


def test_versions_and_contributors_must_exist(registry, kit, facts, store):
    """A package that names an unknown version, another Datanet's, or a stranger to the version, is refused."""
    kit.write()
    kit.write_record("facts", digest(b""), {"ann": 1})
    with pytest.raises(VersionNotFound):
        registry.register("pia/poet", kit.directory, acting="pia")
    store.create("other", owner="olga", licence="CC0-1.0", title="Other")
    kit.write_record("other", facts, {"ann": 1})
    with pytest.raises(VersionNotFound):
        registry.register("pia/poet", kit.directory, acting="pia")
    kit.write_record("facts", facts, {"ann": 1, "eve": 1})
    with pytest.raises(BadTrainingRecord, match="eve"):
        registry.register("pia/poet", kit.directory, acting="pia")
    kit.write_record("facts", facts, {"ann": 1})
    kit.write_head(facts, ["ann", "eve"])
    with pytest.raises(HeadMismatch, match="eve"):
        registry.register("pia/poet", kit.directory, acting="pia")
    assert installed(registry) == set()


def test_namespaces_are_owned(registry, kit, facts):
    """Only its owner registers or promotes under a namespace; an account claims its own name only."""
    with pytest.raises(NotOwner):
        registry.register("pia/poet", kit.write(), acting="eve")
    with pytest.raises(NotOwner):
        registry.register("facts/poet", kit.directory, acting="pia")
    with pytest.raises(NamespaceNotFound):
        registry.register("nobody/poet", kit.directory, acting="pia")
    registry.register("facts/poet", kit.directory, acting="olga")
    with pytest.raises(NotOwner):
        registry.promote("facts/poet", "latest", acting="pia")
    with pytest.raises(NotOwner):
        registry.claim("eve", acting="pia")
    with pytest.raises(NamespaceTaken):
        registry.claim("facts", acting="facts")
    registry.claim("pia", acting="pia")


@pytest.mark.parametrize(
    "name", ["poet", "pia/", "/poet", "pia/po/et", "pia/poet:", "pia/../x", "Pia/poet", "pia/poet:a b"]
)
def test_names(registry, kit, name):
    """A served name is namespace/adapter or namespace/adapter:tag."""
    with pytest.raises(InvalidName):
        registry.register(name, kit.write(), acting="pia")
    with pytest.raises(InvalidName):
        registry.resolve(name)


def test_a_tag_is_replaced_in_one_step(registry, kit):
    """New bytes under the same name are a new digest; the tag and the bare name lead to it, the old files stay."""
    old = registry.register("pia/poet", kit.write(), acting="pia").adapter
    new = registry.register("pia/poet", kit.reseed(1).write(), acting="pia")
    assert registry.resolve("pia/poet") == new.adapter != old
    assert kinds(new.documents) == ["adapter", "registration", "tag"]
    assert new.documents[-1].value()["previous"] == old.digest
    assert installed(registry) == {hex_of(old.digest), hex_of(new.adapter.digest)}
    assert registry.by_digest(old.digest) == old


def test_replacing_while_resolving(registry, kit, tmp_path, base):
    """A reader in another thread sees the old or the new adapter at every moment, never nothing."""
    digests = {registry.register("pia/poet", kit.write(), acting="pia").adapter.digest}
    seen: list[str] = []
    done = threading.Event()

    def read() -> None:
        other = Registry(Database(tmp_path / "registry.db"), tmp_path / "adapters", base)
        while not done.is_set():
            seen.append(other.resolve("pia/poet").digest)
        other.database.close()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for seed in range(1, 8):
            digests.add(registry.register("pia/poet", kit.reseed(seed).write(), acting="pia").adapter.digest)
    finally:
        done.set()
        thread.join()
    assert len(seen) > 10
    assert set(seen) <= digests


def test_promotion(registry, kit):
    """The first tag is promoted; others, and earlier digests, are promoted by name; the bare name follows."""
    first = registry.register("pia/poet:v1", kit.write(), acting="pia").adapter
    second = registry.register("pia/poet:v2", kit.reseed(1).write(), acting="pia").adapter
    assert registry.resolve("pia/poet") == first
    document = registry.promote("pia/poet", "v2", acting="pia")
    assert (document.kind, document.value()["to"]) == ("promotion", "v2")
    assert registry.resolve("pia/poet") == second
    third = registry.register("pia/poet:v2", kit.reseed(2).write(), acting="pia").adapter
    assert registry.resolve("pia/poet") == third
    registry.promote("pia/poet", second.digest, acting="pia")
    assert registry.resolve("pia/poet") == second
    shown = registry.show("pia/poet")
    assert (shown.promoted, shown.owner) == (second.digest, "pia")
    assert shown.tags == {"v1": first.digest, "v2": third.digest}
    for unknown in ("v3", digest(b"")):
        with pytest.raises(AdapterNotFound):
            registry.promote("pia/poet", unknown, acting="pia")
    with pytest.raises(AdapterNotFound):
        registry.resolve("pia/poet:v3")


def test_revocation(registry, kit):
    """A revoked adapter resolves under no name, stays on disk, and neither comes back nor is revoked twice."""
    adapter = registry.register("pia/poet", kit.write(), acting="pia").adapter
    registry.register("pia/bard:v1", kit.directory, acting="pia")
    with pytest.raises(NotOwner):
        registry.revoke(adapter.digest, acting="eve")
    assert registry.revoke(adapter.digest, acting="pia").value()["as_operator"] is False
    for name in ("pia/poet", "pia/bard:v1"):
        with pytest.raises(AdapterRevoked):
            registry.resolve(name)
    with pytest.raises(AdapterRevoked):
        registry.register("pia/again", kit.directory, acting="pia")
    with pytest.raises(AdapterRevoked):
        registry.promote("pia/poet", "latest", acting="pia")
    with pytest.raises(AdapterRevoked):
        registry.revoke(adapter.digest, acting="pia")
    assert registry.by_digest(adapter.digest).revoked
    assert adapter.directory.is_dir()
    other = registry.register("pia/poet", kit.reseed(1).write(), acting="pia").adapter
    assert registry.resolve("pia/poet") == other
    assert registry.revoke(other.digest, acting="op", operator=True).value()["as_operator"] is True
    with pytest.raises(AdapterNotFound):
        registry.revoke(digest(b""), acting="op", operator=True)


def test_the_same_bytes_have_one_publisher(registry, kit):
    """Somebody else's bytes are not registered again, nor the own bytes with other declared shares."""
    registry.register("pia/poet", kit.write(), acting="pia", declared={"ann": 2, "bob": 1})
    registry.claim("eve", acting="eve")
    with pytest.raises(AdapterTaken):
        registry.register("eve/poet", kit.directory, acting="eve")
    with pytest.raises(DeclaredFixed):
        registry.register("pia/poet", kit.directory, acting="pia", declared={"pia": 1})
    assert registry.register("pia/other", kit.directory, acting="pia").adapter.declared == {"ann": 2, "bob": 1}
    assert installed(registry) == {hex_of(registry.resolve("pia/poet").digest)}


@pytest.mark.parametrize("declared", [{}, {"ann": 0}, {"ann": -1, "bob": 2}, {"Ann": 1}, {"ann": 0.5}, {"ann": True}])
def test_declared_shares_are_checked(registry, kit, declared):
    """Declared weights are non-negative integers with a positive sum."""
    with pytest.raises(InvalidDeclared):
        registry.register("pia/poet", kit.write(), acting="pia", declared=declared)


def test_a_refused_package_leaves_nothing(registry, kit, database, make_tar):
    """After a refusal there is no name, no row, no document and no file."""
    before = database.rows("SELECT * FROM documents")
    kit.tensors = {name.removeprefix("base_model."): value for name, value in kit.tensors.items()}
    with pytest.raises(WrongTensorName):
        registry.register("pia/poet", kit.write(), acting="pia")
    (kit.directory / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(PickleFile):
        registry.register("pia/poet", kit.directory, acting="pia")
    assert installed(registry) == set()
    assert registry.list() == []
    assert database.rows("SELECT * FROM documents") == before
    assert database.rows("SELECT * FROM stagings") == []


def test_staged_is_installed_but_not_resolvable(registry, kit):
    """A staged adapter lies under its digest for the canary; it resolves when committed, and only once."""
    staged = registry.stage("pia/poet:v1", kit.write(), acting="pia")
    assert staged.adapter.directory.is_dir()
    with pytest.raises(AdapterNotFound):
        registry.resolve("pia/poet:v1")
    with pytest.raises(AdapterNotFound):
        registry.by_digest(staged.adapter.digest)
    assert registry.list() == []
    registration = registry.commit(staged.id)
    assert registry.resolve("pia/poet:v1").digest == staged.adapter.digest == registration.adapter.digest
    with pytest.raises(StagingNotFound):
        registry.commit(staged.id)


def test_discard(registry, kit):
    """A discarded adapter leaves no file, unless another name or staging needs them."""
    staged = [registry.stage("pia/poet", kit.write(), acting="pia") for _ in range(2)]
    registry.discard(staged[0].id)
    assert staged[1].adapter.directory.is_dir()
    registry.discard(staged[0].id)
    registry.discard(staged[1].id)
    assert installed(registry) == set()
    with pytest.raises(StagingNotFound):
        registry.commit(staged[1].id)
    registry.register("pia/poet", kit.directory, acting="pia")
    registry.discard(registry.stage("pia/bard", kit.directory, acting="pia").id)
    assert registry.resolve("pia/poet").directory.is_dir()


def test_a_commit_that_comes_second(registry, kit):
    """Of two publishers with the same bytes staged, the second to commit is refused; its staging can be discarded."""
    registry.claim("eve", acting="eve")
    mine = registry.stage("pia/poet", kit.write(), acting="pia")
    hers = registry.stage("eve/poet", kit.directory, acting="eve")
    registry.commit(mine.id)
    with pytest.raises(AdapterTaken):
        registry.commit(hers.id)
    registry.discard(hers.id)
    assert [name.namespace for name in registry.list()] == ["pia"]
    assert registry.resolve("pia/poet").directory.is_dir()


def test_damaged_files_are_replaced(registry, kit):
    """Registering the same package again repairs an installed file that was damaged."""
    adapter = registry.register("pia/poet", kit.write(), acting="pia").adapter
    weights = adapter.directory / "adapter_model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"\0")
    registry.register("pia/poet", kit.directory, acting="pia")
    assert weights.read_bytes() == good


def test_list_and_show(registry, kit, facts):
    """Names are listed sorted, of one namespace or all, with their tags."""
    registry.register("pia/b:v2", kit.write(), acting="pia")
    registry.register("pia/b:v1", kit.directory, acting="pia")
    registry.register("pia/a", kit.directory, acting="pia")
    registry.register("facts/z", kit.reseed(1).write(), acting="olga")
    assert [(name.namespace, name.adapter) for name in registry.list()] == [("facts", "z"), ("pia", "a"), ("pia", "b")]
    assert [name.adapter for name in registry.list("pia")] == ["a", "b"]
    assert list(registry.show("pia/b").tags) == ["v1", "v2"]
    assert registry.show("facts/z").owner == "olga"
    with pytest.raises(AdapterNotFound):
        registry.show("pia/c")


def test_another_base_is_served(registry, kit, make_base, tmp_path, database):
    """Where another base model is served, an adapter is kept and not resolved."""
    from adapters.base import BaseModel

    registry.register("pia/poet", kit.write(), acting="pia")
    other = BaseModel.from_directory(make_base(tmp_path / "other", seed=5))
    elsewhere = Registry(database, tmp_path / "adapters", other)
    with pytest.raises(AdapterNotFound, match="which is not served"):
        elsewhere.resolve("pia/poet")
    assert [name.adapter for name in elsewhere.list()] == ["poet"]


KILLED = """
import os, signal, sys
from pathlib import Path
import adapters.install, adapters.registry, adapters.pointers
from adapters.base import BaseModel
from adapters.database import Database
from adapters.registry import Registry

data, package, base, step = (Path(argument) for argument in sys.argv[1:])

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

registry = Registry(Database(data / "registry.db"), data / "adapters", BaseModel.from_directory(base))
steps = {
    "unpacked": (adapters.install, "inspect"),
    "validated": (adapters.install, "sync_directory"),
    "before rename": (adapters.install.Installation, "install"),
    "after rename": (adapters.install, "_sync"),
    "staged": (Registry, "commit"),
    "adapter row": (adapters.pointers, "set_tag"),
    "before commit": (adapters.registry, "ModelName"),
    "committed": (Registry, "by_digest"),
}
module, name = steps[str(step)]
staged = None
if str(step) == "before commit":
    staged = registry.stage("pia/poet", package, acting="pia")
setattr(module, name, die)
if staged:
    registry.commit(staged.id)
registry.register("pia/poet", package, acting="pia")
"""


@pytest.mark.parametrize(
    ("step", "resolves"),
    [
        ("unpacked", False),
        ("validated", False),
        ("before rename", False),
        ("after rename", False),
        ("staged", False),
        ("adapter row", False),
        ("before commit", False),
        ("committed", True),
    ],
)
def test_kill_between_steps(registry, kit, base, make_base, tmp_path, step, resolves):
    """Killed at any step, a registration is there whole or not at all; recovery leaves no file; a retry succeeds."""
    make_base(tmp_path / "base")
    kit.write()
    command = [sys.executable, "-c", KILLED, tmp_path, kit.directory, tmp_path / "base", step]
    killed = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    if resolves:
        assert registry.resolve("pia/poet").directory.is_dir()
    else:
        with pytest.raises(AdapterNotFound):
            registry.resolve("pia/poet")
    recovered = Registry(Database(tmp_path / "registry.db"), tmp_path / "adapters", base)
    recovered.recover()
    assert len(installed(recovered)) == int(resolves)
    adapter = recovered.register("pia/poet", kit.directory, acting="pia").adapter
    assert recovered.resolve("pia/poet") == adapter
    assert digest(manifest_bytes(adapter.directory, base.digest)) == adapter.digest
    recovered.database.close()


def test_recovery_spares_what_is_young(registry, kit):
    """Recovery with an age keeps stagings in progress, and never touches what is registered."""
    staged = registry.stage("pia/poet", kit.write(), acting="pia")
    assert registry.recover(older_than_ms=1_000_000) == 0
    registry.commit(staged.id)
    stray = registry._installation.directory / ("0" * 64)
    os.mkdir(stray)
    assert registry.recover() == 1
    assert not stray.exists()
    assert registry.resolve("pia/poet").directory.is_dir()


def test_a_staging_shows_what_was_declared_before(registry, kit):
    """Staging known bytes again without declared weights shows the weights that hold, not the default."""
    registry.register("pia/poet", kit.write(), acting="pia", declared={"ann": 2, "bob": 1})
    staged = registry.stage("pia/bard", kit.directory, acting="pia")
    assert staged.adapter.declared == {"ann": 2, "bob": 1}
