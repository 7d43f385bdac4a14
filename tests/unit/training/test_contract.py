"""What the API and the workers import of this package works without torch."""

import subprocess
import sys

import pytest

CODE = """
import sys
import mistudio_server.training.{module}
print(sorted({{"torch", "transformers"}} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    "module", ["hyperparameters", "protocol", "process", "checkpoints", "activations", "saelens", "text"]
)
def test_module_needs_no_torch(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(module=module)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
