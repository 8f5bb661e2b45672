"""The terms of what is served: composed from what the registry knows, kept, and put into the ledger."""

from collections.abc import Callable, Mapping

from adapters.datanet import DatanetStore
from adapters.policy import DAY_MS, DEFAULT_SPLIT_PPM
from adapters.registry import RegisteredAdapter
from gateway.composed_terms import composed_terms
from gateway.database import Database
from metering.ledger import Ledger
from metering.terms import Terms, decode_terms

KNOWN_MAX = 10_000  # terms in memory: of compositions there is no end
BASE_SPLIT_PPM = {"contributors": 0, "trainer": 0, "host": 900_000, "governance": 0, "treasury": 100_000}


def base_terms(base_digest: str, host: str) -> Terms:
    """Terms of the bare base model: nobody contributed, host and treasury share."""
    return Terms(
        adapter=None,
        head=None,
        method=None,
        fidelity_ppm=0,
        base=base_digest,
        datanet=None,
        datanet_version=None,
        publisher=None,
        declared={},
        split_ppm=BASE_SPLIT_PPM,
        trainer=None,
        host=host,
    )


class TermsBook:
    """The terms of each adapter, one for each policy of its Datanet: composed when first asked for, and then the same.

    A change of policy holds from the beginning of a day that lies ahead, so what holds is looked up once a day.
    """

    def __init__(
        self,
        database: Database,
        datanets: DatanetStore,
        ledger: Ledger,
        host: str,
        find: Callable[[str], RegisteredAdapter],
    ) -> None:
        """`find` gives an adapter by its digest: the parts of composed ones."""
        self._find = find
        self._database = database
        self._datanets = datanets
        self._ledger = ledger
        self._host = host
        self._known: dict[str, Terms] = {}
        self._day = -1

    def of(self, adapter: RegisteredAdapter) -> Terms:
        """The adapter's terms of today, in the ledger by the time they are returned."""
        day = self._datanets.database.clock() // DAY_MS
        known = self._known.get(adapter.digest) if day == self._day else None
        if known is None:
            key = (adapter.digest, self._policies(adapter))
            known = self._stored(*key) or self._keep(*key, self._compose(adapter))
            self._ledger.put_document("terms", known.encode())
            if day != self._day or len(self._known) >= KNOWN_MAX:
                self._day, self._known = day, {}
            self._known[adapter.digest] = known
        return known

    def draft(self, adapter: RegisteredAdapter) -> Terms:
        """The terms that a staged adapter would get: in the ledger, because its canary is metered, and not kept."""
        terms = self._stored(adapter.digest, self._policies(adapter)) or self._compose(adapter)
        self._ledger.put_document("terms", terms.encode())
        return terms

    def _policies(self, adapter: RegisteredAdapter) -> str:
        """Digests of the policies in force that the adapter's terms obey."""
        if adapter.composed_of:
            return ",".join(sorted({self._policies(self._find(part)) for part in adapter.composed_of} - {""}))
        return self._datanets.policy_in_force(adapter.datanet).digest if adapter.datanet else ""

    def _stored(self, digest: str, policies: str) -> Terms | None:
        row = self._database.row("SELECT document FROM terms WHERE adapter = ? AND policies = ?", digest, policies)
        return decode_terms(row[0]) if row else None

    def _keep(self, digest: str, policies: str, terms: Terms) -> Terms:
        with self._database.transaction() as execute:
            execute("INSERT INTO terms VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (digest, policies, terms.encode()))
        stored = self._stored(digest, policies)  # another worker's, if it was faster
        assert stored is not None
        return stored

    def _compose(self, adapter: RegisteredAdapter) -> Terms:
        if adapter.composed_of:
            parts = [(self.of(self._find(part)), weight_ppm) for part, weight_ppm in adapter.composed_of.items()]
            return composed_terms(adapter, parts, self._host)
        datanet_split = None
        if adapter.datanet is not None:
            datanet_split = self._datanets.policy_in_force(adapter.datanet).value()["split_ppm"]
        return Terms(
            adapter=adapter.digest,
            head=adapter.head,
            method=adapter.method,
            fidelity_ppm=adapter.fidelity_ppm,
            base=adapter.base,
            datanet=adapter.datanet,
            datanet_version=adapter.datanet_version,
            publisher=adapter.publisher,
            declared={
                **dict.fromkeys(adapter.contributors, 0),
                **adapter.declared,
            },  # scores may only name the declared
            split_ppm=split_for(adapter, datanet_split or DEFAULT_SPLIT_PPM),
            trainer=adapter.trainer,
            host=adapter.host or self._host,
        )


def split_for(adapter: RegisteredAdapter, policy_ppm: Mapping[str, int]) -> dict[str, int]:
    """The policy's split; the part of a role that nobody holds goes to the contributors."""
    absent = [
        role for role, holder in (("trainer", adapter.trainer), ("governance", adapter.datanet)) if holder is None
    ]
    unclaimed_ppm = sum(policy_ppm[role] for role in absent)
    split = {**policy_ppm, **dict.fromkeys(absent, 0)}
    return {**split, "contributors": split["contributors"] + unclaimed_ppm}
