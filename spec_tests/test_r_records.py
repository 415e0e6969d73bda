"""Chapter R, identity: records field by field, and edits and runs that share a name."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from . import oracles, probes, strategies as given_
from .assertions import close, equal, holds
from .conformance import Implementation, clause
from .contract import RULINGS, SETTINGS, FactRow, Outcome, StoredRun
from .test_d_data import folder_of, written
from .test_r_reproduction import PAPER, REQUIRED, ROUNDED, by_training
from .texts import write_model

WORDS = ("en", "de", "country", "of", "is", "capital", "lies", "on", "earth", "name", "ensubject", "desubject", *"0123")
ROWS = [
    given_.fact_row(language, relation, subject, subject % 4, f"{language} name {subject % 4}")
    for language in ("de", "en")
    for relation in ("P17", "P36")
    for subject in range(20)
]
PARTS = ("configuration", "seed", "data", "model", "rulings")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny masked language model with its tokenizer; it reads long texts, so that its weights fill over a MiB."""
    folder = tmp_path_factory.mktemp("model")
    write_model(folder, [*WORDS, "blank"], positions=2**14)
    return folder


def recorded(
    implementation: Implementation,
    model: Path,
    files: Mapping[str, str] | None = None,
    seed: int = 3,
    rulings: Mapping[str, str] = REQUIRED,
    **settings: float,
) -> dict[str, Any]:
    with folder_of(written(ROWS) if files is None else files) as folder:
        more = {"settings": settings} if settings else {}
        found = implementation.record(folder, model, seed, rulings, **more)
    return {name: found.get(name) for name in PARTS}


@pytest.fixture(scope="module")
def first(implementation: Implementation, model: Path) -> dict[str, Any]:
    """The record that others are compared with."""
    return recorded(implementation, model)


def differs(found: Any, first: Any, what: str) -> None:
    holds("R9", found != first, f"another {what}", expected="another record", got=found)


# Data


def with_row(place: int, **changes: str) -> dict[str, str]:
    rows: list[FactRow] = [{**row, **changes} if at == place else row for at, row in enumerate(ROWS)]  # type: ignore[typeddict-item]
    return written(rows)


def with_template(text: str) -> dict[str, str]:
    files = written(ROWS)
    lines = [json.loads(line) for line in files["en/templates.jsonl"].splitlines()]
    changed = [{**line, "template": text} if line["relation"] == "P36" else line for line in lines]
    return {**files, "en/templates.jsonl": "".join(json.dumps(line) + "\n" for line in changed)}


def renamed(old: str, new: str) -> dict[str, str]:
    """The files of a language under another one's name: the same facts, told in another language."""
    return {path.replace(f"{old}/", f"{new}/"): text for path, text in written(ROWS).items()}


def moved(old: str, new: str) -> dict[str, str]:
    """The last line of one file is the first of the next: the same lines in the same order, told elsewhere."""
    files = written(ROWS)
    *kept, last = files[old].splitlines(keepends=True)
    return {**files, old: "".join(kept), new: last + files[new]}


#: Rows 50 and 75 are English, in the middle of P17 and near the end of P36.
DATA: dict[str, Callable[[], dict[str, str]]] = {
    "subject": lambda: with_row(50, sub_uri="Q900"),
    "object": lambda: with_row(50, obj_uri="Q901"),
    "name of a subject": lambda: with_row(75, sub_label="another subject"),
    "name of an object": lambda: with_row(75, obj_label="another object"),
    "name in one letter": lambda: with_row(75, obj_label=ROWS[75]["obj_label"] + "s"),
    "template": lambda: with_template("[Y] en capital city of [X]"),
    "template in its letter case": lambda: with_template("[Y] en Capital of [X]"),
    "order of facts": lambda: written([*ROWS[:40], ROWS[41], ROWS[40], *ROWS[42:]]),
    "language": lambda: renamed("de", "da"),
    "language of a fact": lambda: moved("de/P36.jsonl", "en/P17.jsonl"),
    "relation of a fact": lambda: moved("en/P17.jsonl", "en/P36.jsonl"),
    "relation of the facts": lambda: {
        {"en/P17.jsonl": "en/P36.jsonl", "en/P36.jsonl": "en/P17.jsonl"}.get(path, path): text
        for path, text in written(ROWS).items()
    },
    "fact told again": lambda: written([*ROWS[:41], ROWS[40], *ROWS[41:]]),
    "fact more": lambda: written([*ROWS, given_.fact_row("en", "P36", 77, 3, "en name 3")]),
    "language more": lambda: written([*ROWS, *({**row, "language": "sw"} for row in ROWS[:40])]),  # type: ignore[typeddict-item]
}


