"""Modules that need torch are not collected where the extra ``train`` is not installed."""

from importlib.util import find_spec

collect_ignore = (
    []
    if find_spec("torch") and find_spec("transformers")
    else [
        "test_evaluate.py",
        "test_extraction.py",
        "test_known_answer.py",
        "test_process.py",
        "test_run.py",
        "test_sae.py",
    ]
)
