"""vLLM's GPU worker, with attribution; `python -m gateway.engine.gpu_check` checks it on a GPU."""

from typing import Any

from vllm.v1.worker.gpu_worker import Worker

from gateway.engine import runner


class AttributingGPUWorker(Worker):
    """As the CPU worker; the tap buffer is allocated before vLLM measures what memory is left for the KV cache."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        runner.install(self)
        runner.resolve_with_output()

    def attribution_report(self) -> dict[str, Any]:
        return runner.report(self)
