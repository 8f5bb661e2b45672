"""Package tars: written the same for the same files, and read as a stream that nobody is trusted to have made.

POSIX ustar (IEEE 1003.1, "pax"): 512-byte headers, then the file padded to 512 bytes. Read here are regular files of a
flat archive, the entry of the directory itself, and pax headers that only carry times and owners. Python's tarfile is
not used for reading: it reads a pax header of any claimed size into memory, and resolves what we want to refuse.
"""

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from adapters.errors import BadArchive, FileMissing, FileNotAllowed, PackageTooLarge, PickleFile, UnsafePath
from adapters.layout import FILES, JSON_FILES, PackageLimits, is_pickle

BLOCK = 512
COPY_BYTES = 1 << 20
MAX_PAX_BYTES = 64 << 10
MAX_ENTRIES = 64

_LINKS_AND_DEVICES = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a FIFO"}
_IGNORED_PAX = ("atime", "ctime", "mtime", "uid", "gid", "uname", "gname", "comment")


def package_files(directory: Path) -> tuple[list[str], list[str]]:
    """The names in a directory that belong to a package, and the others. Raises FileMissing, PickleFile, UnsafePath."""
    names = sorted(entry.name for entry in directory.iterdir())
    for name in names:
        if is_pickle(name):
            raise PickleFile(f"{directory / name} is a pickle, which runs code when it is loaded: remove it")
        if name in FILES and ((directory / name).is_symlink() or not (directory / name).is_file()):
            raise UnsafePath(f"{directory / name} is a link or not a file: copy the file itself")
    for name in FILES[:2]:
        if name not in names:
            raise FileMissing(f"{directory} holds no {name}")
    return [name for name in FILES if name in names], [name for name in names if name not in FILES]


def write_archive(directory: Path, out: BinaryIO) -> list[str]:
    """Write the package files of `directory` as an uncompressed tar; returns the names it left out.

    Raises what `package_files` raises.
    """
    names, left_out = package_files(directory)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = (directory / name).stat().st_size
            with (directory / name).open("rb") as file:
                archive.addfile(entry, file)
    return left_out


def copy_files(source: Path, directory: Path, limits: PackageLimits) -> None:
    """Copy the package files of `source` into `directory`. Raises what `package_files` raises, and PackageTooLarge."""
    names, _ = package_files(source)
    if sum((source / name).stat().st_size for name in names) > limits.package_bytes:
        raise PackageTooLarge(f"a package holds at most {limits.package_bytes} bytes")
    for name in names:
        shutil.copyfile(source / name, directory / name, follow_symlinks=False)


def read_archive(stream: BinaryIO, directory: Path, limits: PackageLimits) -> None:
    """Write the files of a package tar into `directory`, refusing what no package holds before it touches the disk.

    Raises BadArchive, UnsafePath, PickleFile, FileNotAllowed, PackageTooLarge.
    """
    reader = _Reader(stream, limits.package_bytes)
    for name, size in _entries(reader):
        check_name(name)
        if (directory / name).exists():
            raise FileNotAllowed(f"the archive holds {name} twice")
        if name in JSON_FILES and size > limits.json_bytes:
            raise PackageTooLarge(f"{name} has {size} bytes; at most {limits.json_bytes} are taken")
        with (directory / name).open("xb") as file:
            for block in reader.file(size):
                file.write(block)


def check_name(name: str) -> None:
    """Raises UnsafePath, PickleFile or FileNotAllowed unless `name` is one of a package's files."""
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
        raise UnsafePath(f"the path {name!r} leads out of the package")
    if is_pickle(name):
        raise PickleFile(f"{name} is a pickle, which runs code when it is loaded; only safetensors are taken")
    if "/" in name:
        raise UnsafePath(f"the path {name!r} is nested; a package is flat")
    if name not in FILES:
        raise FileNotAllowed(f"{name!r} is not part of a package, which holds {', '.join(FILES)}")


