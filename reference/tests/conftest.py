"""A miniature of everything: small corpora in three languages, and random models that can read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest

from lime_editing import data, editors
from reference.tests.corpora import write_classifier, write_facts, write_model, write_pairs


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    return write_facts(tmp_path / "mlama1.1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of `datasets`, empty."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pairs(tmp_path: Path, cache: Path) -> Path:
    return write_pairs(tmp_path / "nli")


@pytest.fixture
def classifier(tmp_path: Path, cache: Path) -> Path:
    return write_classifier(tmp_path / "classifier")


@pytest.fixture
def registries() -> Iterator[None]:
    """What plug-ins register is forgotten after a test."""
    before = dict(editors._METHODS), dict(data._REGISTERED)
    yield
    for registry, kept in ((editors._METHODS, before[0]), (data._REGISTERED, before[1])):
        registry.clear()
        registry.update(kept)
