"""Client programs in containers: dump and restore through them, and every way in which that breaks."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

import docker
from mistudio_ops.domain.backup_settings import BackupSettings
from mistudio_ops.drivers import docker_cli, throwaway_tools
from mistudio_ops.drivers.container_tools import find_in_container
from mistudio_ops.drivers.database_access import DatabaseAccess, Login
from mistudio_ops.drivers.pg_tools import PgTools, Streams
from mistudio_ops.drivers.throwaway_tools import LABEL, ThrowawayTools, find_throwaway, remove_left
from mistudio_ops.drivers.tool_places import find_tools
from mistudio_ops.errors import PreconditionError
from tests.docker.conftest import database_with_rows
from tests.support.docker_engine import Image, PostgresContainer

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

APPLICATION = "mistudio-ops test"
#: Enough that a dump is far from its end when the first bytes have come.
MANY_ROWS = 120_000


def login_of(container: PostgresContainer) -> Login:
    return Login("127.0.0.1", container.port, "postgres", container.password, {})


def access_of(container: PostgresContainer, name: str | None = None, database: str = "lab") -> DatabaseAccess:
    login = login_of(container)
    return DatabaseAccess(database, login, login, name or container.name)


def find(container: PostgresContainer, major: int | None = None) -> PgTools:
    found = find_in_container(major or container.image.major, access_of(container), BackupSettings())
    assert not isinstance(found, str)
    return found


def dump(tools: PgTools, container: PostgresContainer, database: str) -> bytes:
    process = tools.start(
        "pg_dump", ["-Fc", "-Z0"], login_of(container), database, application=APPLICATION,
        streams=Streams(stdout=subprocess.PIPE, stderr=subprocess.PIPE),
    )  # fmt: skip
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


def restore(tools: PgTools, container: PostgresContainer, database: str, content: bytes) -> None:
    process = tools.start(
        "pg_restore", ["--no-owner", "--exit-on-error", "-d", database], login_of(container), database,
        application=APPLICATION, streams=Streams(stdin=subprocess.PIPE, stderr=subprocess.PIPE),
    )  # fmt: skip
    _, errors = process.communicate(content, timeout=60)
    assert process.returncode == 0, errors


def sessions(container: PostgresContainer, database: str = "lab") -> int:
    with psycopg.connect(container.url(database), autocommit=True) as session:
        row = session.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", (APPLICATION,)
        ).fetchone()
    assert row is not None
    return int(row[0])


def end_sessions(container: PostgresContainer, database: str) -> int:
    """End what a killed command left; return how many there were."""
    with psycopg.connect(container.url(database), autocommit=True) as session:
        return session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", (APPLICATION,)
        ).rowcount


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def many_rows(shared_postgres: PostgresContainer) -> Iterator[str]:
    yield from database_with_rows(shared_postgres, MANY_ROWS, "many")


def count(container: PostgresContainer, database: str) -> tuple[int, str]:
    with psycopg.connect(container.url(database)) as session:
        row = session.execute("SELECT count(*), md5(string_agg(text, ',' ORDER BY n)) FROM numbers").fetchone()
    assert row is not None
    return int(row[0]), str(row[1])


def check_round_trip(tools: PgTools, container: PostgresContainer, database: str) -> None:
    content = dump(tools, container, database)
    with psycopg.connect(container.url("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE copy")
    try:
        restore(tools, container, "copy", content)
        assert count(container, "copy") == count(container, database)
    finally:
        with psycopg.connect(container.url("postgres"), autocommit=True) as admin:
            admin.execute("DROP DATABASE copy WITH (FORCE)")


def test_dump_and_restore_in_the_databases_container(shared_postgres: PostgresContainer, rows: str) -> None:
    tools = find(shared_postgres)
    assert tools.version == shared_postgres.image.version
    assert tools.place == f"container {shared_postgres.name}"
    assert not tools.shares_files
    check_round_trip(tools, shared_postgres, rows)


def test_programs_that_lie_where_debian_has_them(engine: docker.DockerClient, debian_image: Image) -> None:
    container = PostgresContainer(engine, debian_image)
    try:
        container.start()
        for name in database_with_rows(container, 100):
            check_round_trip(find(container), container, name)
    finally:
        container.remove()


def test_dump_and_restore_in_a_throwaway_container(
    shared_postgres: PostgresContainer, rows: str, engine: docker.DockerClient
) -> None:
    image = shared_postgres.image
    tools = find_throwaway(image.major, access_of(shared_postgres), BackupSettings(tools_image=image.tag))
    assert isinstance(tools, ThrowawayTools)
    assert tools.version == image.version
    check_round_trip(tools, shared_postgres, rows)
    assert engine.containers.list(all=True, filters={"label": LABEL}) == []


@pytest.mark.parametrize("throwaway", [False, True], ids=["exec", "run"])
def test_no_password_in_any_command_line(shared_postgres: PostgresContainer, many_rows: str, throwaway: bool) -> None:
    tools = (
        ThrowawayTools(shared_postgres.image.tag, shared_postgres.image.version) if throwaway else find(shared_postgres)
    )
    process = tools.start(
        "pg_dump", ["-Fc", "-Z0"], login_of(shared_postgres), many_rows, application=APPLICATION,
        streams=Streams(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"PGDMP"
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.is_file()]
        assert not [line for line in lines if shared_postgres.password.encode() in line]
        assert any(b"PGPASSWORD" in line for line in lines)
    finally:
        process.kill()
        process.communicate()
        end_sessions(shared_postgres, many_rows)
        remove_left(lambda _: False)


def test_a_killed_command_leaves_its_program_and_the_next_run_ends_it(
    shared_postgres: PostgresContainer, many_rows: str
) -> None:
    """What the kill leaves is shown too: were it nothing, nobody would have to end sessions."""
    process = find(shared_postgres).start(
        "psql", ["-c", "SELECT pg_sleep(60) FROM numbers LIMIT 1"], login_of(shared_postgres), many_rows,
        application=APPLICATION, streams=Streams(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
    )  # fmt: skip
    until(lambda: sessions(shared_postgres, many_rows) == 1)
    process.kill()
    process.wait()
    time.sleep(0.3)
    assert sessions(shared_postgres, many_rows) == 1
    assert any("psql" in line for line in shared_postgres.processes())
    assert end_sessions(shared_postgres, many_rows) == 1
    until(lambda: sessions(shared_postgres, many_rows) == 0)
    until(lambda: not any("psql" in line for line in shared_postgres.processes()))


def test_a_killed_run_leaves_a_container_that_the_next_removes(
    shared_postgres: PostgresContainer, many_rows: str, engine: docker.DockerClient
) -> None:
    image = shared_postgres.image
    tools = ThrowawayTools(image.tag, image.version)
    process = tools.start(
        "psql", ["-c", "SELECT pg_sleep(60)"], login_of(shared_postgres), many_rows, application=APPLICATION,
        streams=Streams(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
    )  # fmt: skip
    until(lambda: sessions(shared_postgres, many_rows) == 1)
    process.kill()
    process.wait()
    assert remove_left() == []  # its process, this test, lives: it may be at work
    assert len(remove_left(lambda _: False)) == 1
    end_sessions(shared_postgres, many_rows)  # a server process notices when it next writes to its client
    until(lambda: sessions(shared_postgres, many_rows) == 0)
    assert engine.containers.list(all=True, filters={"label": LABEL}) == []


def test_containers_of_an_earlier_boot_are_known_by_their_process(shared_postgres: PostgresContainer) -> None:
    owner = f"{os.getpid()}.1"  # our number, another start
    docker_cli.run("create", "--label", f"{LABEL}={owner}", shared_postgres.image.tag)
    assert len(remove_left()) == 1


def test_a_container_stopped_in_the_middle_fails_the_dump(own_postgres: PostgresContainer) -> None:
    access = access_of(own_postgres)
    for name in database_with_rows(own_postgres, MANY_ROWS):
        process = find(own_postgres).start(
            "pg_dump", ["-Fc", "-Z0"], login_of(own_postgres), name, application=APPLICATION,
            streams=Streams(stdout=subprocess.PIPE, stderr=subprocess.PIPE),
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.read(5) == b"PGDMP"
        stopping = threading.Thread(target=own_postgres.container.kill)
        stopping.start()
        process.communicate(timeout=30)
        stopping.join()
        assert process.returncode != 0
        with pytest.raises(PreconditionError, match="is exited") as caught:
            find_in_container(own_postgres.image.major, access, BackupSettings())
        assert caught.value.hint == f"docker start {own_postgres.name}"
        own_postgres.container.start()
        own_postgres.wait()


def test_a_restore_whose_input_is_cut_fails(shared_postgres: PostgresContainer, rows: str) -> None:
    tools = find(shared_postgres)
    content = dump(tools, shared_postgres, rows)
    process = tools.start(
        "pg_restore", ["--exit-on-error", "-d", rows, "--clean"], login_of(shared_postgres), rows,
        application=APPLICATION, streams=Streams(stdin=subprocess.PIPE, stderr=subprocess.PIPE),
    )  # fmt: skip
    _, errors = process.communicate(content[: len(content) // 2], timeout=30)
    assert process.returncode != 0
    assert b"pg_restore" in errors


def test_a_program_that_fails_gives_its_exit_code_and_words(shared_postgres: PostgresContainer, rows: str) -> None:
    process = find(shared_postgres).start(
        "pg_dump", ["-t", "no_such_table"], login_of(shared_postgres), rows, application=APPLICATION,
        streams=Streams(stdout=subprocess.PIPE, stderr=subprocess.PIPE),
    )  # fmt: skip
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"no matching tables" in errors


def test_a_command_that_is_told_to_end_did_not_succeed(shared_postgres: PostgresContainer, many_rows: str) -> None:
    """``docker exec`` itself would say 0, and half a dump would pass for a whole one."""
    process = find(shared_postgres).start(
        "psql", ["-c", "SELECT pg_sleep(60)"], login_of(shared_postgres), many_rows, application=APPLICATION,
        streams=Streams(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
    )  # fmt: skip
    until(lambda: sessions(shared_postgres, many_rows) == 1)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    assert process.poll() == -signal.SIGTERM
    end_sessions(shared_postgres, many_rows)


def test_open_files_are_refused(shared_postgres: PostgresContainer) -> None:
    with pytest.raises(ValueError, match="open files"):
        find(shared_postgres).start(
            "pg_restore", [], login_of(shared_postgres), "lab", application=APPLICATION, streams=Streams(files=(3,))
        )


def test_wrong_major_in_the_container(shared_postgres: PostgresContainer) -> None:
    with pytest.raises(PreconditionError, match=f"has pg_dump {shared_postgres.image.version}") as caught:
        find(shared_postgres, major=99)
    assert "database_container" in (caught.value.hint or "")


def test_a_container_that_is_not_the_databases(shared_postgres: PostgresContainer) -> None:
    login = Login("127.0.0.1", shared_postgres.port + 1, "postgres", None, {})
    access = DatabaseAccess("lab", login, login, shared_postgres.name)
    with pytest.raises(PreconditionError, match="does not publish port"):
        find_in_container(shared_postgres.image.major, access, BackupSettings())


def test_the_containers_own_address_is_known(shared_postgres: PostgresContainer) -> None:
    networks = docker_cli.inspect("container", shared_postgres.name)
    assert networks is not None
    address = networks["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    login = Login(address, 5432, "postgres", shared_postgres.password, {})
    access = DatabaseAccess("lab", login, login, shared_postgres.name)
    found = find_in_container(shared_postgres.image.major, access, BackupSettings())
    assert not isinstance(found, str)
    assert found.port == 5432


def test_no_such_container(shared_postgres: PostgresContainer) -> None:
    with pytest.raises(PreconditionError, match="there is no container nowhere"):
        find_in_container(18, access_of(shared_postgres, "nowhere"), BackupSettings())


def test_a_paused_container(own_postgres: PostgresContainer) -> None:
    access = access_of(own_postgres)
    own_postgres.container.pause()
    try:
        with pytest.raises(PreconditionError, match="is paused") as caught:
            find_in_container(own_postgres.image.major, access, BackupSettings())
        assert caught.value.hint == f"docker unpause {own_postgres.name}"
    finally:
        own_postgres.container.unpause()


def test_images_that_do_not_fit(shared_postgres: PostgresContainer) -> None:
    access, image = access_of(shared_postgres), shared_postgres.image
    told = find_throwaway(98, access, BackupSettings())
    assert told == "the image postgres:98 is not there (docker pull postgres:98 fetches it)"
    with pytest.raises(PreconditionError, match="nobody/has:this is not there") as caught:
        find_throwaway(98, access, BackupSettings(tools_image="nobody/has:this"))
    assert "docker pull nobody/has:this" in (caught.value.hint or "")
    with pytest.raises(PreconditionError, match=f"has pg_dump {image.version}"):
        find_throwaway(99, access, BackupSettings(tools_image=image.tag))


def test_an_engine_that_is_down(
    shared_postgres: PostgresContainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    access = access_of(shared_postgres)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(PreconditionError, match="the Docker Engine does not answer") as caught:
        find_in_container(18, access, BackupSettings())
    assert "systemctl start docker" in (caught.value.hint or "")
    told = find_throwaway(18, access, BackupSettings())
    assert isinstance(told, str)
    assert "does not answer" in told


def test_no_docker_command(shared_postgres: PostgresContainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    access = access_of(shared_postgres)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreconditionError, match="there is no docker command"):
        find_in_container(18, access, BackupSettings())
    assert find_throwaway(18, access, BackupSettings()) == "there is no docker command on this machine"


def test_the_label_names_this_process() -> None:
    assert throwaway_tools._is_alive(throwaway_tools._ourselves())
    assert not throwaway_tools._is_alive("garbage")


def test_the_order_of_places(shared_postgres: PostgresContainer) -> None:
    """The database's own container comes first, though this machine has programs of the same major version."""
    access, major = access_of(shared_postgres), shared_postgres.image.major
    assert find_tools(major, access, BackupSettings()).place == f"container {shared_postgres.name}"
    outside = DatabaseAccess("lab", access.owner, access.admin)
    assert find_tools(major, outside, BackupSettings()).shares_files
    with pytest.raises(PreconditionError, match="postgres:98 is not there"):
        find_tools(98, outside, BackupSettings())
