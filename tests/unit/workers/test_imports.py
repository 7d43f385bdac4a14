"""An idle worker is small: what it must not import is named here."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "numpy", "fastapi", "uvicorn", "socketio", "aiohttp", "httpx", "alembic", "docker")


def imported_with(module: str) -> set[str]:
    code = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    return set(json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout))


@pytest.mark.parametrize("module", ["mistudio_server.workers.supervisor", "mistudio_server.workers.dispatch"])
def test_imports_nothing_heavy(module: str) -> None:
    assert not set(HEAVY) & imported_with(module)


def test_beat_needs_no_database_either() -> None:
    assert not {*HEAVY, "sqlalchemy", "psycopg"} & imported_with("mistudio_server.workers.main")
