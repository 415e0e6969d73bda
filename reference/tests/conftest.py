"""A miniature of everything: four facts per relation in three languages, and a random BERT that can read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

LANGUAGES = ("de", "en", "fr")
CITIES = ("Aton", "Bema", "Cola", "Dira", "Elno", "Fuka", "Gosa", "Hilu", "Iraz", "Jomo", "Kepi", "Lagu")


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    return write_facts(tmp_path / "mlama1.1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


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
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "P1", "P2", *LANGUAGES, *CITIES]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}, do_lower_case=False).save_pretrained(folder)
    return folder


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
