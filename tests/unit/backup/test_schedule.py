"""The schedule: lines for cron and units for systemd, what they are told, and what of others stays as it was."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistudio_ops.config.resolve import Resolved, resolve_environment
from mistudio_ops.domain.schedule import (
    Installed,
    cron_command,
    installed_block,
    scheduled_command,
    with_block,
    without_block,
)
from mistudio_ops.drivers.crontab import Crontab, CrontabError
from mistudio_ops.drivers.environment_file import read_variables, write_variables
from mistudio_ops.drivers.systemd import SYSTEM_UNITS, Systemd, SystemdError
from mistudio_ops.errors import NothingFoundError, PreconditionError, UsageError
from mistudio_ops.operations.backup import schedule
from mistudio_ops.operations.backup.schedule import Scheduler, environment_file
from mistudio_ops.operations.backup.workplace import Workplace
from mistudio_ops.presentation.backup_schedule import removed_result, schedule_result
from mistudio_ops.presentation.plain import draw
from mistudio_ops.presentation.recording import RecordingReporter
from tests.support.backups import NOON

GOLDEN = Path(__file__).with_name("golden")
COMMAND = scheduled_command("/opt/a b/python", "local", "/var/50%/local.schedule.env")
#: A crontab program that keeps its file where a test can see it, and fails where a file says so.
FAKE_CRONTAB = """#!/bin/sh
here=$(dirname "$0")
if [ -e "$here/refuse-$1" ]; then echo "$1: you are not allowed to use this program" >&2; exit 1; fi
case $1 in
-l) [ -e "$here/tab" ] || { echo "no crontab for somebody" >&2; exit 1; }; cat "$here/tab";;
-r) rm "$here/tab";;
-) cat > "$here/tab.new" && mv "$here/tab.new" "$here/tab";;
esac
"""
CRONTABS = st.binary(max_size=200).filter(lambda text: b"mistudio" not in text)


class FakeSystemctl:
    """Remembers what it was told; fails at a word."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[str] = []
        self.failing = failing

    def __call__(self, argv: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        self.calls.append(" ".join(argv))
        bad = bool(self.failing) and self.failing in argv
        return subprocess.CompletedProcess(argv, int(bad), "", "Access denied" if bad else "")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "crontab").write_text(FAKE_CRONTAB)
    (folder / "crontab").chmod(0o755)
    return folder


def resolved_here(tmp_path: Path, *overrides: str, **environ: str) -> tuple[Workplace, Resolved]:
    given_ = {"HOME": "/home/someone", "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", **environ}
    overrides = (f"state_dir={tmp_path / 'state'}", *overrides)
    resolved = resolve_environment("local", environ=given_, cwd=tmp_path, overrides=overrides)
    place = Workplace(resolved.environment, RecordingReporter(), given_, lambda: NOON, resolved.file)
    return place, resolved


def cron_only(place: Workplace) -> Scheduler:
    return Scheduler(None, Crontab(place.environ), "/venv/bin/python")


def test_the_line_is_what_cron_needs() -> None:
    tab = with_block(b"", "local", "03:05", COMMAND)
    line = tab.splitlines()[1].decode()
    assert line.startswith("5 3 * * * '/opt/a b/python' -P -m mistudio_ops backup create --scheduled ")
    assert "50\\%" in line, "cron takes a bare % for the end of the line"
    assert shlex.split(cron_command(COMMAND).replace("\\%", "%")) == list(COMMAND)
    assert installed_block(tab, "local") == ("03:05", cron_command(COMMAND))


@given(before=CRONTABS, after=CRONTABS)
def test_what_others_wrote_stays_byte_for_byte(before: bytes, after: bytes) -> None:
    before = before + b"\n" if before and not before.endswith(b"\n") else before
    once = with_block(before, "local", "03:00", COMMAND)
    assert with_block(once, "local", "03:00", COMMAND) == once, "installing twice is installing once"
    assert without_block(once, "local") == before
    other = with_block(once, "lab", "04:30", scheduled_command("/p", "lab", "/f"))
    assert installed_block(other, "local") == ("03:00", cron_command(COMMAND))
    assert without_block(without_block(other, "local"), "lab") == before
    assert without_block(once + after, "local") == before + after


def test_a_line_without_an_end_gets_one() -> None:
    assert with_block(b"0 1 * * * true", "local", "03:00", COMMAND).startswith(b"0 1 * * * true\n# >>> mistudio")


@pytest.mark.parametrize("dropped", [0, 2])
def test_a_block_with_a_marker_cut_off_is_not_installed_twice(dropped: int) -> None:
    lines = with_block(b"0 1 * * * true\n", "local", "03:00", COMMAND).splitlines(keepends=True)
    del lines[1 + dropped]
    again = with_block(b"".join(lines), "local", "04:00", COMMAND)
    assert again == with_block(b"0 1 * * * true\n", "local", "04:00", COMMAND)


def test_the_next_run() -> None:
    one = Installed("crontab", "crontab -l", "03:00", "")
    assert one.next_run(NOON) == NOON.replace(day=24, hour=3)
    assert one.next_run(NOON.replace(hour=2, minute=59)) == NOON.replace(hour=3)


