"""The vLLM worker that scores what its model runner samples."""

from typing import Any

import torch
from vllm.v1.worker.cpu_worker import CPUWorker

from gateway.engine.heads import HeadStore
from gateway.engine.scoring import SampledRequest, StepScorer
from gateway.engine.taps import TapBuffer, tap_modules


class AttributingRunner:
    """Mixed into vLLM's model runner: captures before the sampler, scores after it, attaches to the step's output."""

    scorer: StepScorer | None = None

    def sample_tokens(self, grammar_output: Any) -> Any:
        state = self.execute_model_state  # type: ignore[attr-defined]
        if self.scorer is not None and state is not None:
            requests = sampled_requests(self, state.spec_decode_metadata)
            if requests:
                positions = sampled_positions(self, state.spec_decode_metadata)
                self.scorer.capture(requests, state.logits, state.sample_hidden_states, positions)
        output = super().sample_tokens(grammar_output)  # type: ignore[misc]
        scores = self.scorer.take() if self.scorer is not None else None
        if scores is not None:
            # Under async scheduling the step's output is wrapped until its token ids have been copied.
            getattr(output, "_model_runner_output", output).attribution = scores
        return output

    def _sample(self, logits: Any, spec_decode_metadata: Any) -> Any:
        output = super()._sample(logits, spec_decode_metadata)  # type: ignore[misc]
        if self.scorer is not None:
            self.scorer.score(output.sampled_token_ids)
        return output


def sampled_requests(runner: Any, spec_decode_metadata: Any) -> list[SampledRequest]:
    """Requests of this step that have an adapter and whose sampled token counts (their prefill is complete)."""
    batch = runner.input_batch
    adapters = batch.request_lora_mapping[: batch.num_reqs]
    if not adapters.any():
        return []
    drafts = [0] * batch.num_reqs if spec_decode_metadata is None else spec_decode_metadata.num_draft_tokens
    discarded = runner.discard_request_mask.np
    requests, row = [], 0
    for index, request_id in enumerate(batch.req_ids):
        rows = drafts[index] + 1
        if adapters[index] and not discarded[index]:
            requests.append(SampledRequest(request_id, index, row, rows, int(adapters[index])))
        row += rows
    return requests


def sampled_positions(runner: Any, spec_decode_metadata: Any) -> torch.Tensor:
    """Position in the batch's tokens of every logits row, as the runner computed it for this step."""
    if spec_decode_metadata is not None:
        return spec_decode_metadata.logits_indices.long()
    return torch.from_numpy(runner.query_start_loc.np[1 : runner.input_batch.num_reqs + 1] - 1).long()


class AttributingCPUWorker(CPUWorker):
    """vLLM's CPU worker with the tap, the heads and the scorer installed once the model is loaded."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        runner: Any = self.model_runner
        if runner.lora_config is None:
            return
        runner.__class__ = type("Attributing" + type(runner).__name__, (AttributingRunner, type(runner)), {})
        lora = runner.lora_manager
        manager = lora._adapter_manager
        names, rows = tap_modules(manager.modules, manager.packed_modules)
        max_tokens = self.vllm_config.scheduler_config.max_num_batched_tokens
        taps = TapBuffer(names, rows, max_tokens, runner.lora_config.max_lora_rank)
        for wrapper in manager.punica_wrapper_mapping.values():
            wrapper.taps = taps
        model = runner.get_model()
        vocab = self.model_config.get_vocab_size()
        unembedding = model.lm_head.weight.data[:vocab]
        heads = HeadStore(unembedding, model.model.norm.weight.data, taps.index)
        lora.openledger_heads = heads
        runner.scorer = StepScorer(heads, taps)

    def attribution_report(self) -> dict[str, Any]:
        """Adapters resident in this worker and the memory attribution uses, in bytes."""
        runner: Any = self.model_runner
        if getattr(runner, "scorer", None) is None:
            return {"enabled": False}
        manager = runner.lora_manager._adapter_manager
        scorer = runner.scorer
        return {
            "enabled": True,
            "taps": len(scorer.taps.index),
            "tap_bytes": scorer.taps.h.numel() * 4,
            "head_bytes": scorer.heads.memory_bytes(),
            "slots": manager.lora_slots,
            "in_slots": [i for i in manager.lora_index_to_id if i is not None],
            "in_host_cache": list(manager.list_adapters()),
        }
