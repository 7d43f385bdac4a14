"""What only the server's own program knows: does a worker really work, and is the schema the one the code wants?"""

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from mistudio_ops.domain.check import Finding
from mistudio_ops.operations.health.facts import Facts

#: Waiting for the task; starting the interpreter and its libraries comes on top.
TASK_SECONDS = 4.0
PROGRAM_SECONDS = 7.0
_TAIL = 300


def check_worker(facts: Facts) -> Finding:
    """Send a real task through the broker and wait for a worker's answer."""
    arguments = ("check", "--only", "worker", "--json", "--timeout", f"{TASK_SECONDS:g}")
    document, complaint = _run(facts, arguments)
    checks = document.get("checks") if document else None
    check = next((one for one in checks or () if isinstance(one, dict) and one.get("name") == "worker"), None)
    hint = facts.logs_hint("worker-1")
    if check is None:
        return Finding.bad(f"no worker is known to answer: {complaint}", hint)
    evidence = str(check.get("evidence") or "no evidence")
    latency = check.get("latency_ms")
    if check.get("ok") is True:
        took = f", round trip {latency:.0f} ms" if isinstance(latency, int | float) else ""
        return Finding.good(_who(evidence) + took)
    return Finding.bad(evidence, str(check.get("hint") or hint))


def check_migrations(facts: Facts) -> Finding:
    """Compare the database's revision with the code's."""
    document, complaint = _run(facts, ("migrate", "--check", "--json"))
    if document is None or "at_head" not in document:
        return Finding.bad(f"the revision cannot be read: {complaint}", facts.logs_hint("postgres"))
    current, head = document.get("current"), document.get("head")
    if document["at_head"]:
        return Finding.good(f"the schema is at {head}, as the code wants it")
    return Finding.bad(
        f"the schema is at {current or 'nothing'}, the code wants {head}",
        f"mistudio-ops deploy {facts.environment.name} migrates it",
    )


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
