"""What ``doctor`` says about machines that we do not have."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mistudio_ops.domain.check import Finding, Status
from mistudio_ops.domain.environment import Environment
from mistudio_ops.drivers.account import Account
from mistudio_ops.drivers.embedded import Program, Programs
from mistudio_ops.errors import PreconditionError
from mistudio_ops.operations.doctor import machine, place, software
from mistudio_ops.operations.doctor.examine import examine
from mistudio_ops.presentation.doctor import doctor_result

GIB = 1024**3
LOCAL = Environment("local", Path("/nonexistent/state"))


def installed(**versions: str) -> Any:
    def look(name: str) -> str:
        try:
            return versions[name.replace("-", "_")]
        except KeyError:
            raise PackageNotFoundError(name) from None

    return look


@pytest.mark.parametrize(
    ("finding", "status", "text"),
    [
        (machine.python_finding((3, 11, 7), "/p"), Status.OK, "Python 3.11.7 at /p"),
        (machine.python_finding((3, 9, 2), "/p"), Status.FAIL, "Python 3.9.2"),
        (machine.cores_finding(6), Status.OK, "6 processors"),
        (machine.cores_finding(1), Status.WARN, "1 processor"),
        (machine.memory_finding({"MemAvailable": 6 * GIB, "MemTotal": 8 * GIB}), Status.OK, "6.0 GiB available of 8.0"),
        (machine.memory_finding({"MemAvailable": GIB, "MemTotal": 8 * GIB}), Status.WARN, "1.0 GiB"),
        (machine.memory_finding({"MemAvailable": GIB // 2, "MemTotal": GIB}), Status.FAIL, "0.5 GiB"),
        (machine.open_files_finding((1024, 1_048_576)), Status.OK, "may open 1024 files"),
        (machine.open_files_finding((1024, 1024)), Status.WARN, "may open 1024 files"),
        (machine.gpu_finding(lambda: ["Orin (8 GiB)"]), Status.OK, "Orin (8 GiB)"),
        (machine.gpu_finding(list), Status.OK, "on the CPU"),
        (software.torch_finding(installed()), Status.WARN, "trainings and extractions are refused"),
        (software.torch_finding(installed(torch="2")), Status.WARN, "no transformers"),
        (software.torch_finding(installed(torch="2", transformers="5")), Status.OK, "torch 2, transformers 5"),
        (software.extras_finding(installed(apprise="1")), Status.OK, "notify; not installed: embedded, train"),
        (software.extras_finding(installed()), Status.OK, "installed: none"),
    ],
)  # fmt: skip
def test_findings(finding: Finding, status: Status, text: str) -> None:
    assert finding.status is status
    assert text in finding.evidence
    assert (finding.hint is None) is (status is Status.OK)


def test_a_broken_gpu_driver_is_no_fault() -> None:
    def broken() -> list[str]:
        raise RuntimeError("NVML Shared Library Not Found")

    assert machine.gpu_finding(broken).status is Status.OK


def test_docker_is_for_information() -> None:
    closed = []
    engine = SimpleNamespace(version=lambda: {"Version": "28.1"}, close=lambda: closed.append(True))
    assert "Docker Engine 28.1 answers" in software.docker_finding(lambda: engine).evidence
    assert closed == [True]

    def refused() -> Any:
        raise ConnectionRefusedError("refused")

    finding = software.docker_finding(refused)
    assert (finding.status, "refused" in finding.evidence) == (Status.OK, True)


def test_programs_say_where_they_are_from() -> None:
    programs = Programs(
        Program("postgresql", Path("/pg/bin"), "system", "17.2"),
        Program("valkey-server", Path("/v"), "embedded", "9.1.2"),
        Program("nginx", Path("/n"), "embedded", "1.31.3"),
    )
    finding = software.programs_finding(LOCAL, lambda **_: programs)
    assert finding.evidence.startswith("postgresql 17.2 (system, /pg/bin), valkey-server 9.1.2 (embedded, /v)")


def test_ports_name_who_holds_them() -> None:
    def ask(taken: int | None, *, deployed: bool = False) -> Finding:
        return place.ports_finding(
            LOCAL, free=lambda _, port: port != taken, who=lambda _: "process 7 (nc)", deployed=lambda _: deployed
        )

    assert ask(None).evidence == "9 ports from 8700 to 8742 are free"
    assert ask(8702).evidence == "port 8702 is held by process 7 (nc)"
    assert ask(8702).status is Status.FAIL
    assert ask(8705).status is Status.OK, "a port that nothing needs"
    assert ask(8702, deployed=True).status is Status.OK


def test_external_servers_need_no_ports_here() -> None:
    external = Environment("lab", Path("/s"), database_url="postgresql+psycopg://h/d", redis_url="redis://h")
    assert set(place.needed_ports(external)) == {8700, 8701, 8702, 8703, 8721, 8722, 8723}


def test_accounts() -> None:
    dropped = Account("nobody", 65534, 65534, drop=True)
    assert "the servers run as nobody" in place.account_finding(LOCAL, lambda _: dropped).evidence
    ourselves = Account("kim", 1000, 1000, drop=False)
    assert place.account_finding(LOCAL, lambda _: ourselves).evidence == "everything runs as kim"


def test_one_failure_stops_no_other_finding_and_prevents_a_deploy() -> None:
    def missing() -> Finding:
        raise PreconditionError("nginx is not installed", hint="apt install nginx-light")

    def denied() -> Finding:
        raise PermissionError("denied")

    report = examine(LOCAL, {"a": missing, "b": denied, "c": lambda: Finding.poor("hm", "do")})
    assert [(one.name, one.status) for one in report.diagnoses] == [
        ("a", Status.FAIL), ("b", Status.FAIL), ("c", Status.WARN),
    ]  # fmt: skip
    assert not report.deployable
    result = doctor_result(report)
    assert not result.ok
    assert any("apt install nginx-light" in getattr(block, "text", "") for block in result.blocks)
    assert examine(LOCAL, {"c": lambda: Finding.poor("hm", "do")}).deployable


def test_this_machine_can_be_examined(tmp_path: Path) -> None:
    report = examine(Environment("local", tmp_path))
    assert {one.name for one in report.diagnoses} >= {"python", "memory", "disk", "ports", "programs", "docker"}


def test_a_state_dir_that_cannot_be_used() -> None:
    report = examine(LOCAL, {"x": lambda: place.state_dir_finding(Environment("a", Path("/tmp/a b")))})
    assert report.diagnoses[0].status is Status.FAIL
    assert "will be made" in place.state_dir_finding(Environment("a", Path("/tmp/not-there-yet"))).evidence
