"""Imports run one way (docs/ARCHITECTURE.md), and the gateway stays free of torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("gateway", "adapters", "kernels", "metering", "loadtest")
TORCH = {"torch", "transformers", "peft", "vllm", "triton"}

# Longest prefix wins: (our packages it may import, whether it may import torch and its kin).
RULES: dict[str, tuple[set[str], bool]] = {
    "kernels": (set(), True),
    "metering": (set(), False),
    "adapters": (set(), False),
    "adapters/training": ({"kernels"}, True),
    "adapters/demo": (set(), True),
    "adapters/bench": ({"kernels", "metering"}, True),
    "gateway": ({"adapters", "metering"}, False),
    "gateway/engine": ({"kernels", "adapters"}, True),
    "loadtest": (set(), False),
}


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def rule_of(path: Path) -> tuple[str, set[str], bool]:
    relative = path.relative_to(ROOT).as_posix()
    prefix = max((p for p in RULES if relative.startswith(p + "/")), key=len)
    return prefix, *RULES[prefix]


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported when the file is) of every import statement."""
    tree = ast.parse(path.read_text())
    lazy = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module, id(node) not in lazy


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_module_imports_only_what_its_package_may(path: Path) -> None:
    """No package imports a sibling outside the table, and torch-free packages name no torch library at import time."""
    prefix, siblings, torch_allowed = rule_of(path)
    own = prefix.split("/")[0]
    for module, eager in imported(path):
        top = module.split(".")[0]
        if top in PACKAGES and top != own:
            assert top in siblings, (
                f"{path.name} imports {module}; {prefix} may import {sorted(siblings) or 'no sibling'}"
            )
        if top in TORCH and not torch_allowed:
            assert not eager, f"{path.name} imports {module} at import time; {prefix} must load without torch"


@pytest.mark.parametrize("prefix", ["gateway", "adapters"])
def test_the_torch_free_part_does_not_import_the_torch_part(prefix: str) -> None:
    """At import time gateway needs only the tally's reader of the engine, and adapters nothing of its training."""
    torch_parts = {
        "gateway": ("gateway.engine", "adapters.training"),
        "adapters": ("adapters.training", "adapters.demo", "adapters.bench"),
    }[prefix]
    for path in modules():
        if rule_of(path)[0] != prefix:
            continue
        for module, eager in imported(path):
            if eager and module != "gateway.engine.tally":
                assert not module.startswith(torch_parts), f"{path} imports {module}"


@pytest.mark.parametrize("module", ["gateway.app", "gateway.cli.main", "metering.settler", "adapters.registry"])
def test_importing_the_control_plane_loads_no_torch(module: str) -> None:
    """A gateway worker, the settler and the CLI start without torch in memory."""
    code = f"import sys, {module}; print(sorted({TORCH!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"


def test_our_package_names_do_not_confuse_the_model_libraries() -> None:
    """`kernels` and `adapters` are also names on PyPI, which transformers probes for: from here all three import."""
    code = "import transformers, peft, vllm; from transformers import AutoModelForCausalLM; print('ok')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.stdout.strip().endswith("ok"), found.stderr
