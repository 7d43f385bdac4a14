"""The built wheel carries what the package needs, and runs without the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

REPOSITORY = Path(__file__).resolve().parents[2]
CARRIED = (
    "mistudio_server/_migrations/env.py",
    "mistudio_server/_migrations/versions/0001_first_tables.py",
    "mistudio_server/py.typed",
    "mistudio_server/web/static/index.html",
    "mistudio_ops/templates/nginx.conf.j2",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(REPOSITORY)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_it_carries_what_is_not_python(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert [name for name in CARRIED if name not in names] == []
    assert [name for name in names if name.startswith("tests/") or ".env" in name] == []


def test_it_migrates_with_its_own_scripts(wheel: Path, tmp_path: Path, empty_database_url: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "DATABASE_URL": empty_database_url}
    where = "import mistudio_server.paths as p; print(p.migrations_dir())"
    printed = subprocess.run([sys.executable, "-c", where], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == str(tmp_path / "mistudio_server" / "_migrations")
    argv = [sys.executable, "-m", "mistudio_server", "migrate"]
    done = subprocess.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
