"""The model of a request that names several adapters: their composition, made when it is first asked for.

Parts are what anyone may ask for by name, and what the names lead to when the request arrives: promoting another digest
makes another composition, revoking a part ends its compositions. A price is an adapter's own: no mixture makes it
cheaper. No canary is asked: the parts have had theirs.
"""

from collections.abc import Mapping

from adapters.composition import check_parts
from adapters.errors import AdaptersError, CompositionsFull
from gateway.accounts import Caller
from gateway.catalog import ServedModel
from gateway.composed_price import check_parts_price
from gateway.errors import CompositionPending, InsufficientCredit, InvalidRequest, ModelNotFound
from gateway.parameters import Generation
from gateway.services import Services
from metering.pricebook import worst_case_nanos


async def composed_model(services: Services, caller: Caller, generation: Generation) -> ServedModel:
    """What serves a request with `adapters`, its files safe until the engine has them.

    Raises InvalidRequest and ModelNotFound about the parts; CompositionPending, RateLimited and InsufficientCredit
    where it has to be made first.
    """
    parts, served = await services.call(_find, services, generation)
    if served is not None:
        return served
    await services.call(_may_build, services, caller)
    try:
        built = await services.builds.build(parts)
    except CompositionsFull as error:
        raise CompositionPending(error.message, code=error.code) from None
    except AdaptersError as error:
        raise InvalidRequest(error.message, param="adapters", code=error.code) from None
    except OSError as error:
        raise CompositionPending(f"These adapters could not be composed: {error.strerror}.") from error
    return await services.call(services.catalog.composed, built)


def _find(services: Services, generation: Generation) -> tuple[Mapping[str, int], ServedModel | None]:
    """The parts by digest, and what serves them if that has been made."""
    if generation.model != services.catalog.base.name:
        base = services.catalog.base.name
        raise InvalidRequest(f"With adapters, model names their base model: {base}.", param="model")
    try:
        parts = check_parts((_part(services, name), weight) for name, weight in generation.adapters.items())
        found = services.compositions.find(parts)
    except AdaptersError as error:
        raise InvalidRequest(error.message, param="adapters", code=error.code) from None
    own = services.prices.prices(found.digest) if found else services.prices.default
    check_parts_price(services.prices, own, parts, services.registry.by_digest, "adapters")
    return parts, services.catalog.composed(found) if found else None


def _part(services: Services, name: str) -> str:
    """The digest that a name leads to now."""
    digest = services.catalog.resolve(name, param="adapters").adapter_digest
    if digest is None:
        raise ModelNotFound(name, param="adapters")
    return digest


def _may_build(services: Services, caller: Caller) -> None:
    """A build counts as a request of its key, and is only for those who could pay for a token."""
    services.limits.admit(caller.key_id, 0)
    if worst_case_nanos(services.prices, "", 1, 1) and services.ledger.balance(caller.account).available <= 0:
        raise InsufficientCredit("You have no credit; these adapters would have to be composed first.")
