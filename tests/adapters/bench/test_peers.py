"""The peers' scores against gradients taken one sequence and one token at a time."""

import shutil
from pathlib import Path

import pytest
import torch

from adapters.bench.environments import environment_path
from adapters.bench.peer_rows import CACHE_DIR, peer_rows
from adapters.bench.peers.gradients import per_example
from adapters.bench.peers.in_run import in_run, load_b
from adapters.bench.peers.reader import World
from adapters.bench.peers.similarity import last_states, repsim
from adapters.bench.rows import ROWS
from tests.adapters.bench.conftest import brute_force, double


@pytest.mark.parametrize("margin", [False, True])
def test_gradients_of_padded_rows_are_those_of_whole_sequences(world: World, margin: bool) -> None:
    """One batched backward pass from the first adapted layer on gives each sequence's gradient through the model."""
    _, queries = double(world).rows
    found = per_example(world.upper, queries, margin=margin, batch=3)
    torch.testing.assert_close(found, brute_force(world, margin=margin, queries=True), rtol=1e-5, atol=1e-7)


def test_in_run_sums_segments_of_the_run(world: World) -> None:
    """score = sum over segments of <query gradient at the segment's weights, in-run sums>, queries by brute force."""
    segments = double(world).segments()
    expected = torch.zeros(len(world.queries), len(world.contributors), dtype=torch.float64)
    for _, weights, sums in segments:
        load_b(world, weights)
        flat = torch.cat([sums[f"{name}.weight"].flatten(1) for name in world.upper.lora_modules()], dim=1).double()
        expected += brute_force(world, margin=True, queries=True) @ flat.T
    world.segments = lambda: [(r, w, {n: t.double() for n, t in s.items()}) for r, w, s in segments]  # type: ignore[method-assign]
    torch.testing.assert_close(in_run(world, Path()).scores, expected, rtol=1e-5, atol=1e-8)


def test_repsim_takes_the_state_that_predicts_the_last_token(world: World, tmp_path: Path) -> None:
    """The compared state is the model's own, where the last supervised token is predicted."""
    rows, queries = double(world).rows
    lines = [*world.train, *world.queries]
    states = torch.cat([last_states(world.upper, rows), last_states(world.upper, queries)])
    for line, state in zip(lines, states, strict=True):
        last = max(i for i, learnt in enumerate(line.supervised) if learnt)
        ids = torch.tensor([line.ids])
        seen = world.peft_model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, last - 1]
        torch.testing.assert_close(state, seen.detach(), rtol=1e-5, atol=1e-6)
    scores = repsim(world, tmp_path).scores
    assert scores.shape == (len(world.queries), len(world.contributors))
    assert float(scores.abs().max()) <= max(world.owners.bincount()) + 1e-9


def library(name: str, world_dir: Path) -> tuple[torch.Tensor, dict]:  # type: ignore[type-arg]
    """The scores of a row whose library is there; skips, by name, when its environment was not built."""
    environment = ROWS[name].environment
    assert environment is not None
    folder = environment_path(environment, CACHE_DIR)
    if not folder.is_dir():
        pytest.skip(f"{name}: no {folder}; `python -m adapters.bench peers` builds it")
    scores, facts = peer_rows(world_dir, [name], threads=1)[name]
    assert scores is not None, facts["reason"]
    return scores, facts


def expected(world: World, name: str) -> torch.Tensor:
    """What the method's equation gives with brute-force gradients, [Q, C]."""
    train, queries = brute_force(world, margin=False, queries=False), brute_force(world, margin=True, queries=True)
    return world.by_contributor(EQUATIONS[name](world, train, queries))


def dot(_world: World, train: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    return train @ queries.T


def cosine(_world: World, train: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(train) @ torch.nn.functional.normalize(queries).T


def datainf(world: World, train: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """sum over modules of g^T mean_i[(v - g_i (g_i^T v) / (damping + |g_i|^2)) / damping] (DataInf, equation 5)."""
    sizes = [p.numel() for p in world.upper.parameters() if p.requires_grad]
    damping = 0.1 * train.square().mean()
    total = torch.zeros(len(train), len(queries), dtype=torch.float64)
    for g, v in zip(train.split(sizes, 1), queries.split(sizes, 1), strict=True):
        share = (v @ g.T) / (damping + g.square().sum(1))
        total += g @ ((v - share @ g / len(g)) / damping).T
    return total


EQUATIONS = {"grad-dot": dot, "grad-cos": cosine, "datainf": datainf}


@pytest.mark.parametrize("name", EQUATIONS)
def test_libraries_give_what_their_method_says(world: World, world_dir: Path, name: str) -> None:
    """dattri-llm's dot and cosine and dattri's DataInf are those of gradients taken one sequence at a time."""
    scores, _ = library(name, world_dir)
    wanted = expected(world, name)
    torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_tracin_sums_checkpoints_by_their_learning_rates(world: World, world_dir: Path) -> None:
    """sum over segments of the learning rates times grad-dot at the segment's weights."""
    scores, _ = library("tracin", world_dir)
    wanted = torch.zeros_like(scores)
    for rate, weights, _sums in world.segments():
        load_b(world, weights)
        wanted += rate * expected(world, "grad-dot")
    torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    ("name", "least"), [("ekfac", 0.7), ("ekfac-dattri-llm", 0.7), ("trackstar", 0.3), ("logra", 0)]
)
def test_curvature_methods_point_where_gradients_point(world: World, world_dir: Path, name: str, least: float) -> None:
    """Curvature rescales and projection blurs: the sign of the correlation with grad-dot must survive both."""
    scores, _ = library(name, world_dir)
    pair = torch.stack([scores.flatten(), expected(world, "grad-dot").flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) > least


@pytest.mark.parametrize("name", ["grad-dot", "bm25"])
def test_equal_queries_are_scored_each(world_dir: Path, tmp_path: Path, name: str) -> None:
    """An adapter that learnt its facts answers with the held-out text itself: two queries, the same scores."""
    again = tmp_path / "colours"
    shutil.copytree(world_dir, again, ignore=shutil.ignore_patterns("peers"))
    lines = (again / "queries.jsonl").read_text().splitlines()
    (again / "queries.jsonl").write_text("\n".join([*lines, lines[0]]) + "\n")
    scores = peer_rows(again, [name], threads=1)[name][0] if name == "bm25" else library(name, again)[0]
    assert scores is not None
    assert len(scores) == len(lines) + 1
    torch.testing.assert_close(scores[-1], scores[0], rtol=1e-5, atol=1e-6)
