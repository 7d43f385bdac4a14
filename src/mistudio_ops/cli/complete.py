"""Completing values, fast: a Tab must not wait for pydantic."""

import os
from pathlib import Path


def environment_names(incomplete: str) -> list[str]:
    """Return the environments of the configuration file that begin with ``incomplete``; nothing if it is broken."""
    import tomllib

    named = os.environ.get("MISTUDIO_CONFIG")
    here = Path.cwd()
    candidates = [Path(named)] if named else [folder / "mistudio.toml" for folder in (here, *here.parents)]
    names = {"local"}
    for path in candidates:
        if path.is_file():
            try:
                names |= set(tomllib.loads(path.read_text(encoding="utf-8")).get("environments", {}))
            except (OSError, ValueError, AttributeError, TypeError):
                return []
            break
    return sorted(name for name in names if name.startswith(incomplete))
