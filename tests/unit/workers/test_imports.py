"""An idle worker is small: what it must not import is named here."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "numpy", "fastapi", "uvicorn", "socketio", "aiohttp", "httpx", "alembic", "docker")


@pytest.mark.parametrize("module", ["mistudio_server.workers.main", "mistudio_server.workers.dispatch"])
def test_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    found = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert not set(HEAVY) & set(found)
