"""The real application held against its own OpenAPI document, by schemathesis, with tokens on."""

import asyncio
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Self

import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events

from mistudio_server.app import create_app
from mistudio_server.db.engine import Database
from mistudio_server.realtime.testing import RecordingPublisher
from mistudio_server.services import tokens
from mistudio_server.services.tokens import TokenScope
from mistudio_server.settings import Settings
from tests.integration.api.conftest import RecordingQueue
from tests.support.servers import free_port

pytestmark = pytest.mark.integration


def test_operation_ids_are_unique_and_snake_case(app: FastAPI) -> None:
    operations = [operation for path in app.openapi()["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", identifier) for identifier in ids)
    for operation in operations:
        assert operation["description"], operation["operationId"]
        assert operation["tags"], operation["operationId"]


def test_errors_are_documented_as_problems(app: FastAPI) -> None:
    document = app.openapi()
    assert "HTTPValidationError" not in str(document)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400 and not path.startswith(("/health", "/api/health")):
                    assert list(response["content"]) == ["application/problem+json"]


def test_the_document_is_openapi_3_1(app: FastAPI) -> None:
    assert app.openapi()["openapi"].startswith("3.1")


class ThreadedServer:
    """The application on a real port, in a thread with a loop of its own: schemathesis is synchronous."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(app, port=free_port(), log_config=None, access_log=False, lifespan="on")
        self.server = uvicorn.Server(config)
        self.url = f"http://127.0.0.1:{config.port}"
        self._thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self.server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive()


def contract(token: str) -> SchemathesisConfig:
    """Return what is tried: every check on, bounded, the same on each run."""
    refusals = ["2xx", "3xx", "401", "403", "404", "409", "422", "503", "507"]
    return SchemathesisConfig.from_dict(
        {
            "seed": 20260101,
            "headers": {"Authorization": f"Bearer {token}"},
            "request-timeout": 20,
            "generation": {"max-examples": 3, "no-shrink": True, "deterministic": True, "database": "none"},
            # A well-formed path or id may still name nothing, so a refusal of valid data is no failure.
            "checks": {"positive_data_acceptance": {"expected-statuses": refusals}},
            "phases": {"stateful": {"enabled": False}},
        }
    )


async def test_the_application_keeps_its_contract(settings: Settings, database: Database) -> None:
    made = await tokens.create(database, "contract", [TokenScope.ADMIN])
    locked = settings.model_copy(update={"auth_required": True})
    app = create_app(locked, jobs=RecordingQueue(), publisher=RecordingPublisher(), torch_installed=lambda: True)
    with ThreadedServer(app) as server:
        found = await asyncio.to_thread(_violations, server.url, made.secret)
    assert found.checked > 1000
    assert not found.violations, "\n\n".join(found.violations[:10])


@dataclass
class Found:
    """What schemathesis did and met."""

    checked: int = 0
    violations: list[str] = field(default_factory=list)


def _violations(url: str, token: str) -> Found:
    schema = schemathesis.openapi.from_url(f"{url}/api/openapi.json", config=contract(token))
    found = Found()
    for event in engine.from_schema(schema).execute():
        if isinstance(event, events.FatalError | events.NonFatalError):
            found.violations.append(str(getattr(event, "info", event)))
        if isinstance(event, events.ScenarioFinished):
            for case_id, checks in event.recorder.checks.items():
                found.checked += len(checks)
                for check in checks:
                    if check.failure_info is not None:
                        case = event.recorder.cases[case_id].value
                        failure = check.failure_info.failure
                        found.violations.append(
                            f"{case.method} {case.path}: {failure.title}: {failure.message}\n{case.as_curl_command()}"
                        )
    return found