class _Reader:
    """Exact reads from a stream of unknown length, within a budget of bytes."""

    def __init__(self, stream: BinaryIO, budget: int) -> None:
        self._stream = stream
        self._budget = self._left = budget

    def exactly(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise PackageTooLarge(f"a package holds at most {self._budget} bytes")
        content = bytearray()
        while len(content) < size:
            more = self._stream.read(size - len(content))
            if not more:
                raise BadArchive("the archive is cut off")
            content += more
        return bytes(content)

    def file(self, size: int) -> Iterator[bytes]:
        """The bytes of a file in blocks, its padding read and dropped."""
        if size > self._left:
            raise PackageTooLarge(f"a package holds at most {self._budget} bytes")
        remaining = size
        while remaining:
            block = self.exactly(min(COPY_BYTES, remaining))
            remaining -= len(block)
            yield block
        self.exactly(-size % BLOCK)


def _entries(reader: _Reader) -> Iterator[tuple[str, int]]:
    """(name, size) of each regular file; the consumer reads the file before it asks for the next."""
    for _ in range(MAX_ENTRIES):
        header = reader.exactly(BLOCK)
        if header == bytes(BLOCK):
            return
        _check_sum(header)
        name, kind, size = _name(header), header[156:157], _octal(header[124:136], "size")
        if kind in (b"x", b"g"):
            _check_pax(reader, size)
        elif kind == b"5" and name in (".", ""):
            continue
        elif kind in _LINKS_AND_DEVICES:
            raise UnsafePath(f"{name!r} is {_LINKS_AND_DEVICES[kind]}")
        elif kind == b"5":
            raise UnsafePath(f"{name!r} is a directory; a package is flat")
        elif kind in (b"0", b"\0"):
            yield name, size
        else:
            raise BadArchive(f"{name!r} has the unknown tar entry type {kind!r}")
    raise FileNotAllowed(f"the archive holds more than {MAX_ENTRIES} entries")


def _name(header: bytes) -> str:
    name, prefix = _text(header[0:100]), _text(header[345:500]) if header[257:262] == b"ustar" else ""
    path = f"{prefix}/{name}" if prefix else name
    return path.removeprefix("./").rstrip("/") if path != "/" else path


def _text(field: bytes) -> str:
    try:
        return field.split(b"\0", 1)[0].decode("utf-8")
    except UnicodeDecodeError:
        raise BadArchive("a name in the archive is not UTF-8") from None


def _octal(field: bytes, what: str) -> int:
    digits = field.strip(b" \0")
    if field[0] & 0x80 or not all(digit in b"01234567" for digit in digits):
        raise BadArchive(f"the archive's {what} field is not octal")
    return int(digits or b"0", 8)


def _check_sum(header: bytes) -> None:
    expected = _octal(header[148:156], "checksum")
    if sum(header[:148]) + sum(b" " * 8) + sum(header[156:]) != expected:
        raise BadArchive("a header of the archive has the wrong checksum: not an uncompressed tar, or damaged")


def _check_pax(reader: _Reader, size: int) -> None:
    if size > MAX_PAX_BYTES:
        raise BadArchive("an extended header of the archive is too large")
    content = b"".join(reader.file(size))
    while content:
        length, space, _ = content.partition(b" ")
        if not space or not length.isdigit() or len(length) > 6 or not len(length) + 3 <= int(length) <= len(content):
            raise BadArchive("an extended header of the archive is malformed")
        key = content[len(length) + 1 : int(length)].partition(b"=")[0].decode("utf-8", "replace")
        if key not in _IGNORED_PAX and not key.startswith(("LIBARCHIVE.", "SCHILY.")):
            raise UnsafePath(f"an extended header of the archive sets {key!r}, which no package needs")
        content = content[int(length) :]


def sync_directory(directory: Path) -> None:
    """fsync of every file of a flat directory, and of the directory itself."""
    for path in [*directory.iterdir(), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