@clause("R9", "R3")
@pytest.mark.parametrize("what", DATA)
def test_other_data_are_another_record(
    implementation: Implementation, first: dict[str, Any], model: Path, what: str
) -> None:
    """One field of one fact, one template, the order of two facts: each is another fingerprint of the data."""
    found = recorded(implementation, model, DATA[what]())
    differs(found["data"], first["data"], what)
    for name in ("seed", "model", "rulings"):
        equal("R9", found[name], first[name], f"{name} with another {what}")


@clause("R9", "R3")
def test_a_name_far_down_in_a_long_file_is_data(implementation: Implementation, model: Path) -> None:
    """Line 1,150 of 1,201, with another name of one length."""
    rows = [given_.fact_row("en", "P17", n, n % 9, f"en name {n % 9}") for n in range(1201)]
    one = recorded(implementation, model, written(rows))["data"]
    rows[1149] |= {"obj_label": "en game 6"}
    differs(recorded(implementation, model, written(rows))["data"], one, "name in the middle of many lines")


#: Two texts each: of one look, of one letter but for its parts, and of one row without the ends of its fields.
NAMES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "composition of a letter": ({"obj_label": "n\u00e9"}, {"obj_label": "ne\u0301"}),
    "letter that is not ASCII": ({"obj_label": "\u041c\u0438\u0440"}, {"obj_label": "\u041c\u0435\u0440"}),
    "letter of another script": ({"sub_label": "coca"}, {"sub_label": "\u0441oca"}),
    "letter of four bytes": ({"obj_label": "\U00020bb7"}, {"obj_label": "\U00020bb8"}),
    "width of a letter": ({"sub_label": "name"}, {"sub_label": "\uff4eame"}),
    "space": ({"sub_label": "en name"}, {"sub_label": "en\u00a0name"}),
    "two spaces": ({"sub_label": "en name"}, {"sub_label": "en  name"}),
    "space behind": ({"obj_label": "en name"}, {"obj_label": "en name "}),
    "marks": ({"obj_label": "en name"}, {"obj_label": 'en "name"'}),
    "end of a name": ({"sub_label": "en", "obj_label": "name"}, {"sub_label": "enna", "obj_label": "me"}),
    "end of another name": ({"obj_label": "name", "sub_label": "en"}, {"obj_label": "na", "sub_label": "meen"}),
    "end of an identifier": ({"sub_uri": "Q900", "obj_uri": "7"}, {"sub_uri": "Q9", "obj_uri": "007"}),
}


@clause("R9", "R3")
@pytest.mark.parametrize("what", NAMES)
def test_names_that_look_alike_are_other_data(implementation: Implementation, model: Path, what: str) -> None:
    """Names and identifiers are content as they are: neither normalised, nor written one behind the other."""
    one, other = (recorded(implementation, model, with_row(75, **told))["data"] for told in NAMES[what])
    differs(other, one, what)


#: What D9 says is the same content.
FORMS: dict[str, dict[str, str]] = {
    "line endings": {"ending": "\r\n"},
    "a mark and blank lines": {"ending": "\n\n", "blank": "\n", "start": "\ufeff"},
}


@clause("R9", "R3")
@pytest.mark.parametrize("form", FORMS)
def test_the_same_data_and_model_elsewhere_are_the_same_record(
    implementation: Implementation, first: dict[str, Any], model: Path, tmp_path: Path, form: str
) -> None:
    """Other folders, another day, another form of the files, files and templates in another order: the same record."""
    copied = shutil.copytree(model, tmp_path / "somewhere else" / "another name")
    for path in copied.iterdir():  # copied yesterday
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**14))
    files = dict(reversed(written(ROWS, **FORMS[form]).items()))
    end = FORMS[form]["ending"]
    for name in [name for name in files if "templates" in name]:
        start, *lines = files[name].rpartition("\ufeff")[2].strip("\r\n").split(end)
        mark = FORMS[form].get("start", "")
        files[name] = mark + end.join([*reversed(lines), start]) + end
    equal("R9", recorded(implementation, copied, files), first, "the record of the same content elsewhere")


@clause("R9")
def test_another_process_makes_the_same_record(
    implementation: Implementation, first: dict[str, Any], model: Path
) -> None:
    """Under another PYTHONHASHSEED, as the process of the next day has."""
    if implementation.spelling is None:
        pytest.skip("not claimed: an injected object exists in this process only")
    with probes.elsewhere(implementation, PYTHONHASHSEED="4242") as other:
        equal("R9", recorded(other, model), first, "the record of the same content in another process")


# Model and tokenizer


