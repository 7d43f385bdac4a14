"""When a unit counts as ready."""

import json
from http import HTTPStatus

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.units import Unit
from mistudio_ops.drivers.http_probe import Answer, get
from mistudio_ops.engines.nginx import local_url, served_generation
from mistudio_ops.errors import VerificationError
from mistudio_ops.operations.deploy.context import Context
from mistudio_ops.operations.deploy.server_process import run_server

POLL_SECONDS = 0.08
WORKER_SECONDS = 45
VERIFY_SECONDS = 20.0


def wait_for_backend(context: Context, unit: Unit) -> None:
    """Wait until ``/health/ready`` says yes: loop alive, database at head, store answering."""
    give_up = context.watch(unit.name)
    url = f"http://127.0.0.1:{unit.ports[0]}/health/ready"
    while not _ok(get(url, timeout=5.0)):
        give_up()
        context.sleep(POLL_SECONDS)


def wait_for_worker(context: Context, unit: Unit) -> None:
    """Wait until the worker has answered a task that went through the queue."""
    give_up = context.watch(unit.name, seconds=WORKER_SECONDS + 15)
    arguments = ("check", "--only", "worker", "--timeout", str(WORKER_SECONDS), "--json")
    with run_server(context.host, unit, arguments) as process:
        while process.poll() is None:
            give_up()
            context.sleep(POLL_SECONDS)
        output, errors = process.communicate()
    if process.returncode != 0:
        raise context.failure(
            unit.name, f"{unit.name} does not answer a task: {_evidence(output) or errors.strip()[-500:]}"
        )


def wait_until_running(context: Context, unit: Unit) -> None:
    """Wait until the process has lived for the second that supervisord asks of it."""
    give_up = context.watch(unit.name)
    while (state := context.engine.states().get(unit.name)) is None or state.state != "RUNNING":
        give_up()
        context.sleep(POLL_SECONDS)


def wait_for_proxy(context: Context, unit: Unit, generation: str) -> None:
    """Wait until nginx itself says that it serves this generation of its configuration."""
    give_up = context.watch(unit.name, seconds=15)
    while served_generation(context.environment) != generation:
        give_up()
        context.sleep(POLL_SECONDS)


def verify(context: Context) -> str:
    """Ask for health through the proxy, as a user would, and return what it said.

    Raises:
        VerificationError: it does not become healthy; the message tells the failed checks.
    """
    url = health_url(context.environment)
    deadline = context.clock() + VERIFY_SECONDS
    while not _ok(answer := get(url, timeout=5.0)):
        if context.clock() > deadline or context.cancelled.is_set():
            raise VerificationError(
                f"GET {url} {_said(answer)}",
                hint=f"mistudio-ops health {context.environment.name}; mistudio-ops logs -e {context.environment.name}",
            )
        context.sleep(POLL_SECONDS)
    return f"{url} answers {HTTPStatus.OK.value}"


def health_url(environment: Environment) -> str:
    """Return the URL of the health document behind the proxy."""
    return f"{local_url(environment)}/api/health"


def _ok(answer: Answer | None) -> bool:
    return answer is not None and answer.status == HTTPStatus.OK


def _said(answer: Answer | None) -> str:
    if answer is None:
        return "gets no answer"
    try:
        checks = json.loads(answer.body)["checks"]
        failed = [f"{name}: {check['evidence']}" for name, check in checks.items() if not check["ok"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"answers {answer.status}: {answer.body[:300]}"
    return f"answers {answer.status}; failed checks: {'; '.join(failed)}"


def _evidence(output: str) -> str | None:
    try:
        return "; ".join(str(check["evidence"]) for check in json.loads(output)["checks"] if not check["ok"])
    except (ValueError, KeyError, TypeError):
        return None
