"""Whatever is raised where we call other people's code ends in one sentence with cause and remedy, for every caller."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lime_editing import borders, results, saving
from lime_editing.__main__ import main
from lime_editing.backbone import load, load_encoder, load_tokenizer, loading, max_tokens, wrap
from lime_editing.data import files
from lime_editing.data.facts.read import read as read_facts
from lime_editing.data.pairs.read import read as read_pairs
from lime_editing.errors import DataError, ModelError, UserError
from lime_editing.hardware import check_device
from lime_editing.reproduce import processes
from lime_editing.reproduce.processes import run_one
from lime_editing.updates import Update
from reference.tests import hub
from reference.tests.miniature import set_options
from reference.tests.refusals import refused

#: Every class that was seen to escape from a library, and some of their kin.
ESCAPED: list[Exception] = [
    ImportError("cannot import name 'x'"),
    ModuleNotFoundError("No module named 'sentencepiece'", name="sentencepiece"),
    ValueError("odd value"),
    IndexError("index out of range in self"),
    AssertionError(),
    RuntimeError("first line\nsecond line"),
    AttributeError("'NoneType' object has no attribute 'items'"),
    TypeError("unsupported operand"),
    OSError("no number"),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/some/cache"),
    KeyError("added_tokens"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    SafetensorError("Error while deserializing header: header too large"),
    json.JSONDecodeError("Expecting value", "{", 1),
    MemoryError(),
    NotImplementedError("not here"),
    RecursionError("maximum recursion depth exceeded"),
    ZeroDivisionError("division by zero"),
    EOFError(),
    TimeoutError("timed out"),
    ConnectionResetError("Connection reset by peer"),
    StopIteration("5"),
]
IDS = [f"{type(error).__name__}-{i}" for i, error in enumerate(ESCAPED)]


def said_in_one_sentence(argv: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    got = main(argv)
    said = capsys.readouterr().err
    assert got == code, said
    assert said.count("\n") == 1, said
    assert said.startswith("error: ")
    assert "Traceback" not in said
    return said


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


MODEL_BORDERS = {
    "config": (loading.AutoConfig, "from_pretrained"),
    "weights": (loading.MaskedLM, "from_pretrained"),
    "tokenizer": (loading.AutoTokenizer, "from_pretrained"),
    "to-a-device": (torch.nn.Module, "to"),
    "structure": (loading, "wrap"),
}


@pytest.mark.parametrize("error", ESCAPED, ids=IDS)
@pytest.mark.parametrize("border", MODEL_BORDERS)
def test_loading_a_model(border: str, error: Exception, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name = MODEL_BORDERS[border]
    monkeypatch.setattr(where, name, raising(error))
    attempts: list[Callable[[], Any]] = [lambda: load(model)]
    if border == "tokenizer":
        attempts = [lambda: load_tokenizer(model)]
    elif border == "config":
        attempts += [lambda: load_tokenizer(model) and max_tokens(model), lambda: load_encoder(model, ["a", "b"])]
    for attempt in attempts:
        with pytest.raises(ModelError) as raised:
            attempt()
        assert str(model) in str(raised.value)
        assert "\n" not in str(raised.value)
        assert raised.value.__cause__ is error


COMMANDS = {
    "edit": lambda f, m, r: ["edit", "--facts", f, "--model", m, "--fact", "P1/Q0", "--to", "Bema"],
    "reproduce": lambda f, m, r: ["reproduce", "--task", "facts", "--facts", f, "--model", m, "--results", r],
    "check-data": lambda f, m, r: ["check-data", f, "--model", m],
    "dry-run": lambda f, m, r: ["reproduce", "--dry-run", "--task", "facts", "--facts", f, "--model", m],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("error", ESCAPED[::7], ids=IDS[::7])
@pytest.mark.parametrize("border", ["config", "tokenizer"])
def test_every_command_passes_the_borders_of_a_model(
    command: str,
    border: str,
    error: Exception,
    facts: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(*MODEL_BORDERS[border], raising(error))
    argv = COMMANDS[command](str(facts), str(model), str(tmp_path / "results"))
    assert str(model) in said_in_one_sentence(argv, capsys, 1 if command == "check-data" else 2)


@pytest.mark.parametrize("error", ESCAPED, ids=IDS)
def test_reading_data(error: Exception, facts: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "load_dataset", raising(error))
        with pytest.raises(DataError, match="nli"):
            read_pairs(pairs)
    monkeypatch.setattr(files, "opened", raising(error))
    for attempt, source in ((read_facts, facts), (read_pairs, pairs)):
        with pytest.raises(DataError) as raised:
            attempt(source)
        assert str(source) in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("error", ESCAPED[1::7], ids=IDS[1::7])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_passes_the_border_of_data(
    command: str,
    error: Exception,
    facts: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(files, "json_rows", raising(error))
    argv = COMMANDS[command](str(facts), str(model), str(tmp_path / "results"))
    assert str(facts) in said_in_one_sentence(argv, capsys, 1 if command == "check-data" else 2)


@pytest.mark.parametrize("error", ESCAPED, ids=IDS)
def test_asking_the_hub(error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(error))
    for attempt in (read_facts, read_pairs):
        with pytest.raises(DataError, match="somebody/corpus: is not a file or folder here, and not a data set"):
            attempt("somebody/corpus")


@pytest.mark.parametrize("error", ESCAPED, ids=IDS)
def test_a_device(error: Exception, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "ones", raising(error))
    for attempt in (lambda: check_device("cuda", "float32"), lambda: load(model, device="cuda")):
        with pytest.raises(UserError, match=r"device 'cuda' cannot be used: .*; available: cpu"):
            attempt()


DEVICES = {
    "cuda": "cannot be used",
    "cuda:7": "cannot be used",
    "mps": "cannot be used",
    "xpu": "cannot be used",
    "gpu": "unknown",
    "CPU:": "unknown",
    "meta": "cannot be used",
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="it has what is asked for")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("command", ["edit", "reproduce", "dry-run"])
def test_a_device_that_is_not_here(
    command: str, device: str, facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = COMMANDS[command](str(facts), str(model), str(tmp_path / "results"))
    said = said_in_one_sentence([*argv, "--device", device], capsys)
    assert f"device {device!r}" in said
    assert DEVICES[device] in said
    assert "available: cpu" in said


@pytest.mark.parametrize("error", ESCAPED, ids=IDS)
def test_writing_results_loses_nothing(error: Exception, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    results.write_json(path, {"old": 1})

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise error

    with pytest.raises(UserError, match=r"metrics\.json: cannot be written: .*; earlier results are kept"):
        results.write_atomically(path, write)
    assert results.read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("error", [*ESCAPED[8:11], ESCAPED[2], ESCAPED[15]], ids=[*IDS[8:11], IDS[2], IDS[15]])
def test_a_run_whose_disk_refuses_keeps_what_is_done(
    error: Exception,
    facts: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The cells run in this process; the first is finished when the second cannot be stored."""
    done = []

    def run_grid(cells: Any, experiments: Any, root: Path, where: Any) -> Any:
        for cell in cells:
            yield from run_one(cell, experiments[cell.task], root)
            done.append(cell.name)
            monkeypatch.setattr(pq, "write_table", raising(error))

    monkeypatch.setattr(processes, "run_grid", run_grid)
    argv = [*COMMANDS["reproduce"](str(facts), str(model), str(tmp_path / "results")), "--approach", "finetuning"]
    assert "earlier results are kept" in said_in_one_sentence([*argv, *set_options()], capsys)
    assert done == ["facts-unedited-seed0"]
    finished = [path.parent.name for path in tmp_path.glob("results/*/*/metrics.json")]
    assert len(finished) == 1
    assert not list(tmp_path.glob("results/*/*/.*"))


