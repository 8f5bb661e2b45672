"""The canary: before an adapter gets a name, it must answer one fixed prompt otherwise than the base model does."""

import asyncio
from typing import Any

import orjson
import uuid_utils

from adapters.errors import ZeroDelta
from adapters.registry import RegisteredAdapter
from gateway.accounts import Caller
from gateway.admission import admit
from gateway.catalog import ServedModel
from gateway.errors import EngineFailed, InvalidRequest, PackageRefused
from gateway.parameters import parse
from gateway.relay import Relay
from gateway.services import Services

PROMPT = "Question: Who wrote it, where was it made, and what is it called?\nAnswer:"
BODY = {"prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 5}


async def sing(services: Services, relay: Relay, caller: Caller, adapter: RegisteredAdapter) -> None:
    """Asks base and adapter for one token. Raises ZeroDelta when their log probabilities are the same numbers.

    Catches what no check of files can: an adapter whose tensors the engine loads and does not apply. Both requests are
    metered with purpose "canary", at no price.
    """
    base = services.catalog.resolve(services.catalog.base.name)
    staged = await services.call(services.catalog.staged, adapter)
    try:
        of_base = await _first_token(services, relay, caller, base)
        of_adapter = await _first_token(services, relay, caller, staged)
    except (EngineFailed, InvalidRequest) as error:
        raise PackageRefused(f"the engine cannot serve this adapter: {error.message}", code="canary_failed") from error
    if of_base == of_adapter:
        raise ZeroDelta("the engine answers with this adapter exactly as without it")


async def _first_token(services: Services, relay: Relay, caller: Caller, model: ServedModel) -> dict[str, Any]:
    generation = parse("text", orjson.dumps({"model": model.name, **BODY}), 1)
    request_id = f"req_{uuid_utils.uuid7().hex}"
    admitted = await admit(services, caller, generation, request_id, model=model, purpose="canary")
    answer = orjson.loads(await relay.whole(admitted, _never))
    return answer["choices"][0]["logprobs"]["top_logprobs"]


async def _never() -> None:
    """This client does not leave."""
    await asyncio.Event().wait()
