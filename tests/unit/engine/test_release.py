"""Release ids, identity, records on disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mistudio_ops.domain.environment import EnvironmentPaths
from mistudio_ops.domain.release import Release, Source, next_id
from mistudio_ops.drivers import code, releases
from mistudio_ops.errors import OpsError

SOURCE = Source(version="0.1.0", code="c0de", python="3.11", package="/opt", git_sha="abc", git_dirty=True)
RELEASE = Release("r0001", "2026-01-01T00:00:00+00:00", SOURCE, "conf", schema="0001", proxy_generation="g")


@pytest.mark.parametrize(
    ("existing", "expected"),
    [([], "r0001"), (["r0001"], "r0002"), (["r0009", "r0010", "current", "rx"], "r0011"), (["r9999"], "r10000")],
)
def test_ids_count_up(existing: list[str], expected: str) -> None:
    assert next_id(existing) == expected


def test_same_code_and_configuration_is_the_same_release() -> None:
    assert RELEASE.same_as(replace(SOURCE, git_sha=None), "conf")
    assert not RELEASE.same_as(replace(SOURCE, code="other"), "conf")
    assert not RELEASE.same_as(replace(SOURCE, python="3.12"), "conf")
    assert not RELEASE.same_as(SOURCE, "other")


def test_a_record_is_read_back_and_never_written_twice(tmp_path: Path) -> None:
    paths = EnvironmentPaths(tmp_path)
    releases.folder(paths, "r0001").mkdir(parents=True)
    assert releases.current_release(paths) is None
    releases.record(paths, RELEASE)
    releases.make_current(paths, "r0001")
    assert releases.current_release(paths) == RELEASE
    with pytest.raises(OpsError, match="never changed"):
        releases.record(paths, RELEASE)


def test_a_folder_without_a_record_is_no_release(tmp_path: Path) -> None:
    paths = EnvironmentPaths(tmp_path)
    releases.folder(paths, "r0001").mkdir(parents=True)
    assert releases.release_ids(paths) == []


def test_keys_of_later_versions_are_ignored() -> None:
    document = RELEASE.document() | {"future": 1}
    assert Release.parse(json.loads(json.dumps(document))) == RELEASE


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"source": 3}'])
def test_a_damaged_record_is_named_with_what_to_do(tmp_path: Path, text: str) -> None:
    paths = EnvironmentPaths(tmp_path)
    folder = releases.folder(paths, "r0001")
    folder.mkdir(parents=True)
    (folder / "release.json").write_text(text)
    releases.make_current(paths, "r0001")
    with pytest.raises(OpsError, match=r"release\.json") as caught:
        releases.current_release(paths)
    assert "remove the link" in (caught.value.hint or "")


def test_the_code_hash_follows_content_and_names_but_not_bytecode(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one")
    before = code.hash_of([tmp_path])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")
    assert code.hash_of([tmp_path]) == before
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    renamed = code.hash_of([tmp_path])
    assert renamed != before
    (tmp_path / "b.py").write_text("two")
    assert code.hash_of([tmp_path]) != renamed
    assert code.hash_of([tmp_path], ["dependency-1.dist-info"]) != code.hash_of([tmp_path])


def test_the_installed_source_is_the_server_package() -> None:
    source = code.installed_source()
    assert Path(source.package).name == "mistudio_server"
    assert len(source.code) == 16
