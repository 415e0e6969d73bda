"""XNLI's schema, read from a folder in the hub's layout, and what becomes of it (clauses D7, D8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from lime_editing.__main__ import main
from lime_editing.core.backbone import load_tokenizer
from lime_editing.core.corpus import FullCorpus, ParallelCorpus
from lime_editing.core.records import Input
from lime_editing.core.sampling import derived_rng, evaluation_pairs
from lime_editing.data.pairs import task as xnli
from lime_editing.errors import DataError, LanguageError, ModelError
from lime_editing.reproduce import run as experiments
from reference.tests.test_data import json_lines, parquet, table
from reference.tests.test_reproduce import MINI

CODES = ("de", "en", "fr")
NAMES = ("entailment", "neutral", "contradiction")
WORDS = ("aton", "bema", "cola", "dira", "elno", "fuka", "gosa", "hilu")
IDS = {name: i for i, name in enumerate(NAMES)}
CARD = """---
configs:
- config_name: all_languages
  data_files:
  - split: train
    path: all_languages/train-*
  - split: validation
    path: all_languages/validation-*
  - split: test
    path: all_languages/test-*
---
"""


def write(folder: Path, features: datasets.Features, count: int = 12) -> Path:
    """A folder of `count` rows per split that reads as the hub's."""
    rows = [
        {
            "premise": {code: f"{WORDS[i % 8]} {code}" for code in CODES},
            "hypothesis": {"language": list(CODES), "translation": [f"{WORDS[i // 2 % 8]} {code}" for code in CODES]},
            "label": i % 3,
        }
        for i in range(count)
    ]
    for split in xnli.SPLITS:
        path = folder / "all_languages" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [{name: row[name] for name in features} for row in rows]
        if isinstance(features["premise"], datasets.Value):
            kept = [{**row, "premise": "one text"} for row in kept]
        datasets.Dataset.from_list(kept, features=features).to_parquet(str(path))
    (folder / "README.md").write_text(CARD)
    return folder


FEATURES = datasets.Features(
    {
        "premise": datasets.Translation(list(CODES)),
        "hypothesis": datasets.TranslationVariableLanguages(list(CODES)),
        "label": datasets.ClassLabel(names=list(NAMES)),
    }
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write(tmp_path / "nli", FEATURES)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A random BERT of three layers that tells token types apart."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CODES, *WORDS]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
        id2label=dict(enumerate(NAMES)),
        label2id=IDS,
    )
    folder = tmp_path / "classifier"
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}, do_lower_case=False).save_pretrained(folder)
    return folder


def test_premise_and_hypothesis_are_one_input_whose_class_is_read_at_cls(pairs: Path, classifier: Path) -> None:
    tokenizer = load_tokenizer(classifier)
    task = xnli.tasks(xnli.read(str(pairs)), tokenizer, IDS, {})["test"]
    one = task.input(task.corpus["test/3/fr"])
    assert tokenizer.convert_ids_to_tokens(one.ids) == ["[CLS]", "dira", "fr", "[SEP]", "bema", "fr", "[SEP]"]
    assert one.positions == (0,)
    assert one.types == (0, 0, 0, 0, 1, 1, 1)


def test_rows_are_parallel_in_all_languages(pairs: Path, classifier: Path) -> None:
    corpus = xnli.tasks(xnli.read(str(pairs)), load_tokenizer(classifier), IDS, {})["train"].corpus
    assert len(corpus.examples) == 12 * 3
    assert [x.id for x in corpus.parallel("train/7/en")] == ["train/7/de", "train/7/en", "train/7/fr"]


def test_training_wants_any_class_and_evaluation_the_gold_one_where_the_model_errs(
    pairs: Path, classifier: Path
) -> None:
    wrong = frozenset({"test/1/en", "test/2/de"})
    tasks = xnli.tasks(xnli.read(str(pairs)), load_tokenizer(classifier), IDS, {"test": wrong})
    train, test = tasks["train"], tasks["test"]
    wanted = {train.request(train.corpus["train/1/en"], derived_rng(i)).labels for i in range(40)}
    assert wanted == {(0,), (1,), (2,)}
    assert {test.request(test.corpus["test/1/en"], derived_rng(i)).labels for i in range(9)} == {(1,)}
    found = evaluation_pairs(test.corpus, CODES, CODES, 3, 3, 0, editable=test.editable)
    assert {pair.edit.id for pair in found} == wrong
    assert {x.fact for pair in found for x in pair.retain} - {"test/1", "test/2"}


