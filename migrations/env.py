"""Alembic's entry: each revision runs in a transaction of its own, on the connection that the caller made."""

from alembic import context

from mistudio_server.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transaction_per_migration=True,
    compare_server_default=False,
)
context.run_migrations()
