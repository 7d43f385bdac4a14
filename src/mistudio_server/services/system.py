"""What the machine, the queues and this installation look like."""

import asyncio
import os
import platform
import shutil
import socket
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis.exceptions import RedisError

import mistudio_server
from mistudio_server.repositories import system as repository
from mistudio_server.services.studio import Studio

_MIB = 1 << 20
_REDIS_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class Host:
    """Load of the host; memory and disk in MiB."""

    hostname: str
    cpu_count: int
    cpu_percent: float
    load_average: tuple[float, float, float]
    memory_total_mb: float
    memory_used_mb: float
    disk_total_mb: float
    disk_free_mb: float
    uptime_seconds: float


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. What the driver does not tell is None."""

    index: int
    name: str
    utilization_percent: float | None
    memory_total_mb: float | None
    memory_used_mb: float | None
    temperature_celsius: float | None
    power_watts: float | None


@dataclass(frozen=True, slots=True)
class Queue:
    """Jobs that wait in the database, and wake-up messages in Redis (None: Redis did not answer)."""

    name: str
    depth: int
    oldest_queued_at: datetime | None
    messages: int | None


async def host(studio: Studio) -> Host:
    """Return the load of this host."""
    return await asyncio.to_thread(_host, str(studio.data_dir))


def _host(data_dir: str) -> Host:
    import psutil  # noqa: PLC0415

    memory, disk = psutil.virtual_memory(), shutil.disk_usage(data_dir)
    return Host(
        hostname=socket.gethostname(),
        cpu_count=os.cpu_count() or 1,
        cpu_percent=psutil.cpu_percent(interval=0.1),
        load_average=os.getloadavg(),
        memory_total_mb=memory.total / _MIB,
        memory_used_mb=(memory.total - memory.available) / _MIB,
        disk_total_mb=disk.total / _MIB,
        disk_free_mb=disk.free / _MIB,
        uptime_seconds=time.time() - psutil.boot_time(),
    )


async def gpus() -> list[Gpu]:
    """Return the NVIDIA GPUs of this host; none where there is no driver."""
    return await asyncio.to_thread(_gpus)


def _gpus() -> list[Gpu]:
    try:
        import pynvml  # noqa: PLC0415
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(question: Any, *arguments: Any) -> Any:
        try:
            return question(handle, *arguments)
        except nvml.NVMLError:  # a Jetson answers few of them
            return None

    memory, use = ask(nvml.nvmlDeviceGetMemoryInfo), ask(nvml.nvmlDeviceGetUtilizationRates)
    power = ask(nvml.nvmlDeviceGetPowerUsage)
    name = ask(nvml.nvmlDeviceGetName) or f"GPU {index}"
    return Gpu(
        index=index,
        name=name.decode() if isinstance(name, bytes) else name,
        utilization_percent=use.gpu if use else None,
        memory_total_mb=memory.total / _MIB if memory else None,
        memory_used_mb=memory.used / _MIB if memory else None,
        temperature_celsius=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        power_watts=power / 1000 if power is not None else None,
    )


async def queues(studio: Studio) -> list[Queue]:
    """Return the queues of trainings and extractions."""
    async with studio.database.read() as session:
        states = {
            "training": await repository.queued_trainings(session),
            "extraction": await repository.queued_extractions(session),
        }
    messages = await _messages(studio, list(states))
    return [Queue(name, state.depth, state.oldest, messages.get(name)) for name, state in states.items()]


async def _messages(studio: Studio, names: list[str]) -> dict[str, int]:
    """Return the length of each Celery queue, whose list in Redis is named by the prefix and the queue."""
    from redis.asyncio import Redis  # noqa: PLC0415

    url = studio.settings.redis_url.get_secret_value()
    client = Redis.from_url(url, socket_connect_timeout=_REDIS_TIMEOUT, socket_timeout=_REDIS_TIMEOUT)
    try:
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.llen(f"{studio.settings.redis_prefix}:celery:{name}")
        return dict(zip(names, await pipeline.execute(), strict=True))
    except (RedisError, OSError):
        return {}
    finally:
        await client.aclose()


async def version(studio: Studio) -> dict[str, Any]:
    """Return what runs here."""
    async with studio.database.read() as session:
        revision, postgres = await repository.revision(session), await repository.server_version(session)
    return {
        "version": mistudio_server.__version__,
        "release": studio.settings.mistudio_release,
        "instance": studio.settings.mistudio_instance,
        "python": platform.python_version(),
        "schema_revision": revision,
        "postgres": postgres,
        "torch_installed": studio.torch_installed(),
    }