def test_errors_are_the_inputs_whose_class_is_not_gold(pairs: Path, classifier: Path) -> None:
    task = xnli.tasks(xnli.read(str(pairs)), load_tokenizer(classifier), IDS, {})["test"]

    table = xnli.predicted(task, lambda inputs: [0] * len(inputs))
    assert xnli.errors(task, table) == {e.id for e in task.corpus.examples if task.gold(e) != 0}


def test_what_the_raw_model_says_is_asked_once(pairs: Path, classifier: Path, tmp_path: Path) -> None:
    """And again where what was kept is damaged; without a key, always. A row that is not said has no class."""
    rows = [row for row in own(pairs) if (row["id"], row["language"]) != ("test-3", "fr")]
    read = xnli.read(str(json_lines(rows, tmp_path / "own.jsonl")))
    task = xnli.tasks(read, load_tokenizer(classifier), IDS, {})["test"]
    asked: list[int] = []

    def by_length(inputs: Sequence[Input]) -> list[int]:
        asked.append(len(inputs))
        return [i.ids[1] % 3 for i in inputs]

    first = xnli.predicted(task, by_length, "key")
    expected = [
        [task.input(task.corpus[f"test/{i}/{c}"]).ids[1] % 3 if (i, c) != (3, "fr") else -1 for c in CODES]
        for i in range(12)
    ]
    assert first.tolist() == expected
    assert asked == [35]
    wrong = xnli.errors(task, xnli.predicted(task, by_length, "key"))
    assert wrong == {x.id for x in task.corpus.examples if task.input(x).ids[1] % 3 != task.gold(x)}
    assert xnli.accuracy(task, first)["fr"] == pytest.approx(1 - sum(i.endswith("/fr") for i in wrong) / 11)
    assert asked == [35]
    (kept,) = (tmp_path / "cache" / "lime_editing").iterdir()
    kept.write_bytes(kept.read_bytes()[:300])
    assert xnli.predicted(task, by_length, "key").tolist() == expected
    assert asked == [35, 35]
    xnli.predicted(task, by_length)
    xnli.predicted(task, by_length)
    assert len(asked) == 4


def test_a_pair_longer_than_the_model_reads_is_cut(pairs: Path, classifier: Path, tmp_path: Path) -> None:
    """Its longer text first; what is cut is what `too_long` names."""
    rows = own(pairs)
    for row in rows:
        if (row["id"], row["language"]) == ("test-3", "de"):
            row["premise"] = " ".join(["aton"] * 40)
    read, tokenizer = xnli.read(str(json_lines(rows, tmp_path / "own.jsonl"))), load_tokenizer(classifier)
    task = xnli.tasks(read, tokenizer, IDS, {}, 32)["test"]
    lengths = {x.id: len(task.input(x).ids) for x in task.corpus.examples}
    assert lengths.pop("test/3/de") == 32
    assert set(lengths.values()) == {7}
    assert tokenizer.convert_ids_to_tokens(task.input(task.corpus["test/3/de"]).ids)[-4:] == [
        "[SEP]",
        "bema",
        "de",
        "[SEP]",
    ]
    assert list(xnli.too_long(read, tokenizer, 32, "test")) == [(3, "de", 45)]
    assert list(xnli.too_long(read, tokenizer, 45, "test")) == list(xnli.too_long(read, tokenizer, 32, "train")) == []


def test_a_classifier_that_numbers_its_classes_otherwise_is_understood(pairs: Path, classifier: Path) -> None:
    numbers = {"CONTRADICTION": 0, "NEUTRAL": 1, "ENTAILMENT": 2}
    task = xnli.tasks(xnli.read(str(pairs)), load_tokenizer(classifier), numbers, {})["test"]
    assert [task.gold(task.corpus[f"test/{i}/en"]) for i in range(3)] == [2, 1, 0]


def test_a_classifier_of_other_classes_is_refused(pairs: Path, classifier: Path) -> None:
    with pytest.raises(ModelError, match=r"yes, no; the data's entailment"):
        xnli.tasks(xnli.read(str(pairs)), load_tokenizer(classifier), {"yes": 0, "no": 1}, {})


def test_an_unknown_language_is_named_with_the_known_ones(pairs: Path) -> None:
    with pytest.raises(LanguageError, match=r"'xx'.*de, en, fr"):
        xnli.read(str(pairs), ["en", "xx"])


