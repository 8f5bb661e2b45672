"""The edge of every route: who calls, how much body is read, how values and errors leave."""

from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from adapters import errors as adapters_errors
from gateway import errors
from gateway.accounts import Caller
from gateway.errors import MISSING_KEY, Forbidden, GatewayError, TooLarge, Unauthenticated
from gateway.parameters import parse_json
from gateway.services import Services
from metering import errors as metering_errors

ADAPTERS_CATEGORIES: dict[str, type[GatewayError]] = {
    "not_found": errors.NotFound,
    "forbidden": errors.Forbidden,
    "conflict": errors.Conflict,
    "too_large": errors.TooLarge,
    "invalid": errors.InvalidRequest,
}
METERING_KINDS: dict[type[Exception], tuple[type[GatewayError], str]] = {
    metering_errors.UsageUnknown: (errors.NotFound, "receipt_not_found"),
    metering_errors.NotIncluded: (errors.NotFound, "not_included_yet"),
    metering_errors.TileUnknown: (errors.NotFound, "tile_not_found"),
    metering_errors.PeriodInvalid: (errors.InvalidRequest, "invalid_period"),
    metering_errors.CanonicalError: (errors.InvalidRequest, "invalid_document"),
    metering_errors.DocumentInvalid: (errors.InvalidRequest, "invalid_document"),
}
STATUS_KINDS: dict[int, type[GatewayError]] = {404: errors.NotFound, 405: errors.InvalidRequest}


def services_of(request: Request) -> Services:
    return request.app.state.services


async def authenticated(request: Request) -> Caller:
    """The caller named by the Authorization header. Raises Unauthenticated."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated(MISSING_KEY)
    services = services_of(request)
    return await services.call(services.accounts.authenticate, secret.strip())


async def administrator(request: Request) -> Caller:
    """The caller, if it may administer. Raises Unauthenticated, Forbidden."""
    caller = await authenticated(request)
    if not caller.is_admin:
        raise Forbidden("This is for the operator of the gateway.")
    return caller


Held = Annotated[Services, Depends(services_of)]
Anyone = Annotated[Caller, Depends(authenticated)]
Admin = Annotated[Caller, Depends(administrator)]


def own_or_admin(caller: Caller, account: str | None) -> str:
    """The account a caller acts for: its own, or for an administrator any. Raises Forbidden."""
    if account in (None, caller.account) or caller.is_admin:
        return account or caller.account
    raise Forbidden(f"You are {caller.account}; only the operator acts for {account}.")


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body. Raises TooLarge as soon as it is longer than the limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise TooLarge(f"The body is longer than {limit_bytes} bytes.")
    return bytes(body)


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises InvalidJson, TooLarge."""
    return parse_json(await read_body(request, services_of(request).settings.max_body_bytes))


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def listing(items: list) -> Response:
    """OpenAI's list object."""
    return answer({"object": "list", "data": items})


def as_gateway_error(error: Exception) -> GatewayError:
    """Any exception as one of ours: the only place where the packages' error trees meet HTTP."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, adapters_errors.InvalidPackage):
        return errors.PackageRefused(error.message, code=error.code)
    if isinstance(error, adapters_errors.AdaptersError):
        return ADAPTERS_CATEGORIES[error.category](error.message, code=error.code)
    if isinstance(error, metering_errors.JournalError):
        return errors.StoreStopped("The usage journal cannot take events now.", retry_after_seconds=5)
    if isinstance(error, metering_errors.LedgerRefused):
        return errors.Conflict(str(error), code=str(error.status))
    for kind, (ours, code) in METERING_KINDS.items():
        if isinstance(error, kind):
            return ours(str(error), code=code)
    if isinstance(error, HTTPException):
        return STATUS_KINDS.get(error.status_code, errors.InvalidRequest)(str(error.detail))
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return errors.InvalidRequest(first["msg"], param=".".join(str(part) for part in first["loc"][1:]))
    return GatewayError("The gateway failed on this request.", code="internal_error")


async def error_response(request: Request, error: Exception) -> Response:
    """The OpenAI error body of any exception."""
    ours = as_gateway_error(error)
    status = error.status_code if isinstance(error, HTTPException) else ours.status
    return answer(ours.body(), status, ours.headers())


def install_error_handlers(app: FastAPI) -> None:
    """Every error of every route passes `error_response`; unknown exceptions are logged by the server as well."""
    for kind in (
        GatewayError,
        adapters_errors.AdaptersError,
        metering_errors.MeteringError,
        HTTPException,
        RequestValidationError,
        Exception,
    ):
        app.add_exception_handler(kind, error_response)
