"""``make bench-backup``: dumps and restores against PostgreSQL's own ways, as Markdown tables.

A server of its own, which syncs as in real use; the real schema; metric rows written by COPY; a writer that commits a
row at a fixed rate all the while. Every figure is the median of several runs, which take turns.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from psycopg import sql
from sqlalchemy import make_url

from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.tool_places import find_tools
from mistudio_ops.operations.backup.loading import load
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_server.db import migrations
from tests.bench.metric_rows import INSERT, fill_metrics, one_row
from tests.support.backup_workplace import workplace_of
from tests.support.servers import TestServers

MIB = 1 << 20
WRITES_PER_SECOND = 100
POLL_SECONDS = 0.05
QUIET_SECONDS = 10.0
_DATABASE = "bench"


@dataclass
class Figures:
    """What was measured of one way: seconds, bytes, peak bytes of memory, and the writer's p99 in seconds."""

    seconds: list[float] = field(default_factory=list)
    size: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """The database, where files go, and how to run PostgreSQL's programs on it."""

    url: str
    folder: Path
    workplace: Workplace
    programs: Path
    published: list[float] = field(default_factory=list)

    @property
    def access(self) -> DatabaseAccess:
        """The way into the database."""
        return self.workplace.access()

    def variables(self) -> dict[str, str]:
        """Return what libpq needs."""
        return {**os.environ, **self.access.owner.variables(_DATABASE, "bench")}

    def argv(self, program: str, *arguments: str) -> list[str]:
        """Return a command line of one of PostgreSQL's programs."""
        return [str(self.programs / program), *arguments]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mistudio-bench-"))
    folder.chmod(0o755)
    servers = TestServers(durable=True)
    try:
        servers.start()
        bench = _prepare(servers, folder, options.rows)
        _print_machine(bench, options.rows, options.runs)
        _print_dumps(_measure(_dumps(bench), bench, options.runs))
        print(f"\nThe backup has its name after {_median(bench.published):.1f} s; then it is read back.")
        _print_restores(_measure(_restores(bench), None, options.runs))
    finally:
        servers.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(servers: TestServers, folder: Path, rows: int) -> Bench:
    with psycopg.connect(servers.postgres_url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_DATABASE)))
    url = make_url(servers.postgres_url).set(database=_DATABASE)
    migrations.upgrade(url)
    text = url.render_as_string(hide_password=False)
    with psycopg.connect(text.replace("+psycopg", "")) as connection:
        fill_metrics(connection, rows)
    workplace = workplace_of(text, folder)
    with workplace.access().session() as session:
        tools = find_tools(session.info.server_version // 10000, workplace.access(), workplace.environment.backup)
    return Bench(text, folder, workplace, Path(tools.place))


def _dumps(bench: Bench) -> dict[str, Callable[[], Path]]:
    """Return each way to make a dump; it returns what it wrote."""

    def pg_dump(name: str, *arguments: str) -> Path:
        path = bench.folder / name
        _run(bench.argv("pg_dump", *arguments, "--file", str(path)), bench)
        return path

    def gzip() -> Path:
        path = bench.folder / "plain.gz"
        with path.open("wb") as file:
            dump = subprocess.Popen(bench.argv("pg_dump"), env=bench.variables(), stdout=subprocess.PIPE)
            pack = subprocess.Popen(["gzip"], stdin=dump.stdout, stdout=file)
            if dump.stdout is not None:
                dump.stdout.close()
            if pack.wait() or dump.wait():
                raise SystemExit("pg_dump | gzip failed")
        return path

    return {
        "mistudio-ops backup (with reading it back)": lambda: _ours(bench),
        "pg_dump -Fc": lambda: pg_dump("custom.dump", "-Fc"),
        "pg_dump -Fd -j2": lambda: pg_dump("folder.dump", "-Fd", "-j2"),
        "pg_dump \\| gzip": gzip,
        "pg_dump -Fc -Z0 (no compression)": lambda: pg_dump("raw.dump", "-Fc", "-Z0"),
    }


def _ours(bench: Bench) -> Path:
    environ = {
        **os.environ,
        "MISTUDIO_STATE_DIR": str(bench.folder / "state"),
        "MISTUDIO_DATABASE_URL": bench.url,
        "MISTUDIO_BACKUP_DIRECTORY": str(bench.workplace.directory.root),
    }
    done = subprocess.run(
        [sys.executable, "-m", "mistudio_ops", "backup", "--json"], env=environ, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"mistudio-ops backup exited {done.returncode}: {done.stderr.decode()}")
    data = json.loads(done.stdout)["data"]
    bench.published.append(data["seconds"])
    return Path(data["path"])


def _restores(bench: Bench) -> dict[str, Callable[[], Path | None]]:
    """Return each way to load a dump into an empty database."""

    def pg_restore(name: str, *arguments: str) -> None:
        with _empty_database(bench) as database:
            path = str(bench.folder / name)
            _run(bench.argv("pg_restore", "--no-owner", "--no-acl", *arguments, "--dbname", database, path), bench)

    def ours(jobs: int) -> None:
        stored = bench.workplace.directory.find("latest")
        with _empty_database(bench) as database:
            load(bench.workplace, stored, bench.access, database, jobs=jobs, identities=())

    return {
        "mistudio-ops, 2 jobs (with ANALYZE)": lambda: ours(2),
        "mistudio-ops, streaming (with ANALYZE)": lambda: ours(1),
        "pg_restore -j2 of -Fc": lambda: pg_restore("custom.dump", "-j2"),
        "pg_restore -j2 of -Fd": lambda: pg_restore("folder.dump.kept", "-j2"),
        "pg_restore of -Fc": lambda: pg_restore("custom.dump"),
    }


@contextmanager
def _empty_database(bench: Bench) -> Iterator[str]:
    name = sql.Identifier(f"{_DATABASE}_copy")
    with bench.access.admin_session() as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))
    try:
        yield f"{_DATABASE}_copy"
    finally:
        with bench.access.admin_session() as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _measure(ways: dict[str, Callable[[], Path | None]], writing: Bench | None, runs: int) -> dict[str, Figures]:
    if writing is not None:
        ways = {"(nothing)": lambda: time.sleep(QUIET_SECONDS), **ways}
    figures = {name: Figures() for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            print(f"measuring {name}", file=sys.stderr)
            _once(figures[name], way, writing)
    return figures


def _once(figures: Figures, way: Callable[[], Path | None], writing: Bench | None) -> None:
    if writing is not None:
        _checkpoint(writing)  # else one way pays for what the one before it wrote
    with _peak_memory() as peak:
        began = time.perf_counter()
        if writing is None:
            made = way()
        else:
            with _writer(writing.url) as latencies:
                made = way()
            figures.p99.append(_p99(latencies))
        figures.seconds.append(time.perf_counter() - began)
    figures.memory.append(peak[0])
    if made is not None:
        files = made.rglob("*") if made.is_dir() else [made]
        figures.size.append(sum(path.stat().st_size for path in files if path.is_file()))
        if made.name.endswith(".dump") and made.is_dir():
            _keep_one(made)


def _checkpoint(bench: Bench) -> None:
    os.sync()
    with bench.access.admin_session() as admin:
        admin.execute("CHECKPOINT")


def _keep_one(folder: Path) -> None:
    """Make room for pg_dump's next run, which wants a new folder; restores use the last one."""
    kept = folder.with_name(f"{folder.name}.kept")
    shutil.rmtree(kept, ignore_errors=True)
    folder.rename(kept)


@contextmanager
def _writer(url: str) -> Iterator[list[float]]:
    """Commit a row at a fixed rate until the block ends; gather what each took, from when it was due."""
    latencies: list[float] = []
    ending = threading.Event()

    def write() -> None:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            due = time.perf_counter()
            while not ending.wait(max(0.0, due - time.perf_counter())):
                connection.execute(INSERT, one_row(len(latencies)))
                latencies.append(time.perf_counter() - due)
                due += 1 / WRITES_PER_SECOND

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield latencies
    finally:
        ending.set()
        thread.join()


@contextmanager
def _peak_memory() -> Iterator[list[int]]:
    """Watch the memory (PSS: shared pages count in part) of all programs below us."""
    peak = [0]
    ending = threading.Event()
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    def watch() -> None:
        while not ending.wait(POLL_SECONDS):
            peak[0] = max(peak[0], _memory_below(before))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ending.set()
        thread.join()


def _memory_below(without: set[int]) -> int:
    total = 0
    us = psutil.Process().cmdline()
    for child in psutil.Process().children(recursive=True):
        try:
            not_yet_itself = child.cmdline() == us  # between fork and exec
            ours = child.pid not in without and child.name() != "postgres" and not not_yet_itself
            total += child.memory_full_info().pss if ours else 0
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue
    return total


def _run(argv: list[str], bench: Bench) -> None:
    done = subprocess.run(argv, env=bench.variables(), capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} exited {done.returncode}: {done.stderr.decode()[-2000:]}")


def _p99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98] if len(latencies) > 1 else 0.0


def _print_machine(bench: Bench, rows: int, runs: int) -> None:
    with bench.access.session() as session:
        row = session.execute("SELECT version(), pg_database_size(current_database())").fetchone()
    assert row is not None
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{row[0].split(' on ')[0]}, {rows:,} metric rows, {row[1] / MIB:,.0f} MiB; medians of {runs} runs\n")


def _print_dumps(figures: dict[str, Figures]) -> None:
    print(f"| dump | s | MiB | peak MiB of memory | writer's p99 at {WRITES_PER_SECOND}/s, ms |\n|---|---|---|---|---|")
    for name, one in figures.items():
        size, memory = (f"{_median(values) / MIB:,.0f}" for values in (one.size, one.memory))
        print(f"| {name} | {_median(one.seconds):.1f} | {size} | {memory} | {1000 * _median(one.p99):.1f} |")


def _print_restores(figures: dict[str, Figures]) -> None:
    print("\n| restore | s |\n|---|---|")
    for name, one in figures.items():
        print(f"| {name} | {_median(one.seconds):.1f} |")


def _median(values: list[float]) -> float:
    return statistics.median(values) if values else 0.0


if __name__ == "__main__":
    main()
