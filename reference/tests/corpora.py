"""Small corpora and random models that can read them, as folders in the layouts of the real ones."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertTokenizer

from lime_editing.names import SPLITS

LANGUAGES = ("de", "en", "fr")
CITIES = ("Aton", "Bema", "Cola", "Dira", "Elno", "Fuka", "Gosa", "Hilu", "Iraz", "Jomo", "Kepi", "Lagu")
Rows = list[dict[str, Any]]


# tables


def lines(path: Path) -> Iterator[Any]:
    """The objects of a file of JSON lines."""
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            yield json.loads(line)


def write_lines(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def capitals() -> Rows:
    """Rows for the data set of CONTRIBUTING.md."""
    splits = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
    return [
        {"split": split, "fact": city, "language": code, "text": f"{city} P1 {code} [MASK] .", "answer": CITIES[i % 3]}
        for i, (split, city) in enumerate(zip(splits, CITIES, strict=True))
        for code in LANGUAGES
    ]


def write_parquet(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_table(path: Path, rows: Rows) -> Path:
    """csv, or tsv by the name."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


# facts


def write_facts(root: Path) -> Path:
    """A folder in mLAMA's layout: two relations of twelve subjects in three languages."""
    for language in LANGUAGES:
        folder = root / language
        folder.mkdir(parents=True)
        templates = [{"relation": r, "template": f"[X] {r} {language} [Y] ."} for r in ("P1", "P2")]
        write_lines(folder / "templates.jsonl", templates)
        for relation in ("P1", "P2"):
            rows = [
                {
                    "sub_uri": f"Q{i}",
                    "obj_uri": f"{relation}o{i % 4}",
                    "sub_label": city,
                    "obj_label": f"{relation} {CITIES[i % 4]}" if i % 2 else CITIES[i % 4],
                    "lineid": i,
                    "uuid": f"{relation}-{i}",
                }
                for i, city in enumerate(CITIES)
            ]
            write_lines(folder / f"{relation}.jsonl", rows)
    return root


def write_model(folder: Path) -> Path:
    """A model folder: a random BERT of three layers and a tokenizer of whole words."""
    return _write(folder, BertForMaskedLM, [".", "P1", "P2", *LANGUAGES, *CITIES])


def m_lama(folder: Path) -> Rows:
    """The rows of a folder of facts as m_lama has them."""
    return [
        {**row, "language": path.parent.name, "predicate_id": path.stem, "template": told[path.stem]}
        for templates in sorted(folder.glob("*/templates.jsonl"))
        for told in [{row["relation"]: row["template"] for row in lines(templates)}]
        for path in sorted(templates.parent.glob("*.jsonl"))
        if path != templates
        for row in lines(path)
    ]


def own_facts(folder: Path) -> Rows:
    """The rows of a folder of facts as a corpus of one's own."""
    names = {
        "language": "language",
        "relation": "predicate_id",
        "template": "template",
        "subject_id": "sub_uri",
        "subject": "sub_label",
        "object_id": "obj_uri",
        "object": "obj_label",
    }
    return [{name: row[field] for name, field in names.items()} for row in m_lama(folder)]


def write_zip(path: Path, folder: Path, prefix: str = "mlama1.1/", compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """The facts of a folder as an archive."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*.jsonl"), reverse=True):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


# sentence pairs

CLASSES = ("entailment", "neutral", "contradiction")
WORDS = tuple(city.lower() for city in CITIES[:8])
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
FEATURES = datasets.Features(
    {
        "premise": datasets.Translation(list(LANGUAGES)),
        "hypothesis": datasets.TranslationVariableLanguages(list(LANGUAGES)),
        "label": datasets.ClassLabel(names=list(CLASSES)),
    }
)


def write_pairs(folder: Path, features: datasets.Features = FEATURES, count: int = 12) -> Path:
    """A folder of `count` rows per split that reads as the hub's."""
    languages = list(LANGUAGES)
    rows = [
        {
            "premise": {code: f"{WORDS[i % 8]} {code}" for code in languages},
            "hypothesis": {"language": languages, "translation": [f"{WORDS[i // 2 % 8]} {code}" for code in languages]},
            "label": i % 3,
        }
        for i in range(count)
    ]
    for split in SPLITS:
        path = folder / "all_languages" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [{name: row[name] for name in features} for row in rows]
        if isinstance(features["premise"], datasets.Value):
            kept = [{**row, "premise": "one text"} for row in kept]
        datasets.Dataset.from_list(kept, features=features).to_parquet(str(path))
    (folder / "README.md").write_text(CARD)
    return folder


def write_classifier(folder: Path) -> Path:
    """A random BERT of three layers that tells token types apart."""
    return _write(
        folder,
        BertForSequenceClassification,
        [*LANGUAGES, *WORDS],
        initializer_range=0.5,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: i for i, name in enumerate(CLASSES)},
    )


def own_pairs(folder: Path) -> Rows:
    """The pairs of a folder as rows of one's own."""
    rows = []
    for split in SPLITS:
        path = folder / "all_languages" / f"{split}-00000-of-00001.parquet"
        for i, row in enumerate(pq.read_table(path).to_pylist()):
            hypothesis = row["hypothesis"]
            second = dict(zip(hypothesis["language"], hypothesis["translation"], strict=True))
            rows += [
                {
                    "split": split,
                    "id": f"{split}-{i}",
                    "language": code,
                    "premise": row["premise"][code],
                    "hypothesis": second[code],
                    "label": CLASSES[row["label"]],
                }
                for code in LANGUAGES
            ]
    return rows


def _write(folder: Path, kind: Any, words: list[str], **options: Any) -> Path:
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(known),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        **options,
    )
    kind(config).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(known)}, do_lower_case=False).save_pretrained(folder)
    return folder
