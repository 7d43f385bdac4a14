"""The commands that the documents name exist, with those options; the files that they link are there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mistudio_ops.cli.app import VERBS

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CLI = (ROOT / "docs" / "CLI.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def quoted(text: str) -> Iterator[str]:
    """Yield what stands in backticks, and the lines of shell blocks without their comments."""
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield from (line.partition("#")[0].strip() for line in block.splitlines())
    yield from re.findall(r"`([^`\n]+)`", text)


def commands(program: str) -> list[tuple[str, str]]:
    return [
        (document.name, command)
        for document in DOCUMENTS
        if document.name != "CLI.md"
        for command in quoted(document.read_text())
        if command.startswith(f"{program} ")
    ]


def section_of(words: list[str]) -> str:
    """Return the reference's section of the command: of ``backup list`` where there is one, else of ``backup``."""
    for title in (" ".join(words[:2]), words[0]):
        found = CLI.partition(f"## mistudio-ops {title}\n")[2].partition("\n## ")[0]
        if found:
            return found
    raise AssertionError(f"docs/CLI.md has no section for {words[0]}")


@pytest.mark.parametrize(("document", "command"), commands("mistudio-ops"))
def test_verbs_and_options_of_mistudio_ops_exist(document: str, command: str) -> None:
    words = command.split()[1:]
    if words[0].startswith("-"):
        assert f"{words[0]} " in CLI.partition("## mistudio-ops deploy")[0], (document, command)
        return
    assert words[0] in VERBS, (document, command)
    section = section_of(words)
    missing = [word for word in words if word.startswith("-") and not re.search(rf"{re.escape(word)}\b", section)]
    assert missing == [], (document, command)


@pytest.mark.parametrize(("document", "command"), commands("make"))
def test_targets_of_make_exist(document: str, command: str) -> None:
    targets = [word for word in command.split()[1:] if "=" not in word]
    missing = [target for target in targets if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)]
    assert missing == [], (document, command)


def test_there_are_commands_to_check() -> None:
    assert len(commands("mistudio-ops")) > 5
    assert len(commands("make")) > 5


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_of_the_repository_that_are_named_exist(document: Path) -> None:
    named = re.findall(r"`((?:src|tests|migrations|docs)/[\w./-]+)`", document.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []
