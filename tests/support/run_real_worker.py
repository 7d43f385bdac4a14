"""Start a real worker with real children, looking at its queue often: ``python -m tests.support.run_real_worker``."""

import sys
from dataclasses import replace

from mistudio_server.observability.logs import configure
from mistudio_server.settings import Settings
from mistudio_server.workers.main import run_worker
from mistudio_server.workers.timing import timing_of


def main() -> int:
    settings = Settings()
    configure(settings, unit="worker")
    return run_worker(settings, timing=replace(timing_of(settings), idle_seconds=0.2))


if __name__ == "__main__":
    sys.exit(main())
