"""The audit process: `python -m gateway.audit.process --data DIR --base DIR`. Scores sampled requests again, off the
serving path and at the lowest priority. It loads no torch itself: samples that can be audited go to a batch process.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

from gateway.audit.store import AuditStore, Result, Sample
from gateway.child import die_with_parent

POLL_SECONDS = 1.0
LOOK_AT = 64
NEEDED = ("torch", "transformers", "peft")


class AuditProcess:
    """Watches the queue of one data directory."""

    def __init__(self, data: Path, base: Path, works: Path, store: AuditStore, stop: threading.Event) -> None:
        self._data, self._base, self._works = data, base, works
        self._store, self._stop = store, stop

    def tick(self) -> None:
        """Dismisses samples that cannot be audited here, each with the reason; then a batch audits the rest."""
        missing = [name for name in NEEDED if find_spec(name) is None]
        reason = f"not installed: {', '.join(missing)}" if missing else ""
        if reason != self._store.reason:
            self._store.set_reason(reason)
        samples = self._store.next_samples(LOOK_AT)
        refused = {adapter: reason or self._why_not(adapter) for adapter in {sample.adapter for sample in samples}}
        for sample in samples:
            if why := refused[sample.adapter]:
                code, _, detail = why.partition(": ")
                self._store.finish(Result(sample.request_id, sample.adapter, code.replace(" ", "_"), detail))
        left = [sample for sample in samples if not refused[sample.adapter]]
        if left:
            self._run_batch(left[0])

    def _why_not(self, adapter: str) -> str:
        """`code: detail` of what an audit of this adapter lacks on this machine; empty when nothing does."""
        from adapters.package import HEAD
        from adapters.training.work import missing_trace

        package = self._data / "adapters" / adapter.removeprefix("sha256:")
        if not (package / HEAD).is_file():
            return "package_missing: no package with a head is installed"
        why = missing_trace(package, self._works)
        return f"trace_missing: {why}" if why else ""

    def _run_batch(self, first: Sample) -> None:
        command = [sys.executable, "-m", "gateway.audit.batch", "--data", str(self._data), "--base", str(self._base)]
        command += ["--works", str(self._works)]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # the accelerator is the engine's
        batch = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
        while (status := batch.poll()) is None and not self._stop.wait(0.2):
            pass
        if status is None:
            batch.terminate()
            batch.wait()
        elif status:
            detail = f"the batch process ended with status {status}"
            print(f"audit: {detail} at {first.request_id}", file=sys.stderr, flush=True)
            if any(sample.request_id == first.request_id for sample in self._store.next_samples(LOOK_AT)):
                self._store.finish(Result(first.request_id, first.adapter, "audit_failed", detail))


def main() -> int:
    parser = argparse.ArgumentParser(description="Audit sampled requests.")
    for name in ("data", "base", "works"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    os.nice(19)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    store = AuditStore(options.data / "gateway")
    process = AuditProcess(options.data, options.base, options.works, store, stop)
    print("audit: ready", flush=True)
    while not stop.wait(POLL_SECONDS):
        process.tick()
    store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
