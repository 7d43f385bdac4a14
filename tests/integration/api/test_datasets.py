"""Datasets over HTTP: what is refused, and what is left behind (nothing)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save, save_file

from mistudio_server.realtime.testing import RecordingPublisher
from mistudio_server.services.removal import removed_with
from mistudio_server.settings import Settings
from tests.integration.api.conftest import SMALL, MakeShards, expect, expect_problem

pytestmark = pytest.mark.integration


def left_files(settings: Settings) -> list[str]:
    """Return every file below DATA_DIR."""
    return sorted(str(path.relative_to(settings.data_dir)) for path in settings.data_dir.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/passwd", "link.txt", "folder/../../secret.txt", "."])
async def test_a_path_outside_data_dir_is_refused(client: httpx.AsyncClient, settings: Settings, path: str) -> None:
    secret = settings.data_dir.parent / "secret.txt"
    secret.write_text("secret\n")
    (settings.data_dir / "folder").mkdir()
    (settings.data_dir / "link.txt").symlink_to(secret)
    problem = expect_problem(await client.post("/datasets", json={"name": "x", "path": path}), 422, "invalid_path")
    assert problem["errors"][0]["field"] == "body.path"
    assert problem["errors"][0]["value"] == path
    assert "DATA_DIR" in problem["hint"]


async def test_a_missing_path_is_refused(client: httpx.AsyncClient) -> None:
    problem = expect_problem(await client.post("/datasets", json={"name": "x", "path": "no.txt"}), 422, "invalid_path")
    assert "no.txt" in problem["detail"]


@pytest.mark.parametrize("folder", [".incoming", ".trash"])
async def test_working_folders_cannot_be_registered(client: httpx.AsyncClient, settings: Settings, folder: str) -> None:
    (settings.data_dir / folder).mkdir()
    (settings.data_dir / folder / "a.txt").write_text("a\n")
    body = {"name": "x", "path": f"{folder}/a.txt"}
    expect_problem(await client.post("/datasets", json=body), 422, "invalid_path")


async def test_a_shard_of_the_wrong_width_is_named(client: httpx.AsyncClient, write_shards: MakeShards) -> None:
    write_shards("acts", widths=(8, 8, 6))
    response = await client.post("/datasets", json={"name": "x", "path": "acts"})
    problem = expect_problem(response, 422, "invalid_dataset")
    assert "shard-00002.safetensors has width 6" in problem["detail"]
    assert "8" in problem["detail"]


async def test_garbled_shards_are_refused(client: httpx.AsyncClient, write_shards: MakeShards) -> None:
    shard = write_shards("acts") / "shard-00001.safetensors"
    whole = shard.read_bytes()
    for broken in (b"", b"garbage", whole[:-7], b"\xff" * 8 + whole[8:]):
        shard.write_bytes(broken)
        response = await client.post("/datasets", json={"name": "x", "path": "acts"})
        assert "shard-00001" in expect_problem(response, 422, "invalid_dataset")["detail"]


@pytest.mark.parametrize("array", [np.zeros(4, np.float32), np.zeros((4, 4), np.int64), np.zeros((0, 4), np.float32)])
async def test_tensors_of_another_form_are_refused(
    client: httpx.AsyncClient, settings: Settings, array: "np.ndarray[Any, Any]"
) -> None:
    (settings.data_dir / "acts").mkdir()
    save_file({"activations": array}, settings.data_dir / "acts" / "s.safetensors")
    expect_problem(await client.post("/datasets", json={"name": "x", "path": "acts"}), 422, "invalid_dataset")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.txt", b""),
        ("latin.txt", b"caf\xe9\n"),
        ("cut.txt", "é".encode()[:1]),
        ("bad.jsonl", b'{"txt": 1}\n'),
        ("bad2.jsonl", b"not json\n"),
        ("image.png", b"\x89PNG"),
    ],
)
async def test_unusable_text_is_refused(
    client: httpx.AsyncClient, settings: Settings, name: str, content: bytes
) -> None:
    (settings.data_dir / name).write_bytes(content)
    expect_problem(await client.post("/datasets", json={"name": "x", "path": name}), 422, "invalid_dataset")


async def test_a_kind_that_the_files_are_not_is_refused(client: httpx.AsyncClient, write_shards: MakeShards) -> None:
    write_shards("acts")
    response = await client.post("/datasets", json={"name": "x", "path": "acts", "kind": "text"})
    assert expect_problem(response, 422, "invalid_input")["errors"][0]["field"] == "body.kind"


async def test_a_name_is_given_once(client: httpx.AsyncClient, dataset: dict[str, Any]) -> None:
    response = await client.post("/datasets", json={"name": "acts", "path": "acts"})
    assert expect_problem(response, 409, "conflict")["errors"][0]["field"] == "body.name"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "", "path": "a"},
        {"name": "a\x00b", "path": "a"},
        {"name": "a", "path": "a\x00"},
        {"name": "x" * 201, "path": "a"},
        {"name": "a", "path": "a", "unknown": 1},
        {"name": 1, "path": "a"},
        [],
    ],
)
async def test_malformed_bodies_are_refused(client: httpx.AsyncClient, body: Any) -> None:
    problem = expect_problem(await client.post("/datasets", json=body), 422, "invalid_input")
    assert problem["errors"]


async def test_a_body_that_is_not_json_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/datasets", content=b"{", headers={"content-type": "application/json"})
    expect_problem(response, 422, "invalid_input")


async def test_registers_text_and_tells_it(
    client: httpx.AsyncClient, settings: Settings, publisher: RecordingPublisher
) -> None:
    (settings.data_dir / "a.txt").write_text("one\ntwo\nthree")
    found = expect(await client.post("/datasets", json={"name": "a", "path": str(settings.data_dir / "a.txt")}), 201)
    assert (found["kind"], found["rows"], found["size_bytes"], found["path"]) == ("text", 3, 13, "a.txt")
    assert found["status"] == "ready"
    assert [event.channel for event in publisher.events] == [f"datasets/{found['id']}/progress"]


async def test_registers_shards(client: httpx.AsyncClient, dataset: dict[str, Any]) -> None:
    found = expect(await client.get(f"/datasets/{dataset['id']}"), 200)
    assert (found["kind"], found["rows"], found["d_model"], found["path"]) == ("activations", 100, 8, "acts")


async def test_edits_what_was_sent_only(client: httpx.AsyncClient, dataset: dict[str, Any]) -> None:
    url = f"/datasets/{dataset['id']}"
    assert expect(await client.patch(url, json={"description": "mine"}), 200)["name"] == "acts"
    assert expect(await client.patch(url, json={"name": "other"}), 200)["description"] == "mine"
    assert expect(await client.patch(url, json={"description": None, "name": None}), 200)["name"] == "other"


async def test_renaming_to_a_taken_name_is_refused(client: httpx.AsyncClient, dataset: dict[str, Any]) -> None:
    other = expect(await client.post("/datasets", json={"name": "other", "path": "acts"}), 201)
    expect_problem(await client.patch(f"/datasets/{other['id']}", json={"name": "acts"}), 409, "conflict")


async def test_deleting_leaves_registered_files(
    client: httpx.AsyncClient, settings: Settings, dataset: dict[str, Any]
) -> None:
    before = left_files(settings)
    assert (await client.delete(f"/datasets/{dataset['id']}")).status_code == 204
    assert left_files(settings) == before
    expect_problem(await client.get(f"/datasets/{dataset['id']}"), 404, "not_found")
    expect_problem(await client.delete(f"/datasets/{dataset['id']}"), 404, "not_found")


async def test_a_dataset_in_use_stays(client: httpx.AsyncClient, training: dict[str, Any]) -> None:
    response = await client.delete(f"/datasets/{training['dataset_id']}")
    assert training["id"] in expect_problem(response, 409, "conflict")["detail"]


async def test_deleting_races_with_creating_a_training(client: httpx.AsyncClient, dataset: dict[str, Any]) -> None:
    create = client.post("/trainings", json={"dataset_id": dataset["id"], "hyperparameters": SMALL})
    created, deleted = await asyncio.gather(create, client.delete(f"/datasets/{dataset['id']}"))
    assert (created.status_code, deleted.status_code) in {(201, 409), (404, 204)}


async def test_two_deletions_race(client: httpx.AsyncClient, dataset: dict[str, Any]) -> None:
    url = f"/datasets/{dataset['id']}"
    answers = await asyncio.gather(*(client.delete(url) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [204, 404, 404]


async def test_upload_and_delete(client: httpx.AsyncClient, settings: Settings) -> None:
    files = {"file": ("corpus.txt", b"one\ntwo\n")}
    found = expect(await client.post("/datasets/upload", data={"name": "up"}, files=files), 201)
    assert found["path"] == f"datasets/{found['id']}/corpus.txt"
    assert left_files(settings) == [found["path"]]
    assert (await client.delete(f"/datasets/{found['id']}")).status_code == 204
    assert left_files(settings) == []


async def test_an_upload_that_another_dataset_uses_stays(client: httpx.AsyncClient) -> None:
    files = {"file": ("corpus.txt", b"one\ntwo\n")}
    found = expect(await client.post("/datasets/upload", data={"name": "up"}, files=files), 201)
    expect(await client.post("/datasets", json={"name": "alias", "path": found["path"]}), 201)
    expect_problem(await client.delete(f"/datasets/{found['id']}"), 409, "conflict")


async def test_uploads_shards(client: httpx.AsyncClient, settings: Settings) -> None:
    shard = save({"activations": np.zeros((5, 3), np.float32)})
    files = {"file": ("acts.safetensors", shard)}
    found = expect(await client.post("/datasets/upload", data={"name": "up"}, files=files), 201)
    assert (found["rows"], found["d_model"], found["path"]) == (5, 3, f"datasets/{found['id']}")
    assert (settings.data_dir / found["path"] / "acts.safetensors").read_bytes() == shard


@pytest.mark.parametrize(
    ("data", "files"),
    [
        ({}, {"file": ("a.txt", b"a\n")}),
        ({"name": "x"}, {"file": ("a.png", b"a\n")}),
        ({"name": "x"}, {"file": ("a.txt", b"")}),
        ({"name": "x"}, {"file": ("../a.txt", b"a\n")}),
        ({"name": "x"}, {"file": (".hidden.txt", b"a\n")}),
        ({"name": "x"}, {"file": ("a.safetensors", b"garbage")}),
        ({"name": "x"}, [("file", ("a.txt", b"a\n")), ("file", ("a.txt", b"b\n"))]),
        ({"name": "x"}, [("file", ("a.txt", b"a\n")), ("file", ("b.txt", b"b\n"))]),
        ({"name": "x", "other": "y"}, {"file": ("a.txt", b"a\n")}),
        ({"name": "x" * 5000}, {"file": ("a.txt", b"a\n")}),
    ],
)
async def test_an_unusable_upload_leaves_nothing(
    client: httpx.AsyncClient, settings: Settings, data: dict[str, str], files: Any
) -> None:
    response = await client.post("/datasets/upload", data=data, files=files)
    assert response.status_code == 422, response.text
    assert left_files(settings) == []
    assert not list((settings.data_dir / ".incoming").glob("*"))
    assert expect(await client.get("/datasets"), 200)["items"] == []


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data", "multipart/form-data; boundary=", ""])
async def test_an_upload_of_another_type_is_refused(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post("/datasets/upload", content=b"x", headers={"content-type": content_type})
    expect_problem(response, 422, "invalid_input")


async def test_an_upload_under_a_taken_name_leaves_nothing(
    client: httpx.AsyncClient, settings: Settings, dataset: dict[str, Any]
) -> None:
    before = left_files(settings)
    response = await client.post("/datasets/upload", data={"name": "acts"}, files={"file": ("a.txt", b"a\n")})
    expect_problem(response, 409, "conflict")
    assert left_files(settings) == before


HALF = (
    b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhalf of it'
)


async def test_an_upload_cut_halfway_leaves_nothing(client: httpx.AsyncClient, settings: Settings) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield HALF

    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = await client.post("/datasets/upload", content=cut(), headers=headers)
    assert "closing boundary" in expect_problem(response, 422, "invalid_input")["detail"]
    assert left_files(settings) == []


async def test_an_upload_larger_than_the_disk_is_refused(client: httpx.AsyncClient, settings: Settings) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b", "content-length": str(8 * 1024**3)}
    response = await client.post("/datasets/upload", content=HALF, headers=headers)
    assert response.status_code in {422, 507}
    assert left_files(settings) == []


async def test_removal_is_undone_when_the_commit_fails(tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "d"
    folder.mkdir(parents=True)
    (folder / "a").write_text("a")

    async def fail_to_commit() -> None:
        async with removed_with(tmp_path, folder):
            assert not folder.exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_to_commit()
    assert (folder / "a").read_text() == "a"