def _moved_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if "layer.0.attention.output.dense.weight" in name)
    with torch.no_grad():
        weights[name][3, 5] = torch.nextafter(weights[name][3, 5], torch.tensor(2.0))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _last_number(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = max(sorted(weights), key=lambda name: weights[name].numel())
    with torch.no_grad():
        weights[name].view(-1)[-1] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _lower_case(folder: Path) -> None:
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**told, "normalizer": {"type": "Lowercase"}}, ensure_ascii=False), encoding="utf-8")


def _exchanged(folder: Path, first: str, second: str) -> None:
    """Two tensors for each other, so that all numbers of the model are there, elsewhere."""
    weights = load_file(folder / "model.safetensors")
    one, other = (next(n for n in sorted(weights) if part in n) for part in (first, second))
    assert not torch.equal(weights[one], weights[other])
    weights[one], weights[other] = weights[other], weights[one]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _exchanged_rows(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if "layer.0.attention.output.dense.weight" in name)
    weights[name] = weights[name][[1, 0, *range(2, len(weights[name]))]].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _swapped_words(folder: Path) -> None:
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    words = told["model"]["vocab"]
    words["country"], words["capital"] = words["capital"], words["country"]
    path.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")


def _other_epsilon(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layer_norm_eps": 1e-7}), encoding="utf-8")


def _other_mask(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**told, "mask_token": "blank"}), encoding="utf-8")


MODELS = {
    "weight": _moved_weight,
    "order of rows": _exchanged_rows,
    "order of matrices": partial(_exchanged, first="self.query.weight", second="self.key.weight"),
    "last number": _last_number,
    "vocabulary": _swapped_words,
    "letter case": _lower_case,
    "word for a mask": _other_mask,
    "configuration": _other_epsilon,
}


@clause("R9")
@pytest.mark.parametrize("what", MODELS)
def test_another_model_is_another_record(
    implementation: Implementation, first: dict[str, Any], model: Path, tmp_path: Path, what: str
) -> None:
    """A weight by its last bit; two rows, matrices or words for each other; a tokenizer that folds case or has
    another mask; an epsilon.
    """
    copied = shutil.copytree(model, tmp_path / model.name)
    MODELS[what](copied)
    found = recorded(implementation, copied)
    differs(found["model"], first["model"], f"{what} of the model")
    equal("R9", found["data"], first["data"], f"fingerprint of the data with another {what} of the model")