def test_install_show_and_remove_with_cron(tmp_path: Path, programs: Path) -> None:
    place, resolved = resolved_here(tmp_path, "backup.at=04:15")
    (programs / "tab").write_bytes(b"MAILTO=me\n1 1 * * * true\n")
    shown = schedule.install(place, resolved, cron_only(place))
    tab = (programs / "tab").read_bytes()
    assert tab.startswith(b"MAILTO=me\n1 1 * * * true\n# >>> mistudio-ops backup schedule: local")
    assert [(one.place, one.at) for one in shown.installed] == [("crontab", "04:15")]
    assert shown.next_run is not None
    assert (shown.next_run.hour, shown.next_run.minute) == (4, 15)
    schedule.install(place, resolved, cron_only(place))
    assert (programs / "tab").read_bytes() == tab
    assert environment_file(place).stat().st_mode & 0o777 == 0o600
    text = draw(schedule_result(shown).blocks)
    assert "daily at 04:15 by crontab: crontab -l" in text
    assert "it never ran yet" in text
    gone = schedule.remove(place, cron_only(place))
    assert (programs / "tab").read_bytes() == b"MAILTO=me\n1 1 * * * true\n"
    assert not environment_file(place).exists()
    assert "no longer scheduled" in draw(removed_result(gone).blocks)
    with pytest.raises(NothingFoundError, match="no backup of local is scheduled"):
        schedule.remove(place, cron_only(place))


def test_a_crontab_that_was_ours_alone_is_removed(tmp_path: Path, programs: Path) -> None:
    place, resolved = resolved_here(tmp_path)
    schedule.install(place, resolved, cron_only(place))
    schedule.remove(place, cron_only(place))
    assert not (programs / "tab").exists()


def test_a_time_that_changed_is_shown(tmp_path: Path, programs: Path) -> None:
    place, resolved = resolved_here(tmp_path)
    schedule.install(place, resolved, cron_only(place))
    later, _ = resolved_here(tmp_path, "backup.at=05:00")
    assert "configured is 05:00: install it again" in draw(
        schedule_result(schedule.show(later, cron_only(later))).blocks
    )


def test_without_cron_and_systemd_it_says_what_to_do(tmp_path: Path) -> None:
    place, resolved = resolved_here(tmp_path)
    (tmp_path / "bin").mkdir()
    place = replace(place, environ={**place.environ, "PATH": str(tmp_path / "bin")})
    with pytest.raises(PreconditionError, match="neither systemd nor cron") as caught:
        schedule.install(place, resolved, cron_only(place))
    assert "install cron" in (caught.value.hint or "")
    assert schedule.show(place, cron_only(place)).installed == ()


@pytest.mark.parametrize("argument", ["-l", "-"])
def test_a_crontab_that_may_not_be_used(tmp_path: Path, programs: Path, argument: str) -> None:
    place, resolved = resolved_here(tmp_path)
    (programs / "tab").write_bytes(b"mine\n")
    (programs / f"refuse-{argument}").touch()
    with pytest.raises(CrontabError, match="not allowed"):
        schedule.install(place, resolved, cron_only(place))
    assert (programs / "tab").read_bytes() == b"mine\n"


def test_what_would_fail_at_night_is_refused_by_day(tmp_path: Path, programs: Path) -> None:
    place, resolved = resolved_here(tmp_path, "backup.identity_file=/nowhere/key")
    with pytest.raises(UsageError, match="identity_file"):
        schedule.install(place, resolved, cron_only(place))
    assert not (programs / "tab").exists()


def test_it_warns_where_no_cron_daemon_runs(tmp_path: Path, programs: Path) -> None:
    class Idle(Crontab):
        def daemon_runs(self) -> bool:
            return False

    place, resolved = resolved_here(tmp_path)
    schedule.install(place, resolved, Scheduler(None, Idle(place.environ)))
    assert isinstance(place.reporter, RecordingReporter)
    assert "no cron daemon runs" in place.reporter.warnings[0]


@pytest.mark.parametrize("user", [False, True])
def test_install_and_remove_with_systemd(tmp_path: Path, programs: Path, user: bool) -> None:
    place, resolved = resolved_here(tmp_path)
    schedule.install(place, resolved, cron_only(place))  # it was cron's before
    systemctl = FakeSystemctl()
    scheduler = Scheduler(Systemd(tmp_path / "units", user=user, run=systemctl), Crontab(place.environ), "/v/python")
    shown = schedule.install(place, resolved, scheduler)
    assert [one.place for one in shown.installed] == ["systemd (user)" if user else "systemd"]
    assert not (programs / "tab").exists(), "not twice a night"
    prefix = "systemctl --user" if user else "systemctl"
    assert systemctl.calls == [
        f"{prefix} daemon-reload",
        f"{prefix} enable mistudio-backup-local.timer",
        f"{prefix} restart mistudio-backup-local.timer",
    ]
    assert isinstance(place.reporter, RecordingReporter)
    assert any("linger" in said for said in place.reporter.warnings) is user
    schedule.remove(place, scheduler)
    assert list((tmp_path / "units").iterdir()) == []
    assert f"{prefix} disable --now mistudio-backup-local.timer" in systemctl.calls


