"""Activations of a tiny language model, made here with random weights: each number checked against the model."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from mistudio_server.errors import InsufficientStorageError, InvalidDatasetError, InvalidInputError
from mistudio_server.training.activations import ActivationStore
from mistudio_server.training.durable import TEMPORARY_PREFIX
from mistudio_server.training.extraction import run_extraction
from mistudio_server.training.failures import ModelUnusableError
from mistudio_server.training.protocol import Extracted, ExtractionJob, Finished, Progress, Report, Warned
from mistudio_server.training.safetensors_file import Array
from tests.unit.training.synthetic import MemoryChannel

pytestmark = pytest.mark.train

WORDS = [f"w{number}" for number in range(50)]
D_MODEL = 16


def save_tokenizer(folder: Path, *, special: bool) -> None:
    vocabulary = {word: number for number, word in enumerate(["[UNK]", "[CLS]", "[SEP]", "[PAD]", *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"} if special else {"unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names).save_pretrained(
        folder
    )


def save_bert(folder: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=54, hidden_size=D_MODEL, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    save_tokenizer(folder, special=True)


def save_gpt2(folder: Path) -> None:
    config = transformers.GPT2Config(vocab_size=54, n_embd=D_MODEL, n_layer=2, n_head=2, n_positions=32)
    transformers.GPT2Model(config).save_pretrained(folder)
    save_tokenizer(folder, special=False)


@pytest.fixture(scope="module", params=[save_bert, save_gpt2], ids=["bert", "gpt2"])
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(request.param, tmp_path_factory.mktemp("any-model"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(save_bert, tmp_path_factory.mktemp("bert"))


def make_model(save: Callable[[Path], None], folder: Path) -> Path:
    torch.manual_seed(0)
    save(folder)
    return folder


def make_job(tmp_path: Path, model: Path, text: str, **changes: Any) -> ExtractionJob:
    path = tmp_path / "text.txt"
    path.write_text(text)
    values: dict[str, Any] = {
        "dataset_id": "dst_1", "model_dir": str(model), "text_path": str(path), "layer": 1, "context_length": 10,
        "output_dir": str(tmp_path / "activations" / "dst_1"), "batch_size": 4, "device": "cpu",
        "torch_num_threads": 1,
    }  # fmt: skip
    return ExtractionJob.model_validate(values | changes)


def extract(
    job: ExtractionJob, on_report: Callable[[MemoryChannel, Report], None] | None = None, **changes: Any
) -> MemoryChannel:
    channel = MemoryChannel(on_report)
    run_extraction(job, channel, clock=itertools.count().__next__, **changes)
    return channel


def output_rows(job: ExtractionJob) -> Array:
    return np.concatenate(list(ActivationStore(Path(job.output_dir)).in_order(100)))


def test_rows_are_the_models_hidden_states_of_the_text_alone(any_model: Path, tmp_path: Path) -> None:
    """Three windows of 8 words (and CLS, SEP with BERT) and a short one, which is padded in its batch."""
    words = WORDS[:27]
    special = (any_model / "config.json").read_text().find("bert") > 0
    inside = 8 if special else 10
    job = make_job(tmp_path, any_model, " ".join(words))
    channel = extract(job)
    model = transformers.AutoModel.from_pretrained(any_model).eval()
    expected = []
    for begin in range(0, len(words), inside):
        ids = [4 + number for number in range(begin, min(begin + inside, len(words)))]
        ids = [1, *ids, 2] if special else ids
        with torch.inference_mode():
            hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0].numpy()
        expected.append(hidden[1:-1] if special else hidden)
    np.testing.assert_allclose(output_rows(job), np.concatenate(expected), atol=1e-5)
    assert channel.reports[-2:] == [
        Progress(done=27, total=27),
        Extracted(rows=27, d_model=D_MODEL, size_bytes=256 + 27 * D_MODEL * 4, shards=1),
    ]


def test_shards_progress_and_types(bert: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, bert, " ".join(WORDS * 40), shard_rows=300, dtype="float16")
    channel = extract(job)
    store = ActivationStore(Path(job.output_dir))
    assert [shard.rows for shard in store.shards] == [300] * 6 + [200]
    assert {shard.span.dtype for shard in store.shards} == {"F16"}
    done = [report.done for report in channel.of(Progress)]
    assert done == sorted(done)
    assert {report.total for report in channel.of(Progress)} == {2_000}
    assert len(done) > 5


def test_max_tokens_is_exact(bert: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, bert, " ".join(WORDS * 40), max_tokens=123)
    assert extract(job).of(Extracted)[0].rows == 123
    assert len(output_rows(job)) == 123


def test_estimate_of_a_long_text_is_near(bert: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, bert, "\n".join([" ".join(WORDS)] * 4_000), max_tokens=30, context_length=32)
    with pytest.raises(InsufficientStorageError, match=r"about ([\d,]+) activations") as caught:
        extract(job.model_copy(update={"max_tokens": None}), free_bytes=lambda _: 1)
    estimate = int(caught.value.detail.split("about ")[1].split(" ")[0].replace(",", ""))
    assert 200_000 <= estimate <= 230_000


def test_too_little_room_is_told_before_a_byte_is_written(bert: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, bert, " ".join(WORDS))
    with pytest.raises(InsufficientStorageError, match="activations of width 16"):
        extract(job, free_bytes=lambda _: 16 << 20)
    assert not list((tmp_path / "activations").iterdir())


def test_context_longer_than_the_model_is_capped_with_a_warning(bert: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, bert, " ".join(WORDS * 3), context_length=500)
    channel = extract(job)
    assert channel.of(Warned)[0].code == "context_length_capped"
    assert channel.of(Extracted)[0].rows == 150


def test_layer_that_the_model_lacks_is_refused_with_its_range(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="layer 3 is over the model's 2") as caught:
        extract(make_job(tmp_path, bert, "w1", layer=3))
    assert caught.value.errors[0]["field"] == "layer"


def test_asked_to_end_it_leaves_nothing(bert: Path, tmp_path: Path) -> None:
    def stop(channel: MemoryChannel, report: Report) -> None:
        if isinstance(report, Progress):
            channel.reason = "stopped"

    channel = extract(make_job(tmp_path, bert, " ".join(WORDS * 40)), stop)
    assert channel.reports[-1] == Finished(reason="stopped", step=0)
    assert not list((tmp_path / "activations").iterdir())


def test_run_after_a_kill_starts_over_and_replaces(bert: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, bert, " ".join(WORDS))
    leftover = tmp_path / "activations" / f"{TEMPORARY_PREFIX}dst_1-77"
    leftover.mkdir(parents=True)
    (leftover / "shard-00000.safetensors").write_bytes(b"half")
    other = tmp_path / "activations" / f"{TEMPORARY_PREFIX}dst_2-78"
    other.mkdir()
    extract(job)
    first = output_rows(job)
    extract(job)
    np.testing.assert_array_equal(output_rows(job), first)
    assert sorted(path.name for path in (tmp_path / "activations").iterdir()) == [other.name, "dst_1"]


def test_text_without_tokens_is_refused_and_leaves_nothing(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="gives no token"):
        extract(make_job(tmp_path, bert, "   \n  "))
    assert not list((tmp_path / "activations").iterdir())


def broken(bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert, tmp_path / "model"))


def refused(job: ExtractionJob, says: str) -> None:
    with pytest.raises(ModelUnusableError, match=says) as caught:
        extract(job)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("removed", "says"),
    [("config.json", "no config.json"), ("model.safetensors", "no .safetensors"), ("tokenizer.json", "no tokenizer")],
)
def test_model_that_lacks_a_file_is_refused(bert: Path, tmp_path: Path, removed: str, says: str) -> None:
    model = broken(bert, tmp_path)
    (model / removed).unlink()
    refused(make_job(tmp_path, model, "w1"), says)


def test_pickled_weights_are_refused_with_the_reason(bert: Path, tmp_path: Path) -> None:
    model = broken(bert, tmp_path)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    refused(make_job(tmp_path, model, "w1"), "only pickled ones")


def test_damaged_weights_are_refused(bert: Path, tmp_path: Path) -> None:
    model = broken(bert, tmp_path)
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])
    refused(make_job(tmp_path, model, "w1"), "cannot be loaded")


def test_weights_that_lack_a_layer_are_refused_not_made_up(bert: Path, tmp_path: Path) -> None:
    model = broken(bert, tmp_path)
    config = (model / "config.json").read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    (model / "config.json").write_text(config)
    refused(make_job(tmp_path, model, "w1"), "lack 16 tensors .* encoder.layer.2")


def test_activations_that_are_not_finite_are_refused(bert: Path, tmp_path: Path) -> None:
    model = broken(bert, tmp_path)
    loaded = transformers.BertModel.from_pretrained(model)
    with torch.no_grad():
        loaded.embeddings.word_embeddings.weight[5] = float("nan")
    loaded.save_pretrained(model)
    with pytest.raises(InvalidDatasetError, match="NaN"):
        extract(make_job(tmp_path, model, " ".join(WORDS)))
    assert not list((tmp_path / "activations").iterdir())


def test_overflow_of_half_precision_is_told_apart(bert: Path, tmp_path: Path) -> None:
    model = broken(bert, tmp_path)
    loaded = transformers.BertModel.from_pretrained(model)
    with torch.no_grad():
        loaded.encoder.layer[0].output.LayerNorm.weight[:] = 1e6
    loaded.save_pretrained(model)
    with pytest.raises(InvalidDatasetError, match="overflowed") as caught:
        extract(make_job(tmp_path, model, " ".join(WORDS), dtype="float16"))
    assert "float32" in (caught.value.hint or "")
