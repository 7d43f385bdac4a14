"""A restore that is killed at any of its actions leaves one whole database, and both ways out lead somewhere."""

from pathlib import Path

import pytest

from tests.integration.backup.test_killed_everywhere import run

pytestmark = pytest.mark.integration

#: How many actions lie between two kills here; 1 tries every one, as was done for docs/RELIABILITY.md.
EVERY = 15


def test_whatever_the_kill_leaves_can_be_finished(database_url: str, tmp_path: Path) -> None:
    seen = run("killed_restore", database_url, str(tmp_path), "1", str(EVERY))
    assert seen["wrong"] == []
    assert seen["actions"] > 5
