"""The vLLM scheduler that hands each request the scores of its tokens."""

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler


class _Attribution:
    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """vLLM's, with each output's scores in the array field that rides to the API process."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)  # type: ignore[misc]
        scores = getattr(model_runner_output, "attribution", None)
        if scores is not None:
            for client_outputs in outputs.values():
                for output in client_outputs.outputs:
                    output.routed_experts = scores.of(output.request_id, len(output.new_token_ids))
        return outputs


class AttributionScheduler(_Attribution, Scheduler):
    """For synchronous scheduling."""


class AttributionAsyncScheduler(_Attribution, AsyncScheduler):
    """For asynchronous scheduling, vLLM's default where the executor supports it."""


def attributing(chosen: Any) -> Any:
    """The attributing subclass of a vLLM scheduler; other schedulers stay as they are."""
    return {Scheduler: AttributionScheduler, AsyncScheduler: AttributionAsyncScheduler}.get(chosen, chosen)
