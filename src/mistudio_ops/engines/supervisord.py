"""Rendering supervisord's configuration: one file for itself, one per program. It holds no secret."""

import os
import sys
from pathlib import Path

from mistudio_ops.domain.environment import EnvironmentPaths
from mistudio_ops.domain.units import Unit
from mistudio_ops.engines.state_files import definition_file, launcher, log_file, run_file, supervisor_socket
from mistudio_ops.templates import render


def render_supervisord(paths: EnvironmentPaths, unit: Unit | None, *, executable: str = sys.executable) -> str:
    """Return the file of one program, or with ``unit`` None the main file that includes all of them."""
    if unit is None:
        return render(
            "supervisord.conf.j2",
            socket=_escape(supervisor_socket(paths)),
            pid_file=_escape(paths.run / "supervisord.pid"),
            log_file=_escape(paths.logs / "supervisord.log"),
            directory=_escape(paths.root),
            child_log_dir=_escape(paths.logs),
            root=os.geteuid() == 0,
        )
    # The interpreter itself, not the virtual environment's link to it: it starts faster with -I -S.
    interpreter = Path(executable).resolve()
    parts = (interpreter, "-I", "-S", launcher(paths), definition_file(paths, unit.name), run_file(paths, unit.name))
    return render(
        "program.conf.j2",
        unit=unit,
        command=" ".join(_quote(part) for part in parts),
        log_file=_escape(log_file(paths, unit.name)),
    )


def _escape(value: object) -> str:
    return str(value).replace("%", "%%")


def _quote(value: object) -> str:
    text = _escape(value)
    return f'"{text}"' if any(c in text for c in " \t;'") else text
