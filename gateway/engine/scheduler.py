"""The vLLM scheduler that hands each request the scores of its tokens."""

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.request import RequestStatus


class _Attribution:
    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """vLLM's, with each output's scores in the array field that rides to the API process.

        Requests whose adapter could not be activated in this step end here, before their tokens are taken.
        """
        ended = self._end(scheduler_output, getattr(model_runner_output, "failed_adapters", ()))
        outputs = super().update_from_output(scheduler_output, model_runner_output)  # type: ignore[misc]
        for request in ended:
            output = EngineCoreOutput(request.request_id, [], finish_reason=request.get_finished_reason())
            outputs.setdefault(request.client_index, EngineCoreOutputs(outputs=[])).outputs.append(output)
        scores = getattr(model_runner_output, "attribution", None)
        if scores is not None:
            for client_outputs in outputs.values():
                for output in client_outputs.outputs:
                    output.routed_experts = scores.of(output.request_id, len(output.new_token_ids))
        return outputs

    def _end(self: Any, scheduler_output: Any, failed_adapters: Any) -> list[Any]:
        if not failed_adapters:
            return []
        running = [self.requests[i] for i in scheduler_output.num_scheduled_tokens if i in self.requests]
        ids = [r.request_id for r in running if r.lora_request and r.lora_request.lora_int_id in failed_adapters]
        return self.finish_requests(ids, RequestStatus.FINISHED_ERROR)


class AttributionScheduler(_Attribution, Scheduler):
    """For synchronous scheduling."""


class AttributionAsyncScheduler(_Attribution, AsyncScheduler):
    """For asynchronous scheduling, vLLM's default where the executor supports it."""


def attributing(chosen: Any) -> Any:
    """The attributing subclass of a vLLM scheduler; other schedulers stay as they are."""
    return {Scheduler: AttributionScheduler, AsyncScheduler: AttributionAsyncScheduler}.get(chosen, chosen)
