"""A training that comes back brings its checkpoint files along, where the backup holds them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mistudio_ops.domain.backup import StoredBackup
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.errors import PreconditionError
from mistudio_ops.operations.backup.create import create
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.operations.restore.tables import restore_tables
from tests.support.backup_workplace import write_checkpoint
from tests.support.real_backups import make_backup

pytestmark = pytest.mark.integration


@pytest.fixture
def place(workplace: Workplace, access: DatabaseAccess, tmp_path: Path) -> Workplace:
    """Two trainings with a checkpoint file each."""
    data = tmp_path / "data"
    with access.session() as connection:
        for name in ("tr_1", "tr_2"):
            path = write_checkpoint(data, name, 50, name.encode()).relative_to(data)
            connection.execute("UPDATE checkpoints SET path = %s WHERE training_id = %s", (str(path), name))
    return replace(workplace, environment=replace(workplace.environment, data_dir=data))


def files(place: Workplace) -> dict[str, bytes]:
    root = place.environment.data
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def remove(place: Workplace, training: str) -> None:
    """What the server does when a training is deleted."""
    with place.access().session() as connection:
        connection.execute("DELETE FROM trainings WHERE id = %s", (training,))
    shutil.rmtree(place.environment.data / "checkpoints" / training)


def whole(place: Workplace) -> StoredBackup:
    return create(place, kind="manual", include=("checkpoints",))


def test_files_come_back_with_the_rows(place: Workplace) -> None:
    stored, before = whole(place), files(place)
    remove(place, "tr_1")
    assert restore_tables(place, stored, training="tr_1", dry_run=True).checkpoints == 0
    assert files(place) != before
    assert restore_tables(place, stored, training="tr_1").checkpoints == 1
    assert files(place) == before
    assert place.reporter.warnings == []  # type: ignore[attr-defined]


def test_files_that_are_there_stay_unless_replaced(place: Workplace) -> None:
    stored, before = whole(place), files(place)
    for name in ("tr_1", "tr_2"):
        write = place.environment.data / "checkpoints" / name / "step-0000000050" / "sae_weights.safetensors"
        write.write_bytes(b"newer")
    newer = files(place)
    restore_tables(place, stored, training="tr_1")
    assert files(place) == newer
    assert restore_tables(place, stored, training="tr_1", replace=True).checkpoints == 1
    found = files(place)
    assert {name: found[name] for name in before if "tr_1" in name} == {n: c for n, c in before.items() if "tr_1" in n}
    assert {name: found[name] for name in before if "tr_2" in name} == {n: c for n, c in newer.items() if "tr_2" in n}


def test_rows_without_files_are_told(place: Workplace) -> None:
    stored = make_backup(place)
    remove(place, "tr_1")
    assert restore_tables(place, stored, training="tr_1").rows == 6
    (said,) = place.reporter.warnings  # type: ignore[attr-defined]
    assert "1 of 1 checkpoints of tr_1 have no file" in said
    assert "--include checkpoints" in said


def test_files_that_cannot_be_written_bring_no_rows(place: Workplace) -> None:
    stored = whole(place)
    remove(place, "tr_1")
    remove(place, "tr_2")
    (place.environment.data / "checkpoints").rmdir()
    (place.environment.data / "checkpoints").write_text("in the way")
    with pytest.raises(PreconditionError, match="cannot be written"):
        restore_tables(place, stored, training="tr_1")
    with place.access().session() as connection:
        assert connection.execute("SELECT count(*) FROM trainings").fetchone() == (0,)


def test_a_failure_in_the_database_leaves_no_files(place: Workplace) -> None:
    stored = whole(place)
    remove(place, "tr_1")
    with place.access().session() as connection:
        connection.execute("ALTER TABLE trainings ADD CONSTRAINT never CHECK (id <> 'tr_1')")
    before = files(place)
    with pytest.raises(PreconditionError, match="never"):
        restore_tables(place, stored, training="tr_1")
    assert files(place) == before
