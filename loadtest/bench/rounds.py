"""Rounds: every arm once in each, forwards and backwards in turn, so that neighbours are measured as AB, BA, AB, ..."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from loadtest.bench.adapters import bare_name, off_name, on_name
from loadtest.bench.driver import Endpoint, Request, Sample, measure
from loadtest.bench.settings import GATEWAY, Arm, Setting
from loadtest.popularity import picks
from loadtest.prompts import prompt

Samples = dict[Arm, list[Sample]]


class Rounds:
    """Runs arms against endpoints. `base` is the base model's name; adapters are loaded before the clock runs."""

    def __init__(
        self, endpoints: Mapping[str, Endpoint], base: str, setting: Setting, say: Callable[[str], None]
    ) -> None:
        self._endpoints, self._base, self._setting, self._say = endpoints, base, setting, say

    async def run(self, arms: Sequence[Arm], rounds: int) -> Samples:
        """One sample of each arm per round; a first, short pass is thrown away."""
        samples: Samples = {arm: [] for arm in arms}
        for arm in arms:
            await self._sample(arm, -1, replace(self._setting, max_tokens=2, waves=1))
        for number in range(rounds):
            for arm in arms if number % 2 == 0 else reversed(arms):
                samples[arm].append(await self._sample(arm, number, self._setting))
            speeds = ", ".join(f"{samples[arm][-1].tokens_per_second:.0f}" for arm in arms)
            self._say(f"round {number + 1}/{rounds}: {speeds} tokens/s")
        return samples

    async def _sample(self, arm: Arm, number: int, setting: Setting) -> Sample:
        endpoint, requests = self._endpoints[arm.server], self.requests(arm, number, setting)
        await measure(endpoint, self._warm_up(requests), setting.streams)
        return await measure(endpoint, requests, setting.streams)

    def requests(self, arm: Arm, number: int, setting: Setting) -> list[Request]:
        """The requests of a round: arms with as many adapters ask for the same ones, with the same prompts."""
        rng, count = random.Random(f"{number}/{arm.adapters}/{arm.popularity}"), setting.streams * setting.waves
        chosen = picks(rng, arm.popularity, range(arm.adapters), count) if arm.adapters else [None] * count
        return [
            Request(self._model(arm, adapter), prompt(rng, setting.prompt_words), setting.max_tokens)
            for adapter in chosen
        ]

    def _model(self, arm: Arm, adapter: int | None) -> str:
        if adapter is None:
            return self._base
        if arm.server != GATEWAY:
            return bare_name(adapter)
        return on_name(adapter) if arm.attribution else off_name(adapter)

    def _warm_up(self, requests: Sequence[Request]) -> list[Request]:
        """One token from each model that will be asked for: the arm before has left other adapters in the slots."""
        models = dict.fromkeys(request.model for request in requests)
        return [Request(model, "Hello", 1) for model in models]
