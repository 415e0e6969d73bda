"""No number is silently wrong: what tokenizer, classes and data have not in common is said before a run, and after."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lime_editing.__main__ import main
from lime_editing.backbone import load_tokenizer
from lime_editing.data import Reader
from lime_editing.data.facts.read import read as read_facts
from lime_editing.data.facts.task import misfits as of_facts, tasks
from lime_editing.data.pairs.read import read as read_pairs
from lime_editing.data.pairs.task import class_numbers, misfits as of_pairs
from lime_editing.errors import DataError, ModelError
from lime_editing.names import Rulings
from lime_editing.report.counts import read as read_cells
from reference.tests.corpora import CITIES, CLASSES, lines, own_facts, own_pairs, write_lines
from reference.tests.miniature import set_options

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
NUMBERS = {name: i for i, name in enumerate(CLASSES)}


# labels that the vocabulary cannot spell


def with_labels(facts: Path, language: str, label: dict[str, str]) -> None:
    for path in (facts / language).glob("P*.jsonl"):
        write_lines(path, [row | {"obj_label": label.get(row["obj_label"], row["obj_label"])} for row in lines(path)])


def test_labels_with_unknown_tokens_and_labels_that_merge_are_counted_by_language(facts: Path, model: Path) -> None:
    reader = Reader(load_tokenizer(model), 32)
    assert of_facts(read_facts(facts), reader) == []
    with_labels(facts, "fr", {"Aton": "አዲስ", "P2 Bema": "ለንደን", "P1 Bema": "Bemaa Aton"})
    assert of_facts(read_facts(facts), reader) == [
        "3 of 6 labels in fr contain [UNK], and 2 have the tokens of another"
    ]
    with_labels(facts, "fr", {"Cola": "ካይሮ"})
    assert of_facts(read_facts(facts), reader) == [
        "4 of 6 labels in fr contain [UNK], and 3 have the tokens of another"
    ]


def test_decomposed_labels_of_the_fixture_are_counted_and_the_remedy_is_named(tmp_path: Path) -> None:
    """As a Mac stores file names, and what is written with them."""
    folder = tmp_path / "mlama1.1"
    shutil.copytree(FIXTURES / "facts" / "mlama1.1", folder)
    for path in (folder / "fr").glob("P*.jsonl"):
        rows = [row | {"obj_label": unicodedata.normalize("NFD", row["obj_label"])} for row in lines(path)]
        write_lines(path, rows)
    reader = Reader(load_tokenizer(FIXTURES / "raw_model"), 128)
    (said,) = [remark for remark in of_facts(read_facts(folder, ["en", "fr"]), reader) if " in fr " in remark]
    assert said.endswith("normalise the text to NFC")
    count, of = int(said.split()[0]), int(said.split()[2])
    assert 0.05 * of < count < 0.5 * of
    assert of_facts(read_facts(FIXTURES / "facts" / "mlama1.1", ["fr"]), reader) == []


def test_a_language_of_which_no_label_can_be_said_stops_a_run(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = own_facts(facts)
    letters = {city: chr(0x1200 + i) * 3 for i, city in enumerate(CITIES)}
    rows += [row | {"language": "am", "object": letters[str(row["object"]).split()[-1]]} for row in rows[:24]]
    source = write_lines(tmp_path / "own.jsonl", rows)
    with pytest.raises(DataError, match=r"all \d labels in 'am' contain \[UNK\]: .*leave the language out"):
        tasks(read_facts(source), Reader(load_tokenizer(model), 32), Rulings(), {})
    argv = ["reproduce", "--task", "facts", "--facts", str(source), "--model", str(model), "--results", str(tmp_path)]
    assert main(argv) == 2
    assert "labels in 'am' contain [UNK]" in capsys.readouterr().err
    assert main(["check-data", str(source), "--model", str(model)]) == 0
    assert "labels in am contain [UNK]" in capsys.readouterr().out


def test_a_remark_is_in_check_data_in_the_plan_in_the_run_in_the_record_and_on_the_page(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_labels(facts, "fr", {"Aton": "አዲስ"})
    said = "1 of 6 labels in fr contain [UNK], and 0 have the tokens of another"
    argv = ["reproduce", "--task", "facts", "--facts", str(facts), "--model", str(model), "--results", str(tmp_path)]
    argv += ["--approach", "finetuning", *set_options(), "--jobs", "1"]
    assert main(["check-data", str(facts), "--model", str(model)]) == 0
    assert said in capsys.readouterr().out
    assert main([*argv, "--dry-run"]) == 0
    assert f"note: {facts}: {said}" in capsys.readouterr().out
    assert main([*argv, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["remarks"] == [f"facts: {said}"]
    assert main(argv) == 0
    assert f"note: {facts}: {said}" in capsys.readouterr().out
    (section,) = read_cells([path.parent for path in (tmp_path / "tiny-changed").glob("*/metrics.json")])
    assert all(record["remarks"] == [said] for record in section.records)
    assert said in (tmp_path / "tiny-changed" / "report.html").read_text(encoding="utf-8")


# classes


def test_the_classifiers_classes_are_matched_by_name_in_any_spelling(pairs: Path) -> None:
    said = read_pairs(pairs)
    for ids, expected in (
        ({"CONTRADICTION": 0, "NEUTRAL": 1, "ENTAILMENT": 2}, (2, 1, 0)),
        ({"contradictory": 1, "neutral": 0, "Entailment": 2}, (2, 0, 1)),
        ({"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}, (0, 1, 2)),
    ):
        assert class_numbers(said, ids) == expected
    with pytest.raises(ModelError, match="the classifier's classes are entailment, not_entailment"):
        class_numbers(said, {"entailment": 0, "not_entailment": 1})


def test_unnamed_classes_are_taken_in_xnlis_order_which_is_said_and_for_other_data_refused(
    pairs: Path, tmp_path: Path
) -> None:
    unnamed = {f"LABEL_{i}": i for i in range(3)}
    (said,) = of_pairs(read_pairs(pairs), Reader(None, None, unnamed), None, "")
    assert said == "the classifier's classes have no names (LABEL_0, LABEL_1, LABEL_2): taken for these in XNLI's order"
    other = dict(zip(CLASSES, ("yes", "maybe", "no"), strict=True))
    rows = [row | {"label": other[str(row["label"])]} for row in own_pairs(pairs)]
    with pytest.raises(ModelError, match=r"have no names, such as maybe, no, yes; name them in config.json"):
        class_numbers(read_pairs(write_lines(tmp_path / "own.jsonl", rows)), unnamed)


def classifier_with(tmp_path: Path, **changes: object) -> Path:
    """The fixture's classifier with another config.json."""
    folder = tmp_path / "classifier"
    shutil.copytree(FIXTURES / "raw_classifier", folder)
    path = folder / "config.json"
    told = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in told.items() if value is not ...}))
    return folder


