"""A demo Datanet as an export directory, without a gateway: for benchmarks and development."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from adapters.database import Database
from adapters.datanet import DatanetStore
from adapters.demo.contribution import Contribution
from adapters.export import export_directory
from adapters.near_duplicates import SET_ASIDE

OWNER = "demo"


def write_export(
    datanet: str, contributions: Iterable[Contribution], directory: Path, near_duplicates: str = SET_ASIDE
) -> str:
    """Put the contributions into a store of their own and export it to `directory`; the version digest.

    The version digest depends on names, examples and licences, and on whether near duplicates are set aside: it is the
    one a gateway gives to the same contributions, in their order, to a Datanet with the same choice.
    """
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "registry.db")
        store = DatanetStore(database)
        store.create(datanet, owner=OWNER, licence="CC0-1.0", title=datanet, near_duplicates=near_duplicates)
        for item in contributions:
            store.contribute(datanet, item.jsonl, acting=item.contributor, licence=item.licence)
        store.version(datanet, acting=OWNER)
        digest = export_directory(store, datanet, directory)
        database.close()
    return digest
