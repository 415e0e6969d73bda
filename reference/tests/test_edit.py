"""The edit command and the ten lines of Python beside it: load, edit, predict, drop the edit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM

from lime_editing import data, results
from lime_editing.__main__ import main
from lime_editing.backbone import load, load_tokenizer
from lime_editing.cli.edit import Line, Shown, show
from lime_editing.core.editing import Editor, edit, make_editor
from lime_editing.core.evaluation import answers
from lime_editing.core.task import MASK, request, sentence
from lime_editing.data import Reader
from lime_editing.data.question import Asked, Question
from lime_editing.editors import finetuning
from lime_editing.errors import UserError
from lime_editing.reproduce import store
from lime_editing.reproduce.cells import Cell, cell_folder, cell_record
from lime_editing.reproduce.run import assemble
from reference.tests.corpora import CLASSES
from reference.tests.miniature import CELL, TASK, prepared, run
from reference.tests.refusals import refused

SENTENCE = f"Aton P1 en {MASK} ."


def checkpoint(facts: Path, model: Path, root: Path, cell: Cell = CELL) -> Path:
    """The folder of a cell, with parameters at random in the place of trained ones: bold enough to change answers."""
    experiment = prepared(facts, model, cell=cell)
    folder = cell_folder(cell, experiment, root)
    results.write_json(folder / "cell.json", cell_record(cell, experiment))
    subject, _ = assemble(cell, experiment)
    if isinstance(subject, Editor) and subject.parameters:
        about = {"approach": cell.approach, "languages": list(subject.languages), "masks": subject.masks}
        torch.manual_seed(0)
        parameters = {name: p + torch.randn_like(p) for name, p in subject.parameters.items()}
        store.save_parameters(folder / "editor.safetensors", parameters, about)
    return folder


def question(task: str, source: Path, reader: Reader, asked: Asked) -> Question:
    dataset = data.find(task)
    assert dataset.question is not None
    return dataset.question(dataset.read(str(source), None), reader, asked)


def command(facts: Path, model: Path, *more: str) -> list[str]:
    return ["edit", "--facts", str(facts), "--model", str(model), *more]


def shown(capsys: pytest.CaptureFixture[str], argv: Sequence[str]) -> dict[str, Any]:
    """What the command says to a program."""
    assert main([*argv, "--json"]) == 0
    read: dict[str, Any] = json.loads(capsys.readouterr().out)
    return read


def test_load_edit_predict_and_drop_the_edit(facts: Path, model: Path, tmp_path: Path) -> None:
    """A cell that really ran: its best parameters, and an edit that ends with the value that holds it."""
    cell = run(facts, model, tmp_path / "results")
    tokenizer = load_tokenizer(model)
    editor = store.load(cell, model)
    kept = load_file(cell / "editor.safetensors")
    assert editor.parameters.keys() == kept.keys()
    assert all(torch.equal(p, kept[name]) for name, p in editor.parameters.items())
    assert (editor.masks, editor.languages, editor.settings) == (
        *("language", ("de", "en", "fr")),
        TASK.settings["mend"],
    )
    asked = request(tokenizer, SENTENCE, "Bema", "en")
    look = sentence(tokenizer, f"Aton P1 de {MASK} .")
    before = answers(editor.backbone, tokenizer, [look])
    raw = answers(load(model, 2), tokenizer, [look])
    update = edit(editor, [asked])
    answers(editor.backbone, tokenizer, [look], update)
    assert answers(editor.backbone, tokenizer, [look]) == before == raw


def test_an_edit_by_hand_gives_the_desired_answer(model: Path) -> None:
    """An answer of two tokens, on one [MASK] as people write it."""
    tokenizer = load_tokenizer(model)
    editor = make_editor("finetuning", load(model, 2), ["en"], settings=finetuning.Settings(lr=0.05))
    asked = request(tokenizer, SENTENCE, "P1 Bema", "en")
    assert answers(editor.backbone, tokenizer, [asked.input], edit(editor, [asked])) == ["P1 Bema"]
    assert answers(editor.backbone, tokenizer, [asked.input]) != ["P1 Bema"]


@pytest.mark.parametrize("approach", ["finetuning", "mend", "editable_training", "knowledge_editor"])
def test_before_and_after_are_what_the_changed_model_itself_says(
    approach: str, facts: Path, model: Path, tmp_path: Path
) -> None:
    """Asked of the model as transformers runs it, with the dense matrices written into a copy."""
    tokenizer = load_tokenizer(model)
    cell = Cell("facts", approach, None if approach == "finetuning" else "all", 0)
    editor = store.load(checkpoint(facts, model, tmp_path, cell), model)
    wish = Asked(str(facts), None, "en", "Bema", "P1/Q0", looks=(f"Cola P2 fr {MASK} .",))
    asked = question("facts", facts, Reader(tokenizer), wish)
    said = show(editor, tokenizer, asked)
    changed = BertForMaskedLM.from_pretrained(model).eval()
    dense = edit(editor, [asked.request]).dense(0, editor.backbone.raw)
    with torch.no_grad():
        for name, delta in dense.items():
            changed.get_parameter(name).add_(delta)
    assert set(said.matrices) == set(dense)
    assert any(line.changed for line in (*said.parallel, *said.unrelated))
    for prompts, lines in (
        (asked.parallel, said.parallel),
        (asked.looks, said.looks),
        (asked.unrelated, said.unrelated),
    ):
        for prompt, line in zip(prompts, lines, strict=True):
            told = [
                m(torch.tensor([prompt.input.ids])).logits[0, list(prompt.input.positions)].argmax(-1).tolist()
                for m in (editor.backbone.model, changed)
            ]
            assert [line.before, line.after] == [tokenizer.decode(ids) for ids in told]
            assert line.changed == (told[0] != told[1])
            assert line.desired == (tuple(told[1]) == asked.request.labels)


def test_the_command_shows_every_language_and_what_is_unrelated(
    facts: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Out of the box, with Finetuning; a fact by its name, and more to look at."""
    argv = command(
        facts, model, "--fact", "P1/aton", "--to", "Bema", "--look", f"Bema P2 en {MASK} .", "--unrelated", "4"
    )
    assert main(argv) == 0
    said = capsys.readouterr().out
    for part in (SENTENCE, f"Aton P1 de {MASK} .", "by finetuning", "P1/Q0 of the corpus", "unrelated", "your inputs"):
        assert part in said
    read = shown(capsys, argv)
    assert [line["language"] for line in read["parallel"]] == ["en", "de", "fr"]
    assert [line["text"] for line in read["looks"]] == [f"Bema P2 en {MASK} ."]
    assert len(read["unrelated"]) == 4
    assert not any(line["text"].startswith("Aton P1") for line in read["unrelated"])
    assert sum(" P1 " in line["text"] for line in read["unrelated"]) >= 2
    assert (read["approach"], read["checkpoint"], read["known"], read["languages"]) == ("finetuning", None, "Aton", 3)
    assert read["desired"] == sum(line["desired"] for line in read["parallel"])


