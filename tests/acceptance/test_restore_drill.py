"""The drill: a table is dropped and checkpoints are deleted; a restore brings all back, and a training goes on."""

import shutil
from collections.abc import Iterator

import psycopg
import pytest

from mistudio_ops.domain.environment import Environment, EnvironmentPaths
from mistudio_ops.drivers.database_access import DatabaseAccess, database_access
from mistudio_ops.drivers.secret_file import read_secrets
from mistudio_ops.engines.process import ProcessEngine
from tests.acceptance.test_interruptions import STEPS, metrics, register, start, wait, wait_step
from tests.support.studio import Studio, deployed_studio, eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.train, pytest.mark.xdist_group("studio")]


@pytest.fixture
def own() -> Iterator[Studio]:
    """A studio of this test's own: its database is damaged."""
    with deployed_studio() as running:
        yield running


def access_of(studio: Studio) -> DatabaseAccess:
    environment = Environment("local", studio.state_dir, port=studio.port)
    return database_access(environment, read_secrets(environment.paths.secrets))


def count(access: DatabaseAccess, table: str) -> int:
    with access.session() as connection:
        row = connection.execute(psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table)))
        return int(row.fetchone()[0])  # type: ignore[index]


def test_everything_comes_back_and_the_training_goes_on(own: Studio) -> None:
    access = access_of(own)
    dataset = register(own)
    with own.api() as api:
        whole = start(api, dataset)
        wait(api, whole, "completed")
        uninterrupted = metrics(api, whole)
        training = start(api, dataset)
        wait_step(api, training, 250)
        assert api.post(f"/trainings/{training}/pause").status_code in {200, 202}
        wait(api, training, "paused")
        paused_at = api.get(f"/trainings/{training}").json()["step"]
        backup = own.json("backup", "--include", "checkpoints")
        rows = {table: count(access, table) for table in ("trainings", "training_metrics", "checkpoints")}
        # It goes on after the backup: its newest checkpoints are ahead of what will be restored.
        assert api.post(f"/trainings/{training}/resume").status_code in {200, 202}
        wait_step(api, training, 500)
        assert api.post(f"/trainings/{training}/pause").status_code in {200, 202}
        wait(api, training, "paused")

        with access.session() as connection:
            connection.execute("DROP TABLE training_metrics CASCADE")
        shutil.rmtree(own.data_dir / "checkpoints" / whole)
        unconfirmed = own.ops("restore", "latest", check=False)
        assert unconfirmed.returncode == 2
        assert "--confirm mistudio" in unconfirmed.stderr
        done = own.json("restore", "latest", "--confirm", "mistudio", "--skip-safety-backup")
        assert done["plan"]["backup"] == backup["id"]
        assert done["downtime"] < 60

        assert {table: count(access, table) for table in rows} == rows
        assert len(list((own.data_dir / "checkpoints" / whole).glob("step-*/state.json"))) == 3
        assert own.ops("health").returncode == 0
        assert metrics(api, whole) == uninterrupted
        row = api.get(f"/trainings/{training}").json()
        assert (row["status"], row["step"]) == ("paused", paused_at)
        assert api.post(f"/trainings/{training}/resume").status_code in {200, 202}
        wait(api, training, "completed")
        found = metrics(api, training)
        assert [one[0] for one in found] == list(range(5, STEPS + 1, 5))
        assert found == uninterrupted
        assert list((own.data_dir / "checkpoints" / training).glob("ahead-step-*"))

        # The database from before lacks a table: an undo notices it beside, and the restored one stays live.
        undone = own.ops("restore", "--undo", check=False)
        assert (undone.returncode, count(access, "training_metrics") > 0) == (1, True), undone.stderr
        assert own.ops("restore", "finalize").returncode == 0
        assert own.ops("restore", "finalize", check=False).returncode == 10


def test_killed_when_everything_is_stopped_and_deployed_again(own: Studio) -> None:
    """The command is killed at the worst moment; a deploy starts the lab, on one whole database; resume ends it."""
    access = access_of(own)
    with access.session() as connection:
        connection.execute("CREATE TABLE counting (number int); INSERT INTO counting VALUES (1)")
    own.ops("backup")
    with access.session() as connection:
        connection.execute("INSERT INTO counting VALUES (2)")
    command = own.begin("restore", "latest", "--confirm", "mistudio")
    try:
        engine = ProcessEngine(EnvironmentPaths(own.state_dir))
        eventually(lambda: not engine.states()["backend-1"].running, 90, "backend-1 is stopped")
    finally:
        command.kill()
        command.wait()
    assert count(access, "counting") in {1, 2}
    refused = own.ops("restore", "latest", "--confirm", "mistudio", check=False)
    assert (refused.returncode, "--resume" in refused.stderr) == (13, True)
    assert "--resume" in own.ops("deploy", "local").stderr
    assert own.ops("health", "--wait", "30").returncode == 0
    own.ops("restore", "--resume")
    assert count(access, "counting") == 1
    assert own.ops("health").returncode == 0
    own.ops("restore", "--undo")
    assert count(access, "counting") == 2
    assert own.ops("health").returncode == 0