ORDERS: dict[str, tuple[dict[str, object], str | None]] = {
    "as-it-is": ({}, None),
    "id2label-alone": ({"label2id": ...}, None),
    "contradictory": (
        {"label2id": {"contradiction": 0, "neutral": 1, "entailment": 2}},
        ", label2id {'contradiction': 0, 'neutral': 1, 'entailment': 2}; number both alike, from 0",
    ),
    "from-1": ({"id2label": {"1": "a", "2": "b", "3": "c"}, "label2id": ...}, "number both alike, from 0"),
    "one-twice": ({"id2label": {"0": "a", "1": "a", "2": "c"}, "label2id": ...}, "number both alike, from 0"),
}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ORDERS)
def test_id2label_is_held_against_label2id(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes, expected = ORDERS[name]
    folder = classifier_with(tmp_path, **changes)
    argv = ["edit", "--raw-model", str(folder), "--pair", "test/1", "--to", "neutral", "--approach", "finetuning"]
    code = main([*argv, "--languages", "en", "--json"])
    said = capsys.readouterr()
    if expected is None:
        assert code == 0, said.err
    else:
        assert (code, said.err.count("\n")) == (2, 1)
        assert expected in said.err


@pytest.mark.usefixtures("cache")
def test_classes_in_another_order_are_noticed_by_the_raw_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MNLI's order under XNLI's names, which is what most classifiers of the hub get wrong."""
    order = {"0": "contradiction", "1": "neutral", "2": "entailment"}
    folder = classifier_with(tmp_path, id2label=order, label2id={name: int(i) for i, name in order.items()})
    nli = str(FIXTURES / "nli")
    assert main(["check-data", nli, "--model", str(folder), "--languages", "en", "--json"]) == 0
    remarks = json.loads(capsys.readouterr().out)["remarks"]
    assert any(remark.startswith("raw accuracy on 300 test pairs: en ") for remark in remarks)
    (doubt,) = [remark for remark in remarks if "would be" in remark]
    assert "contradiction meant entailment" in doubt
    assert "entailment meant contradiction" in doubt
    assert "check the names of the classes in the classifier's config.json" in doubt
    argv = ["check-data", nli, "--model", str(FIXTURES / "raw_classifier"), "--languages", "en", "--json"]
    assert main(argv) == 0
    remarks = json.loads(capsys.readouterr().out)["remarks"]
    assert [remark.partition(":")[0] for remark in remarks] == ["raw accuracy on 300 test pairs"]


@pytest.mark.usefixtures("cache")
def test_a_classifier_that_says_one_thing_only_is_noticed(tmp_path: Path) -> None:
    said = read_pairs(str(FIXTURES / "nli"), ["en"])
    few = [i for i, label in enumerate(said.rows["test"]["label"]) if label != 1][:60]
    uneven = type(said)({**said.rows, "test": said.rows["test"].select([*few, 1, 2])}, said.languages, said.classes)
    reader = Reader(load_tokenizer(FIXTURES / "raw_classifier"), 128, NUMBERS)
    remarks = of_pairs(uneven, reader, lambda inputs: [1] * len(inputs), "one")
    assert any("less than the" in remark and "of one answer to all" in remark for remark in remarks[1:]), remarks


@pytest.mark.usefixtures("cache")
def test_the_raw_accuracy_of_a_given_classifier_is_noted_before_a_run(
    pairs: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(classifier)
    assert model.config.num_labels == 3
    argv = ["reproduce", "--task", "nli", "--nli", str(pairs), "--raw-model", str(classifier), "--dry-run"]
    main([*argv, "--approach", "finetuning", *set_options(), "--results", str(tmp_path / "runs")])
    assert f"note: {pairs}: raw accuracy on 12 test pairs: de " in capsys.readouterr().out
