"""Whatever a user gets wrong ends with exit code 2 and one sentence that says what, where, and what to do."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer

from lime_editing.__main__ import main
from lime_editing.backbone import load_tokenizer
from lime_editing.reproduce import processes
from reference.tests.corpora import write_zip
from reference.tests.refusals import refused

Break = Callable[[Path, Path], list[str]]


@pytest.fixture(autouse=True)
def _no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input is found before anything is trained."""
    monkeypatch.setattr(processes, "run_grid", lambda *_: pytest.fail("the run started on bad input"))


def command(facts: Path, model: Path, results: Path) -> list[str]:
    return [
        *("reproduce", "--task", "facts", "--facts", str(facts), "--model", str(model)),
        *("--results", str(results / "results")),
    ]


def edit_line(path: Path, number: int, change: Callable[[str], str]) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[number - 1] = change(lines[number - 1])
    path.write_text("".join(lines), encoding="utf-8")


def without(field: str) -> Callable[[str], str]:
    return lambda line: json.dumps({k: v for k, v in json.loads(line).items() if k != field}) + "\n"


def with_value(field: str, value: object) -> Callable[[str], str]:
    return lambda line: json.dumps(json.loads(line) | {field: value}) + "\n"


def broken_line(facts: Path, _: Path) -> list[str]:
    edit_line(facts / "fr" / "P1.jsonl", 3, lambda line: line[:-5] + "\n")
    return ["fr/P1.jsonl:3", "not a JSON object"]


def list_instead_of_object(facts: Path, _: Path) -> list[str]:
    edit_line(facts / "fr" / "P1.jsonl", 3, lambda line: "[1, 2]\n")
    return ["fr/P1.jsonl:3", "expected a JSON object"]


def missing_field(facts: Path, _: Path) -> list[str]:
    edit_line(facts / "en" / "P2.jsonl", 2, without("sub_label"))
    return ["en/P2.jsonl:2", "'sub_label'"]


def empty_label(facts: Path, _: Path) -> list[str]:
    edit_line(facts / "en" / "P2.jsonl", 12, with_value("obj_label", "  "))
    return ["en/P2.jsonl:12", "'obj_label'"]


def number_for_text(facts: Path, _: Path) -> list[str]:
    edit_line(facts / "en" / "P2.jsonl", 1, with_value("sub_uri", 7.5))
    return ["en/P2.jsonl:1", "'sub_uri'", "7.5"]


def missing_template(facts: Path, _: Path) -> list[str]:
    path = facts / "de" / "templates.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    return ["de/P2.jsonl", "no template", "add one"]


def template_without_object(facts: Path, _: Path) -> list[str]:
    edit_line(facts / "de" / "templates.jsonl", 1, with_value("template", "[X] and no more ."))
    return ["de/templates.jsonl:1", "[Y]"]


def not_utf8(facts: Path, _: Path) -> list[str]:
    (facts / "de" / "P1.jsonl").write_bytes(b"\xff\xfe")
    return ["de/P1.jsonl", "UTF-8"]


def folder_of_something_else(facts: Path, _: Path) -> list[str]:
    shutil.rmtree(facts)
    facts.mkdir()
    return [str(facts), "templates.jsonl"]


def label_of_control_characters(facts: Path, _: Path) -> list[str]:
    edit_line(facts / "fr" / "P1.jsonl", 4, with_value("obj_uri", "new"))
    edit_line(facts / "fr" / "P1.jsonl", 4, with_value("obj_label", "\u200b\u0001"))
    return ["fr/P1.jsonl:4", "tokenises to nothing"]


def mask_in_a_subject(facts: Path, _: Path) -> list[str]:
    edit_line(facts / "fr" / "P1.jsonl", 4, with_value("sub_label", "a [MASK]"))
    return ["fr/P1.jsonl:4", "mask token"]


def mask_in_a_template(facts: Path, _: Path) -> list[str]:
    edit_line(facts / "fr" / "templates.jsonl", 1, with_value("template", "[MASK] [X] [Y]"))
    return ["P1", "'fr'", "mask token"]


def language_without_facts(facts: Path, _: Path) -> list[str]:
    for relation in ("P1", "P2"):
        (facts / "fr" / f"{relation}.jsonl").write_text("")
    return ["no train items", "'fr'", "leave it out"]