def test_another_schema_is_named_by_column(tmp_path: Path) -> None:
    folder = write(tmp_path / "flat", datasets.Features({**FEATURES, "premise": datasets.Value("string")}))
    with pytest.raises(DataError, match=r"split 'train': column 'premise' must be Translation, found Value"):
        xnli.read(str(folder))
    del (features := datasets.Features(FEATURES))["label"]
    with pytest.raises(DataError, match=r"column 'label' must be ClassLabel, found no such column"):
        xnli.read(str(write(tmp_path / "bare", features)))


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"cannot load 'all_languages' from .*empty"):
        xnli.read(str(tmp_path / "empty"))


def test_a_cell_of_pairs_is_trained_and_judged(pairs: Path, classifier: Path, tmp_path: Path) -> None:
    cell = experiments.Cell("nli", "knowledge_editor", "lime", 0)
    sources = experiments.Sources(str(pairs), str(classifier), None)
    experiment = experiments.prepare("nli", [cell], MINI, experiments.Rulings(), sources)
    folder = experiments.run_cell(cell, experiment, tmp_path / "results", lambda _: None)
    edits = {o.edit for o in experiments.store.read_rows(folder / "rows.parquet")["all → all"]}
    assert edits <= experiment.errors["test"]


def test_a_missing_folder_ends_the_command_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "--task", "nli", "--nli", str(tmp_path / "no"), "--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: cannot load 'all_languages'")
    assert said.count("\n") == 1


# tables of one's own, and what they lack


def own(folder: Path) -> list[dict[str, object]]:
    """The fixture's pairs as rows of one's own."""
    return [
        {
            "split": split,
            "id": f"{split}-{i}",
            "language": code,
            "premise": row["premise"][code],
            "hypothesis": dict(zip(row["hypothesis"]["language"], row["hypothesis"]["translation"], strict=True))[code],
            "label": NAMES[row["label"]],
        }
        for split, rows in xnli.read(str(folder)).rows.items()
        for i, row in enumerate(rows)
        for code in CODES
    ]


def as_files(rows: list[dict[str, object]], folder: Path) -> Path:
    """A file for each split, each of another kind."""
    folder.mkdir()
    for split, write_ in (("train", table), ("validation", json_lines), ("test", parquet)):
        suffix = {"train": "csv", "validation": "jsonl", "test": "parquet"}[split]
        write_(
            [{k: v for k, v in row.items() if k != "split"} for row in rows if row["split"] == split],
            folder / f"{split}.{suffix}",
        )
    return folder


def test_tables_of_ones_own_are_the_same_pairs(pairs: Path, tmp_path: Path) -> None:
    expected, rows = xnli.read(str(pairs)), own(pairs)
    numbered = [row | {"label": NAMES.index(str(row["label"]))} for row in rows]
    for source in (
        json_lines(rows, tmp_path / "own.jsonl"),
        table(rows, tmp_path / "own.csv"),
        parquet(rows, tmp_path / "own.parquet"),
        json_lines(numbered, tmp_path / "numbered.jsonl"),
        as_files(rows, tmp_path / "split"),
    ):
        got = xnli.read(str(source))
        assert xnli.fingerprint(got) == xnli.fingerprint(expected)
        assert (got.languages, got.classes) == (expected.languages, expected.classes)


UNUSUAL = ("مدينة \u200fالقدس\u200e", "Ame\u0301lie Z\u0310", "a\u2028b\x85c", '"a", b\tc', "𠮷 👩‍👩‍👧")


def test_no_table_of_pairs_changes_a_character(pairs: Path, tmp_path: Path) -> None:
    """Right-to-left and combining characters, separators and quotes, behind a mark and between mixed line endings."""
    rows = own(pairs)
    for row, text in zip(rows, UNUSUAL, strict=False):
        row["premise"] = text
    sources = [
        table(rows, tmp_path / "own.csv"),
        table(rows, tmp_path / "own.tsv"),
        json_lines(rows, tmp_path / "own.jsonl"),
    ]
    for path in sources:
        ends = [b"\r\n", b"\n\n"]
        parts = path.read_bytes().replace(b"\r\n", b"\n").split(b"\n")
        path.write_bytes(b"\xef\xbb\xbf" + b"".join(part + ends[i % 2] for i, part in enumerate(parts)))
    expected = xnli.fingerprint(xnli.read(str(parquet(rows, tmp_path / "own.parquet"))))
    assert {xnli.fingerprint(xnli.read(str(path))) for path in sources} == {expected}
    assert xnli.read(str(sources[0])).rows["train"][0]["premise"]["de"] == UNUSUAL[0]


