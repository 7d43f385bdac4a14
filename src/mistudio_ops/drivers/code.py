"""What code this installation is made of: the identity of a release's source."""

import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from mistudio_ops.domain.release import Source


def installed_source(executable: str = sys.executable) -> Source:
    """Return the identity of the server package that this process is installed with."""
    from mistudio_server.paths import migrations_dir

    package = package_root()
    sha, dirty = _git(package)
    try:
        number = version("mistudio")
    except PackageNotFoundError:
        from mistudio_ops import __version__ as number
    return Source(
        version=number,
        code=hash_of((package, migrations_dir()), _dependencies()),
        python=f"{platform.python_version()} {executable}",
        package=str(package),
        git_sha=sha,
        git_dirty=dirty,
    )


def package_root() -> Path:
    """Return the folder of ``mistudio_server``."""
    spec = find_spec("mistudio_server")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("mistudio_server is not installed beside mistudio_ops")
    return Path(spec.submodule_search_locations[0]).resolve()


def hash_of(folders: Iterable[Path], extra: Iterable[str] = ()) -> str:
    """Return a hash of the content and names of all files below ``folders``, bytecode left out."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in _files(folder):
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    for line in extra:
        digest.update(f"{line}\0".encode())
    return digest.hexdigest()[:16]


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts:
            yield path


def _dependencies() -> list[str]:
    # Names of *.dist-info folders carry name and version; reading the metadata itself takes 50 ms more.
    folders = {Path(entry) for entry in sys.path if entry}
    names = {path.name for folder in folders if folder.is_dir() for path in folder.glob("*.dist-info")}
    return sorted(name for name in names if not name.startswith("mistudio-"))


def _git(folder: Path) -> tuple[str | None, bool]:
    """Return commit and dirtiness of the work tree that ``folder`` lies in; (None, False) outside of one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None, False
    sha, _, dirty = done.stdout.strip().partition("-")
    return sha or None, bool(dirty)
