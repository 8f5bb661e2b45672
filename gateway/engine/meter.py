"""What each request generated, seen where vLLM's API process first sees a token.

Counting happens in the output processor, not in the HTTP response: aborted, disconnected and non-streaming requests
count the same way, and nothing depends on a client reading its answer.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tokenizers.decoders import DecodeStream

from gateway.engine.heads import head_contributors, head_factors
from gateway.engine.tally import TallyWriter

VLLM_REQUEST_ID = re.compile(r"(?:chatcmpl|cmpl)-(req_[0-9a-f]{32})(?:-(\d+))?")
FINISHED_KEPT = 10_000
PROMPT_TAIL_TOKENS = 8


@dataclass
class Choice:
    """One choice: its totals, and the tokens that have not left the engine process yet.

    `sums` [m] are the worker's scores so far. Texts and scores of single tokens are kept for those who asked.
    """

    decoder: DecodeStream
    sums: np.ndarray
    finish_reason: str | None = None
    completion_tokens: int = 0
    new_ids: list[int] = field(default_factory=list)
    new_texts: list[str] = field(default_factory=list)
    new_scores: list[list[int]] = field(default_factory=list)

    def take(self, index: int, shown: bool, scored: bool) -> dict[str, Any]:
        """The tokens since the last call."""
        taken: dict[str, Any] = {"index": index, "token_ids": self.new_ids, "finish_reason": self.finish_reason}
        if shown:
            taken |= {"tokens": self.new_texts, "scores": self.new_scores if scored else None}
        self.new_ids, self.new_texts, self.new_scores = [], [], []
        return taken


@dataclass
class Generation:
    """One request, from admission until its METER has been read."""

    request_id: str
    shows_tokens: bool = False
    contributors: tuple[str, ...] = ()
    factors: np.ndarray | None = None
    adapter: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    unscored_tokens: int = 0
    choices: dict[int, Choice] = field(default_factory=dict)
    prompts: dict[int, list[int]] = field(default_factory=dict)
    vllm_ids: set[str] = field(default_factory=set)
    closed: bool = False
    named: bool = False

    @property
    def completion_tokens(self) -> int:
        return sum(choice.completion_tokens for choice in self.choices.values())

    @property
    def score_sums(self) -> list[int]:
        return self.attributed(sum((choice.sums for choice in self.choices.values()), self.nothing)).tolist()

    @property
    def nothing(self) -> np.ndarray:
        """The worker's scores [m] of no token."""
        return np.zeros(len(self.contributors) if self.factors is None else len(self.factors), dtype=np.int64)

    def attributed(self, scores: np.ndarray) -> np.ndarray:
        """The contributors' scores [..., contributors] of the worker's [..., m], int64."""
        return scores if self.factors is None else np.rint(scores @ self.factors).astype(np.int64)

    def _head(self, final: bool) -> dict[str, Any]:
        return {
            "request_id": self.request_id,
            "adapter": self.adapter,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "unscored_tokens": self.unscored_tokens,
            "score_sums": self.score_sums,
            "final": final,
        }

    def take_delta(self, final: bool) -> dict[str, Any] | None:
        """METER of everything not yet taken; None when there is nothing new and this is not the end."""
        pending = {i: c for i, c in sorted(self.choices.items()) if c.new_ids}
        if not pending and not final:
            return None
        chosen = sorted(self.choices.items()) if final else pending.items()
        taken = [c.take(i, self.shows_tokens, bool(self.contributors)) for i, c in chosen]
        delta = self._head(final) | {"choices": taken}
        if not self.named or final:
            self.named = True
            delta["contributors"] = list(self.contributors)
        if final:
            delta["prompt_token_ids"] = [ids for _, ids in sorted(self.prompts.items())]
        return delta

    def summary(self) -> dict[str, Any]:
        """METER without per-token arrays, for a gateway that lost the stream."""
        choices = [
            {"index": i, "completion_tokens": c.completion_tokens, "finish_reason": c.finish_reason or "abort"}
            for i, c in sorted(self.choices.items())
        ]
        return self._head(self.closed) | {"contributors": list(self.contributors), "choices": choices}