def test_a_folder_of_parquet_without_a_card_is_read(pairs: Path) -> None:
    before = xnli.fingerprint(xnli.read(str(pairs)))
    (pairs / "README.md").unlink()
    assert xnli.fingerprint(xnli.read(str(pairs))) == before
    (pairs / "README.md").write_text("My pairs.")
    assert xnli.fingerprint(xnli.read(str(pairs))) == before


def test_what_a_pair_lacks_makes_its_parallels_fewer(pairs: Path, classifier: Path, tmp_path: Path) -> None:
    rows = [row for row in own(pairs) if (row["id"], row["language"]) != ("test-3", "fr")]
    read = xnli.read(str(json_lines(rows, tmp_path / "own.jsonl")))
    assert read.lacking == {"train": frozenset(), "validation": frozenset(), "test": {(3, "fr")}}
    task = xnli.tasks(read, load_tokenizer(classifier), IDS, {})["test"]
    assert [x.id for x in task.corpus.parallel("test/3/en")] == ["test/3/de", "test/3/en"]
    assert len(task.corpus.examples) == 12 * 3 - 1
    assert len({task.input(x).ids for x in task.corpus.examples}) > 1
    assert xnli.read(str(tmp_path / "own.jsonl"), ["de", "en"]).lacking["test"] == frozenset()


def test_a_blank_text_of_the_schema_is_no_text(pairs: Path, classifier: Path) -> None:
    path = pairs / "all_languages" / "test-00000-of-00001.parquet"
    rows = datasets.Dataset.from_parquet(str(path)).to_list()
    rows[1]["premise"]["de"] = "  "
    rows[1]["hypothesis"]["translation"][0] = rows[3]["premise"]["en"] = "aton " * 40
    rows[2]["premise"]["fr"] = None
    rows[4]["hypothesis"]["translation"][1] = "\t"
    rows[5]["hypothesis"] = {"language": ["en", "fr"], "translation": ["a", "b"]}
    datasets.Dataset.from_list(rows, features=FEATURES).to_parquet(str(path))
    read = xnli.read(str(pairs))
    assert read.lacking["test"] == {(1, "de"), (2, "fr"), (4, "en"), (5, "de")}
    assert len(xnli.fingerprint(read)) == 16
    assert [place[:2] for place in xnli.too_long(read, load_tokenizer(classifier), 32, "test")] == [(3, "en")]


def test_a_row_without_a_class_is_refused(pairs: Path) -> None:
    path = pairs / "all_languages" / "train-00000-of-00001.parquet"
    rows = datasets.Dataset.from_parquet(str(path)).to_list()
    rows[7]["label"] = -1
    datasets.Dataset.from_list(rows, features=FEATURES).to_parquet(str(path))
    with pytest.raises(DataError, match=r"split 'train', row 7: field 'label' .* got -1"):
        xnli.read(str(pairs))


@pytest.mark.parametrize("count", [1, 12, 120])
def test_a_corpus_of_rows_is_the_corpus_of_its_examples(count: int) -> None:
    """FullCorpus and ParallelCorpus are one to whoever asks."""
    full = FullCorpus("test", count, CODES)
    listed = ParallelCorpus.of(full.example(i, code) for i in range(count) for code in CODES)
    assert list(full.examples) == list(listed.examples)
    assert list(full.examples[2:7]) == list(listed.examples[2:7])
    assert full.examples[-1] == listed.examples[-1]
    for example in listed.examples:
        assert full[example.id] == example
        assert full.span(example.fact) == listed.span(example.fact)
        assert full.parallel(example.id, ["en", "fr"]) == listed.parallel(example.id, ["en", "fr"])
    part, expected = full.within(["fr", "de"]), listed.within(["fr", "de"])
    assert (list(part.examples), part.languages) == (list(expected.examples), expected.languages)
    assert len(full.span("test/0100")) == len(full.span("train/1")) == len(full.span(f"test/{count}")) == 0
    for unknown in ("test/0/xx", "test/00/de", "train/0/de", f"test/{count}/de", "nonsense"):
        with pytest.raises(KeyError):
            full[unknown]
    with pytest.raises(IndexError):
        full.examples[len(listed.examples)]


def test_a_task_forgets_its_oldest_inputs(pairs: Path, classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lime_editing.data.REMEMBERED", 4)
    task = xnli.tasks(xnli.read(str(pairs)), load_tokenizer(classifier), IDS, {})["test"]
    first = [task.input(example) for example in task.corpus.examples]
    assert [task.input(example) for example in task.corpus.examples] == first
    assert len(task._inputs) == 4
