"""Paths that users name: below DATA_DIR, whatever they look like."""

from pathlib import Path

import pytest

from mistudio_server.errors import InvalidPathError
from mistudio_server.services.locations import owned_folder, relative, resolve_inside


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A DATA_DIR that is itself reached through a symbolic link."""
    real = tmp_path / "real"
    (real / "a" / "b").mkdir(parents=True)
    (real / "a" / "b" / "c.txt").write_text("c")
    (tmp_path / "outside.txt").write_text("x")
    (tmp_path / "real2").mkdir()
    link = tmp_path / "link"
    link.symlink_to(real)
    return link


@pytest.mark.parametrize("path", ["a/b/c.txt", "a/../a/b/c.txt", "./a/b/c.txt", "a//b/c.txt"])
def test_inside(data_dir: Path, path: str) -> None:
    real = resolve_inside(data_dir, path)
    assert relative(data_dir, real) == "a/b/c.txt"
    assert resolve_inside(data_dir, str(data_dir / path)) == real


@pytest.mark.parametrize(
    "path", ["..", "../outside.txt", "/", "/etc/passwd", "a/../../outside.txt", "../real2", "", ".", "a/" * 3000, "~"]
)
def test_outside(data_dir: Path, path: str) -> None:
    with pytest.raises(InvalidPathError):
        resolve_inside(data_dir, path)


def test_links(data_dir: Path) -> None:
    (data_dir / "out").symlink_to(data_dir.parent / "outside.txt")
    (data_dir / "in").symlink_to(data_dir / "a" / "b" / "c.txt")
    (data_dir / "loop").symlink_to(data_dir / "loop")
    (data_dir / "dangling").symlink_to(data_dir / "nothing")
    for name in ("out", "loop", "dangling"):
        with pytest.raises(InvalidPathError):
            resolve_inside(data_dir, name)
    assert relative(data_dir, resolve_inside(data_dir, "in")) == "a/b/c.txt"


@pytest.mark.parametrize(
    ("path", "owned"),
    [
        ("datasets/d1/a.txt", "datasets/d1"),
        ("datasets/d1", "datasets/d1"),
        ("activations/d1", "activations/d1"),
        ("datasets/d2/a.txt", None),
        ("datasets/a.txt", None),
        ("mine/d1/a.txt", None),
        ("d1", None),
    ],
)
def test_only_what_the_studio_made_is_owned(data_dir: Path, path: str, owned: str | None) -> None:
    found = owned_folder(data_dir, path, "d1")
    assert found == (data_dir.resolve() / owned if owned else None)
