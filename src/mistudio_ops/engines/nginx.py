"""The proxy: rendering nginx's configuration for the version found, checking it, and switching to it."""

import hashlib
import http
import subprocess
from ipaddress import ip_address
from pathlib import Path

from mistudio_ops.domain.environment import Environment
from mistudio_ops.domain.units import Unit
from mistudio_ops.drivers.account import Account
from mistudio_ops.drivers.embedded import Program
from mistudio_ops.drivers.files import write_atomically
from mistudio_ops.drivers.http_probe import get
from mistudio_ops.engines.state_files import nginx_run
from mistudio_ops.errors import VerificationError
from mistudio_ops.templates import render

#: First open-source version with ``sticky`` in an upstream.
STICKY_SINCE = (1, 29, 6)
DEFAULT_MAX_UPLOAD_BYTES = 8 * 1024**3


def config_file(environment: Environment) -> Path:
    """Return the path of the configuration that nginx runs with."""
    return environment.paths.config / "nginx.conf"


def render_config(environment: Environment, version: str, web: Path) -> tuple[str, str]:
    """Return the configuration and its generation: a hash of all of it, which nginx tells when it serves it."""
    values = {
        "version": version,
        "workers": 1,  # one worker moves thousands of requests a second; each takes 5 MB
        "run": nginx_run(environment.paths),
        "backends": [environment.backend_port(n) for n in range(1, environment.backends + 1)],
        "sticky": _numbers(version) >= STICKY_SINCE,
        "listen": f"[{environment.host}]:{environment.port}" if ":" in environment.host else _listen(environment),
        "max_upload_bytes": environment.server.get("MAX_UPLOAD_BYTES", DEFAULT_MAX_UPLOAD_BYTES),
        "web": web,
        "generation_from": sorted({"127.0.0.1", "::1", *_address(environment.host)}),
    }
    generation = hashlib.sha256(render("nginx.conf.j2", generation="", **values).encode()).hexdigest()[:12]
    return render("nginx.conf.j2", generation=generation, **values), generation


def install_config(environment: Environment, program: Program, account: Account, text: str) -> None:
    """Let nginx check ``text`` under another name, then put it in place atomically.

    Raises:
        VerificationError: nginx refuses it; what was in place is untouched.
    """
    target = config_file(environment)
    candidate = target.with_name("nginx.candidate.conf")
    write_atomically(candidate, text, mode=0o644)
    argv = [
        str(program.path),
        "-t",
        "-q",
        "-p",
        str(nginx_run(environment.paths)),
        "-e",
        "stderr",
        "-c",
        str(candidate),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False, **account.popen())
    if done.returncode != 0:
        raise VerificationError(
            "nginx refuses the rendered configuration, and goes on with the one before:\n"
            + "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-20:]),
            hint=f"read {candidate}",
        )
    candidate.replace(target)


def unit(environment: Environment, program: Program, account: Account) -> Unit:
    """Return the proxy's unit. A new configuration is reloaded, not restarted, so it is no part of it."""
    run = str(nginx_run(environment.paths))
    return Unit(
        name="proxy",
        kind="proxy",
        argv=(str(program.path), "-p", run, "-e", "stderr", "-c", str(config_file(environment))),
        environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MISTUDIO_UNIT_DIR": str(environment.paths.root)},
        directory=run,
        stop_signal="QUIT",
        stop_seconds=3,  # WebSockets never end by themselves; their clients reconnect
        uid=account.uid if account.drop else None,
        gid=account.gid if account.drop else None,
        ports=(environment.port,),
    )


def served_generation(environment: Environment) -> str | None:
    """Return the generation that the running nginx tells; None when it does not answer."""
    answer = get(f"{local_url(environment)}/_proxy/generation", timeout=2.0)
    return answer.body.strip() if answer is not None and answer.status == http.HTTPStatus.OK else None


def local_url(environment: Environment) -> str:
    """Return the proxy's URL as seen from this machine, also where it listens on every address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(environment.host, environment.host)  # noqa: S104 - compared
    return f"http://[{host}]:{environment.port}" if ":" in host else f"http://{host}:{environment.port}"


def _address(host: str) -> tuple[str, ...]:
    """Return the address from which this machine's requests come when the proxy listens on one address only."""
    try:
        return () if ip_address(host).is_unspecified else (host,)
    except ValueError:
        return ()


def _listen(environment: Environment) -> str:
    return f"{environment.host}:{environment.port}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
