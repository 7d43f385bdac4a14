"""Restores that were cut off, and databases that restores left behind."""

import time
from collections.abc import Callable

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.restore_plan import Cut, RestorePlan
from mistudio_ops.drivers import databases
from mistudio_ops.drivers.database_access import DatabaseAccess
from mistudio_ops.drivers.journal import Journal
from mistudio_ops.errors import PreconditionError

VERB = "restore"
_END = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND application_name = 'mistudio-ops' AND state = 'active' AND strpos(query, %s) > 0
"""
_POLLS, _POLL_SECONDS = 100, 0.05


class InterruptedRestoreError(PreconditionError):
    """A restore was cut off, and has to be finished or taken back first."""

    code = "interrupted_restore"


def cut_restore(journal: Journal) -> Cut | None:
    """Return the restore that never ended, if there is one."""
    found = journal.interrupted(VERB)
    if found is None:
        return None
    plan = RestorePlan.parse(journal.plan(found.operation))
    return Cut(found.operation, plan, found.begun, found.done, found.at)


def interrupted_restore(environment: Environment) -> Cut | None:
    """Return the same from an environment's journal, where there is one."""
    if not environment.paths.journal.is_file():
        return None
    journal = Journal(environment.paths.journal)
    try:
        return cut_restore(journal)
    finally:
        journal.close()


def refuse_leftovers(journal: Journal, access: DatabaseAccess) -> None:
    """Refuse to begin beside what another restore left.

    Raises:
        InterruptedRestoreError: one was cut off, or its copy is still there.
    """
    cut = cut_restore(journal)
    if cut is not None:
        at = ", ".join(cut.at) or "no step"
        raise InterruptedRestoreError(
            f"the {cut.plan.kind} of {cut.plan.backup}, begun at {cut.begun}, was cut off during {at}",
            hint="mistudio-ops restore --resume goes on with it; mistudio-ops restore --abort goes back",
        )
    left = [one.name for one in databases.list_ours(access, "restore")]
    if left:
        raise InterruptedRestoreError(
            f"the database {', '.join(left)} is left of a restore that nobody knows any more",
            hint="mistudio-ops restore --abort drops it",
        )


def end_statements(access: DatabaseAccess, name: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """End what a command that was killed still does to the database ``name``, and wait until it has ended.

    The server notices a client's end only when it answers: a CREATE DATABASE would appear after we have looked.
    """
    with access.admin_session() as connection:
        for _ in range(_POLLS):
            row = connection.execute(_END, (name,)).fetchone()
            if row is None or not row[0]:
                return
            sleep(_POLL_SECONDS)
