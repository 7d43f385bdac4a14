"""Migrations go up, down and up again, and leave what the models say."""

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, make_url, pool

from mistudio_server.db import migrations
from mistudio_server.db.models import Base

pytestmark = pytest.mark.integration

METRIC_COLUMNS = """
SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_name = %s ORDER BY 1
"""


def test_up_down_and_up_again_with_data(empty_database_url: str) -> None:
    url = make_url(empty_database_url)
    plain = empty_database_url.replace("+psycopg", "")
    assert migrations.revisions(url).current is None
    for _ in range(2):
        assert migrations.upgrade(url).at_head
        with psycopg.connect(plain) as connection:
            connection.execute(
                "INSERT INTO datasets (id, name, kind, path, status) VALUES ('d', 'd', 'text', 'd', 'ready')"
            )
            connection.execute(
                "INSERT INTO trainings (id, name, dataset_id, status, hyperparameters, total_steps)"
                " VALUES ('t', 't', 'd', 'queued', '{}', 1)"
            )
            connection.execute("INSERT INTO training_metrics (training_id, step, timestamp) VALUES ('t', 1, now())")
        assert migrations.downgrade(url, "base").current is None
        with psycopg.connect(plain) as connection:
            left = connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                " AND relkind IN ('r', 'p', 'S') AND relname <> 'alembic_version'"
            ).fetchall()
        assert left == []


def test_upgrade_twice_changes_nothing(database_url: str) -> None:
    assert migrations.upgrade(make_url(database_url)).at_head


def test_tables_are_those_of_the_models(database_url: str) -> None:
    engine = create_engine(make_url(database_url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_name": lambda name, kind, _: kind != "table" or "_y20" not in (name or ""),
            },
        )
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_archive_has_exactly_the_columns_of_the_metrics(database_url: str) -> None:
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        hot = connection.execute(METRIC_COLUMNS, ("training_metrics",)).fetchall()
        archive = connection.execute(METRIC_COLUMNS, ("training_metrics_archive",)).fetchall()
    assert hot == archive
    assert len(hot) == 15


def test_partitions_are_made_six_months_ahead(database_url: str) -> None:
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        for months in range(7):
            connection.execute(
                "INSERT INTO training_metrics (training_id, step, timestamp)"
                " VALUES ('t', 1, now() + make_interval(months => %s))",
                (months,),
            )
        with pytest.raises(psycopg.errors.CheckViolation, match="no partition"):
            connection.execute(
                "INSERT INTO training_metrics (training_id, step, timestamp)"
                " VALUES ('t', 1, now() + interval '8 months')"
            )
