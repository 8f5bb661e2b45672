"""Registry documents on their way to the transparency log: each is submitted once it exists, also after a crash."""

from adapters.datanet import DatanetStore
from gateway.database import Database
from metering.ledger import Ledger
from metering.log import append_entry


class Publication:
    """Follows the registry's document sequence; submitting a document twice is no new entry."""

    def __init__(self, database: Database, datanets: DatanetStore, ledger: Ledger) -> None:
        self._database = database
        self._datanets = datanets
        self._ledger = ledger

    def publish(self) -> int:
        """Submits what came since the last call, of this or another process; returns how many documents."""
        submitted = 0
        while waiting := self._datanets.documents_after(self._cursor()):
            for _, document in waiting:
                kind = document.kind.replace("-", "_")  # the log's kinds have underscores
                append_entry(self._ledger, kind, document.content)
            self._advance(waiting[-1][0])
            submitted += len(waiting)
        return submitted

    def _cursor(self) -> int:
        row = self._database.row("SELECT sequence FROM published")
        assert row is not None
        return row[0]

    def _advance(self, sequence: int) -> None:
        with self._database.transaction() as execute:
            execute("UPDATE published SET sequence = max(sequence, ?)", (sequence,))
