"""What a benchmark run measures: settings by name, and the engine options that both sides get."""

from dataclasses import dataclass

from loadtest.packages import Shape

GATEWAY, BARE, COMPILED = "gateway", "vLLM", "vLLM compiled"

# Given to the gateway's engine and to bare vLLM alike, so that nothing differs but us.
ENGINE_OPTIONS = {
    "cpu": (
        *("--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "64"),
        *("--max-num-batched-tokens", "2048", "--max-lora-rank", "16", "--enforce-eager"),
    ),
    # Two engines share the GPU's memory; graphs are captured for the batches that the arms make.
    "gpu": (
        *("--max-model-len", "8192", "--max-num-seqs", "256", "--max-lora-rank", "16"),
        *("--gpu-memory-utilization", "0.4", "--cudagraph-capture-sizes", "1", "2", "4", "8", "16", "32", "64"),
    ),
}
EAGER = "--enforce-eager"
KV_CACHE_GIB = "1"  # on CPU, where vLLM asks the environment

ADAPTER = Shape(rank=8, layers=8, k=64)  # what `openledger adapter train` makes by default
SIZES = {
    "rank 4, 2 layers, down_proj": Shape(rank=4, layers=2, modules=("down_proj",)),
    "rank 8, 8 layers, all linear": ADAPTER,
    "rank 16, 30 layers, all linear": Shape(rank=16, layers=30),
}
CONTRIBUTORS = 8


@dataclass(frozen=True)
class Arm:
    """One thing measured in every round: a server, and the models that its streams ask for.

    `adapters` 0 is the base model. `attribution` chooses between the registrations with and without a head; bare vLLM
    has none.
    """

    server: str
    adapters: int
    popularity: str = "identical"
    attribution: bool = False

    @property
    def name(self) -> str:
        """`gateway, 64 zipf, on`, `vLLM, 1`, `gateway, base`."""
        parts = [self.server, str(self.adapters) if self.adapters else "base"]
        if self.adapters > 1:
            parts[1] += f" {self.popularity}"
        if self.server == GATEWAY and self.adapters:
            parts.append("on" if self.attribution else "off")
        return ", ".join(parts)


@dataclass(frozen=True)
class Setting:
    """A run: every arm once in each of `rounds`, forwards and backwards in turn, `waves` times `streams` requests."""

    arms: tuple[Arm, ...]
    rounds: int
    streams: int = 32
    waves: int = 1
    prompt_words: int = 24
    max_tokens: int = 16
    probes: int = 60
    cold_repeats: int = 10
    compiled_rounds: int = 0

    @property
    def adapters(self) -> int:
        """Adapters that must be there."""
        return max(arm.adapters for arm in self.arms)


def pair(adapters: int, popularity: str = "identical") -> tuple[Arm, Arm]:
    """Attribution on and off, neighbours in each round."""
    return Arm(GATEWAY, adapters, popularity, True), Arm(GATEWAY, adapters, popularity, False)


BASE = (Arm(GATEWAY, 0), Arm(BARE, 0))
ONE = (*pair(1), Arm(BARE, 1))
QUICK = (*BASE, *ONE, Arm(GATEWAY, 4, "zipf", True), Arm(GATEWAY, 16, "zipf", True), *pair(64, "zipf"))
FULL = (
    *BASE,
    *ONE,
    *(arm for count in (4, 16, 64, 256) for arm in pair(count, "zipf")),
    *(Arm(GATEWAY, count, "uniform", True) for count in (4, 16, 64, 256)),
    Arm(GATEWAY, 256, "identical", True),
    Arm(BARE, 64, "zipf"),
)
GPU = (*BASE, *ONE, *pair(64, "zipf"), Arm(BARE, 64, "zipf"))

SETTINGS = {
    "smoke": Setting((*BASE, *ONE, *pair(4, "zipf")), 2, streams=4, max_tokens=4, probes=4, cold_repeats=1),
    "quick": Setting(QUICK, rounds=10),
    "gpu": Setting(GPU, rounds=10, prompt_words=48, max_tokens=64, probes=60, cold_repeats=6),
    "full": Setting(FULL, rounds=10, probes=200),
}
