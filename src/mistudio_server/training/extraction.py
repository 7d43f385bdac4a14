"""From a language model and a text to a folder of activation shards."""

import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mistudio_server.errors import InvalidDatasetError
from mistudio_server.training.channel import Channel
from mistudio_server.training.durable import (
    TEMPORARY_PREFIX,
    FreeBytes,
    disk_free_bytes,
    full_disk_named,
    publish,
    remove_leftovers,
    require_free,
)
from mistudio_server.training.language_model import LanguageModel, Window
from mistudio_server.training.protocol import Extracted, ExtractionJob, Finished, Progress, Warned
from mistudio_server.training.safetensors_file import Array
from mistudio_server.training.shards import ShardWriter, Written
from mistudio_server.training.text import pieces, text_size
from mistudio_server.training.trainer import choose_device, make_deterministic

_POOLED_BATCHES = 16  # windows sorted by length together: little padding, bounded memory
_SAMPLE_BYTES = 1 << 18
_MARGIN = 1.05  # over the number of rows that the sample promises
_REPORT_SECONDS = 0.5


def run_extraction(
    job: ExtractionJob, channel: Channel, *, clock: Callable[[], float], free_bytes: FreeBytes = disk_free_bytes
) -> None:
    """Write ``hidden_states[layer]`` of every token of the text as shards; report ``extracted``.

    The folder gets its name when it is complete; a run that ends before that leaves nothing. Special tokens and
    padding give no row. Asked to end, it reports ``finished`` with step 0. ``clock`` is monotonic seconds. Raises
    ``StudioError``: for a model or text that cannot be used, a full disk, activations that are not finite.
    """
    output = Path(job.output_dir)
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output.parent, output.name)
    device = choose_device(job.device)
    make_deterministic(device, job.torch_num_threads)
    model = LanguageModel(Path(job.model_dir), device)
    model.check_layer(job.layer)
    extraction = _Extraction(job, channel, clock, model)
    extraction.check_disk(free_bytes)
    temporary = output.parent / f"{TEMPORARY_PREFIX}{output.name}-{os.getpid()}"
    try:
        with full_disk_named(output, "activations"):
            temporary.mkdir()
            written = extraction.write(temporary)
            if written is not None:
                publish(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    extraction.report_end(written)


class _Extraction:
    def __init__(self, job: ExtractionJob, channel: Channel, clock: Callable[[], float], model: LanguageModel) -> None:
        self._job, self._channel, self._clock, self._model = job, channel, clock, model
        self._text = Path(job.text_path)
        self._context = min(job.context_length, model.longest_context)
        self._expected = self._expected_rows()
        self._reported = -math.inf
        if self._context < job.context_length:
            message = f"context_length {job.context_length} is over the model's {self._context}, which is used"
            channel.emit(Warned(code="context_length_capped", message=message))

    def check_disk(self, free_bytes: FreeBytes) -> None:
        """Raise ``InsufficientStorageError`` unless the rows expected have room."""
        needed = self._expected * self._model.d_model * np.dtype(self._job.dtype).itemsize
        what = f"Extracting about {self._expected:,} activations of width {self._model.d_model}"
        require_free(Path(self._job.output_dir).parent, needed, what, free_bytes=free_bytes)

    def write(self, folder: Path) -> Written | None:
        """Write all shards into ``folder``; return None when asked to end before."""
        job = self._job
        with ShardWriter(folder, d_model=self._model.d_model, shard_rows=job.shard_rows, dtype=job.dtype) as writer:
            for batch in self._batches():
                if self._channel.finish_reason() is not None:
                    return None
                room = None if job.max_tokens is None else job.max_tokens - writer.rows
                writer.append(self._checked(self._model.activations(batch, job.layer)[:room]))
                self._report(writer.rows)
                if writer.rows == job.max_tokens:
                    break
            written = writer.finish()
        if not written.rows:
            raise InvalidDatasetError(f"{self._text} gives no token", hint="Choose a dataset with text in it.")
        return written

    def report_end(self, written: Written | None) -> None:
        """Send the last line."""
        if written is None:
            self._channel.emit(Finished(reason=self._channel.finish_reason() or "interrupted", step=0))
            return
        self._channel.emit(Progress(done=written.rows, total=written.rows))
        self._channel.emit(
            Extracted(
                rows=written.rows,
                d_model=self._model.d_model,
                size_bytes=written.size_bytes,
                shards=written.shards,
            )
        )

    def _batches(self) -> Iterator[list[Window]]:
        """Yield batches of windows; those of one pool are sorted by length."""
        size = self._job.batch_size
        pool: list[Window] = []
        for piece in pieces(self._text):
            for window in self._model.windows(piece.text, self._context):
                pool.append(window)
                if len(pool) == size * _POOLED_BATCHES:
                    yield from _by_length(pool, size)
                    pool = []
        yield from _by_length(pool, size)

    def _expected_rows(self) -> int:
        """Estimate the rows of the whole text from the tokens in its first 256 KiB."""
        rows = position = 0
        for piece in pieces(self._text):
            rows += sum(window.rows for window in self._model.windows(piece.text, self._context))
            position = piece.position
            if position >= _SAMPLE_BYTES:
                break
        total = text_size(self._text)
        expected = math.ceil(rows * total / position * _MARGIN) if position < total else rows
        return min(expected, self._job.max_tokens or expected)

    def _checked(self, rows: Array) -> Array:
        with np.errstate(over="ignore"):
            converted = rows.astype(self._job.dtype, copy=False)
        if not np.isfinite(converted).all():
            kind = "overflowed" if np.isfinite(rows).all() else "has NaN or infinite"
            raise InvalidDatasetError(
                f"Layer {self._job.layer} of {self._job.model_dir} {kind} activations in {self._job.dtype}",
                hint="Extract with dtype float32; if it is that already, the model's weights are damaged.",
            )
        return converted

    def _report(self, done: int) -> None:
        if self._clock() - self._reported >= _REPORT_SECONDS:
            self._reported = self._clock()
            self._channel.emit(Progress(done=done, total=max(done, self._expected)))


def _by_length(pool: list[Window], size: int) -> Iterator[list[Window]]:
    ordered = sorted(pool, key=lambda window: len(window.ids), reverse=True)
    for begin in range(0, len(ordered), size):
        yield ordered[begin : begin + size]
