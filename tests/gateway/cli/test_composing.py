"""`openledger adapter compose`: offline on directories, named refusals, nothing left behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.base import BaseModel
from adapters.package import PackageLimits, inspect
from gateway.cli.composing import parse_part
from gateway.cli.failures import Failure
from tests.gateway.packages import PackageWriter

ROOT = Path(__file__).parents[3]


def compose(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli.main", "adapter", "compose", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_two_directories_become_one_package(tiny_base: Path, tmp_path: Path) -> None:
    """Without a gateway: one package of the sum of the ranks, which the registry's inspection accepts."""
    base = BaseModel.from_directory(tiny_base)
    a, b = (PackageWriter(base).write(tmp_path / name, seed) for seed, name in enumerate("ab"))
    out = tmp_path / "sum"
    options = ["--out", str(out), "--base", str(tiny_base), "--json"]
    done = compose(f"{a}=0.7", f"{b}=0.3", *options)
    assert done.returncode == 0, done.stderr
    package = inspect(out, base, PackageLimits())
    assert json.loads(done.stdout)["digest"] == package.digest
    assert sorted(json.loads(done.stdout)["parts"].values()) == [300_000, 700_000]
    assert "no attribution head" in done.stderr
    again = compose(f"{a}=0.7", f"{b}=0.3", *options)
    assert (again.returncode, "there already (bad_composition)" in again.stderr) == (2, True)


@pytest.mark.parametrize("text", ["a", "a=", "=0.5", "a=x", "a=nan", "a=0.1234567", "a=inf"])
def test_a_part_that_is_no_name_and_weight_is_refused(text: str) -> None:
    """NAME=WEIGHT with up to six decimals, or exit code 2 with one line."""
    with pytest.raises(Failure, match="NAME=WEIGHT"):
        parse_part(text)


def test_names_may_hold_colons_and_weights_are_exact() -> None:
    """The weight is what stands behind the last equals sign, in exact millionths."""
    assert parse_part("facts/demo:v1=0.700001") == ("facts/demo:v1", 700_001)
    assert parse_part("sha256:ab=3") == ("sha256:ab", 3_000_000)
