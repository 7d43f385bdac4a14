"""Finding client programs: of exactly the server's major, wherever they are; else an error that helps."""

from pathlib import Path
from typing import Any

import pytest

from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.drivers.database_access import DatabaseAccess, Login
from mistudio_ops.drivers.host_tools import PROGRAMS, host_tools, wheel_tools
from mistudio_ops.drivers.pg_tools import HostTools
from mistudio_ops.drivers.tool_places import find_tools
from mistudio_ops.errors import ExitCode, PreconditionError

LOGIN = Login("127.0.0.1", 5432, "lab", "secret", {})
ACCESS = DatabaseAccess("lab", LOGIN, LOGIN)


def install(folder: Path, version: str, *, without: tuple[str, ...] = ()) -> Path:
    """Write programs that say that they are of ``version``."""
    folder.mkdir(parents=True)
    for name in PROGRAMS:
        if name not in without:
            (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
            (folder / name).chmod(0o755)
    return folder


def look(root: Path, major: int, path: str = "") -> HostTools | str:
    return host_tools(major, root=root, environ={"PATH": path})


@pytest.mark.parametrize("place", ["usr/lib/postgresql/16/bin", "usr/pgsql-16/bin"])
def test_versioned_folders(tmp_path: Path, place: str) -> None:
    install(tmp_path / "usr/lib/postgresql/15/bin", "15.4")
    folder = install(tmp_path / place, "16.3 (Debian 16.3-1.pgdg120+1)")
    assert look(tmp_path, 16) == HostTools(folder, "16.3")


def test_the_name_of_a_folder_proves_nothing(tmp_path: Path) -> None:
    folder = install(tmp_path / "usr/lib/postgresql/16/bin", "15.4")
    assert look(tmp_path, 16) == f"{folder} has 15.4"
    assert isinstance(look(tmp_path, 15), HostTools)


@pytest.mark.parametrize("version", ["16", "16.0", "16beta1", "16.3"])
def test_majors_are_compared_as_numbers(tmp_path: Path, version: str) -> None:
    install(tmp_path / "usr/lib/postgresql/1/bin", version)
    assert isinstance(look(tmp_path, 16), HostTools)
    for other in (1, 6, 15, 160):
        assert isinstance(look(tmp_path, other), str)


def test_programs_on_path_and_behind_links(tmp_path: Path) -> None:
    folder = install(tmp_path / "opt/pg/bin", "17.1")
    links = tmp_path / "links"
    links.mkdir()
    (links / "pg_dump").symlink_to(folder / "pg_dump")
    assert look(tmp_path, 17, f"relative::{tmp_path}/none:{links}") == HostTools(folder, "17.1")


def test_debians_wrapper_is_not_believed(tmp_path: Path) -> None:
    """It would pick another version when our variables name another server."""
    shared = install(tmp_path / "usr/share/postgresql-common", "16.1")
    (shared / "pg_dump").rename(shared / "pg_wrapper")
    (tmp_path / "usr/bin").mkdir()
    for name in PROGRAMS:
        (tmp_path / "usr/bin" / name).symlink_to(shared / "pg_wrapper")
    assert look(tmp_path, 16, str(tmp_path / "usr/bin")) == "no pg_dump on this machine"


@pytest.mark.parametrize("missing", ["pg_restore", "pg_dumpall"])
def test_a_folder_without_all_of_them(tmp_path: Path, missing: str) -> None:
    install(tmp_path / "usr/lib/postgresql/16/bin", "16.3", without=(missing,))
    assert str(look(tmp_path, 16)).endswith(f"has 16.3 without {missing}")
    whole = install(tmp_path / "opt/bin", "16.1")
    assert look(tmp_path, 16, str(whole)) == HostTools(whole, "16.1")


@pytest.mark.parametrize("script", ["exit 1", "echo something else", "", "kill -9 $$"])
def test_programs_that_do_not_work(tmp_path: Path, script: str) -> None:
    folder = install(tmp_path / "usr/lib/postgresql/16/bin", "16.3")
    (folder / "pg_dump").write_text(f"#!/bin/sh\n{script}\n")
    assert look(tmp_path, 16) == "no pg_dump on this machine"


def test_what_is_no_program(tmp_path: Path) -> None:
    folder = install(tmp_path / "usr/lib/postgresql/16/bin", "16.3")
    (folder / "pg_dump").write_bytes(b"\x7fELF garbage")
    assert look(tmp_path, 16) == "no pg_dump on this machine"


def test_nothing_at_all(tmp_path: Path) -> None:
    assert look(tmp_path, 16) == "no pg_dump on this machine"


def test_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    found = wheel_tools(9)
    assert isinstance(found, str), "it is of one recent major"
    major = int(found.rpartition(" has ")[2].split(".")[0])
    tools = wheel_tools(major)
    assert isinstance(tools, HostTools)
    assert tools.shares_files


def test_the_first_place_that_fits_wins(tmp_path: Path) -> None:
    asked = []

    def finder(name: str, answer: Any) -> Any:
        def find(*_: Any) -> Any:
            asked.append(name)
            return answer

        return find

    tools = HostTools(tmp_path, "16.1")
    finders = [finder("a", "nothing in a"), finder("b", tools), finder("c", HostTools(tmp_path, "16.2"))]
    assert find_tools(16, ACCESS, BackupSettings(), finders=finders) is tools
    assert asked == ["a", "b"]


def test_the_error_names_the_version_what_was_found_and_what_to_do() -> None:
    with pytest.raises(PreconditionError) as raised:
        find_tools(16, ACCESS, BackupSettings(), finders=[lambda *_: "/a has 15.1", lambda *_: "no wheel"])
    error = raised.value
    assert error.exit_code is ExitCode.PRECONDITION
    assert "PostgreSQL 16" in error.message
    assert "/a has 15.1; no wheel" in error.message
    for remedy in ("postgresql-client-16", "database_container", "postgres:16"):
        assert remedy in (error.hint or "")