class Meter:
    """All generations of this engine process."""

    def __init__(self, tally: TallyWriter):
        self._tally = tally
        self._active: dict[str, Generation] = {}
        self._finished: OrderedDict[str, Generation] = OrderedDict()

    def open(self, request_id: str, shows_tokens: bool = False) -> Generation | None:
        """Starts metering a request; None if that id is or was in use."""
        if request_id in self._active or request_id in self._finished:
            return None
        return self._active.setdefault(request_id, Generation(request_id, shows_tokens))

    def close(self, request_id: str) -> None:
        """The request's response has ended, however it ended; its totals stay readable for a while."""
        generation = self._active.pop(request_id, None)
        if generation is None:
            return
        generation.closed = True
        self._finished[request_id] = generation
        if len(self._finished) > FINISHED_KEPT:
            self._finished.popitem(last=False)

    def find(self, request_id: str) -> Generation | None:
        return self._active.get(request_id) or self._finished.get(request_id)

    def forget(self, request_id: str) -> bool:
        return self._finished.pop(request_id, None) is not None

    def record(self, state: Any, new_token_ids: list[int], finish_reason: Any) -> None:
        """Counts the tokens one vLLM request state received, already trimmed to what is emitted.

        Scores arrive in the state's `routed_experts_chunks`; they are taken out, so vLLM does not send them itself.
        """
        chunks, state.routed_experts_chunks = state.routed_experts_chunks, []
        parent = state.parent_req
        vllm_id = (parent or state).external_req_id
        matched = VLLM_REQUEST_ID.fullmatch(vllm_id)
        generation = self.find(matched[1]) if matched else None
        if generation is None or not matched:
            return
        self._describe(generation, state, vllm_id, int(matched[2] or 0))
        index = int(matched[2] or 0) * (parent.n if parent else 1) + state.request_index
        choice = generation.choices.get(index) or self._new_choice(generation, state, index)
        if finish_reason is not None:
            choice.finish_reason = str(finish_reason)
        if not new_token_ids:
            return
        choice.completion_tokens += len(new_token_ids)
        choice.new_ids += new_token_ids
        if generation.shows_tokens:
            tokenizer = state.detokenizer.tokenizer
            choice.new_texts += [choice.decoder.step(tokenizer, token) or "" for token in new_token_ids]
        if generation.contributors:
            scores = _aligned(chunks, len(new_token_ids), len(choice.sums))
            if scores is None:
                generation.unscored_tokens += len(new_token_ids)
                scores = np.zeros((len(new_token_ids), len(choice.sums)), dtype=np.int64)
            choice.sums += scores.sum(axis=0)
            if generation.shows_tokens:
                choice.new_scores += generation.attributed(scores).tolist()
        self._tally.count(generation.request_id, index, len(new_token_ids))

    def flush(self) -> None:
        """Hands this step's counts to the operating system, before any consumer of its tokens runs."""
        self._tally.flush()

    def _describe(self, generation: Generation, state: Any, vllm_id: str, prompt: int) -> None:
        if vllm_id in generation.vllm_ids:
            return
        generation.vllm_ids.add(vllm_id)
        # The prompt is counted once per prompt, not once per choice; its cache hits are the first choice's.
        generation.prompt_tokens += state.prompt_len
        generation.prompts[prompt] = list(state.prompt_token_ids or ())
        generation.cached_tokens += state.num_cached_tokens
        if state.lora_request is not None:
            generation.adapter = state.lora_request.lora_name
            generation.contributors = head_contributors(state.lora_request.lora_path)
            generation.factors = head_factors(state.lora_request.lora_path)

    @staticmethod
    def _new_choice(generation: Generation, state: Any, index: int) -> Choice:
        prompt_tail = (state.prompt_token_ids or [])[-PROMPT_TAIL_TOKENS:]
        choice = Choice(DecodeStream(ids=prompt_tail, skip_special_tokens=True), generation.nothing)
        return generation.choices.setdefault(index, choice)


def _aligned(chunks: list[np.ndarray], tokens: int, width: int) -> np.ndarray | None:
    """The worker's scores [tokens, width] of one delta; None if they did not come with it, which the METER reports."""
    scores = np.concatenate(chunks) if chunks else np.zeros((0, width), dtype=np.int64)
    return scores if scores.shape == (tokens, width) else None


def hook_output_processor(meter: Meter) -> None:
    """Has vLLM's output processor report to `meter`, in this process (the API server's)."""
    from vllm.v1.engine import output_processor

    state: Any = output_processor.RequestState
    processor: Any = output_processor.OutputProcessor
    make_output, process = state.make_request_output, processor.process_outputs

    def metered_output(
        self: Any, new_token_ids: Any, pooling_output: Any, finish_reason: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if pooling_output is None:
            meter.record(self, new_token_ids, finish_reason)
        return make_output(self, new_token_ids, pooling_output, finish_reason, *args, **kwargs)

    def counted_outputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return process(self, *args, **kwargs)
        finally:
            meter.flush()

    state.make_request_output = metered_output
    processor.process_outputs = counted_outputs
