"""Start a real worker whose children are ``fake_child``: ``python -m tests.support.run_worker FOLDER``."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from mistudio_server.observability.logs import configure
from mistudio_server.settings import Settings
from mistudio_server.workers.main import run_worker
from mistudio_server.workers.timing import timing_of


def main() -> int:
    settings = Settings()
    configure(settings, unit="worker")
    folder = Path(sys.argv[1])
    timing = replace(timing_of(settings), poll_seconds=0.1, idle_seconds=0.2)
    queues = json.loads((folder / "plan.json").read_text()).get("queues", ["training", "extraction", "maintenance"])
    return run_worker(
        settings, queues, child_argv=(sys.executable, "-m", "tests.support.fake_child", str(folder)), timing=timing
    )


if __name__ == "__main__":
    sys.exit(main())
