"""python -m gateway.audit.batch --data DIR --base DIR: audits the samples that wait, then ends and frees its memory.

Apart from the audit process, because torch and a model are large, and because a crash here must stop nothing.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from adapters.errors import AdaptersError
from gateway.audit.alarm import judge
from gateway.audit.rescoring import Bench
from gateway.audit.store import AuditStore, Result, Sample
from metering.config import MeteringConfig
from metering.ledger import Ledger
from metering.log import append_entry

AT_ONCE = 16
LINGER_SECONDS = 10.0
POLL_SECONDS = 0.5


class Batch:
    """The samples of one data directory, audited one by one; at most one adapter is in memory."""

    def __init__(self, store: AuditStore, ledger: Ledger, packages: Path, base: Path, works: Path) -> None:
        self._store, self._ledger = store, ledger
        self._packages, self._base, self._works = packages, base, works
        self._bench: Bench | None = None

    def run(self) -> int:
        """Audits what waits now; returns how many."""
        samples = self._store.next_samples(AT_ONCE)
        for sample in samples:
            self._store.finish(self._audit(sample))
            judge(self._store, sample.adapter, lambda kind, body: append_entry(self._ledger, kind, body))
        return len(samples)

    def _audit(self, sample: Sample) -> Result:
        try:
            if self._bench is None or self._bench.adapter != sample.adapter:
                self._bench = None
                package = self._packages / sample.adapter.removeprefix("sha256:")
                self._bench = Bench.load(sample.adapter, package, self._base, works=self._works)
            return self._bench.audit(sample.request_id, sample.prompts, sample.choices, sample.scores)[0]
        except AdaptersError as error:
            return Result(sample.request_id, sample.adapter, error.code, error.message)


def main() -> int:
    parser = argparse.ArgumentParser(description="Audit waiting samples.")
    for name in ("data", "base", "works"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    store = AuditStore(options.data / "gateway")
    ledger = Ledger.open(MeteringConfig.from_environment(options.data, os.environ))
    batch = Batch(store, ledger, options.data / "adapters", options.base, options.works)
    try:
        last = time.monotonic()
        while time.monotonic() - last < LINGER_SECONDS:
            if batch.run():
                last = time.monotonic()
            else:
                time.sleep(POLL_SECONDS)
    finally:
        ledger.close()
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
