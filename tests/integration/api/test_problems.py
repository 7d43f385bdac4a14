"""Every refusal is a problem document: unknown paths, methods, bodies over the limit, failures of ours."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from mistudio_server.settings import Settings
from tests.integration.api.conftest import expect, expect_problem

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_body_bytes": 2000, "max_upload_bytes": 50_000})


async def test_no_such_path(client: httpx.AsyncClient) -> None:
    problem = expect_problem(await client.get("/nothing"), 404, "not_found")
    assert problem["instance"] == "/api/v1/nothing"


async def test_method_not_allowed(client: httpx.AsyncClient) -> None:
    response = await client.put("/datasets")
    expect_problem(response, 405, "method_not_allowed")
    assert "GET" in response.headers["allow"]


async def chunks(size: int, head: bytes = b"") -> AsyncIterator[bytes]:
    """Yield a body without a declared length."""
    yield head
    for _ in range(size // 1000):
        yield b" " * 1000


async def test_a_declared_body_over_the_limit(client: httpx.AsyncClient) -> None:
    response = await client.post("/datasets", json={"name": "x" * 3000, "path": "a"})
    problem = expect_problem(response, 413, "body_too_large")
    assert "2000 bytes" in problem["detail"]
    assert "MAX_BODY_BYTES" in problem["hint"]


async def test_a_chunked_body_over_the_limit(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    response = await client.post("/datasets", content=chunks(5000), headers=headers)
    expect_problem(response, 413, "body_too_large")


async def test_a_chunked_upload_over_the_limit_leaves_nothing(client: httpx.AsyncClient, settings: Settings) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = await client.post("/datasets/upload", content=chunks(100_000, head), headers=headers)
    expect_problem(response, 413, "body_too_large")
    assert not list((settings.data_dir / ".incoming").glob("*"))


async def test_an_upload_may_be_larger_than_a_body(client: httpx.AsyncClient) -> None:
    files = {"file": ("a.txt", b"line\n" * 2000)}
    expect(await client.post("/datasets/upload", data={"name": "x"}, files=files), 201)


@pytest.mark.parametrize("value", ["\ud800", "x\ud800y"])
async def test_lone_surrogates_are_refused(client: httpx.AsyncClient, value: str) -> None:
    body = json.dumps({"name": value, "path": "a"})
    response = await client.post("/datasets", content=body, headers={"content-type": "application/json"})
    expect_problem(response, 422, "invalid_input")


async def test_what_looks_like_a_secret_is_not_echoed(client: httpx.AsyncClient) -> None:
    response = await client.post("/datasets", json={"name": "x", "path": "a", "api_token": "hunter2"})
    problem = expect_problem(response, 422, "invalid_input")
    assert problem["errors"] == [
        {"field": "body.api_token", "value": "[hidden]", "message": "Extra inputs are not permitted"}
    ]
    assert "hunter2" not in response.text


async def test_a_failure_of_ours_tells_nothing(app: FastAPI, client: httpx.AsyncClient) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the secret reason")

    response = await client.get("http://127.0.0.1/broken")
    expect_problem(response, 500, "internal_error")
    assert "secret" not in response.text
    assert "RuntimeError" not in response.text


@pytest.mark.parametrize(
    ("sent", "kept"), [("mine-1", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("a\tb", False)]
)
async def test_request_ids(client: httpx.AsyncClient, sent: str, kept: bool) -> None:
    response = await client.get("/datasets", headers={"X-Request-ID": sent})
    answered = response.headers["x-request-id"]
    assert (answered == sent) is kept
    assert kept or answered.startswith("req_")


async def test_cors_is_off_unless_listed(client: httpx.AsyncClient) -> None:
    response = await client.get("/datasets", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in response.headers
