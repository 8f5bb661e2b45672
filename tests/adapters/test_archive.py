"""Package tars: written the same for the same files; hostile ones refused while they stream."""

import contextlib
import io
import os
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.archive import MAX_PAX_BYTES, read_archive
from adapters.errors import (
    AdaptersError,
    BadArchive,
    FileMissing,
    FileNotAllowed,
    PackageTooLarge,
    PickleFile,
    UnsafePath,
)
from adapters.layout import PackageLimits
from adapters.package import pack

LIMITS = PackageLimits(package_bytes=100_000, json_bytes=1_000)


@pytest.fixture
def target(tmp_path):
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for key, value in fields.items():
        setattr(made, key, value)
    return made


class Slow(io.RawIOBase):
    """A stream that gives at most 100 bytes at a time, counts them, and cannot seek."""

    def __init__(self, content: bytes) -> None:
        self.content, self.given = content, 0

    def read(self, size: int = -1) -> bytes:
        block = self.content[self.given : self.given + min(size, 100)]
        self.given += len(block)
        return block


def test_pack_and_unpack(kit, target):
    """What pack writes, read in small pieces, gives the same files; README.md is left out and named."""
    directory = kit.write()
    (directory / "README.md").write_text("written by PEFT")
    tars = []
    for seconds in (1, 2):
        os.utime(directory / "adapter_config.json", (seconds, seconds))
        out = io.BytesIO()
        assert pack(directory, out) == ["README.md"]
        tars.append(out.getvalue())
    assert tars[0] == tars[1]
    read_archive(Slow(tars[0]), target, LIMITS)
    assert sorted(path.name for path in target.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    for path in target.iterdir():
        assert path.read_bytes() == (directory / path.name).read_bytes()


def test_pack_refuses(kit):
    """A directory with a pickle, a link, or without weights is not packed."""
    directory = kit.write()
    (directory / "optimizer.pt").write_bytes(b"")
    with pytest.raises(PickleFile):
        pack(directory, io.BytesIO())
    (directory / "optimizer.pt").unlink()
    (directory / "training_record.json").symlink_to("/etc/hostname")
    with pytest.raises(UnsafePath):
        pack(directory, io.BytesIO())
    (directory / "training_record.json").unlink()
    (directory / "adapter_model.safetensors").unlink()
    with pytest.raises(FileMissing):
        pack(directory, io.BytesIO())


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_of_other_tools(target, make_tar, form):
    """Tars with ./ names, a directory entry, times and owners in pax headers are read."""
    tar = make_tar(
        [
            (entry("./", tarfile.DIRTYPE), b""),
            (entry("./adapter_config.json", mtime=1.5, uname="zoë", pax_headers={"SCHILY.xattr.a": "b"}), b"{}"),
        ],
        form,
    )
    read_archive(tar, target, LIMITS)
    assert (target / "adapter_config.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (entry("../adapter_config.json"), UnsafePath),
        (entry("/adapter_config.json"), UnsafePath),
        (entry("a/../adapter_config.json"), UnsafePath),
        (entry("a/adapter_config.json"), UnsafePath),
        (entry("..\\adapter_config.json"), UnsafePath),
        (entry("a/" * 60 + "adapter_config.json"), UnsafePath),
        (entry("a", tarfile.DIRTYPE), UnsafePath),
        (entry("adapter_config.json", tarfile.SYMTYPE, linkname="/etc/passwd"), UnsafePath),
        (entry("adapter_config.json", tarfile.LNKTYPE, linkname="adapter_model.safetensors"), UnsafePath),
        (entry("adapter_config.json", tarfile.CHRTYPE), UnsafePath),
        (entry("adapter_config.json", tarfile.BLKTYPE), UnsafePath),
        (entry("adapter_config.json", tarfile.FIFOTYPE), UnsafePath),
        (entry("adapter_config.json", pax_headers={"path": "../../x"}), UnsafePath),
        (entry("adapter_config.json", pax_headers={"size": "9"}), UnsafePath),
        (entry("adapter_config.json", pax_headers={"GNU.sparse.name": "x"}), UnsafePath),
        (entry("adapter_config.json", pax_headers={"linkpath": "x"}), UnsafePath),
        (entry("adapter_config.json", pax_headers={"mtime": "1" * MAX_PAX_BYTES}), BadArchive),
        (entry("adapter_config.json", tarfile.GNUTYPE_SPARSE), BadArchive),
        (entry("adapter_config.json", tarfile.GNUTYPE_LONGNAME), BadArchive),
        (entry("adapter_config.json", b"Z"), BadArchive),
        (entry("adapter_model.bin"), PickleFile),
        (entry("adapter_model.PT"), PickleFile),
        (entry("x.pkl"), PickleFile),
        (entry("README.md"), FileNotAllowed),
        (entry("manifest.json"), FileNotAllowed),
        (entry(""), FileNotAllowed),
    ],
)
def test_refused_entries(target, make_tar, made, error):
    """Path tricks, links, devices, pickles and other names are refused by name, and nothing is written."""
    with pytest.raises(AdaptersError) as refusal:
        read_archive(make_tar([(made, b"")]), target, LIMITS)
    assert type(refusal.value) is error, refusal.value
    assert list(target.iterdir()) == []


