"""Health, metrics and the operator's check."""

import time
from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import Response

from gateway.audit.metrics import AuditMetrics
from gateway.bus_metrics import render_forwarder
from gateway.edge import Admin, Held, answer
from gateway.engine.tally import read_totals
from gateway.errors import EngineUnavailable
from gateway.metrics import render
from gateway.services import Services
from metering.check import run_checks

router = APIRouter(tags=["operation"])
SECOND_LOOK_SECONDS = 1.0


@router.get("/healthz")
async def health(services: Held) -> Response:
    """200 when requests are served: engine up and journal open; 503 with the reason otherwise."""
    state = {"engine": await services.engine.healthy(), "journal": await services.call(services.journal.can_accept)}
    ready = all(state.values())
    return answer({"status": "ok" if ready else "unavailable", **state}, 200 if ready else 503)


@router.get("/metrics")
async def metrics(services: Held) -> Response:
    """The gateway's metrics, the forwarder's, the audits', then the engine's."""
    audits = await services.call(AuditMetrics(services.audits.store).render)
    ours = render() + render_forwarder(services.metering.journal_dir) + audits
    return Response(ours + await services.engine.metrics(), media_type="text/plain; version=0.0.4")


@router.get("/v1/admin/check")
async def check(services: Held, caller: Admin) -> Response:
    """Both conservation laws and every invariant between engine, journal, ledger and log."""
    return answer(await services.call(_check, services))


@router.get("/v1/admin/engine")
async def engine(services: Held, caller: Admin) -> Response:
    """What the engine serves and holds."""
    try:
        facts = await services.engine.facts()
    except EngineUnavailable:
        facts = None
    return answer(
        {"object": "engine", "engine": facts, "requests_in_flight": await services.call(len, services.flights)}
    )


def _check(services: Services) -> dict:
    """The report. Tally and ledger are not read in one instant: a finding counts when a second look shows it too."""
    report = run_checks(services.metering, services.ledger, read_totals(services.settings.tally_directory))
    if not report.clean:
        time.sleep(SECOND_LOOK_SECONDS)
        report = run_checks(services.metering, services.ledger, read_totals(services.settings.tally_directory))
    return {"object": "check", "clean": report.clean, **asdict(report)}
