"""openledger adapter head|bank: fit an attribution head on this machine, and measure it by retraining on subsets."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.api import Api, data_directory
from gateway.cli.datanet import export_version
from gateway.cli.failures import FINDING, USAGE, Failure
from gateway.cli.output import Json, emit, facts
from gateway.cli.training import read_questions

Questions = Annotated[
    Path | None,
    typer.Option(exists=True, help="JSON lines of prompt, answer, value, contributor: what the head is measured on"),
]
Base = Annotated[Path | None, typer.Option(help="base model directory; $DATA/base by default")]


def head(
    package: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="PEFT LoRA, wherever it was trained")],
    datanet: Annotated[str, typer.Argument(help="DATANET or DATANET@VERSION it was trained on")],
    base: Base = None,
    questions: Questions = None,
    as_json: Json = False,
) -> None:
    """Fit the attribution head of an adapter from its Datanet: of its training trace, or of influence without one."""
    name, _, version = datanet.partition("@")
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / "export"
        export_version(Api.from_environment(), name, export, version or None)
        done = _fit(package, export, base or data_directory() / "base", questions)
    emit(as_json, done, facts(done))


def bank(
    package: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="package that was trained here")],
    base: Base = None,
    subsets: Annotated[int, typer.Option(min=8, help="half subsets a seed; to audit by, 2.5 a contributor")] = 32,
    seeds: Annotated[int, typer.Option(min=2, help="retraining seeds; the ceiling needs two")] = 2,
    minutes: Annotated[float | None, typer.Option(help="as many subsets as fit, after two timed ones")] = None,
    batch: Annotated[int, typer.Option(min=1, help="runs that share a forward pass")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 2,
    dtype: Annotated[
        str | None, typer.Option(help="of the frozen base: float32 or bfloat16; the adapter's own")
    ] = None,
    leave_one_out: Annotated[bool, typer.Option(help="also leave out each contributor")] = True,
    questions: Questions = None,
    as_json: Json = False,
) -> None:
    """Retrain an adapter on subsets of its Datanet, fit its head to what predicts them, and report its fidelity."""
    settings = {
        "subsets": subsets,
        "seeds": seeds,
        "batch": batch,
        "workers": workers,
        "dtype": dtype,
        "leave_one_out": leave_one_out,
    }
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / "export"
        name, version = _trained_on(package)
        export_version(Api.from_environment(), name, export, version)
        done = _fit(package, export, base or data_directory() / "base", questions, settings, minutes)
    emit(as_json, done, facts(done))


def _trained_on(package: Path) -> tuple[str, str]:
    from adapters.errors import BadTrainingRecord
    from adapters.package import RECORD
    from adapters.record import parse_record

    try:
        record = parse_record((package / RECORD).read_bytes())
    except (OSError, BadTrainingRecord) as error:
        raise Failure(USAGE, f"{package} was not trained here: {error}") from None
    return record.datanet, record.datanet_version


def _fit(
    package: Path,
    export: Path,
    base: Path,
    questions: Path | None,
    settings: dict[str, Any] | None = None,
    minutes: float | None = None,
) -> dict[str, Any]:
    from adapters.errors import AdaptersError
    from adapters.training.bank import BankConfig
    from adapters.training.fit import fit_head, size_bank
    from adapters.training.progress import TerminalBar

    bar = TerminalBar()
    try:
        config = None if settings is None else BankConfig(**settings)
        if config is not None and minutes is not None:
            config = size_bank(package, export, base, config, minutes, progress=bar)
        asked = read_questions(questions) if questions else None
        fitted = fit_head(package, export, base, questions=asked, bank=config, progress=bar)
    except (AdaptersError, ValueError, OSError) as error:
        raise Failure(FINDING, f"the head could not be fitted: {error}") from error
    return {"package": str(package), "head": fitted.head_digest, "fidelity": fitted.fidelity}