def test_the_same_file_twice(target, make_tar):
    """A second file of the same name does not replace the first."""
    tar = make_tar([(entry("adapter_config.json"), b"{}"), (entry("./adapter_config.json"), b"[]")])
    with pytest.raises(FileNotAllowed, match="twice"):
        read_archive(tar, target, LIMITS)


def test_sizes_are_checked_while_streaming(target, make_tar):
    """An oversize file is refused by its header; a stream is never read far past the limit."""
    with pytest.raises(PackageTooLarge):
        read_archive(make_tar([(entry("adapter_config.json"), bytes(1_001))]), target, LIMITS)
    large = make_tar([(entry("adapter_model.safetensors"), bytes(200_000))]).read()
    stream = Slow(large)
    with pytest.raises(PackageTooLarge):
        read_archive(stream, target, LIMITS)
    assert stream.given <= 1024
    with pytest.raises(PackageTooLarge):
        read_archive(make_tar([(entry("adapter_config.json"), b"")]), target, PackageLimits(package_bytes=511))
    many = Slow(make_tar([(entry("./", tarfile.DIRTYPE), b"") for _ in range(100)]).read())
    with pytest.raises(FileNotAllowed, match="more than 64 entries"):
        read_archive(many, target, LIMITS)


@pytest.mark.parametrize("cut", [0, 100, 511, 600, 1023])
def test_cut_archives(target, make_tar, cut):
    """An archive that ends early is refused, wherever it ends."""
    tar = make_tar([(entry("adapter_config.json"), b"{}" * 200)]).read()
    with pytest.raises(BadArchive, match="cut off"):
        read_archive(io.BytesIO(tar[:cut]), target, LIMITS)


def test_compressed_archives(target, make_tar, tmp_path):
    """Compressed archives are refused: a small one may hold any amount."""
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as archive:
        archive.addfile(entry("adapter_config.json"))
    with pytest.raises(BadArchive):
        read_archive(io.BytesIO((tmp_path / "x.tgz").read_bytes().ljust(512, b"\0")), target, LIMITS)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200, deadline=None
)
@given(st.data())
def test_damaged_archives(tmp_path_factory, make_tar, data):
    """A damaged header gives a named refusal or the files it names, nothing else."""
    made = entry("adapter_config.json", mtime=1.5)
    tar = bytearray(make_tar([(made, b"{}"), (entry("fidelity.json"), b"{}")]).read())
    for _ in range(data.draw(st.integers(1, 4))):
        tar[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # with a checksum that is right again
        tar[148:156] = b" " * 8
        tar[148:156] = b"%06o\0 " % sum(tar[:512])
    target = tmp_path_factory.mktemp("damaged")
    with contextlib.suppress(AdaptersError):
        read_archive(io.BytesIO(bytes(tar)), target, LIMITS)
    assert {path.name for path in target.iterdir()} <= {"adapter_config.json", "fidelity.json"}
