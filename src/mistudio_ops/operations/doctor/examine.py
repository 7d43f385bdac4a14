"""Examining the machine: every finding, none of which stops the others."""

from collections.abc import Callable, Mapping

from mistudio_ops.domain.check import Finding
from mistudio_ops.domain.diagnosis import Diagnosis, DoctorReport
from mistudio_ops.domain.environment import Environment
from mistudio_ops.errors import OpsError
from mistudio_ops.operations.doctor import machine, place, software

Look = Callable[[], Finding]


def examine(environment: Environment, looks: Mapping[str, Look] | None = None) -> DoctorReport:
    """Return what this machine offers a deploy of ``environment``. Nothing is changed."""
    chosen = usual_looks(environment) if looks is None else looks
    return DoctorReport(environment.name, tuple(_diagnose(name, look) for name, look in chosen.items()))


def usual_looks(environment: Environment) -> dict[str, Look]:
    """Return everything that ``doctor`` looks at, in the order in which it is shown."""
    return {
        "python": machine.python_finding,
        "cores": machine.cores_finding,
        "memory": machine.memory_finding,
        "disk": lambda: machine.disk_space_finding(environment),
        "open files": machine.open_files_finding,
        "account": lambda: place.account_finding(environment),
        "state dir": lambda: place.state_dir_finding(environment),
        "ports": lambda: place.ports_finding(environment),
        "programs": lambda: software.programs_finding(environment),
        "extras": software.extras_finding,
        "torch": software.torch_finding,
        "gpu": machine.gpu_finding,
        "docker": software.docker_finding,
    }


def _diagnose(name: str, look: Look) -> Diagnosis:
    try:
        return Diagnosis.of(name, look())
    except OpsError as error:
        return Diagnosis.of(name, Finding.bad(error.message, error.hint or "mistudio-ops doctor -v"))
    except OSError as error:
        return Diagnosis.of(name, Finding.bad(str(error), "mistudio-ops doctor -v"))
