"""What only the server's own program knows: does a worker really work, and is the schema the one the code wants?"""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any

from mistudio_ops.domain.check import Finding, Status
from mistudio_ops.operations.health.facts import Facts

#: Waiting for the task; starting the interpreter and its libraries comes on top.
TASK_SECONDS = 4.0
PROGRAM_SECONDS = 7.0
_TAIL = 300


class ServerProgram:
    """One run of ``mistudio-server check``, shared by the checks that need it.

    Starting the program takes a second of processor time, which a small machine in a training does not have twice.
    """

    def __init__(self, facts: Facts, names: Sequence[str]) -> None:
        self.facts = facts
        self._names = names
        self._lock = threading.Lock()
        self._checks: dict[str, dict[str, Any]] | None = None
        self._complaint = ""

    def check(self, name: str) -> tuple[dict[str, Any] | None, str]:
        """Return the program's check called ``name``, or None and what the program said instead."""
        with self._lock:
            if self._checks is None:
                self._checks, self._complaint = self._ask()
        return self._checks.get(name), self._complaint

    def _ask(self) -> tuple[dict[str, dict[str, Any]], str]:
        only = [argument for name in self._names for argument in ("--only", name)]
        document, complaint = _run(self.facts, ("check", *only, "--json", "--timeout", f"{TASK_SECONDS:g}"))
        checks = document.get("checks") if document else None
        named = [check for check in checks or () if isinstance(check, dict)] if isinstance(checks, list) else []
        return {str(check.get("name")): check for check in named}, complaint


def check_worker(program: ServerProgram) -> Finding:
    """Send a real task through the broker and wait for a worker's answer."""
    check, complaint = program.check("worker")
    hint = program.facts.logs_hint("worker-1")
    if check is None:
        return Finding.bad(f"no worker is known to answer: {complaint}", hint)
    return _finding(check, hint, _who)


def check_migrations(program: ServerProgram) -> Finding:
    """Compare the database's revision with the code's."""
    check, complaint = program.check("migrations")
    hint = f"mistudio-ops deploy {program.facts.environment.name} migrates it"
    if check is None:
        return Finding.bad(f"the revision is not known: {complaint}", program.facts.logs_hint("postgres"))
    return _finding(check, hint, lambda evidence: f"the schema is {evidence}")


def _finding(check: dict[str, Any], hint: str, words: Callable[[str], str]) -> Finding:
    evidence = str(check.get("evidence") or "no evidence")
    latency = check.get("latency_ms")
    milliseconds = float(latency) if isinstance(latency, int | float) else None
    if check.get("ok") is True:
        return Finding(Status.OK, words(evidence), None, milliseconds)
    return Finding(Status.FAIL, evidence, str(check.get("hint") or hint), milliseconds)


def _who(evidence: str) -> str:
    """Return the worker's answer in words; anything else as it is."""
    try:
        answer = json.loads(evidence)
    except ValueError:
        return evidence
    if not isinstance(answer, dict) or "instance" not in answer:
        return evidence
    running = answer.get("running") or []
    doing = f"busy with {', '.join(map(str, running))}" if running else "idle"
    return (
        f"{answer['instance']} (release {answer.get('release')}, process {answer.get('pid')}, {doing}) answered a task"
    )


def _run(facts: Facts, arguments: Sequence[str]) -> tuple[dict[str, Any] | None, str]:
    """Return the JSON document that the program prints, or None and what it said instead."""
    inherited = {name: os.environ[name] for name in ("PATH", "LANG", "HOME", "TMPDIR") if name in os.environ}
    argv = [str(facts.python), "-P", "-m", "mistudio_server", *arguments]
    try:
        done = subprocess.run(
            argv, env=inherited | dict(facts.variables), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PROGRAM_SECONDS, check=False, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, f"mistudio-server {arguments[0]} did not end within {PROGRAM_SECONDS:g} s"
    except OSError as error:
        return None, f"{facts.python} cannot be run: {error.strerror}"
    try:
        document = json.loads(done.stdout)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document, "its answer lacks what was asked for"
    said = (done.stderr.strip() or done.stdout.strip() or "nothing")[-_TAIL:]
    return None, f"mistudio-server {arguments[0]} ended with {done.returncode} and said: {said}"
