"""Host, GPUs, queues and version."""

from fastapi import APIRouter

from mistudio_server.api.base import BASE
from mistudio_server.api.dependencies import CanRead, StudioPart
from mistudio_server.api.openapi import problems
from mistudio_server.api.schemas.system import GpuList, GpuOut, HostOut, QueueList, QueueOut, VersionOut
from mistudio_server.services import system

router = APIRouter(prefix=f"{BASE}/system", tags=["system"], dependencies=[CanRead])


@router.get("/host", responses=problems())
async def get_host(studio: StudioPart) -> HostOut:
    """Get the load of the host that answers: processors, memory, disk of DATA_DIR."""
    return HostOut.model_validate(await system.host(studio))


@router.get("/gpus", responses=problems())
async def list_gpus() -> GpuList:
    """List the NVIDIA GPUs of the host that answers; the list is empty where there is no driver."""
    return GpuList(items=[GpuOut.model_validate(gpu) for gpu in await system.gpus()])


@router.get("/queues", responses=problems())
async def list_queues(studio: StudioPart) -> QueueList:
    """List the queues: how many jobs wait, and since when the oldest does."""
    return QueueList(items=[QueueOut.model_validate(queue) for queue in await system.queues(studio)])


@router.get("/version", responses=problems())
async def get_version(studio: StudioPart) -> VersionOut:
    """Get the versions of what runs here."""
    return VersionOut.model_validate(await system.version(studio))