def test_a_checkpoint_edits_in_the_place_of_finetuning(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(facts, model, tmp_path)
    read = shown(capsys, command(facts, model, "--checkpoint", str(folder), "--to", "Bema", SENTENCE))
    assert (read["approach"], read["checkpoint"]) == ("mend", str(folder))
    assert len(read["matrices"]) == 4


def test_a_sentence_is_found_in_the_corpus_as_a_tokenizer_reads_it(facts: Path, model: Path) -> None:
    reader = Reader(load_tokenizer(model))
    said = Asked(str(facts), None, "fr", "P1 Bema", texts=(f"Aton P1  fr {MASK} {MASK}.",))
    found = question("facts", facts, reader, said)
    assert (found.place, len(found.parallel)) == ("P1/Q0", 3)
    free = question("facts", facts, reader, Asked(str(facts), None, "fr", "Bema", texts=(f"Aton and {MASK} .",)))
    assert (free.place, len(free.parallel), len(free.unrelated)) == (None, 1, 6)


def test_what_is_not_read_as_it_is_written_is_said(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a sentence, of what is to be looked at, and of the rows of a file."""
    argv = command(facts, model, "--to", "Bema", f"Nobody P1 en {MASK} .")
    assert main([*argv, "--look", f"Aton [SEP] {MASK} ."]) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")] == [
        "note: the tokenizer cannot spell Nobody, and reads [UNK] there; use words and letters that it knows",
        f"note: text 'Aton [SEP] {MASK} .' contains the special token [SEP]; remove it",
    ]
    (tmp_path / "edits.jsonl").write_text(json.dumps({"prompt": f"Nobody P1 en {MASK} .", "to": "Bema"}))
    assert main(command(facts, model, "--file", str(tmp_path / "edits.jsonl"), "--save", str(tmp_path / "saved"))) == 0
    assert "note: line 1: the tokenizer cannot spell Nobody, and reads [UNK] there" in capsys.readouterr().out


def test_a_pair_is_shown_by_its_classes(pairs: Path, classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its row, as text that is in the corpus, and as text that is not."""
    argv = ["edit", "--nli", str(pairs), "--raw-model", str(classifier), "--language", "fr", "--to", "neutral"]
    by_row = shown(capsys, [*argv, "--pair", "test/3", "--look", "bema fr | aton fr"])
    assert by_row["text"] == "dira fr | bema fr"
    assert [line["language"] for line in by_row["parallel"]] == ["fr", "de", "en"]
    names = {line[when] for line in (*by_row["parallel"], *by_row["looks"]) for when in ("before", "after")}
    assert names <= set(CLASSES)
    assert by_row["parallel"][0]["after"] == "neutral"
    by_text = shown(capsys, [*argv, "--premise", "dira fr", "--hypothesis", "bema fr"])
    assert (by_text["place"], by_text["parallel"]) == ("test/3", by_row["parallel"])
    free = shown(capsys, [*argv, "--premise", "dira fr", "--hypothesis", "hilu fr"])
    assert (free["place"], len(free["parallel"])) == (None, 1)


def another_model(cell: Path, model: Path) -> list[str]:
    path = model / "model.safetensors"
    weights = load_file(path)
    weights["bert.embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(weights, path, {"format": "pt"})
    return ["does not fit", results.read_json(cell / "cell.json")["model"], str(model)]


def another_tokenizer(cell: Path, model: Path) -> list[str]:
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"Lagu"', '"Lagos"'))
    return ["does not fit", results.read_json(cell / "cell.json")["model"]]


def a_language_less(cell: Path, _: Path) -> list[str]:
    record = results.read_json(cell / "cell.json")
    results.write_json(cell / "cell.json", {**record, "languages": ["de", "fr"]})
    return ["belongs to another cell", "de,en,fr, not de,fr"]


def anothers_parameters(cell: Path, _: Path) -> list[str]:
    record = results.read_json(cell / "cell.json")
    results.write_json(cell / "cell.json", {**record, "cell": {**record["cell"], "training": "all"}})
    return ["belongs to another cell", "masks: language, not none"]


def other_widths(cell: Path, _: Path) -> list[str]:
    record = results.read_json(cell / "cell.json")
    record["scale"]["settings"]["rank"] = 3
    results.write_json(cell / "cell.json", record)
    return ["these parameters differ", "mend."]


def no_training_end(cell: Path, _: Path) -> list[str]:
    (cell / "editor.safetensors").unlink()
    return ["has not ended"]


def truncated(cell: Path, _: Path) -> list[str]:
    path = cell / "editor.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    return ["editor.safetensors", "not a readable checkpoint"]


def an_older_record(cell: Path, _: Path) -> list[str]:
    record = results.read_json(cell / "cell.json")
    results.write_json(cell / "cell.json", {key: value for key, value in record.items() if key != "rulings"})
    return ["cell.json", "'rulings'", "train the cell again"]


def no_editor(cell: Path, _: Path) -> list[str]:
    record = results.read_json(cell / "cell.json")
    results.write_json(cell / "cell.json", {**record, "cell": {**record["cell"], "approach": "unedited"}})
    return ["unedited", "no editor"]


def no_cell(cell: Path, _: Path) -> list[str]:
    shutil.rmtree(cell)
    return [str(cell), "no cell.json"]


UNFIT: list[Callable[[Path, Path], list[str]]] = [
    another_model,
    another_tokenizer,
    a_language_less,
    anothers_parameters,
    other_widths,
    no_training_end,
    truncated,
    an_older_record,
    no_editor,
    no_cell,
]


@pytest.mark.parametrize("break_it", UNFIT, ids=lambda case: case.__name__)
def test_a_checkpoint_that_does_not_fit_is_refused_with_the_difference(
    break_it: Callable[[Path, Path], list[str]],
    facts: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cell = checkpoint(facts, model, tmp_path)
    expected = break_it(cell, model)
    argv = command(facts, model, "--checkpoint", str(cell), "--fact", "P1/Q0", "--to", "Bema")
    refused(capsys, argv, expected)


UNFIT_FOR: dict[str, tuple[list[str], list[str]]] = {
    "another-task": (["--pair", "test/1"], ["does not fit", "it edits facts"]),
    "another-approach": (["--fact", "P1/Q0", "--approach", "finetuning"], ["does not fit", "it is mend"]),
    "another-language": (["--fact", "P1/Q0", "--language", "sw"], ["'sw'", "de, en, fr", "facts-mend-lime-seed0"]),
}


@pytest.mark.parametrize(("options", "expected"), UNFIT_FOR.values(), ids=UNFIT_FOR.keys())
def test_a_checkpoint_is_refused_for_what_it_was_not_made_for(
    options: list[str],
    expected: list[str],
    facts: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cell = checkpoint(facts, model, tmp_path)
    sources = ["--raw-model", str(model)] if "--pair" in options else ["--facts", str(facts), "--model", str(model)]
    refused(capsys, ["edit", *sources, "--checkpoint", str(cell), "--to", "Bema", *options], expected)


BAD = {
    "nothing": ([], ["say what to edit"]),
    "two-things": (["--fact", "P1/Q0", SENTENCE], ["say what to edit"]),
    "premise-alone": (["--premise", "x"], ["--hypothesis"]),
    "no-mask": (["Aton P1 en ."], ["no [MASK]"]),
    "placeholder": (["[X] P1 en [MASK] ."], ["the subject replaces [X]"]),
    "too-many-masks": ([f"Aton {MASK} en {MASK} ."], ["2 [MASK]", "write one, which stands for all tokens of 'Bema'"]),
    "no-such-relation": (["--fact", "P9/Q0"], ["'P9'", "P1, P2"]),
    "no-such-subject": (["--fact", "P1/Atom"], ["'P1/Atom'", "P1/Q0 (Aton)"]),
    "no-such-language": (["--fact", "P1/Q0", "--language", "sw"], ["'sw'", "de, en, fr"]),
    "unknown-word": (["--fact", "P1/Q0", "--to", "Berlin"], ["cannot spell", "'Berlin'"]),
    "no-answer": (["--fact", "P1/Q0", "--to", " "], ["cannot spell"]),
    "an-answer-of-the-tokenizer": (["--fact", "P1/Q0", "--to", "[SEP]"], ["to '[SEP]' contains the special token"]),
    "a-sentence-with-an-end": (["Aton [SEP] P1 en [MASK] .", "--to", "Bema"], ["text 'Aton [SEP] P1", "token [SEP]"]),
    "untrained": (["--fact", "P1/Q0", "--approach", "mend"], ["needs a trained checkpoint", "reproduce", "finetuning"]),
}


@pytest.mark.parametrize(("options", "expected"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_edited_ends_with_one_sentence(
    options: list[str], expected: list[str], facts: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, command(facts, model, "--to", "Bema", *options), expected)


BAD_PAIRS = {
    "class": ({"to": "Bema"}, "'Bema'.*entailment, neutral, contradiction"),
    "row": ({"place": "test/12"}, "'test/12'.*test/0 to test/11"),
    "split": ({"place": "rest/1"}, "'rest/1'.*train/0"),
    "look": ({"place": "test/1", "looks": ("aton",)}, r"'aton'.*PREMISE \| HYPOTHESIS"),
    "language": ({"place": "test/1", "language": "sw"}, "'sw'.*de, en, fr"),
}


@pytest.mark.parametrize(("options", "expected"), BAD_PAIRS.values(), ids=BAD_PAIRS.keys())
def test_a_pair_that_cannot_be_edited_is_named(
    options: dict[str, Any], expected: str, pairs: Path, classifier: Path
) -> None:
    reader = Reader(load_tokenizer(classifier), None, {name: i for i, name in enumerate(CLASSES)})
    wish = Asked(str(pairs), None, **{"language": "en", "to": "neutral", **options})
    with pytest.raises(UserError, match=expected):
        question("nli", pairs, reader, wish)


def test_the_ends_of_the_summary_are_counts() -> None:
    line = Line("en", "a", "b", "c", changed=True, desired=True)
    said = Shown("mend", None, "en", "a", "c", None, None, {}, (line,), (), (line, line))
    assert said.as_dict() == {**asdict(said), "desired": 1, "languages": 1, "unrelated_changed": 2}