def language_without_test_facts(facts: Path, _: Path) -> list[str]:
    for relation in ("P1", "P2"):
        path = facts / "fr" / f"{relation}.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    return ["no validation items", "'fr'"]


def no_language_head(_: Path, model: Path) -> list[str]:
    path = model / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if not k.startswith("cls.")}, path, {"format": "pt"})
    return [str(model), "lack", "cls."]


def a_larger_tokenizer(_: Path, model: Path) -> list[str]:
    words = load_tokenizer(model).get_vocab()
    BertTokenizer(vocab=words | {f"more{i}": len(words) + i for i in range(9)}).save_pretrained(model)
    return ["do not belong together"]


def no_weights(_: Path, model: Path) -> list[str]:
    (model / "model.safetensors").unlink()
    return [str(model), "model.safetensors"]


def no_model_config(_: Path, model: Path) -> list[str]:
    (model / "config.json").unlink()
    return [str(model), "config.json"]


def fewer_layers(_: Path, model: Path) -> list[str]:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 1}))
    return [str(model), "config.json has fewer layers: bert.encoder.layer.1.", "restore it"]


def another_prefix(_: Path, model: Path) -> list[str]:
    path = model / "model.safetensors"
    save_file({f"net.{name}": tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    return [str(model), "have 'net.' before each name"]


def no_tokenizer(_: Path, model: Path) -> list[str]:
    for path in model.glob("*token*"):
        path.unlink()
    return [str(model), "tokenizer"]


def truncated_weights(_: Path, model: Path) -> list[str]:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    return [str(model), "model.safetensors"]


def label_longer_than_the_model_reads(facts: Path, _: Path) -> list[str]:
    edit_line(facts / "fr" / "P1.jsonl", 4, with_value("obj_label", " ".join(["Aton"] * 40)))
    edit_line(facts / "fr" / "P1.jsonl", 4, with_value("obj_uri", "long"))
    return [
        "de/P1.jsonl:1: P1/Q0 in 'de' comes to ",
        "the 40 masks of the longest label (",
        "fr/P1.jsonl:4), and the model reads at most 32",
    ]


def subject_longer_than_the_model_reads(facts: Path, _: Path) -> list[str]:
    edit_line(facts / "fr" / "P2.jsonl", 5, with_value("sub_label", " ".join(["Aton"] * 60)))
    return ["fr/P2.jsonl:5: P2/Q4 in 'fr' comes to 67 tokens", "the model reads at most 32", "shorten or remove"]


def mask_in_an_object(facts: Path, _: Path) -> list[str]:
    edit_line(facts / "fr" / "P1.jsonl", 4, with_value("obj_uri", "masked"))
    edit_line(facts / "fr" / "P1.jsonl", 4, with_value("obj_label", "a [MASK]"))
    return ["fr/P1.jsonl:4", "obj_label", "mask token"]


CASES: list[Break] = [
    label_longer_than_the_model_reads,
    subject_longer_than_the_model_reads,
    mask_in_an_object,
    broken_line,
    list_instead_of_object,
    missing_field,
    empty_label,
    number_for_text,
    missing_template,
    template_without_object,
    not_utf8,
    folder_of_something_else,
    label_of_control_characters,
    mask_in_a_subject,
    mask_in_a_template,
    language_without_facts,
    language_without_test_facts,
    no_language_head,
    a_larger_tokenizer,
    no_weights,
    no_model_config,
    fewer_layers,
    another_prefix,
    no_tokenizer,
    truncated_weights,
]


@pytest.mark.parametrize("break_input", CASES, ids=lambda case: case.__name__)
def test_bad_files_end_with_one_sentence(
    break_input: Break, facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = break_input(facts, model)
    refused(capsys, command(facts, model, tmp_path), expected)


OPTIONS = {
    "unknown-language": (["--languages", "en,xx"], ["'xx'", "de, en, fr"]),
    "no-english-to-edit-in": (
        ["--languages", "de,fr"],
        ["'en'", "de, fr; trainings and evaluations edit in it: add it"],
    ),
    "a-language-twice": (["--languages", "en,en,de"], ["different values", "en,en,de"]),
    "a-training-twice": (["--training", "en,en"], ["different values", "en,en"]),
    "no-training": (["--training", ""], ["different values", "''"]),
    "unknown-approach": (["--approach", "mand"], ["'mand'", "mend"]),
    "unknown-training": (["--training", "lame"], ["'lame'", "lime"]),
    "no-such-model": (["--model", "no-such-folder"], ["no-such-folder"]),
    "a-classifier-for-facts": (["--raw-model", "somewhere"], ["--raw-model", "facts"]),
    "no-layers": (["--edited-layers", "0"], ["--edited-layers", "above 0"]),
    "more-layers-than-there-are": (["--edited-layers", "4"], ["cannot edit the last 4 layers", "has 3"]),
    "no-such-matrix": (
        ["--edited-layers", "bert.encoder.layer.2.output.dense.weight,layer.9"],
        ["'layer.9'", "bert.encoder.layer.0.intermediate.dense.weight, bert.encoder.layer.0.output.dense.weight"],
    ),
    "a-matrix-twice": (["--edited-layers", "a,a"], ["different values", "a,a"]),
    "no-such-facts": (["--facts", "no-such-folder"], ["no-such-folder"]),
    "unknown-task": (["--task", "fact"], ["'fact'", "facts, nli"]),
    "unknown-protocol": (["--protocol", "mine"], ["mine", "released"]),
    "unknown-ruling": (["--kl-direction", "left"], ["left", "released"]),
    "setting-without-value": (["--set", "mask_lr"], ["NAME=VALUE"]),
    "unknown-setting": (["--set", "settings.mend.rate=1"], ["'rate'", "inner_lr"]),
    "batch-above-the-interval": (["--set", "all_languages.batch=4000"], ["validate_every", "batch=4000"]),
    "setting-of-another-kind": (["--set", "mask_lr=fast"], ["mask_lr", "fast"]),
    "no-seeds": (["--seeds", "0"], ["--seeds"]),
    "no-jobs": (["--jobs", "0"], ["--jobs"]),
    "unknown-executor": (["--executor", "sge"], ["'sge'", "slurm"]),
    "no-hours": (["--executor", "slurm", "--hours", "0"], ["hours above 0", "'0'"]),
    "hours-in-words": (["--hours", "two"], ["hours above 0", "'two'"]),
    "partition-without-a-cluster": (["--partition", "gpu"], ["--partition", "--executor slurm"]),
    "option-of-no-cluster": (["--slurm", "mem=32G"], ["--slurm", "--executor slurm"]),
    "slurm-option-without-value": (["--executor", "slurm", "--slurm", "mem"], ["NAME=VALUE"]),
    "one-gpu-for-many-jobs": (["--executor", "local", "--device", "cuda:1"], ["cuda:1", "--device cuda"]),
    "unknown-cell": (["--cell", "facts-mend-de-seed0"], ["facts-mend-de-seed0", "facts-mend-en-seed0"]),
    "no-such-device": (["--device", "toaster"], ["toaster"]),
}


@pytest.mark.parametrize(("options", "expected"), OPTIONS.values(), ids=OPTIONS.keys())
def test_bad_options_end_with_one_sentence(
    options: list[str],
    expected: list[str],
    facts: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = [*command(facts, model, tmp_path), *options]
    try:
        code = main(argv)
    except SystemExit as exit_:
        code = exit_.code
    said = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in said
    for part in expected:
        assert part in said


# facts in their other forms, and pairs, as check-data reads them


def facts_zip(facts: Path, to: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    return write_zip(to / "facts.zip", facts, compression=compression)


def with_bytes(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


def with_entry(path: Path, name: str, text: str = "{}") -> Path:
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        archive.writestr(name, text)
    return path


def with_headers(data: bytes, local: int, central: int, value: int) -> bytes:
    """An archive in which a field of all headers has another value."""
    changed = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        at = changed.find(signature)
        while at >= 0:
            changed[at + offset : at + offset + 2] = struct.pack("<H", value)
            at = changed.find(signature, at + 4)
    return bytes(changed)


ZIPS: dict[str, tuple[Callable[[Path, Path], Path], list[str]]] = {
    "truncated": (lambda f, to: with_bytes(facts_zip(f, to), lambda b: b[: len(b) // 2]), ["facts.zip", "download it"]),
    "text": (lambda f, to: with_bytes(facts_zip(f, to), lambda _: b"hello"), ["not a readable zip archive"]),
    "empty": (lambda f, to: with_bytes(facts_zip(f, to), lambda _: b""), ["not a readable zip archive"]),
    "of-nothing": (
        lambda f, to: facts_zip(to / "nothing", to),
        ["no facts here (no files); expected facts"],
    ),
    "above": (lambda f, to: with_entry(facts_zip(f, to), "../../evil.jsonl"), ["'../../evil.jsonl'", "points outside"]),
    "inside-and-above": (lambda f, to: with_entry(facts_zip(f, to), "a/../../b.jsonl"), ["points outside"]),
    "absolute": (
        lambda f, to: with_entry(facts_zip(f, to), "/etc/evil.jsonl"),
        ["'/etc/evil.jsonl'", "outside"],
    ),
    "backslash": (lambda f, to: with_entry(facts_zip(f, to), "..\\evil.jsonl"), ["points outside"]),
    "drive": (lambda f, to: with_entry(facts_zip(f, to), "C:/evil.jsonl"), ["'C:/evil.jsonl'", "points outside"]),
    "twice": (lambda f, to: with_entry(facts_zip(f, to), "mlama1.1/de/P1.jsonl"), ["'mlama1.1/de/P1.jsonl' twice"]),
    "two-corpora": (
        lambda f, to: with_entry(facts_zip(f, to), "mlama2/de/templates.jsonl"),
        ["several places", "facts.zip/mlama1.1, ", "facts.zip/mlama2"],
    ),
    "encrypted": (
        lambda f, to: with_bytes(facts_zip(f, to), lambda b: with_headers(b, 6, 8, 1)),
        ["is encrypted", "unpack it"],
    ),
    "unknown-compression": (
        lambda f, to: with_bytes(facts_zip(f, to), lambda b: with_headers(b, 8, 10, 97)),
        ["de/templates.jsonl", "cannot be unpacked"],
    ),
    "damaged-text": (
        lambda f, to: with_bytes(facts_zip(f, to, zipfile.ZIP_STORED), lambda b: b.replace(b"Aton", b"Atom", 1)),
        ["fr/P2.jsonl", "is damaged"],
    ),
    "damaged-stream": (
        lambda f, to: with_bytes(facts_zip(f, to, zipfile.ZIP_STORED), lambda b: with_headers(b, 8, 10, 8)),
        ["is damaged"],
    ),
    "broken-line": (
        lambda f, to: facts_zip(broken_line(f, to) and f, to),
        ["facts.zip/mlama1.1/fr/P1.jsonl:3", "not a JSON object"],
    ),
}

M_LAMA_ROW: dict[str, object] = {
    "uuid": "u",
    "lineid": 0,
    "obj_uri": "Q1",
    "obj_label": "o",
    "sub_uri": "Q2",
    "sub_label": "s",
    "template": "[X] in [Y] .",
    "language": "en",
    "predicate_id": "P1",
}
FACT_ROW: dict[str, object] = {
    "language": "en",
    "relation": "r",
    "template": "[X] in [Y] .",
    "subject": "s",
    "object": "o",
    "subject_id": "q",
}
PAIR_ROW: dict[str, object] = {
    "id": "1",
    "language": "en",
    "premise": "p",
    "hypothesis": "h",
    "label": "neutral",
    "split": "train",
}


def as_parquet(*rows: dict[str, object]) -> Callable[[Path], Path]:
    def make(to: Path) -> Path:
        pq.write_table(pa.Table.from_pylist(list(rows)), to / "rows.parquet")
        return to / "rows.parquet"

    return make


def as_columns(*columns: tuple[str, list[int]]) -> Callable[[Path], Path]:
    def make(to: Path) -> Path:
        names, values = [name for name, _ in columns], [pa.array(values) for _, values in columns]
        pq.write_table(pa.Table.from_arrays(values, names=names), to / "rows.parquet")
        return to / "rows.parquet"

    return make


def as_lines(*rows: object) -> Callable[[Path], Path]:
    return as_text("\n".join(json.dumps(row) for row in rows), "rows.jsonl")


def as_text(text: str | bytes, name: str) -> Callable[[Path], Path]:
    def make(to: Path) -> Path:
        (to / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return to / name

    return make


def as_folder(*makes: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def make(to: Path) -> Path:
        folder = to / "folder"
        folder.mkdir()
        for one in makes:
            one(folder)
        return folder

    return make


def without_column(row: dict[str, object], *names: str) -> dict[str, object]:
    return {key: value for key, value in row.items() if key not in names}


HEADER = ",".join(FACT_ROW)
LINE = ",".join(map(str, FACT_ROW.values()))
TABLES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    # parquet with m_lama's fields
    "parquet-of-text": (as_text("hello", "rows.parquet"), ["rows.parquet", "cannot be read as parquet"]),
    "parquet-of-nothing": (as_text("", "rows.parquet"), ["cannot be read as parquet"]),
    "parquet-without-columns": (
        as_parquet(without_column(M_LAMA_ROW, "obj_label", "lineid")),
        ["lacks 'obj_label', 'lineid' of m_lama's fields", "it has uuid, obj_uri"],
    ),
    "parquet-of-something-else": (as_parquet({"a": 1}), ["lacks 'language'", "it has a"]),
    "parquet-number-for-text": (
        as_parquet(M_LAMA_ROW | {"obj_label": 7}),
        ["rows.parquet:1", "'obj_label' must be non-empty text, got 7"],
    ),
    "parquet-bytes-for-text": (as_parquet(M_LAMA_ROW | {"obj_label": b"o"}), ["'obj_label'", "b'o'"]),
    "parquet-without-label": (
        as_parquet(M_LAMA_ROW, M_LAMA_ROW | {"sub_label": None}),
        ["rows.parquet:2", "'sub_label' must be non-empty text, got None"],
    ),
    "a-parquet-column-twice": (
        as_columns(("a", [1]), ("a", [2])),
        ["rows.parquet: column 'a' occurs twice; rename one"],
    ),
    "a-table-of-three-is-missing": (
        as_folder(*(as_text(json.dumps(FACT_ROW), f"test-0000{i}-of-00003.jsonl") for i in (0, 2))),
        ["test-00001-of-00003.jsonl is not there, and 2 of its 3 files are; download it, too"],
    ),
    "parquet-without-lineid": (as_parquet(M_LAMA_ROW, M_LAMA_ROW | {"lineid": None}), ["rows.parquet:2", "'lineid'"]),
    "lineid-of-text": (as_lines(M_LAMA_ROW | {"lineid": "first"}), ["rows.jsonl:1", "'lineid'", "'first'"]),
    "lineid-of-truth": (as_lines(M_LAMA_ROW | {"lineid": True}), ["'lineid'", "True"]),
    "two-templates": (
        as_parquet(M_LAMA_ROW, M_LAMA_ROW | {"template": "[Y] of [X] ."}),
        ["rows.parquet:2", "another template in 'en'", "rows.parquet:1"],
    ),
    "no-template": (as_parquet(M_LAMA_ROW | {"template": ""}), ["rows.parquet:1", "no template for relation 'P1'"]),
    "template-without-subject": (as_parquet(M_LAMA_ROW | {"template": "in [Y]"}), ["rows.parquet:1", "[X] and [Y]"]),
    "two-kinds-of-tables": (
        as_folder(as_lines(M_LAMA_ROW), as_text(f"{HEADER}\n{LINE}", "own.csv")),
        ["some of its tables have m_lama's fields"],
    ),
    # a corpus of facts of one's own
    "nothing-in-a-table": (as_text("", "rows.csv"), ["no facts in rows.csv"]),
    "a-header-alone": (as_text(HEADER, "rows.csv"), ["no facts in rows.csv"]),
    "blank-lines-alone": (as_text("\n\n", "rows.jsonl"), ["no facts in rows.jsonl"]),
    "cells-too-many": (as_text(f"{HEADER}\n{LINE}\n{LINE},7\n", "rows.csv"), ["rows.csv:3", "7 cells", "6 columns"]),
    "cells-too-few": (as_text(f"{HEADER}\nen,r\n", "rows.csv"), ["rows.csv:2", "2 cells"]),
    "a-column-twice": (as_text(f"{HEADER},relation\n{LINE},r\n", "rows.csv"), ["rows.csv:1", "'relation'", "twice"]),
    "an-open-quote": (as_text(f'{HEADER}\n{LINE}\n"en', "rows.csv"), ["rows.csv:3", "is not csv"]),
    "gz-cut-short": (
        as_text(gzip.compress(f"{HEADER}\n{LINE}\n".encode())[:-9], "rows.csv.gz"),
        ["rows.csv.gz: is damaged (", "download it again"],
    ),
    "a-cell-too-long": (as_text(f"{HEADER}\n{LINE}{'x' * 200_000}\n", "rows.csv"), ["is not csv", "field larger"]),
    "an-empty-cell": (as_text(f"{HEADER}\nen,r,[X] [Y],,o,q\n", "rows.csv"), ["rows.csv:2", "'subject'", "None"]),
    "commas-for-tabs": (as_text(f"{HEADER}\n{LINE}\n", "rows.tsv"), ["lacks 'language'"]),
    "latin-1": (as_text(f"{HEADER}\n{LINE}é\n".encode("latin-1"), "rows.csv"), ["rows.csv: is not UTF-8"]),
    "utf-16": (as_text(f"{HEADER}\n{LINE}\n".encode("utf-16"), "rows.csv"), ["rows.csv: is not UTF-8"]),
    "no-subject": (as_lines(without_column(FACT_ROW, "subject")), ["lacks 'subject' of a corpus of facts"]),
    "no-id": (as_lines(without_column(FACT_ROW, "subject_id")), ["lacks 'subject_id'"]),
    "later-no-id": (
        as_lines(FACT_ROW, without_column(FACT_ROW, "subject_id")),
        ["rows.jsonl:2", "'subject_id'"],
    ),
    "id-of-number": (as_lines(FACT_ROW | {"subject_id": 7.5}), ["rows.jsonl:1", "'subject_id'", "7.5"]),
    "object-id-of-number": (as_lines(FACT_ROW | {"object_id": True}), ["rows.jsonl:1", "'object_id'", "True"]),
    "blank-subject": (as_lines(FACT_ROW | {"subject": " \u3000"}), ["rows.jsonl:1", "'subject'"]),
    "language-with-comma": (as_lines(FACT_ROW | {"language": "en,de"}), ["'en,de'", "code without"]),
    "language-with-slash": (as_lines(FACT_ROW | {"language": "en/GB"}), ["'en/GB'", "code without"]),
    "language-with-space": (as_lines(FACT_ROW | {"language": "en "}), ["'en '", "code without"]),
    "language-with-what-nobody-sees": (
        as_lines(FACT_ROW | {"language": "en\u200b"}),
        ["rows.jsonl:1", "language 'en\\u200b' must be a code without spaces, commas, slashes and hidden signs"],
    ),
    "template-without-object": (as_lines(FACT_ROW | {"template": "[X] ."}), ["rows.jsonl:1", "[X] and [Y] once"]),
    "template-with-two-objects": (as_lines(FACT_ROW | {"template": "[X] [Y] [Y]"}), ["[X] and [Y] once"]),
    "a-list": (as_lines(FACT_ROW, [1]), ["rows.jsonl:2", "expected a JSON object, got list"]),
    "null": (as_lines(None), ["rows.jsonl:1", "got NoneType"]),
    "half-a-pair": (as_text(json.dumps(FACT_ROW | {"object": "\ud83d"}), "rows.jsonl"), ["'object'", "surrogate"]),
    "a-number-of-digits": (as_text('{"a": ' + "1" * 5_000 + "}", "rows.jsonl"), ["rows.jsonl:1", "plain fields"]),
    "lists-in-lists": (as_text("[" * 200_000, "rows.jsonl"), ["rows.jsonl:1", "is not a JSON object"]),
    "another-file": (as_text("facts", "facts.txt"), ["facts.txt", "no facts here"]),
    # sentence pairs
    "pairs-without-label": (
        as_lines(without_column(PAIR_ROW, "label")),
        ["lacks 'label' of a corpus of"],
    ),
    "pairs-without-split": (as_lines(without_column(PAIR_ROW, "split")), ["lacks 'split'"]),
    "pairs-of-another-split": (as_lines(PAIR_ROW | {"split": "dev"}), ["'split' must be one of train", "'dev'"]),
    "pairs-of-one-split": (as_lines(PAIR_ROW), ["no split 'validation'; found train"]),
    "pair-twice": (as_lines(PAIR_ROW, PAIR_ROW), ["rows.jsonl:2", "id '1' occurs twice in language 'en'"]),
    "pair-in-two-splits": (
        as_lines(PAIR_ROW, PAIR_ROW | {"language": "de", "split": "test"}),
        ["rows.jsonl:2", "id '1' is in train and in test"],
    ),
    "labels-disagree": (
        as_lines(PAIR_ROW, PAIR_ROW | {"language": "de", "label": "entailment"}),
        ["rows.jsonl:2", "label of id '1' is 'entailment', and 'neutral'"],
    ),
    "labels-of-two-kinds": (
        as_lines(PAIR_ROW, PAIR_ROW | {"id": "2", "label": 1}),
        ["labels 1, neutral must be names, or 0, 1 and 2"],
    ),
    "label-of-minus-1": (as_lines(PAIR_ROW | {"label": -1}), ["rows.jsonl:1", "'label'", "-1"]),
    "label-of-no-gold": (as_lines(PAIR_ROW | {"label": "-"}), ["rows.jsonl:1", "'-', which is no class", "gold label"]),
    "label-of-pandas": (as_lines(PAIR_ROW | {"label": "NaN"}), ["rows.jsonl:1", "'NaN', which is no class"]),
    "label-with-a-point": (as_lines(PAIR_ROW | {"label": "1.0"}), ["rows.jsonl:1", "'1.0', which is no class"]),
    "label-of-truth": (as_lines(PAIR_ROW | {"label": True}), ["'label'", "True"]),
    "label-of-nothing": (as_lines(PAIR_ROW | {"label": ""}), ["'label'", "''"]),
    "blank-hypothesis": (as_lines(PAIR_ROW | {"hypothesis": "\t"}), ["rows.jsonl:1", "'hypothesis'"]),
    "pair-language-with-slash": (as_lines(PAIR_ROW | {"language": "a/b"}), ["'a/b'", "code without"]),
    "pairs-in-broken-parquet": (
        as_folder(as_text("configs: all_languages", "README.md"), as_text("hello", "train.parquet")),
        ["train.parquet", "cannot be read as parquet"],
    ),
}


def checked(source: Path, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, ["check-data", str(source)], expected, code=1)


@pytest.mark.parametrize("name", ZIPS)
def test_bad_archives_end_with_one_sentence(
    name: str, facts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, expected = ZIPS[name]
    checked(make(facts, tmp_path), expected, capsys)
    assert {path.name for path in tmp_path.parent.rglob("*evil*")} == set()


@pytest.mark.parametrize("name", TABLES)
def test_bad_tables_end_with_one_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = TABLES[name]
    checked(make(tmp_path), expected, capsys)


def two_corpora(facts: Path) -> list[str]:
    shutil.copytree(facts, facts / "more" / "copy")
    shutil.move(str(facts / "more"), facts.parent / "more")
    for language in ("de", "en", "fr"):
        shutil.rmtree(facts / language)
    for name in ("one", "two"):
        shutil.copytree(facts.parent / "more" / "copy", facts / name)
    return ["several places", "one", "two"]


def no_templates(facts: Path) -> list[str]:
    (facts / "de" / "templates.jsonl").unlink()
    return ["/de: has no templates.jsonl", "add it"]


def subjects_in_bad_json(facts: Path) -> list[str]:
    return subjects(facts, "test", "[")


def subjects_of_numbers(facts: Path) -> list[str]:
    return [*subjects(facts, "test", "[1, 2]")[:1], "JSON list of the subjects"]


def subjects_of_an_unknown_split(facts: Path) -> list[str]:
    return [*subjects(facts, "dev", "[]")[:1], "train, validation, test"]


def subjects(facts: Path, name: str, text: str) -> list[str]:
    (facts / "sub_uri_list").mkdir()
    (facts / "sub_uri_list" / f"{name}_sub_uri_list.json").write_text(text)
    return [f"{name}_sub_uri_list.json", "is not a JSON list"]


@pytest.mark.parametrize(
    "break_folder",
    [two_corpora, no_templates, subjects_in_bad_json, subjects_of_numbers, subjects_of_an_unknown_split],
    ids=lambda case: case.__name__,
)
def test_bad_folders_end_with_one_sentence(
    break_folder: Callable[[Path], list[str]], facts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = break_folder(facts)
    checked(facts, expected, capsys)


def test_a_folder_that_cannot_be_read_is_not_left_out(
    facts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its language would be missing, and nothing would say so. (A superuser can read every folder.)"""
    real = os.scandir

    def scandir(path: str) -> object:
        if os.path.basename(path) == "fr":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    checked(facts, [f"{facts}/fr: cannot be read (Permission denied)", "change its permissions"], capsys)
