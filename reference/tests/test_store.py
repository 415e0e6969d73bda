"""The store: atomic, exact, and unwilling to mix what does not belong together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lime_editing import store
from lime_editing.errors import DataError, ModelError
from lime_editing.types import Outcome


def test_rows_come_back_as_they_went(tmp_path: Path) -> None:
    rows = {
        "en → all": [Outcome("P1/Q1/en", "en", "update", "de", True)],
        "all → all": [Outcome("P1/Q1/de", "de", "retain", "fr", False)],
    }
    store.write_rows(tmp_path / "rows.parquet", rows)
    assert store.read_rows(tmp_path / "rows.parquet") == rows


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    store.write_json(tmp_path / "a.json", {"old": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.write_atomically(tmp_path / "a.json", fail)
    assert store.read_json(tmp_path / "a.json") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_parameters_come_back_bit_for_bit(tmp_path: Path) -> None:
    parameters = {"a": torch.randn(3, 2), "b": torch.randn(4)}
    store.save_parameters(tmp_path / "e.safetensors", parameters, {"approach": "mend"})
    loaded = store.load_parameters(tmp_path / "e.safetensors", parameters)
    assert all(torch.equal(loaded[name], p) for name, p in parameters.items())


def test_a_checkpoint_of_another_editor_is_refused_by_name(tmp_path: Path) -> None:
    store.save_parameters(tmp_path / "e.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(ModelError, match=r"another editor.*: a"):
        store.load_parameters(tmp_path / "e.safetensors", {"a": torch.zeros(3)})


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    store.save_parameters(path, {"a": torch.zeros(200)}, {})
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        store.load_parameters(path, {"a": torch.zeros(200)})


def test_a_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_text("{")
    with pytest.raises(DataError, match=r"cell\.json: is not JSON"):
        store.read_json(tmp_path / "cell.json")


def test_comments_docstrings_and_layout_are_not_code() -> None:
    plain = "def f(x):\n    return x + 1\n"
    commented = '"""A module."""\n\n\ndef f(x):\n    """f."""\n    # why\n    return (x\n            + 1)\n'
    assert store._code(plain) == store._code(commented)
    assert store._code(plain) != store._code(plain.replace("+", "-"))