def test_what_the_workers_run_into_is_said_once_and_without_a_traceback(
    facts: Path, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two at a time, in processes of their own, in folders of which each is a file."""
    argv = [*COMMANDS["reproduce"](str(facts), str(model), str(tmp_path / "results")), "--approach", "finetuning"]
    argv += [*set_options(), "--jobs", "2"]
    assert main([*argv, "--dry-run", "--json"]) == 0
    planned = json.loads(capfd.readouterr().out)["cells"]
    (tmp_path / "results" / "tiny-changed").mkdir(parents=True)
    for cell in planned:
        Path(cell["folder"]).write_text("in the way")
    assert main(argv) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.count("error: ") == 1
    assert said.splitlines()[-1].startswith("error: facts-")


def test_a_place_for_results_that_is_a_file(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "deeper"):
        said = said_in_one_sentence(COMMANDS["reproduce"](str(facts), str(model), str(place)), capsys)
        assert f"{tmp_path / 'file'}: is a file, and results are a folder; name another --results" in said
    assert (tmp_path / "file").read_text() == "mine"


def test_debug_shows_the_rest(
    facts: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(*MODEL_BORDERS["tokenizer"], raising(RuntimeError("deep inside")))
    argv = COMMANDS["edit"](str(facts), str(model), "")
    assert "--debug shows where" in said_in_one_sentence(argv, capsys)
    assert main([*argv, "--debug"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "RuntimeError: deep inside" in said
    assert said.splitlines()[-1].startswith("error: cannot load a tokenizer")


def test_an_error_of_our_own_is_one_line_too(
    facts: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lime_editing.cli import edit as command

    monkeypatch.setattr(command, "show", raising(ZeroDivisionError("division by zero")))
    assert "ZeroDivisionError: division by zero" in said_in_one_sentence(
        COMMANDS["edit"](str(facts), str(model), ""), capsys
    )


# what is wrong with a folder of a model: cause and remedy


def about(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    told = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in told.items() if value is not ...}))


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def an_adapter(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "somebody/base"}')
    (folder / "adapter_model.bin").write_bytes(b"")


def an_adapter_in_safetensors(folder: Path) -> None:
    an_adapter(folder)
    (folder / "config.json").unlink()
    (folder / "adapter_model.bin").unlink()
    save_file({"lora": torch.zeros(1)}, folder / "adapter_model.safetensors")


def a_broken_link(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "gone")


def halved(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def not_finite(tensors: dict[str, torch.Tensor]) -> None:
    tensors["bert.encoder.layer.1.output.dense.weight"][3, 4] = float("nan")


def prefixed(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors[f"module.{name}"] = tensors.pop(name)


def shards(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    told = {
        "metadata": {},
        "weight_map": {"bert.embeddings.word_embeddings.weight": "model-00001-of-00002.safetensors"},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(told))


def in_the_hub_s_cache(folder: Path) -> None:
    files, there = [*folder.iterdir()], folder / "snapshots" / "0a1b"
    there.mkdir(parents=True)
    for path in files:
        path.rename(there / path.name)


def with_a_further_part(tensors: dict[str, torch.Tensor]) -> None:
    tensors["bert.encoder.layer.0.attention.self.distance_embedding.weight"] = torch.zeros(3, 2)


def sentencepiece(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    (folder / "sentencepiece.bpe.model").write_bytes(b"\n\x0e\n\x05<unk>")


def without_words(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def of_another_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[UNK]\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights-are-a-pointer": (
        lambda f: lfs(f / "model.safetensors"),
        r"model\.safetensors is a git-lfs pointer .*git lfs pull",
    ),
    "tokenizer-is-a-pointer": (
        lambda f: lfs(f / "tokenizer.json"),
        r"tokenizer\.json is a git-lfs pointer .*git lfs pull",
    ),
    "config-is-a-pointer": (lambda f: lfs(f / "config.json"), r"config\.json is a git-lfs pointer"),
    "size-mismatch": (
        lambda f: about(f, intermediate_size=48),
        r"do not fit config\.json: bert\.encoder\.layer\.0\.intermediate\.dense\.bias is \(32,\), and \(48,\) by",
    ),
    "pickled-alone": (pickled, r"pickled \(pytorch_model\.bin\), and pickles are never loaded; .*save_pretrained"),
    "an-adapter": (an_adapter, r"an adapter \(PEFT\) without the model .*merge_and_unload"),
    "an-adapter-in-safetensors": (an_adapter_in_safetensors, r"an adapter \(PEFT\) without the model"),
    "a-broken-link": (a_broken_link, r"model\.safetensors: is a link to a file that is not there; download it again"),
    "no-weights": (
        lambda f: (f / "model.safetensors").unlink(),
        r"there is no model\.safetensors in it; expected a folder",
    ),
    "onnx": (
        lambda f: (f / "model.safetensors").rename(f / "model.onnx"),
        r"there is no model\.safetensors in it, but model\.onnx",
    ),
    "a-variant": (
        lambda f: (f / "model.safetensors").rename(f / "model.fp16.safetensors"),
        r"there is no model\.safetensors in it, but model\.fp16\.safetensors; .*rename it",
    ),
    "in-the-hub-s-cache": (in_the_hub_s_cache, r"a folder of the hub's cache, .*; give .*snapshots/0a1b"),
    "a-further-part-of-a-layer": (
        lambda f: weights(f, with_a_further_part),
        r"have bert\.encoder\.layer\.0\.attention\.self\.distance_embedding\.weight, and a layer .* has no such part",
    ),
    "cut-short": (halved, r"damaged or cut short; download them again"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), r"damaged or cut short"),
    "a-shard-is-missing": (shards, r"model-00001-of-00002\.safetensors"),
    "a-shard-and-the-index-are-missing": (
        lambda f: (f / "model.safetensors").rename(f / "model-00001-of-00002.safetensors"),
        r"model-00002-of-00002\.safetensors is not there, and 1 of its 2 files are; download it",
    ),
    "the-index-is-missing": (
        lambda f: (f / "model.safetensors").rename(f / "model-00001-of-00001.safetensors"),
        r"model\.safetensors\.index\.json is not in it, which says where each weight is; download it",
    ),
    "not-finite": (
        lambda f: weights(f, not_finite),
        r"not finite \(NaN or infinite in bert\.encoder\.layer\.1\.output",
    ),
    "a-prefix-before-each-name": (
        lambda f: weights(f, prefixed),
        r"have 'module\.' before each name, such as module\.bert.*; remove it from the names",
    ),
    "a-head-that-is-not-tied": (
        lambda f: about(f, tie_word_embeddings=False),
        r"config\.json says tie_word_embeddings: false, but they have no cls\.predictions\.decoder\.\w+; set",
    ),
    "config-is-no-json": (
        lambda f: (f / "config.json").write_text('{"a":'),
        r"config\.json: not JSON \(.* at line 1\)",
    ),
    "config-is-not-utf-8": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe{"), r"config\.json: not UTF-8 text"),
    "tokenizer-is-no-json": (lambda f: (f / "tokenizer.json").write_text("{"), r"tokenizer\.json: not JSON"),
    "no-config": (lambda f: (f / "config.json").unlink(), r"there is no config\.json in it"),
    "no-vocabulary": (
        without_words,
        r"there is no tokenizer\.json and no vocabulary file in it",
    ),
    "no-tokenizer": (lambda f: [p.unlink() for p in f.glob("*token*")], r"tokenizer"),
    "unknown-type": (lambda f: about(f, model_type="nothing"), r"not supported; supported are BERT"),
    "no-type": (lambda f: about(f, model_type=..., architectures=...), r"config\.json has no model_type; add it"),
    "a-package-of-its-attention": (
        lambda f: about(f, _attn_implementation="flash_attention_2"),
        r"asks for FlashAttention, which is not installed; remove its attn_implementation",
    ),
    "another-kind": (lambda f: about(f, model_type="gpt2"), r"not supported; supported are BERT"),
    "remote-code": (
        lambda f: about(f, model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModelForMaskedLM": "mine.M"}),
        r"needs code of its own, which is never run here",
    ),
    "quantised": (
        lambda f: about(f, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        r"its weights are quantised",
    ),
    "package": (
        sentencepiece,
        r"a SentencePiece model \(sentencepiece\.bpe\.model\); pip install sentencepiece protobuf",
    ),
    "heads": (lambda f: about(f, num_attention_heads=7), r"not a multiple of the number of attention heads"),
    "activation": (lambda f: about(f, hidden_act="nope"), r"KeyError: 'nope'"),
    "type-of-a-value": (lambda f: about(f, hidden_size="big"), r"field 'hidden_size': \S+.*'big'"),
    "type-of-a-tokenizer": (
        of_another_tokenizer,
        r"there is no tokenizer\.json in it, which its tokenizer needs; copy it from where the model is from",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_wrong_with_a_models_folder(
    name: str, facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected = FOLDERS[name]
    change(model)

    def attempt() -> None:
        load_tokenizer(model)
        load(model)

    with pytest.raises(ModelError, match=expected):
        attempt()
    for command in ("edit", "reproduce"):
        argv = COMMANDS[command](str(facts), str(model), str(tmp_path / "results"))
        said = said_in_one_sentence(argv, capsys)
        assert pytest.importorskip("re").search(expected, said)


def test_weights_without_permission(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors calls them missing. (A superuser may read every file.)"""
    real, kept = os.access, model / "model.safetensors"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != kept and real(path, mode))
    assert borders.damage(str(model), weights=True, what="a model") == f"{kept}: cannot be read; change its permissions"


