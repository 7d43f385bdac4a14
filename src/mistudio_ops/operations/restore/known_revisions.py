"""Which Alembic revisions this release knows."""

from mistudio_ops.domain.backup import Manifest
from mistudio_ops.errors import PreconditionError


def check_revision(manifest: Manifest) -> None:
    """Refuse a backup whose schema is newer than this release.

    Raises:
        PreconditionError: it names the release that made the backup.
    """
    wanted = manifest.database.revision
    if wanted is None or wanted in known_revisions():
        return
    made_by = manifest.release.get("git_sha") or manifest.release.get("id") or manifest.versions.get("mistudio")
    raise PreconditionError(
        f"backup {manifest.id} has the schema revision {wanted}, which this release does not know: a newer one made it"
        + (f" ({made_by})" if made_by else ""),
        hint="install and deploy the release that made the backup, then restore; "
        "mistudio-ops backup list shows older backups that fit this one",
    )


def known_revisions() -> frozenset[str]:
    """Return the revisions of the migration scripts that are installed here."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from mistudio_server.paths import migrations_dir

    config = Config()
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    return frozenset(script.revision for script in ScriptDirectory.from_config(config).walk_revisions())
