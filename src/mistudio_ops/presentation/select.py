"""Picking the reporter that fits the streams and the options."""

import os
from collections.abc import Mapping
from typing import TextIO

from mistudio_ops.presentation.plain import PlainReporter
from mistudio_ops.presentation.redaction import Redactor
from mistudio_ops.presentation.reporter import Reporter


def select_reporter(
    stdout: TextIO,
    stderr: TextIO,
    *,
    json: bool = False,
    plain: bool = False,
    verbose: bool = False,
    schema: str = "mistudio-ops/error/1",
    environ: Mapping[str, str] = os.environ,
) -> Reporter:
    """Return the reporter: rich where a terminal is, plain elsewhere or when asked, JSON on top of either.

    ``NO_COLOR`` (any value but the empty one, https://no-color.org) takes colours away, ``TERM=dumb`` animation too.
    """
    redactor = Redactor()
    terminal = (stdout.isatty() or stderr.isatty()) and environ.get("TERM") != "dumb"
    speaker: Reporter
    if plain or not terminal or (json and not stderr.isatty()):
        speaker = PlainReporter(stdout, stderr, verbose=verbose, redactor=redactor)
    else:
        from mistudio_ops.presentation.rich_text import RichReporter

        color = not environ.get("NO_COLOR")
        speaker = RichReporter(stdout, stderr, color=color, verbose=verbose, redactor=redactor)
    if not json:
        return speaker
    from mistudio_ops.presentation.json_document import JsonReporter

    return JsonReporter(stdout, speaker, redactor, schema=schema)