@clause("R9")
def test_another_number_in_any_kind_of_tensor_is_another_record(
    implementation: Implementation, first: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    """One number of a tensor of each kind that the model has: matrices, biases and norms, of encoder and head."""
    copied = shutil.copytree(model, tmp_path / model.name)
    path = copied / "model.safetensors"
    weights = load_file(path)
    kinds: dict[str, list[str]] = {}
    for name in sorted(weights):
        kinds.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    found = {"none": first["model"]}
    for place, names in enumerate(kinds.values()):
        name = names[place % len(names)]
        changed = weights[name].clone()
        changed.view(-1)[len(changed) // 2] += 1e-3
        save_file({**weights, name: changed}, path, metadata={"format": "pt"})
        told = recorded(implementation, copied)["model"]
        same = [other for other, earlier in found.items() if earlier == told]
        holds("R9", not same, f"another number in {name}", expected="another record", got=f"that of a change in {same}")
        found[name] = told


# Settings, rulings, seed


@clause("R9")
@pytest.mark.parametrize("name", SETTINGS)
def test_another_hyper_parameter_is_another_record(
    implementation: Implementation, first: dict[str, Any], model: Path, name: str
) -> None:
    """Each alone, doubled, and by a thousandth, as of a rate that is shown with few digits."""
    for times in (2, 1.001):
        found = recorded(implementation, model, **{name: _plain(name, times)})
        differs(found["configuration"], first["configuration"], f"{name}, {times} times as large")


@clause("R9")
@pytest.mark.parametrize("name", [name for name in SETTINGS if name.startswith("lambda_")])
def test_a_weight_of_zero_is_another_record(
    implementation: Implementation, first: dict[str, Any], model: Path, name: str
) -> None:
    """A part of the objective that is switched off: neither the preset's record, nor that of another part's."""
    zero = {other: recorded(implementation, model, **{other: 0.0}) for other in SETTINGS if other.startswith("lambda_")}
    differs(zero[name]["configuration"], first["configuration"], f"{name}, which is 0")
    same = [other for other in zero if zero[other]["configuration"] == zero[name]["configuration"]]
    equal("R9", same, [name], f"hyper-parameters that have one record where each is 0, {name} among them")


def _plain(name: str, times: float) -> float:
    """The preset's value so many times, as an integer where it counts steps."""
    counts = name in ("max_steps", "validate_every", "patience")
    return round(times * PAPER[name]) if counts else float(times * PAPER[name])


@clause("R9")
def test_the_presets_own_values_are_the_presets_record(
    implementation: Implementation, first: dict[str, Any], model: Path
) -> None:
    """A run that is given each of them is the run that is given none."""
    found = recorded(implementation, model, **{name: _plain(name, 1) for name in SETTINGS})
    equal("R9", found["configuration"], first["configuration"], "configuration with the preset's values")


@clause("R9", "R3")
@pytest.mark.parametrize("name", RULINGS)
def test_another_ruling_is_another_record(
    implementation: Implementation, first: dict[str, Any], model: Path, name: str
) -> None:
    """Each alternative alone is told by the record's rulings."""
    for alternative in RULINGS[name][1:]:
        found = recorded(implementation, model, rulings={**REQUIRED, name: alternative})
        differs(found["rulings"], first["rulings"], f"ruling of {name}")
        told = found["rulings"]
        holds(
            "R3", isinstance(told, Mapping), "the record's rulings", expected="{name: what the run follows}", got=told
        )
        equal("R3", told.get(name), alternative, f"the recorded ruling of {name}")


@clause("R9", "R3")
def test_another_seed_is_another_record(implementation: Implementation, first: dict[str, Any], model: Path) -> None:
    """And nothing else of it changes."""
    found = recorded(implementation, model, seed=4)
    differs(found["seed"], first["seed"], "seed")
    equal("R9", {**found, "seed": 3}, first, "what is not the seed")


# Names that come twice


def outcomes(language: str, edit: str, updates: str, retains: str) -> list[Outcome]:
    marks = [("update", mark) for mark in updates] + [("retain", mark) for mark in retains]
    return [given_.outcome(edit, language, role, "en", mark == "1") for role, mark in marks]


@clause("M4", "M5")
def test_one_name_in_two_editing_languages_is_two_edits(implementation: Implementation) -> None:
    """An edit is known by its name and its language: rates, and both breakdowns, keep the two apart."""
    rows = [*outcomes("en", "f1", "1", "1"), *outcomes("de", "f1", "0001", "0111"), *outcomes("de", "f2", "1", "0")]
    expected = oracles.metrics(rows)
    for name in ("acc", "con"):
        close("M5", implementation.metrics(rows)[name], float(expected[name]), f"{name} of both edits", outcomes=rows)
    by_language = implementation.breakdown(rows, "language")["en"]
    for name in ("acc", "con"):
        close("M4", by_language[name], float(expected[name]), f"{name} of English inputs", outcomes=rows)
    english = implementation.breakdown(rows, "edit_language")["en"]
    equal("M4", (english["acc"], english["con"]), (1.0, 1.0), "rates of the English edit", outcomes=rows)


@clause("R4", "R3")
@pytest.mark.parametrize("edit_language", ["en", None], ids=["Table 1", "Table 2"])
def test_runs_that_share_names_of_edits_are_kept_apart(
    implementation: Implementation, edit_language: str | None
) -> None:
    """Seeds whose edits have one name and other inputs: a row is the mean of its runs, not of their pooled inputs."""
    asked = [
        ("mend", "all", 0, outcomes("en", "f1", "1", "1")),
        ("mend", "all", 1, outcomes("en", "f1", "00010", "0111") + outcomes("en", "f2", "00", "11")),
        ("mend", "lime", 0, outcomes("en", "f1", "0", "1")),
        ("mend", "lime", 1, outcomes("en", "f1", "1", "01")),
        ("knowledge_editor", "all", 0, outcomes("en", "f1", "011", "10")),
    ]
    if edit_language is None:
        # The second run of an editor edits in a language that the first did not.
        asked[1][-1].extend(outcomes("de", "f3", "1", "000"))
        asked[3][-1].extend(outcomes("de", "f1", "00", "1"))
    runs: list[StoredRun] = [
        {"name": f"{editor}-{training}-{seed}", "editor": editor, "training": training, "seed": seed, "outcomes": rows}
        for editor, training, seed, rows in asked
    ]
    rows = by_training(implementation.table(runs, edit_language))
    for key in {(run["editor"], run["training"]) for run in runs}:
        mine = [oracles.metrics(run["outcomes"]) for run in runs if (run["editor"], run["training"]) == key]
        acc, con = (oracles.mean([rates[name] for rates in mine]) for name in ("acc", "con"))
        for name, value in (("acc", acc), ("con", con), ("succ", oracles.succ(acc, con))):
            off = abs(rows[key][name] - float(100 * value))  # type: ignore[literal-required]
            what, got = f"{name} of {key}, in percent", rows[key][name]  # type: ignore[literal-required]
            holds("R4", off <= 2 * ROUNDED, what, expected=float(100 * value), got=got, runs=runs)
