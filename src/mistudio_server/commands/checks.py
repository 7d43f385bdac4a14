"""``mistudio-server check``: the checks of health as a command, and the one that needs a worker."""

import asyncio
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

from mistudio_server.services.health import Check, Probe, run_checks
from mistudio_server.settings import Settings

NAMES = ("database", "migrations", "partitions", "redis", "worker")


def run(settings: Settings, names: Iterable[str], timeout: float) -> dict[str, Any]:
    """Run the named checks at once and return the document that ``check --json`` prints."""
    checks = asyncio.run(_run(settings, list(dict.fromkeys(names)), timeout))
    return {"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]}


async def _run(settings: Settings, names: list[str], limit: float) -> list[Check]:
    wanted: dict[str, Probe] = {}
    if "worker" in names:
        from mistudio_server.commands.worker_check import check_worker  # noqa: PLC0415

        wanted["worker"] = partial(check_worker, settings, limit)
    if set(names) == {"worker"}:  # the database is not even imported
        return await run_checks(wanted, limit)
    from mistudio_server.db.engine import Database, create_engine  # noqa: PLC0415
    from mistudio_server.services.health import probes  # noqa: PLC0415

    database = Database(create_engine(settings, application_name="mistudio check", pool_size=3))
    try:
        known = probes(settings, database) | wanted
        return await run_checks({name: known[name] for name in names}, limit)
    finally:
        await database.close()
