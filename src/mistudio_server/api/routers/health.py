"""Health: in detail, of the process alone (live), and of whether to send it requests (ready)."""

from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

import mistudio_server
from mistudio_server.api.dependencies import StudioPart
from mistudio_server.api.openapi import Responses, problems
from mistudio_server.api.schemas.system import CheckOut, HealthOut, StateOut
from mistudio_server.realtime.hub import Hub
from mistudio_server.services import health
from mistudio_server.services.studio import Studio

router = APIRouter(tags=["health"])
#: Without these no request can be served. A full disk or missing partitions do not take an instance out.
_NEEDED = ("database", "migrations")


def _unwell(model: type[BaseModel], description: str) -> Responses:
    return problems(always=(500,)) | {503: {"model": model, "description": description}}


@dataclass(slots=True)
class Drain:
    """Whether this instance is on its way out; set by SIGTERM or by POST /internal/drain."""

    draining: bool = False


@router.get(
    "/api/health",
    response_model=HealthOut,
    responses=_unwell(HealthOut, "Something is out; the same document."),
)
async def get_health(request: Request, studio: StudioPart) -> JSONResponse:
    """Check this instance and what it depends on; 503 when any check fails. Takes at most 2 s."""
    probes = health.probes(studio.settings, studio.database)
    hub: Hub = request.app.state.hub
    probes["realtime"] = partial(health.check_realtime, lambda: hub.healthy)
    found = await health.run_checks(probes)
    ok = all(check.ok for check in found)
    body = HealthOut(
        status="healthy" if ok else "unhealthy",
        version=mistudio_server.__version__,
        release=studio.settings.mistudio_release,
        instance=studio.settings.mistudio_instance,
        checks={check.name: CheckOut.model_validate(check) for check in found},
    )
    return JSONResponse(body.model_dump(), 200 if ok else 503, headers={"Cache-Control": "no-store"})


@router.get("/health/live", responses=problems(always=(500,)))
async def get_liveness() -> StateOut:
    """Tell that the event loop runs. Nothing else is looked at: a restart would not help against anything else."""
    return StateOut(status="live")


@router.get(
    "/health/ready",
    response_model=StateOut,
    responses=_unwell(StateOut, "Draining, or a dependency is out."),
)
async def get_readiness(request: Request, studio: StudioPart) -> JSONResponse:
    """Tell whether to send requests here: not while draining, nor while the database is out."""
    state = await _readiness(request.app.state.drain, studio)
    headers = {"Cache-Control": "no-store"}
    return JSONResponse({"status": state}, 200 if state == "ready" else 503, headers=headers)


async def _readiness(drain: Drain, studio: Studio) -> str:
    if drain.draining:
        return "draining"
    needed = {name: probe for name, probe in health.probes(studio.settings, studio.database).items() if name in _NEEDED}
    failed = [check.name for check in await health.run_checks(needed) if not check.ok]
    return f"waiting for {', '.join(failed)}" if failed else "ready"
