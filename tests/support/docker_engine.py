"""A real Docker Engine for tests, and an image with PostgreSQL in it. There is no registry: images are made here.

An image holds PostgreSQL's programs of this machine (the system's, the wheel's) with the libraries that they load, a
shell and time zones. That takes two seconds and no network, and gives as many major versions as the machine has.
"""

import hashlib
import io
import os
import re
import secrets
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

import docker
from mistudio_ops.drivers.embedded import Program, find_programs

#: Part of every tag: an image made by another recipe is not used.
RECIPE = "3"
REPOSITORY = "mistudio-test-postgres"
LABEL = "mistudio-test"
START_SECONDS = 30.0
_PROGRAMS = ("postgres", "initdb", "pg_dump", "pg_dumpall", "pg_restore", "psql", "pg_isready", "pg_ctl")
_SHELL = ("/bin/sh", "/bin/sleep", "/bin/cat", "/bin/kill")
_DATA = ("/usr/share/zoneinfo", "/usr/lib/locale/C.utf8")
#: PostgreSQL as process 1, on every address of its own network only; POSTGRES_PASSWORD as in the well-known images.
_SERVE = """#!/bin/sh
set -e
cd /var/lib/postgresql
if [ ! -f data/PG_VERSION ]; then
  echo "$POSTGRES_PASSWORD" > password
  "$PGBIN/initdb" -D data -U postgres -A scram-sha-256 -E UTF8 --locale=C.UTF-8 --no-sync --pwfile=password
  echo 'host all all all scram-sha-256' >> data/pg_hba.conf
fi
exec "$PGBIN/postgres" -D data -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off "$@"
"""
_ACCOUNTS = "root:x:0:0::/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n"


def required() -> bool:
    """Return True when a missing Engine is a failure: MISTUDIO_TEST_REQUIRE names docker."""
    return "docker" in os.environ.get("MISTUDIO_TEST_REQUIRE", "").split(",")


def connect() -> docker.DockerClient:
    """Return a client of the Engine that answers; else the test is skipped with the reason, or fails."""
    try:
        client = docker.from_env(timeout=60)
    except docker.errors.DockerException as error:
        return unavailable(f"no Docker Engine answers: {error}")
    try:
        client.ping()
    except Exception as error:  # noqa: BLE001 - each way of not answering is the same to us
        client.close()
        return unavailable(f"no Docker Engine answers: {error}")
    if shutil.which("docker") is None:
        client.close()
        return unavailable("a Docker Engine answers, and there is no docker command")
    return client


def unavailable(reason: str) -> Any:
    """Skip, or fail where Docker is required."""
    if required():
        pytest.fail(f"MISTUDIO_TEST_REQUIRE=docker: {reason}")
    pytest.skip(reason)


def programs() -> list[Program]:
    """Return each PostgreSQL of this machine, one for a major version."""
    found = {
        program.major: program for program in (find_programs(prefer="embedded").postgres, find_programs().postgres)
    }
    return [found[major] for major in sorted(found)]


@dataclass(frozen=True, slots=True)
class Image:
    """An image with PostgreSQL. ``on_path`` is False when its programs lie where Debian has them, not on PATH."""

    tag: str
    major: int
    version: str
    on_path: bool


def image_of(client: docker.DockerClient, program: Program) -> Image:
    """Return an image with that program's PostgreSQL; it is made when the Engine has none of this recipe."""
    on_path = program.source == "embedded"
    digest = hashlib.sha256(f"{RECIPE} {_SERVE} {program.version} {program.path}".encode()).hexdigest()[:12]
    image = Image(f"{REPOSITORY}:{program.major}-{digest}", program.major, program.version, on_path)
    try:
        client.images.get(image.tag)
    except docker.errors.ImageNotFound:
        bin_folder = _inside(program)
        path = f"{bin_folder}:/usr/bin:/bin" if on_path else "/usr/bin:/bin"
        changes = [f"ENV PATH={path}", f"ENV PGBIN={bin_folder}", "USER postgres", 'ENTRYPOINT ["/serve"]']
        client.api.import_image_from_data(
            _root(program), repository=REPOSITORY, tag=image.tag.split(":")[1], changes=changes
        )
    return image


