"""What attribution adds to vLLM's V1 model runner, on a CPU and on a GPU alike."""

import logging
import os
from pathlib import Path
from typing import Any

import torch

from gateway.engine.heads import HeadStore
from gateway.engine.loader import AdapterLoader
from gateway.engine.plugin import LOADER, attribution_enabled
from gateway.engine.scoring import PendingScores, SampledRequest, StepScorer
from gateway.engine.taps import TapBuffer, tap_modules

logger = logging.getLogger(__name__)


class AttributingRunner:
    """Mixed into vLLM's model runner: captures before the sampler, scores after it, attaches to the step's output.

    A step that cannot be scored is still served: its tokens are counted as unscored.
    """

    scorer: StepScorer | None = None

    def sample_tokens(self, grammar_output: Any) -> Any:
        state = self.execute_model_state  # type: ignore[attr-defined]
        if self.scorer is not None and state is not None:
            try:
                self._capture(state, grammar_output)
            except Exception:
                logger.exception("a step could not be captured; its tokens are unscored")
                self.scorer.drop()
        output = super().sample_tokens(grammar_output)  # type: ignore[misc]
        scores = self.scorer.take() if self.scorer is not None else None
        wrapped: Any = getattr(output, "_model_runner_output", None)
        if scores is not None and wrapped is not None:
            wrapped.attribution = scores  # async scheduling: resolved in get_output, when the token ids are awaited
        elif scores is not None:
            output.attribution = resolved(scores)
        failed = self.lora_manager.failed  # type: ignore[attr-defined]
        if failed:
            (wrapped or output).failed_adapters = set(failed)
        return output

    def _capture(self, state: Any, grammar_output: Any) -> None:
        assert self.scorer is not None
        requests = sampled_requests(self, state.spec_decode_metadata)
        if requests:
            positions = sampled_positions(self, state.spec_decode_metadata)
            # The sampler works on fp32 logits: where they have another dtype, on its own copy.
            stays = grammar_output is None and state.logits.dtype != torch.float32
            self.scorer.capture(requests, state.logits, state.sample_hidden_states, positions, stays)

    def _sample(self, logits: Any, spec_decode_metadata: Any) -> Any:
        output = super()._sample(logits, spec_decode_metadata)  # type: ignore[misc]
        if self.scorer is not None:
            try:
                self.scorer.score(output.sampled_token_ids)
            except Exception:
                logger.exception("a step could not be scored; its tokens are unscored")
                self.scorer.drop()
        return output


def resolved(scores: Any) -> Any:
    """Scores that are on the host."""
    return scores.resolve() if isinstance(scores, PendingScores) else scores


def resolve_with_output() -> None:
    """Has vLLM's asynchronous step output bring the scores along when its token ids are awaited."""
    from vllm.v1.worker.gpu_model_runner import AsyncGPUModelRunnerOutput

    output: Any = AsyncGPUModelRunnerOutput
    get_output = output.get_output

    def with_scores(self: Any) -> Any:
        result = get_output(self)
        if hasattr(result, "attribution"):
            result.attribution = resolved(result.attribution)
        return result

    output.get_output = with_scores


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


def install(worker: Any, *mixins: type) -> None:
    """Gives a worker whose model is loaded its loader and, unless switched off, its attribution.

    `mixins` are further changes to the model runner, of one platform.
    """
    from gateway.engine.lora_manager import HostLoRAManager

    runner = worker.model_runner
    if runner.lora_config is None:
        return
    heads = install_attribution(worker) if attribution_enabled() else None
    runner.__class__ = type("Attributing" + type(runner).__name__, (AttributingRunner, *mixins, type(runner)), {})
    lora = runner.lora_manager
    lora.__class__ = HostLoRAManager
    lora.loader, lora.failed = AdapterLoader(lora, heads), {}
    if worker.rank == 0:
        lora.loader.serve(Path(os.environ[LOADER]))


def install_attribution(worker: Any) -> HeadStore:
    """Installs taps, heads and scorer. Raises ValueError under tensor or pipeline parallelism."""
    runner = worker.model_runner
    parallel = worker.vllm_config.parallel_config
    if parallel.tensor_parallel_size > 1 or parallel.pipeline_parallel_size > 1:
        raise ValueError("attribution needs the whole model on one device: run more engines, or --no-attribution")
    manager = runner.lora_manager._adapter_manager
    names, rows = tap_modules(manager.modules, manager.packed_modules)
    max_tokens = worker.vllm_config.scheduler_config.max_num_batched_tokens
    taps = TapBuffer(names, rows, max_tokens, runner.lora_config.max_lora_rank, worker.device)
    connect(manager, taps)
    model = runner.get_model()
    unembedding = model.lm_head.weight.data[: worker.model_config.get_vocab_size()]
    heads = HeadStore(unembedding, model.model.norm.weight.data, taps.index)
    taps.wanted = heads.tapped
    runner.scorer = StepScorer(heads, taps)
    return heads


def connect(manager: Any, taps: TapBuffer) -> None:
    """Tells the LoRA operations where to leave h: one wrapper for all layers on a CPU, one per layer on a GPU."""
    for shared in manager.punica_wrapper_mapping.values():
        if not hasattr(shared, "tapped"):
            shared.taps = taps
    for module in manager.modules.values():
        stacked = getattr(module, "lora_a_stacked", None)
        wrapper: Any = getattr(module, "punica_wrapper", None)
        if not isinstance(stacked, tuple) or not hasattr(wrapper, "tapped"):
            continue
        row = taps.first_row(stacked[0].data_ptr())
        if row is not None:
            module.set_mapping(wrapper.tapped(taps, row))


def report(worker: Any) -> dict[str, Any]:
    """Adapters in this worker's slots and the memory attribution uses, in bytes."""
    runner = worker.model_runner
    manager = runner.lora_manager._adapter_manager
    facts: dict[str, Any] = {
        "enabled": getattr(runner, "scorer", None) is not None,
        "slots": manager.lora_slots,
        "in_slots": [i for i in manager.lora_index_to_id if i is not None],
    }
    if facts["enabled"]:
        scorer = runner.scorer
        facts |= {"taps": len(scorer.taps.index), "tap_bytes": scorer.taps.h.numel() * 4}
        facts["head_bytes"] = scorer.heads.memory_bytes()
    return facts
