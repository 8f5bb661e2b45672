"""The gateway's ASGI application: `uvicorn --factory gateway.app:create_app`."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uuid_utils
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.config import Settings
from gateway.edge import install_error_handlers
from gateway.metrics import DURATION, REQUESTS
from gateway.recovery import Recovery
from gateway.relay import Relay
from gateway.routes import (
    accounts,
    adapters,
    audits,
    billing,
    credit_notes,
    datanets,
    disputes,
    log,
    money,
    openai,
    operation,
    payouts,
)
from gateway.services import open_services
from gateway.settling import Settling

DRAIN_SECONDS = 5.0
UNROUTED = "unrouted"


def create_app(settings: Settings | None = None) -> ASGIApp:
    """The application of one worker, with the settings given or those of the environment."""
    settings = settings or Settings.from_environment()
    app = FastAPI(title="OpenLedger Gateway", lifespan=lambda app: _lifespan(app, settings))
    install_error_handlers(app)
    for module in (
        openai,
        accounts,
        datanets,
        adapters,
        money,
        billing,
        credit_notes,
        disputes,
        payouts,
        log,
        operation,
        audits,
    ):
        app.include_router(module.router)
    return RequestIds(app)


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    services = open_services(settings)
    settling = Settling(services)
    relay = Relay(services, settling)
    app.state.services, app.state.relay = services, relay
    recovery = asyncio.create_task(Recovery(services, settling).run())
    try:
        yield
    finally:
        recovery.cancel()
        await relay.drain(DRAIN_SECONDS)
        await services.close()


class RequestIds:
    """Outermost: mints each request's id (never the client's: it is the billing id), says it back, counts and times."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id = f"req_{uuid_utils.uuid7().hex}"
        started, status = time.perf_counter(), 500
        scope.setdefault("state", {}).update(request_id=request_id, received=started)

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.setdefault("x-request-id", request_id)
                headers.setdefault("openai-processing-ms", str(round((time.perf_counter() - started) * 1000)))
            await send(message)

        try:
            await self.app(scope, receive, send_named)
        finally:
            route = getattr(scope.get("route"), "path", UNROUTED)
            REQUESTS.labels(scope["method"], route, str(status)).inc()
            DURATION.labels(route).observe(time.perf_counter() - started)
