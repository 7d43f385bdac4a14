"""What a backend does not import."""

import importlib
import subprocess
import sys

import pytest

from mistudio_server.api.lean_imports import without

HEAVY = ("torch", "transformers", "alembic", "celery", "aiohttp", "requests", "rich", "docker", "numpy", "psutil")
SCRIPT = """
import sys
from mistudio_server.api.lean_imports import CONSOLE, SOCKET_CLIENTS, without
with without(*CONSOLE, *SOCKET_CLIENTS):
    import mistudio_server.cli, mistudio_server.app, mistudio_server.api.serving
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_a_backend_does_not_import_what_it_does_not_need() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT, *HEAVY], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


def test_names_can_be_imported_after_the_block() -> None:
    sys.modules.pop("this", None)
    with without("this"), pytest.raises(ImportError):
        importlib.import_module("this")
    assert "this" not in sys.modules


def test_what_is_imported_already_stays() -> None:
    with without("sys"):
        assert importlib.import_module("sys") is sys
