"""New adapters registered while the load runs: a registration must not be felt by those who only ask."""

import secrets
import tempfile
from pathlib import Path

import gevent

from loadtest.api import Gateway
from loadtest.errors import LoadtestError
from loadtest.load import Load
from loadtest.packages import Base, Shape, archive, write_package

SMALL = Shape(rank=4, layers=2, modules=("down_proj",))


def register_forever(load: Load, operator: Gateway, base: Base, account: str, period_seconds: float) -> None:
    """Every period: a small random adapter under `account`, from then on the most popular. Runs until killed."""
    number = 0
    while True:
        gevent.sleep(period_seconds)
        name = f"{account}/new-{number}"
        try:
            with tempfile.TemporaryDirectory() as folder:
                package = write_package(base, Path(folder) / "package", SMALL, seed=secrets.randbits(64))
                operator.upload("/adapters", archive(package), name=name, account=account)
            load.models.insert(0, name)
            load.registered.append(name)
        except LoadtestError as error:
            load.registration_errors.append(str(error))
        number += 1
