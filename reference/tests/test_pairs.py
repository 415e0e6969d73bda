"""XNLI's schema, read from a folder in the hub's layout, and what becomes of it (clauses D7, D8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lime_editing.backbone import load_tokenizer
from lime_editing.core.sampling import derived_rng, evaluation_pairs
from lime_editing.data import Reader
from lime_editing.data.pairs.read import Pairs, fingerprint, read
from lime_editing.data.pairs.task import PairTask, accuracy, predicted, tasks, too_long, wrong
from lime_editing.errors import DataError, LanguageError, ModelError
from lime_editing.names import Rulings, Split
from lime_editing.records import Input
from lime_editing.reproduce.cells import Cell
from lime_editing.results import read_rows
from reference.tests.corpora import (
    CLASSES,
    FEATURES,
    LANGUAGES,
    Rows,
    own_pairs,
    write_lines,
    write_pairs,
    write_parquet,
    write_table,
)
from reference.tests.miniature import finished, prepared
from reference.tests.refusals import refused

NUMBERS = {name: i for i, name in enumerate(CLASSES)}

pytestmark = pytest.mark.usefixtures("cache")


def tasks_of(
    pairs: Pairs,
    model: Path,
    numbers: Mapping[str, int] = NUMBERS,
    wrong: Mapping[Split, frozenset[str]] = {},  # read alone
    longest: int | None = None,
) -> dict[Split, PairTask]:
    return tasks(pairs, Reader(load_tokenizer(model), longest, numbers), Rulings(), wrong)


def test_premise_and_hypothesis_are_one_input_whose_class_is_read_at_cls(pairs: Path, classifier: Path) -> None:
    tokenizer = load_tokenizer(classifier)
    task = tasks_of(read(str(pairs)), classifier)["test"]
    one = task.input(task.corpus["test/3/fr"])
    assert tokenizer.convert_ids_to_tokens(one.ids) == ["[CLS]", "dira", "fr", "[SEP]", "bema", "fr", "[SEP]"]
    assert one.positions == (0,)
    assert one.types == (0, 0, 0, 0, 1, 1, 1)


def test_rows_are_parallel_in_all_languages(pairs: Path, classifier: Path) -> None:
    corpus = tasks_of(read(str(pairs)), classifier)["train"].corpus
    assert len(corpus.examples) == 12 * 3
    assert [x.id for x in corpus.parallel("train/7/en")] == ["train/7/de", "train/7/en", "train/7/fr"]


def test_training_wants_any_class_and_evaluation_the_gold_one_where_the_model_errs(
    pairs: Path, classifier: Path
) -> None:
    erring = frozenset({"test/1/en", "test/2/de"})
    parts = tasks_of(read(str(pairs)), classifier, wrong={"test": erring})
    train, test = parts["train"], parts["test"]
    wanted = {train.request(train.corpus["train/1/en"], derived_rng(i)).labels for i in range(40)}
    assert wanted == {(0,), (1,), (2,)}
    assert {test.request(test.corpus["test/1/en"], derived_rng(i)).labels for i in range(9)} == {(1,)}
    found = evaluation_pairs(test.corpus, LANGUAGES, LANGUAGES, 3, 3, 0, editable=test.editable)
    assert {pair.edit.id for pair in found} == erring
    assert {x.fact for pair in found for x in pair.retain} - {"test/1", "test/2"}


def test_errors_are_the_inputs_whose_class_is_not_gold(pairs: Path, classifier: Path) -> None:
    task = tasks_of(read(str(pairs)), classifier)["test"]

    table = predicted(task, lambda inputs: [0] * len(inputs))
    assert wrong(task, table) == {e.id for e in task.corpus.examples if task.gold(e) != 0}


def test_what_the_raw_model_says_is_asked_once(pairs: Path, classifier: Path, tmp_path: Path) -> None:
    """And again where what was kept is damaged; without a key, always. A row that is not said has no class."""
    rows = [row for row in own_pairs(pairs) if (row["id"], row["language"]) != ("test-3", "fr")]
    said = read(str(write_lines(tmp_path / "own.jsonl", rows)))
    task = tasks_of(said, classifier)["test"]
    asked: list[int] = []

    def by_length(inputs: Sequence[Input]) -> list[int]:
        asked.append(len(inputs))
        return [i.ids[1] % 3 for i in inputs]

    first = predicted(task, by_length, "key")
    expected = [
        [task.input(task.corpus[f"test/{i}/{c}"]).ids[1] % 3 if (i, c) != (3, "fr") else -1 for c in LANGUAGES]
        for i in range(12)
    ]
    assert first.tolist() == expected
    assert asked == [35]
    erring = wrong(task, predicted(task, by_length, "key"))
    assert erring == {x.id for x in task.corpus.examples if task.input(x).ids[1] % 3 != task.gold(x)}
    assert accuracy(task, first)["fr"] == pytest.approx(1 - sum(i.endswith("/fr") for i in erring) / 11)
    assert asked == [35]
    (kept,) = (tmp_path / "cache" / "lime_editing").iterdir()
    kept.write_bytes(kept.read_bytes()[:150])
    assert predicted(task, by_length, "key").tolist() == expected
    assert asked == [35, 35]
    predicted(task, by_length)
    predicted(task, by_length)
    assert len(asked) == 4


def test_a_pair_longer_than_the_model_reads_is_cut(pairs: Path, classifier: Path, tmp_path: Path) -> None:
    """Its longer text first; what is cut is what `too_long` names."""
    rows = own_pairs(pairs)
    for row in rows:
        if (row["id"], row["language"]) == ("test-3", "de"):
            row["premise"] = " ".join(["aton"] * 40)
    said, tokenizer = read(str(write_lines(tmp_path / "own.jsonl", rows))), load_tokenizer(classifier)
    task = tasks_of(said, classifier, longest=32)["test"]
    lengths = {x.id: len(task.input(x).ids) for x in task.corpus.examples}
    assert lengths.pop("test/3/de") == 32
    assert set(lengths.values()) == {7}
    assert tokenizer.convert_ids_to_tokens(task.input(task.corpus["test/3/de"]).ids)[-4:] == [
        "[SEP]",
        "bema",
        "de",
        "[SEP]",
    ]
    assert list(too_long(said, tokenizer, 32, "test")) == [(3, "de", 45)]
    assert list(too_long(said, tokenizer, 45, "test")) == list(too_long(said, tokenizer, 32, "train")) == []


def test_a_classifier_that_numbers_its_classes_otherwise_is_understood(pairs: Path, classifier: Path) -> None:
    numbers = {"CONTRADICTION": 0, "NEUTRAL": 1, "ENTAILMENT": 2}
    task = tasks_of(read(str(pairs)), classifier, numbers, {})["test"]
    assert [task.gold(task.corpus[f"test/{i}/en"]) for i in range(3)] == [2, 1, 0]


def test_a_classifier_of_other_classes_is_refused(pairs: Path, classifier: Path) -> None:
    with pytest.raises(ModelError, match=r"yes, no, but the data's are entailment"):
        tasks_of(read(str(pairs)), classifier, {"yes": 0, "no": 1}, {})


def test_an_unknown_language_is_named_with_the_known_ones(pairs: Path) -> None:
    with pytest.raises(LanguageError, match=r"'xx'.*de, en, fr"):
        read(str(pairs), ["en", "xx"])


def test_another_schema_is_named_by_column(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "flat", datasets.Features({**FEATURES, "premise": datasets.Value("string")}))
    with pytest.raises(DataError, match=r"split 'train': column 'premise' must be Translation, found Value"):
        read(str(folder))
    del (features := datasets.Features(FEATURES))["label"]
    with pytest.raises(DataError, match=r"column 'label' must be ClassLabel, found no such column"):
        read(str(write_pairs(tmp_path / "bare", features)))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (pa.array([0, 1, 2, None] * 3), r"split 'train', row 3: field 'label' must be one of 3 classes, got None"),
        (pa.nulls(12), "row 0: .* got None"),
        (pa.array([0.0, 1.0, 2.0] * 4), "column 'label' must have whole numbers or names, found float64"),
        (pa.array([True, False] * 6), "column 'label' must have whole numbers or names, found bool"),
        (pa.array([[0], [1], [2]] * 4), "column 'label' must be ClassLabel, found List"),
        (pa.array([-1, 0, 1, 2] * 3), "labels -1, 0, 1, 2 must be names, or 0, 1 and 2"),
    ],
)
def test_a_label_that_is_no_class_is_named(labels: pa.Array, said: str, pairs: Path) -> None:
    """As in files that other libraries wrote."""
    for path in (pairs / "all_languages").iterdir():
        table = pq.read_table(path)
        held = {name: table[name] for name in ("premise", "hypothesis")}
        pq.write_table(pa.table({**held, "label": labels}), path)
    with pytest.raises(DataError, match=said):
        read(str(pairs))


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no sentence pairs here \(no files\); expected sentence pairs"):
        read(str(tmp_path / "empty"))


def test_a_cell_of_pairs_is_trained_and_judged(pairs: Path, classifier: Path, tmp_path: Path) -> None:
    cell = Cell("nli", "knowledge_editor", "lime", 0)
    experiment = prepared(pairs, classifier, cell=cell)
    folder = finished(cell, experiment, tmp_path / "results")
    judged = {edit for _, edit in read_rows(folder / "rows.parquet")["all → all"].edits}
    assert judged <= experiment.errors["test"]


def test_a_missing_folder_ends_the_command_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["reproduce", "--task", "nli", "--nli", str(tmp_path / "no"), "--results", str(tmp_path)]
    refused(capsys, argv, [f"error: {tmp_path / 'no'}: no such file or folder; expected"])


# tables of one's own, and what they lack


def as_files(rows: Rows, folder: Path) -> Path:
    """A file for each split, each of another kind."""
    folder.mkdir()
    for name, write in {
        "train.csv": write_table,
        "validation.jsonl": write_lines,
        "test.parquet": write_parquet,
    }.items():
        split = name.partition(".")[0]
        write(folder / name, [{k: v for k, v in row.items() if k != "split"} for row in rows if row["split"] == split])
    return folder


def test_tables_of_ones_own_are_the_same_pairs(pairs: Path, tmp_path: Path) -> None:
    expected, rows = read(str(pairs)), own_pairs(pairs)
    numbered = [row | {"label": CLASSES.index(str(row["label"]))} for row in rows]
    for source in (
        write_lines(tmp_path / "own.jsonl", rows),
        write_table(tmp_path / "own.csv", rows),
        write_parquet(tmp_path / "own.parquet", rows),
        write_lines(tmp_path / "numbered.jsonl", numbered),
        as_files(rows, tmp_path / "split"),
    ):
        got = read(str(source))
        assert fingerprint(got) == fingerprint(expected)
        assert (got.languages, got.classes) == (expected.languages, expected.classes)


UNUSUAL = ("مدينة \u200fالقدس\u200e", "Ame\u0301lie Z\u0310", "a\u2028b\x85c", '"a", b\tc', "𠮷 👩‍👩‍👧")


def test_no_table_of_pairs_changes_a_character(pairs: Path, tmp_path: Path) -> None:
    """Right-to-left and combining characters, separators and quotes, behind a mark and between mixed line endings."""
    rows = own_pairs(pairs)
    for row, text in zip(rows, UNUSUAL, strict=False):
        row["premise"] = text
    sources = [
        write_table(tmp_path / "own.csv", rows),
        write_table(tmp_path / "own.tsv", rows),
        write_lines(tmp_path / "own.jsonl", rows),
    ]
    for path in sources:
        ends = [b"\r\n", b"\n\n"]
        parts = path.read_bytes().replace(b"\r\n", b"\n").split(b"\n")
        path.write_bytes(b"\xef\xbb\xbf" + b"".join(part + ends[i % 2] for i, part in enumerate(parts)))
    expected = fingerprint(read(str(write_parquet(tmp_path / "own.parquet", rows))))
    assert {fingerprint(read(str(path))) for path in sources} == {expected}
    assert read(str(sources[0])).rows["train"][0]["premise"]["de"] == UNUSUAL[0]


def test_a_folder_of_parquet_without_a_card_is_read(pairs: Path) -> None:
    before = fingerprint(read(str(pairs)))
    (pairs / "README.md").unlink()
    assert fingerprint(read(str(pairs))) == before
    (pairs / "README.md").write_text("My pairs.")
    assert fingerprint(read(str(pairs))) == before


def test_what_a_pair_lacks_makes_its_parallels_fewer(pairs: Path, classifier: Path, tmp_path: Path) -> None:
    rows = [row for row in own_pairs(pairs) if (row["id"], row["language"]) != ("test-3", "fr")]
    said = read(str(write_lines(tmp_path / "own.jsonl", rows)))
    assert said.lacking == {"train": frozenset(), "validation": frozenset(), "test": {(3, "fr")}}
    task = tasks_of(said, classifier)["test"]
    assert [x.id for x in task.corpus.parallel("test/3/en")] == ["test/3/de", "test/3/en"]
    assert len(task.corpus.examples) == 12 * 3 - 1
    assert len({task.input(x).ids for x in task.corpus.examples}) > 1
    assert read(str(tmp_path / "own.jsonl"), ["de", "en"]).lacking["test"] == frozenset()


def test_a_blank_text_of_the_schema_is_no_text(pairs: Path, classifier: Path) -> None:
    path = pairs / "all_languages" / "test-00000-of-00001.parquet"
    rows = datasets.Dataset.from_parquet(str(path)).to_list()
    rows[1]["premise"]["de"] = "  "
    rows[1]["hypothesis"]["translation"][0] = rows[3]["premise"]["en"] = "aton " * 40
    rows[2]["premise"]["fr"] = None
    rows[4]["hypothesis"]["translation"][1] = "\t"
    rows[5]["hypothesis"] = {"language": ["en", "fr"], "translation": ["a", "b"]}
    datasets.Dataset.from_list(rows, features=FEATURES).to_parquet(str(path))
    said = read(str(pairs))
    assert said.lacking["test"] == {(1, "de"), (2, "fr"), (4, "en"), (5, "de")}
    assert len(fingerprint(said)) == 16
    assert [place[:2] for place in too_long(said, load_tokenizer(classifier), 32, "test")] == [(3, "en")]


def test_a_row_without_a_class_is_refused(pairs: Path) -> None:
    path = pairs / "all_languages" / "train-00000-of-00001.parquet"
    rows = datasets.Dataset.from_parquet(str(path)).to_list()
    rows[7]["label"] = -1
    datasets.Dataset.from_list(rows, features=FEATURES).to_parquet(str(path))
    with pytest.raises(DataError, match=r"split 'train', row 7: field 'label' .* got -1"):
        read(str(pairs))


def test_a_task_forgets_its_oldest_inputs(pairs: Path, classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lime_editing.core.task.REMEMBERED", 4)
    task = tasks_of(read(str(pairs)), classifier)["test"]
    first = [task.input(example) for example in task.corpus.examples]
    assert [task.input(example) for example in task.corpus.examples] == first
    assert len(task._inputs) == 4
