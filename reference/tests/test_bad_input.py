"""Whatever a user gets wrong ends with exit code 2 and one sentence that says what, where, and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer

from lime_editing import grid
from lime_editing.__main__ import main
from lime_editing.backbone import load_tokenizer

Break = Callable[[Path, Path], list[str]]


@pytest.fixture(autouse=True)
def _no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input is found before anything is trained."""
    monkeypatch.setattr(grid, "run_grid", lambda *_: pytest.fail("the run started on bad input"))


def command(facts: Path, model: Path, results: Path) -> list[str]:
    return [
        *("reproduce", "--task", "facts", "--facts", str(facts), "--facts-model", str(model)),
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
    edit_line(facts / "en" / "P2.jsonl", 1, with_value("sub_uri", 7))
    return ["en/P2.jsonl:1", "'sub_uri'", "7"]


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


def no_tokenizer(_: Path, model: Path) -> list[str]:
    for path in model.glob("*token*"):
        path.unlink()
    return [str(model), "tokenizer"]


def truncated_weights(_: Path, model: Path) -> list[str]:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    return [str(model), "model.safetensors"]


CASES: list[Break] = [
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
    no_tokenizer,
    truncated_weights,
]


@pytest.mark.parametrize("break_input", CASES, ids=lambda case: case.__name__)
def test_bad_files_end_with_one_sentence(
    break_input: Break, facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = break_input(facts, model)
    code = main(command(facts, model, tmp_path))
    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    for part in expected:
        assert part in said


OPTIONS = {
    "unknown-language": (["--languages", "en,xx"], ["'xx'", "de, en, fr"]),
    "no-english-to-edit-in": (["--languages", "de,fr"], ["'en'", "de, fr"]),
    "a-language-twice": (["--languages", "en,en,de"], ["distinct", "en,en,de"]),
    "a-variant-twice": (["--variant", "en,en"], ["distinct", "en,en"]),
    "no-variant": (["--variant", ""], ["distinct", "''"]),
    "unknown-approach": (["--approach", "mand"], ["'mand'", "mend"]),
    "unknown-variant": (["--variant", "lame"], ["'lame'", "lime"]),
    "no-such-model": (["--facts-model", "no-such-folder"], ["no-such-folder"]),
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
