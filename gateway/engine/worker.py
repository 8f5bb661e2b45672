"""vLLM's CPU worker, with attribution."""

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from gateway.engine import runner
from gateway.engine.memory import keep_freed_memory


class RewoundSeeds:
    """Mixed into vLLM's model runner on a CPU: seeded requests whose prompt takes several steps.

    A step inside a prompt samples a token that is thrown away, and vLLM then moves the request's generator back by an
    offset, which a CPU generator does not have: the exception ends the engine. Here its state is put back instead.
    """

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        runner: Any = self
        discarded = runner.discard_request_mask.np
        rewound = [(own, own.get_state()) for i, own in runner.input_batch.generators.items() if discarded[i]]
        try:
            return super()._sample(*args, **kwargs)  # type: ignore[misc]
        finally:
            for own, state in rewound:
                own.set_state(state)

    def _bookkeeping_sync(self, *args: Any, **kwargs: Any) -> Any:
        batch: Any = self.input_batch  # type: ignore[attr-defined]
        generators, batch.generators = batch.generators, {}
        try:
            return super()._bookkeeping_sync(*args, **kwargs)  # type: ignore[misc]
        finally:
            batch.generators = generators


class AttributingCPUWorker(CPUWorker):
    """Installs the loader, the tap, the heads and the scorer once the model is loaded."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        keep_freed_memory()
        super().load_model(*args, **kwargs)
        runner.install(self, RewoundSeeds)

    def attribution_report(self) -> dict[str, Any]:
        return runner.report(self)