def test_a_file_in_the_place_of_a_folder(model: Path) -> None:
    for attempt in (load, load_tokenizer, max_tokens):
        with pytest.raises(ModelError, match=r"it is a file; expected a folder with config\.json"):
            attempt(model / "model.safetensors")


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_an_adapter_beside_the_weights_is_a_remark(
    place: str,
    facts: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With peft, transformers would load it with the weights: what is edited then is no model that anybody named."""
    (model / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"lora": torch.zeros(1)}, model / "adapter_model.safetensors")
    source = str(model) if place == "folder" else hub.cached(model, tmp_path / "cache", monkeypatch)
    argv = [*COMMANDS["dry-run"](str(facts), source, ""), "--approach", "finetuning", *set_options()]
    if find_spec("peft"):
        refused(capsys, [*argv, "--results", str(tmp_path)], ["merge it, or move adapter_config.json away"])
        monkeypatch.setattr(borders, "find_spec", lambda _: None)
        monkeypatch.setattr(transformers.integrations.peft, "is_peft_available", lambda: False)
        monkeypatch.setattr(transformers.models.auto.auto_factory, "is_peft_available", lambda: False)
    assert main([*argv, "--results", str(tmp_path)]) == 0
    assert "the adapter beside the weights is not loaded" in " ".join(capsys.readouterr().out.split())
    backbone, kept = load(source, 2), tmp_path / "kept"
    saving.save_model(Update(deltas={n: w[None] for n, w in backbone.raw.items()}), backbone, source, kept)
    assert [path.name for path in kept.glob("adapter_*")] == []


def test_weights_that_are_not_finite_are_refused_where_a_model_is_given(model: Path) -> None:
    given = load(model).model
    with torch.no_grad():
        given.get_parameter("bert.encoder.layer.0.attention.self.query.bias")[0] = float("inf")
    with pytest.raises(ModelError, match=r"not finite .*layer\.0\.attention\.self\.query\.bias"):
        wrap(given)


# tokenizer and model


@pytest.mark.parametrize("kept", ["tokenizer.json", "vocab.txt", "both"])
def test_a_tokenizer_that_lower_cases_words_in_upper_case(kept: str, tmp_path: Path) -> None:
    """Without tokenizer_config.json, transformers makes one of BERT's class, which does so by default."""
    raw = Path(__file__).parents[2] / "fixtures/raw_model"
    cased = load_tokenizer(raw)
    if kept != "vocab.txt":
        shutil.copy(raw / "tokenizer.json", tmp_path)
    if kept != "tokenizer.json":
        words = sorted(cased.get_vocab().items(), key=lambda item: item[1])
        (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words), encoding="utf-8")
    shutil.copy(raw / "config.json", tmp_path)
    with pytest.raises(
        ModelError,
        match=r"it lower-cases text, and .* words such as '[A-Z]\w*'; say do_lower_case: false in its tokenizer_config",
    ):
        load_tokenizer(tmp_path)
    told = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    assert load_tokenizer(tmp_path)("Berlin")["input_ids"] == cased("Berlin")["input_ids"]


