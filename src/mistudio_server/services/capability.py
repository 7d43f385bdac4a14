"""What this installation can do."""

from importlib.util import find_spec

from mistudio_server.errors import TrainingUnavailableError


def torch_installed() -> bool:
    """Return True when torch can be imported; it is not imported."""
    return find_spec("torch") is not None


def require_training(installed: bool) -> None:
    """Refuse what needs torch where there is none.

    Raises:
        TrainingUnavailableError: torch is not installed.
    """
    if not installed:
        raise TrainingUnavailableError(
            "This studio has no torch, so it can neither train nor extract activations.",
            hint="Install the extra: pip install 'mistudio[train]' (or `make up`), then restart the studio.",
        )
