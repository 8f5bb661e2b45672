"""Compile every launch ahead of time, without a GPU, and read what it costs: registers, shared memory, spills.

A launcher is called on meta tensors while `JITFunction.run` only takes notes, so what is compiled is what would be
launched.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

ARCHITECTURES = (80, 90)
_OPTIONS = ("num_warps", "num_stages")
_TYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "i1",
}


@dataclass(frozen=True)
class Compiled:
    """What ptxas says of one kernel. Registers are per thread; spills are bytes stored plus bytes loaded."""

    case: str
    kernel: str
    arch: int
    warps: int
    stages: int
    registers: int
    shared_bytes: int
    spill_bytes: int
    grid: tuple[int, ...]


@dataclass(frozen=True)
class Launch:
    """One noted launch: a kernel, its grid and its arguments by name."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, int]


def compile_case(case: str, launcher: Callable[..., Any], *args: Any) -> Iterator[Compiled]:
    """Every kernel that `launcher(*args)` launches on meta tensors, compiled for each architecture."""
    with noted() as launches:
        launcher(*args)
    for launch in launches:
        for arch in ARCHITECTURES:
            compiled = triton.compile(_source(launch), target=GPUTarget("cuda", arch, 32), options=launch.options)
            registers, spill_bytes = _assemble(compiled.asm["ptx"], arch)
            yield Compiled(
                case=case,
                kernel=launch.kernel.__name__.strip("_"),
                arch=arch,
                warps=compiled.metadata.num_warps,
                stages=compiled.metadata.num_stages,
                registers=registers,
                shared_bytes=compiled.metadata.shared,
                spill_bytes=spill_bytes,
                grid=launch.grid,
            )


@contextmanager
def noted() -> Iterator[list[Launch]]:
    """Within, a launch is noted instead of run."""
    launches: list[Launch] = []

    def note(kernel: Any, *args: Any, grid: tuple[int, ...], warmup: bool, **kwargs: Any) -> None:
        options = {name: kwargs.pop(name) for name in _OPTIONS if name in kwargs}
        arguments = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
        launches.append(Launch(kernel, grid, arguments, options))

    with mock.patch.object(JITFunction, "run", note):
        yield launches


def _source(launch: Launch) -> ASTSource:
    """Types and constants as a launch would derive them: multiples of 16 are said to be so, 1 is a constant."""
    signature, constants, attributes = {}, {}, {}
    for parameter in launch.kernel.params:
        value = launch.arguments[parameter.name]
        if parameter.is_constexpr or (isinstance(value, int) and value == 1):
            signature[parameter.name] = "constexpr"
            constants[(parameter.num,)] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = "*" + _TYPES[value.dtype]
            attributes[(parameter.num,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32" if abs(value) < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(parameter.num,)] = [["tt.divisibility", 16]]
    return ASTSource(launch.kernel, signature, constants, attributes)


def _assemble(ptx: str, arch: int) -> tuple[int, int]:
    """Registers per thread and spilled bytes of the one kernel in `ptx`, by ptxas -v."""
    suffix = "a" if arch >= 90 else ""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as source:
        source.write(ptx)
        source.flush()
        command = [get_ptxas(arch).path, "-v", f"--gpu-name=sm_{arch}{suffix}", source.name, "-o", "/dev/null"]
        report = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True).stderr
    (registers,) = re.findall(r"Used (\d+) registers", report)
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", report)
    return int(registers), sum(map(int, spills))
