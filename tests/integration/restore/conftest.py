"""A lab of the test's own, with a backup."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mistudio_ops.operations.backup.workplace import Workplace
from tests.support.backup_workplace import workplace_of
from tests.support.restores import Restorable, purge, restorable


@pytest.fixture
def workplace(database_url: str, tmp_path: Path) -> Workplace:
    """Backups of this test's database."""
    return workplace_of(database_url, tmp_path)


@pytest.fixture
def lab(workplace: Workplace, database_url: str, postgres_admin: str) -> Iterator[Restorable]:
    """Numbers 1 to 3 in the backup, 4 and 5 only in the live database."""
    made = restorable(workplace, database_url)
    yield made
    purge(postgres_admin, made.access)