@dataclass
class PostgresContainer:
    """A PostgreSQL in a container, published on 127.0.0.1. ``remove`` takes it away with its data."""

    client: docker.DockerClient
    image: Image
    name: str = field(default_factory=lambda: f"mistudio-test-{secrets.token_hex(4)}")
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    container: Any = None

    def start(self, *settings: str) -> "PostgresContainer":
        """Start it and wait until it answers from outside. ``settings`` as in ``-c``, ``shared_buffers=32MB``."""
        self.container = self.client.containers.run(
            self.image.tag, list(settings), name=self.name, detach=True, labels={LABEL: "1"},
            environment={"POSTGRES_PASSWORD": self.password}, ports={"5432/tcp": ("127.0.0.1", None)},
        )  # fmt: skip
        self.wait()
        return self

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
            except (psycopg.OperationalError, KeyError, IndexError, TypeError) as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name}: {error}\n{self.container.logs(tail=30).decode()}") from error
                time.sleep(0.1)
            else:
                return

    @property
    def port(self) -> int:
        """The port of 127.0.0.1 that leads to it; another one after each start."""
        self.container.reload()
        return int(self.container.ports["5432/tcp"][0]["HostPort"])

    def url(self, database: str, *, driver: str = "") -> str:
        """Superuser's URL."""
        return f"postgresql{driver}://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def processes(self) -> list[str]:
        """Return the command lines of everything that runs in it."""
        listing = self.container.top()
        column = listing["Titles"].index("CMD")
        return [row[column] for row in listing["Processes"]]

    def remove(self) -> None:
        """Kill and remove it."""
        if self.container is not None:
            self.container.remove(force=True, v=True)


def _inside(program: Program) -> str:
    if program.source == "system":
        return str(program.path)
    return "/opt/postgresql/package/prefix/bin"


def _root(program: Program) -> bytes:
    """Return the image's file system as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, owner in (("tmp", 0), ("var/lib/postgresql", 999), ("root", 0)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.uid, entry.gid = tarfile.DIRTYPE, owner, owner
            entry.mode = 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
        _text(archive, "serve", _SERVE, 0o755)
        _text(archive, "etc/passwd", _ACCOUNTS)
        _text(archive, "etc/group", "root:x:0:\npostgres:x:999:\n")
        _text(archive, "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
        _add_programs(archive, program)
        for path in _DATA:
            if Path(path).exists():
                archive.add(path, path.lstrip("/"), filter=_plain)
    return buffer.getvalue()


def _add_programs(archive: tarfile.TarFile, program: Program) -> None:
    prefix = program.path.parent
    binaries = [program.path / name for name in _PROGRAMS if (program.path / name).exists()]
    modules = list((prefix / "lib").rglob("*.so"))
    modules = [path for path in modules if not path.name.startswith("llvmjit")]
    if program.source == "system":
        archive.add(prefix, str(prefix).lstrip("/"), filter=_plain)
        share = Path("/usr/share/postgresql") / str(program.major)
        archive.add(share, str(share).lstrip("/"), filter=_plain)
    else:
        archive.add(prefix, "opt/postgresql/package/prefix", filter=_plain)
        libraries = prefix.parent.with_name(f"{prefix.parent.name}.libs")
        if libraries.is_dir():
            archive.add(libraries, f"opt/postgresql/{libraries.name}", filter=_plain)
    for name in _SHELL:
        archive.add(Path(name).resolve(), name.lstrip("/"), filter=_plain)
    own = (str(prefix.parent), f"{prefix.parent}.libs") if program.source == "embedded" else (str(prefix),)
    for wanted in sorted(_libraries([*binaries, *modules, *(Path(name) for name in _SHELL)])):
        if not wanted.startswith(own):
            archive.add(Path(wanted).resolve(), wanted.lstrip("/"), filter=_plain)


def _libraries(files: Iterable[Path]) -> set[str]:
    """Return the libraries that these load, the loader among them."""
    done = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False)
    return set(re.findall(r"(?:=> |^\s)(/\S+) \(0x", done.stdout, flags=re.MULTILINE))


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what no server needs (100 MB of bitcode), and who owned it here."""
    if "/bitcode" in entry.name or "llvmjit" in entry.name or entry.name.endswith((".a", ".h")):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    if entry.isdir():
        entry.mode = 0o755
    else:
        entry.mode |= 0o444
    return entry


def _text(archive: tarfile.TarFile, name: str, text: str, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    raw = text.encode()
    entry.size, entry.mode = len(raw), mode
    archive.addfile(entry, io.BytesIO(raw))
