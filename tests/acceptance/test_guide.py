"""docs/GUIDE.md runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demo.__main__ import model_dir
from tests.demo.corpus import corpus
from tests.support.studio import Studio

pytestmark = [pytest.mark.acceptance, pytest.mark.train, pytest.mark.xdist_group("studio")]

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "GUIDE.md"


def test_every_block_runs(studio: Studio, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    text = tmp_path / "text.txt"
    text.write_text(corpus(20_000).train)
    environment = {
        **os.environ,
        "MISTUDIO_URL": studio.url,
        "MODEL_DIR": str(model_dir()),
        "TEXT_FILE": str(text),
    }
    argv = [sys.executable, "-c", "\n".join(blocks)]
    done = subprocess.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed at step 200" in done.stdout
    assert (tmp_path / "checkpoint.tar").stat().st_size > 0


def test_a_token_is_made_as_it_says(studio: Studio) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    script = block.replace("~/.local/state/mistudio/local", str(studio.state_dir)).replace(
        "mistudio-server", f"{sys.executable} -m mistudio_server"
    )
    done = subprocess.run(["/bin/sh", "-ec", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    token = re.search(r"mst_[A-Za-z0-9_-]{43}", done.stdout)
    assert token
    with studio.api() as api:
        assert api.get("/trainings", headers={"Authorization": f"Bearer {token.group()}"}).status_code == 200
        assert api.get("/trainings", headers={"Authorization": f"Bearer {token.group()[:-1]}"}).status_code == 401