def test_a_systemctl_that_refuses(tmp_path: Path) -> None:
    place, resolved = resolved_here(tmp_path)
    systemd = Systemd(tmp_path / "units", user=False, run=FakeSystemctl("enable"))
    with pytest.raises(SystemdError, match="Access denied"):
        schedule.install(place, resolved, Scheduler(systemd, Crontab(place.environ)))


def test_which_systemd(tmp_path: Path) -> None:
    environ = {"HOME": "/h"}
    assert Systemd.here(environ, running=tmp_path / "no") is None
    system = Systemd.here(environ, running=tmp_path, euid=0)
    user = Systemd.here(environ, running=tmp_path, euid=7)
    assert system is not None
    assert (system.folder, system.user) == (SYSTEM_UNITS, False)
    assert user is not None
    assert (user.folder, user.user) == (Path("/h/.config/systemd/user"), True)


def units(tmp_path: Path, environment_folder: str = "state") -> dict[str, str]:
    """Return the unit files that are installed, with the test's own folders named alike in every run."""
    place, resolved = resolved_here(tmp_path, f"state_dir={tmp_path / environment_folder}")
    systemd = Systemd(tmp_path / "units", user=False, run=FakeSystemctl())
    schedule.install(place, resolved, Scheduler(systemd, Crontab(place.environ), sys.executable))
    return {path.name: path.read_text() for path in sorted((tmp_path / "units").iterdir())}


def test_golden_units(tmp_path: Path) -> None:
    for name, text in units(tmp_path, '50% "off" $HOME').items():
        plain = text.replace(str(tmp_path), "/tmp/x").replace(sys.executable, "/venv/bin/python")
        assert plain == (GOLDEN / name).read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("folder", ["state", '50% "off" $HOME'])
def test_systemd_takes_the_units(tmp_path: Path, folder: str) -> None:
    units(tmp_path, folder)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", "mistudio-backup-local.timer"],
        env={"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{tmp_path / 'units'}:"},
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "mistudio" in line]
    assert said == []
    assert done.returncode == 0, done.stderr


def test_what_came_from_flags_and_variables_is_written_down(tmp_path: Path, programs: Path) -> None:
    (tmp_path / "mistudio.toml").write_text("[environments.local]\nbackends = 2\n")
    place, resolved = resolved_here(
        tmp_path, "port=9000", "server.training_slots=2", "backup.include=checkpoints",
        MISTUDIO_DATA_DIR="relative/data", MISTUDIO_DATABASE_URL="postgresql://u:secret@h/db",
        MISTUDIO_BACKUP_PASSPHRASE="open sesame\n\"'$%", MISTUDIO_HEARTBEAT_URL="https://h/x", AWS_REGION="eu",
        PGSSLROOTCERT="/ca.pem", MISTUDIO_ENV="other", EDITOR="vi", https_proxy="http://p",
        MISTUDIO_BACKUP_KEEP_DAILY="9",
    )  # fmt: skip
    schedule.install(place, resolved, cron_only(place))
    variables = read_variables(environment_file(place))
    assert variables == {
        "HOME": "/home/someone", "PATH": place.environ["PATH"], "MISTUDIO_CONFIG": str(tmp_path / "mistudio.toml"),
        "MISTUDIO_STATE_DIR": str(tmp_path / "state"), "MISTUDIO_PORT": "9000", "MISTUDIO_SERVER_TRAINING_SLOTS": "2",
        "MISTUDIO_BACKUP_INCLUDE": "checkpoints", "MISTUDIO_DATA_DIR": str(tmp_path / "relative/data"),
        "MISTUDIO_DATABASE_URL": "postgresql+psycopg://u:secret@h/db", "MISTUDIO_BACKUP_PASSPHRASE":
        "open sesame\n\"'$%", "MISTUDIO_HEARTBEAT_URL": "https://h/x", "AWS_REGION": "eu",
        "PGSSLROOTCERT": "/ca.pem", "https_proxy": "http://p", "MISTUDIO_BACKUP_KEEP_DAILY": "9",
    }  # fmt: skip
    again = resolve_environment("local", environ=variables, cwd=Path("/"))
    assert again.environment == resolved.environment, "the night sees what the day saw"
    assert b"secret" not in (programs / "tab").read_bytes()


@given(variables=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), st.text()))
def test_any_value_survives_the_file(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.env"
    write_variables(path, variables)
    assert read_variables(path) == variables


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.env"
    write_variables(path, {"A": "b"})
    path.chmod(0o640)
    with pytest.raises(UsageError, match="others can read") as caught:
        read_variables(path)
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("line", ["A", "A=b", "A=1", '1A="b"', '="b"', 'export A="b"'])
def test_a_line_that_is_not_ours_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.env"
    write_variables(path, {})
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(UsageError, match="line 2"):
        read_variables(path)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_variables(tmp_path / "x.env")


def test_times_are_local() -> None:
    now = datetime.now().astimezone()
    assert Installed("crontab", "", "03:00", "").next_run(now) - now <= timedelta(days=1, hours=1)
