"""A folder with a ``mistudio.toml``, and a way to resolve it."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from mistudio_ops.config.resolve import Resolved, resolve_environment

Resolve = Callable[..., Resolved]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_file(text: str) -> Path:
        path = tmp_path / "mistudio.toml"
        path.write_text(dedent(text))
        return path

    return write_file


@pytest.fixture
def resolve(tmp_path: Path) -> Resolve:
    def resolve_here(name: str = "local", *overrides: str, **environ: str) -> Resolved:
        return resolve_environment(
            name, environ={"HOME": "/home/someone", **environ}, cwd=tmp_path, overrides=overrides, euid=lambda: 1000
        )

    return resolve_here
