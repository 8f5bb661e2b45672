"""The running state of one request's METER."""

from gateway.meter import Meter


def delta(tokens: list[str], scores: list[list[int]] | None, total: int, sums: list[int], final: bool = False) -> dict:
    choice = {
        "index": 0,
        "token_ids": list(range(len(tokens))),
        "tokens": tokens,
        "scores": scores,
        "finish_reason": None,
    }
    return {
        "prompt_tokens": 5,
        "cached_tokens": 2,
        "completion_tokens": total,
        "contributors": ["ann", "ben"] if scores is not None else [],
        "score_sums": sums,
        "final": final,
        "choices": [choice],
    }


def test_deltas_add_up() -> None:
    """Counts and sums are the engine's running totals; tokens are handed on once."""
    meter = Meter()
    meter.add(delta(["a", "b"], [[1, -2], [3, 4]], 2, [4, 2]))
    assert meter.take_tokens(0) == [
        {"token": "a", "scores": {"ann": 1, "ben": -2}},
        {"token": "b", "scores": {"ann": 3, "ben": 4}},
    ]
    meter.add(delta(["c"], [[0, 1]], 3, [4, 3], final=True))
    assert meter.take_tokens(0) == [{"token": "c", "scores": {"ann": 0, "ben": 1}}]
    assert meter.take_tokens(0) == []
    assert (meter.completion_tokens, meter.scores_by_contributor(), meter.final) == (3, {"ann": 4, "ben": 3}, True)
    assert meter.choices_token_ids() == [[0, 1, 0]]


def test_a_summary_after_a_broken_stream_counts_what_was_never_seen() -> None:
    """The engine's totals win over the tokens that arrived."""
    meter = Meter()
    meter.add(delta(["a"], [[1, 0]], 1, [1, 0]))
    summary = {**delta([], [], 4, [7, 8], final=True), "choices": [{"index": 0, "finish_reason": "abort"}]}
    meter.add(summary)
    assert (meter.completion_tokens, meter.scores_by_contributor()) == (4, {"ann": 7, "ben": 8})
    assert meter.finish_reasons == {0: "abort"}


def test_without_head_there_are_no_scores() -> None:
    """The base model's tokens have an empty score object."""
    meter = Meter()
    meter.add(delta(["a"], None, 1, []))
    assert meter.take_tokens(0) == [{"token": "a", "scores": {}}]
    assert meter.scores_by_contributor() == {}