@pytest.mark.parametrize("kind", ["one class", "regression", "multi_label_classification"])
def test_a_classifier_that_chooses_no_class(classifier: Path, kind: str) -> None:
    if kind == "one class":
        about(classifier, id2label={0: "a"}, label2id={"a": 0})
        weights(classifier, lambda t: t.update({n: v[:1].clone() for n, v in t.items() if n.startswith("classifier.")}))
    else:
        about(classifier, problem_type=kind)
    with pytest.raises(ModelError, match=r"must choose one of several classes, and config\.json says num_labels: "):
        load(classifier, classifier=True)


def test_a_tokenizer_without_a_mask_token(facts: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model / "tokenizer_config.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"mask_token": None}))
    (model / "special_tokens_map.json").unlink(missing_ok=True)
    if load_tokenizer(model).mask_token_id is not None:
        pytest.skip("this version finds the mask token elsewhere")
    sentence = ["edit", "--facts", str(facts), "--model", str(model), "Aton P1 en [MASK] .", "--to", "Bema"]
    for argv in (sentence, COMMANDS["edit"](str(facts), str(model), "")):
        assert "no mask token; facts need" in said_in_one_sentence(argv, capsys)
    assert "no mask token" in said_in_one_sentence(COMMANDS["check-data"](str(facts), str(model), ""), capsys, 1)


def test_tokens_that_were_added_and_have_no_embedding(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = load_tokenizer(model)
    tokenizer.add_tokens(["Zzz"])
    tokenizer.save_pretrained(model)
    for command, make in COMMANDS.items():
        argv = make(str(facts), str(model), str(tmp_path / "results"))
        said = said_in_one_sentence(argv, capsys, 1 if command == "check-data" else 2)
        assert "resize_token_embeddings" in said


def test_padding_on_the_left_changes_nothing(facts: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*COMMANDS["edit"](str(facts), str(model), ""), "--json", "--approach", "finetuning"]
    assert main(argv) == 0
    before = json.loads(capsys.readouterr().out)
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": "left", "truncation_side": "left"}))
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out) == before


# paths and hub ids

PATHS = [
    "./nowhere",
    "/nowhere/at/all",
    "~/nowhere",
    "x/y/z",
    "facts.zip",
    "a b/c",
    "..",
    "nowhere/",
    "./a[1]",
    "~old.zip",
    "",
]


@pytest.mark.parametrize("path", [path for path in PATHS if path != ".."])
def test_what_looks_like_a_path_is_never_asked_of_a_hub(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", lambda *_, **__: pytest.fail("the hub was asked"))
    for kind, attempt in (
        (ModelError, load),
        (ModelError, load_tokenizer),
        (DataError, read_facts),
        (DataError, read_pairs),
    ):
        with pytest.raises(kind, match="no such file or folder; expected"):
            attempt(path)


def test_a_hub_id_whose_owner_is_a_folder_here_is_meant_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fixtures/raw_model, from the repository's root and misspelled."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fixtures").mkdir()
    with pytest.raises(ModelError, match="fixtures/raw_model: no such folder, though fixtures is one here"):
        load("fixtures/raw_model")
    assert borders.place("someone/model", ModelError, "") == "someone/model"
    assert borders.place("xlm-roberta-base", ModelError, "") == "xlm-roberta-base"
    with pytest.raises(DataError):
        borders.place("xlm-roberta-base", DataError, "a data set", owner=True)


def test_a_home_is_expanded(facts: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(read_facts(f"~/{facts.name}")) == len(read_facts(facts))
    assert load(f"~/{model.name}").edited == load(model).edited
    monkeypatch.chdir(tmp_path)
    facts.rename("~old")
    assert len(read_facts("~old")) > 0  # no user of this name: a folder's own name


def test_the_defaults_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["edit", "--fact", "P36/France", "--to", "Berlin", "--approach", "finetuning", "--languages", "en,de"]
    assert main(argv) == 0
    assert "Berlin" in capsys.readouterr().out


def test_without_the_repository_it_is_said_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lime_editing.cli import sources
    from lime_editing.reproduce import scales

    gone = tmp_path / "site-packages" / "fixtures"
    tiny = scales.replace(scales.TINY, data={"facts": str(gone / "facts")}, model=str(gone / "raw_model"))
    monkeypatch.setattr(sources, "FIXTURES", gone)
    monkeypatch.setattr(sources, "SCALES", {"tiny": tiny})
    said = said_in_one_sentence(["edit", "--fact", "P36/France", "--to", "Berlin"], capsys)
    assert "works on fixtures/ of the repository, which is not here; give --facts" in said


def test_signs_in_paths_are_nothing_but_signs(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the paths of data, model and results, with what Python, rich, argparse and submitit would make of them."""
    odd = tmp_path / "a {b} 100% [bold]c[/bold] 'd' \"e\" ü"
    shutil.copytree(facts, odd / "facts")
    shutil.copytree(model, odd / "model")
    argv = COMMANDS["reproduce"](str(odd / "facts"), str(odd / "model"), str(odd / "results"))
    argv += ["--approach", "finetuning", *set_options(), "--executor", "local", "--jobs", "1"]
    assert main(argv) == 0
    assert (odd / "results" / "tiny-changed" / "report.html").is_file()
    assert str(odd) in capsys.readouterr().out.replace("\n", "")


def test_without_a_network_the_remedy_is_one_that_the_command_line_has(
    facts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Whoever calls `main` may have imported the hub's library before, which reads the environment once.
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    argv = COMMANDS["edit"](str(facts), "nobody/has-this", "")
    said = said_in_one_sentence([*argv, "--offline"], capsys)
    assert "'nobody/has-this' (no folder here, so a hub id): it is not in the cache" in said
    assert "local_files_only" not in said
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert "the network gives nothing; check the network" in borders.explain(
        OSError("We couldn't connect to 'https://hub' to load the files, and couldn't find them in the cached files.")
    )


@pytest.mark.parametrize(
    ("told", "off"),
    [("1", True), ("on", True), ("TRUE", True), ("Yes", True), ("false", False), ("", False), ("2", False)],
)
def test_the_network_is_off_where_the_hub_s_library_says_so(
    told: str, off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", told)
    assert borders.offline() == off


KNOWN: dict[str, tuple[Exception, str]] = {
    "cache": (
        OSError("PermissionError at /x when downloading y. Check cache directory permissions."),
        "HF_HOME or LIME_HOME",
    ),
    "gated": (OSError("You are trying to access a gated repo."), "log in"),
    "not-there": (OSError("m is not a local folder and is not a valid model identifier listed on the hub"), "spelling"),
    "protobuf": (
        ImportError("X requires the protobuf library but it was not found in your environment."),
        "pip install protobuf",
    ),
    "google": (ModuleNotFoundError("No module named 'google'", name="google"), "pip install protobuf"),
    "tiktoken": (ValueError("`tiktoken` is required. Install it with `pip install tiktoken`."), "pip install tiktoken"),
    "half-of-torchrun": (
        ValueError("Tried to launch on distributed with multinode, but `MASTER_ADDR` env was not set, please try"),
        "unset it, or start with torchrun",
    ),
    "disk": (OSError(errno.ENOSPC, "x"), "No space left on device; make room"),
    "too-long": (OSError(errno.ENAMETOOLONG, "x", "/a/b"), "/a/b: File name too long; name another place"),
    "memory": (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 12 bytes"),
        "not enough memory",
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_causes_have_their_remedy(name: str) -> None:
    error, expected = KNOWN[name]
    assert expected in borders.explain(error)
    outer = RuntimeError("something else")
    outer.__cause__ = error
    assert expected in borders.explain(outer)
