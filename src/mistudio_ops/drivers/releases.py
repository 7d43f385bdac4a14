"""Release records on disk: written once, then only read; ``current`` is a link to the one that serves."""

import json
from pathlib import Path

from mistudio_ops.domain.environment import EnvironmentPaths
from mistudio_ops.domain.release import Release
from mistudio_ops.drivers.files import point_at, write_atomically
from mistudio_ops.errors import OpsError

_RECORD = "release.json"
_CURRENT = "current"


def release_ids(paths: EnvironmentPaths) -> list[str]:
    """Return the ids of the releases that were recorded. A folder without a record is a deploy that was cut off."""
    return sorted(path.parent.name for path in paths.releases.glob(f"r*/{_RECORD}"))


def current_release(paths: EnvironmentPaths) -> Release | None:
    """Return the release that serves; None before the first.

    Raises:
        OpsError: its record is damaged.
    """
    return read_release(paths, _CURRENT)


def read_release(paths: EnvironmentPaths, name: str) -> Release | None:
    """Return the release of that id; None where there is none.

    Raises:
        OpsError: its record is damaged.
    """
    path = paths.releases / name / _RECORD
    try:
        return Release.parse(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OpsError(
            f"the release record {path} is damaged: {error}",
            hint=f"remove the link {paths.releases / _CURRENT}; the next deploy makes a new release and keeps the data",
        ) from error


def record(paths: EnvironmentPaths, release: Release) -> None:
    """Write the record of a release, which may not exist yet."""
    path = folder(paths, release.id) / _RECORD
    if path.exists():
        raise OpsError(f"release {release.id} exists already, and releases are never changed")
    write_atomically(path, json.dumps(release.document(), indent=2) + "\n", mode=0o644)


def make_current(paths: EnvironmentPaths, release_id: str) -> None:
    """Let ``current`` point to the release, atomically."""
    point_at(paths.releases / _CURRENT, release_id)


def folder(paths: EnvironmentPaths, release_id: str) -> Path:
    """Return the folder of a release."""
    return paths.releases / release_id
