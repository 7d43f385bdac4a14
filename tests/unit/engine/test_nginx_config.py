"""The rendered proxy configuration, against golden files. To renew them: MISTUDIO_TEST_GOLDEN=write pytest ..."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from mistudio_ops.domain.environment import Environment
from mistudio_ops.engines.nginx import local_url, render_config

GOLDEN = Path(__file__).parent / "golden"
LOCAL = Environment(name="local", state_dir=Path("/srv/studio"), port=8800)
WEB = Path("/srv/studio/releases/r0001/web")


@pytest.mark.parametrize("version", ["1.22.1", "1.31.3"])
def test_rendered_for_the_version_found(version: str) -> None:
    text, _ = render_config(LOCAL, version, WEB)
    path = GOLDEN / f"nginx-{version}.conf"
    if os.environ.get("MISTUDIO_TEST_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_sticky_only_where_nginx_has_it() -> None:
    assert "sticky cookie" in render_config(LOCAL, "1.29.6", WEB)[0]
    old = render_config(LOCAL, "1.29.5", WEB)[0]
    assert "sticky cookie" not in old
    assert "consistent;" in old
    assert "ip_hash;" not in old


def test_the_generation_is_the_configurations_own() -> None:
    text, generation = render_config(LOCAL, "1.31.3", WEB)
    assert f'"{generation}\\n"' in text
    assert render_config(LOCAL, "1.31.3", WEB)[1] == generation
    assert render_config(replace(LOCAL, backends=2), "1.31.3", WEB)[1] != generation


def test_every_backend_is_in_both_upstreams() -> None:
    text, _ = render_config(replace(LOCAL, backends=5), "1.31.3", WEB)
    for number in range(1, 6):
        assert len(re.findall(rf"server 127\.0\.0\.1:{8800 + number} ", text)) == 2


def test_what_is_for_this_machine_is_not_passed_on() -> None:
    text, _ = render_config(LOCAL, "1.31.3", WEB)
    for place in ("/internal", "/metrics"):
        assert f"location {place} {{ return 404; }}" in text
    for line in text.splitlines():
        if "server 127.0.0.1" in line:
            assert not re.search(r":88(2\d|4[12]) ", line)  # internal listeners and databases


@pytest.mark.parametrize(
    ("host", "listen", "url"),
    [
        ("127.0.0.1", "listen 127.0.0.1:8800 ", "http://127.0.0.1:8800"),
        ("0.0.0.0", "listen 0.0.0.0:8800 ", "http://127.0.0.1:8800"),
        ("::1", "listen [::1]:8800 ", "http://[::1]:8800"),
        ("::", "listen [::]:8800 ", "http://[::1]:8800"),
        ("192.168.1.5", "listen 192.168.1.5:8800 ", "http://192.168.1.5:8800"),
    ],
)
def test_addresses(host: str, listen: str, url: str) -> None:
    environment = replace(LOCAL, host=host)
    assert listen in render_config(environment, "1.31.3", WEB)[0]
    assert local_url(environment) == url


def test_the_generation_answers_this_machine_only() -> None:
    text, _ = render_config(replace(LOCAL, host="192.168.1.5"), "1.31.3", WEB)
    assert "allow 192.168.1.5;" in text
    assert "allow 0.0.0.0" not in render_config(replace(LOCAL, host="0.0.0.0"), "1.31.3", WEB)[0]
    assert "deny all;" in text
