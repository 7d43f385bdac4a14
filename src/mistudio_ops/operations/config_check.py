"""``config check``: is the file valid, and do its environments get along with each other?"""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from mistudio_ops.config.file import load_file
from mistudio_ops.config.model import BackupTable, EnvironmentTable
from mistudio_ops.config.problems import ConfigurationError, Problem, nearest
from mistudio_ops.config.resolve import OTHER_VARIABLES, SERVER_PREFIX, environment_names, resolve_environment
from mistudio_ops.domain.configuration import CheckedConfiguration
from mistudio_ops.domain.environment import REDIS_OFFSET, Environment


def check_configuration(
    *, environ: Mapping[str, str], cwd: Path, config: Path | None = None, euid: Callable[[], int] = os.geteuid
) -> CheckedConfiguration:
    """Read the file and resolve every environment in it.

    Variables such as ``MISTUDIO_PORT`` apply to the one environment that a command is about, so they are left out
    where environments are compared with each other.

    Raises:
        UsageError: the file, or an environment, is wrong.
    """
    file = load_file(environ=environ, cwd=cwd, option=config)
    names = environment_names(file)
    unset = {key: value for key, value in environ.items() if not _is_key(key)}
    environments = [
        resolve_environment(name, environ=unset, cwd=cwd, config=config, euid=euid).environment for name in names
    ]
    problems = _collisions(environments, str(file.path))
    if problems:
        raise ConfigurationError(problems)
    return CheckedConfiguration(str(file.path) if file.path else None, names, _unknown_variables(environ))


def _is_key(variable: str) -> bool:
    return variable.startswith("MISTUDIO_") and variable != "MISTUDIO_CONFIG"


def _collisions(environments: Sequence[Environment], source: str) -> list[Problem]:
    problems = []
    for one, other in combinations(environments, 2):
        key = f"environments.{other.name}"
        if one.state_dir == other.state_dir:
            message = f"environment {one.name} keeps its state there too"
            problems.append(Problem(source, f"{key}.state_dir", str(other.state_dir), message))
        if abs(one.port - other.port) <= REDIS_OFFSET:
            message = f"environment {one.name} uses ports {one.port} to {one.port + REDIS_OFFSET}; choose another block"
            problems.append(Problem(source, f"{key}.port", str(other.port), message))
    return problems


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    keys = [name for name in EnvironmentTable.model_fields if name not in {"server", "backup"}]
    keys += [f"backup_{name}" for name in BackupTable.model_fields]
    warnings = []
    for variable in sorted(environ):
        if not variable.startswith("MISTUDIO_") or variable.startswith((SERVER_PREFIX, "MISTUDIO_TEST_")):
            continue
        key = variable.removeprefix("MISTUDIO_").lower()
        if key not in keys and variable not in OTHER_VARIABLES:
            near = nearest(key, keys)
            meant = f"; did you mean MISTUDIO_{near.upper()}?" if near else ""
            warnings.append(f"the variable {variable} means nothing to mistudio-ops{meant}")
    return warnings
