"""vLLM's CPU worker, with attribution."""

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from gateway.engine import runner


class AttributingCPUWorker(CPUWorker):
    """Installs the loader, the tap, the heads and the scorer once the model is loaded."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        runner.install(self)

    def attribution_report(self) -> dict[str, Any]:
        return runner.report(self)
