"""Start a real beat: ``python -m tests.support.run_beat FOLDER``; the schedule is kept in FOLDER."""

import sys
from pathlib import Path

from mistudio_server.observability.logs import configure
from mistudio_server.settings import Settings
from mistudio_server.workers.main import run_beat


def main() -> int:
    settings = Settings()
    configure(settings, unit="beat")
    return run_beat(settings, Path(sys.argv[1]) / "beat")


if __name__ == "__main__":
    sys.exit(main())
