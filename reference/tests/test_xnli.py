"""XNLI's schema, read from a folder in the hub's layout, and what becomes of it (clauses D7, D8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from lime_editing import experiments
from lime_editing.__main__ import main
from lime_editing.backbone import load_tokenizer
from lime_editing.data import xnli
from lime_editing.errors import DataError, LanguageError, ModelError
from lime_editing.sampling import derived_rng, evaluation_pairs
from lime_editing.types import Input
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

    def zero(inputs: Sequence[Input]) -> list[int]:
        return [0] * len(inputs)

    assert xnli.errors(task, zero) == {e.id for e in task.corpus.examples if task.gold(e) != 0}


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
