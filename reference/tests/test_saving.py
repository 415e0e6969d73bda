"""What `edit --save` keeps: loaded again, it answers as the applied update does."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from lime_editing import saving
from lime_editing.__main__ import main
from lime_editing.backbone import Backbone, load, load_tokenizer
from lime_editing.cli import edit as cli_edit
from lime_editing.core.editing import Editor, edit, make_editor
from lime_editing.core.sets import edit_all
from lime_editing.core.task import request
from lime_editing.errors import ModelError, UserError
from lime_editing.records import EditRequest, Input
from lime_editing.updates import Update, compose

TEXTS = [
    ("Aton P1 en [MASK] .", "Cola", "en"),
    ("Bema P2 de [MASK] .", "Dira", "de"),
    ("Gosa P1 en [MASK] .", "Aton", "en"),
]


def editor_of(model: Path, name: str = "mend", **settings: Any) -> Editor:
    given = {"rank": 8, "inner_lr": 0.05} if name == "mend" else settings
    return make_editor(name, load(model, 2), ("en", "de", "fr"), settings=given)


def requests_of(model: Path) -> list[EditRequest]:
    return [request(load_tokenizer(model), *row) for row in TEXTS]


@torch.no_grad()
def logits(backbone: Backbone, asked: list[EditRequest], update: Update | None = None) -> Tensor:
    return backbone.upper(backbone.trunk([one.input for one in asked]), update)


@torch.no_grad()
def answered(model: Any, asked: list[EditRequest]) -> Tensor:
    rows = [model(input_ids=torch.tensor([one.input.ids])).logits[0, list(one.input.positions)] for one in asked]
    return torch.cat(rows)


@pytest.mark.parametrize("width", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_an_edited_model_folder_is_the_raw_one_but_for_the_edited_matrices(
    model: Path, tmp_path: Path, width: torch.dtype, prefix: str
) -> None:
    """Matrices in their own width, in shards, whatever the encoder's prefix; every other tensor byte by byte."""
    weights = {name: w.to(width) for name, w in load_file(model / "model.safetensors").items()}
    stored = {name if prefix or not name.startswith("bert.") else name[5:]: w for name, w in weights.items()}
    names = sorted(stored)
    (model / "model.safetensors").unlink()
    shards = {f"model-{i:05}-of-00002.safetensors": names[i - 1 :: 2] for i in (1, 2)}
    for file, held in shards.items():
        save_file({name: stored[name].contiguous() for name in held}, model / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "pytorch_model.bin").write_bytes(b"old")
    editor, asked = editor_of(model), requests_of(model)
    update = edit_all(editor, asked)
    folder = tmp_path / "there" / "edited"
    kept = saving.save_model(update, editor.backbone, str(model), str(folder))  # paths as text
    assert {p.name for p in folder.iterdir()} == {p.name for p in model.iterdir()} - {"pytorch_model.bin"}
    edited = {name if prefix else name.removeprefix("bert.") for name in editor.backbone.edited}
    changes = update.dense(0)
    for file in shards:
        before, after = load_file(model / file), load_file(folder / file)
        assert before.keys() == after.keys()
        for name, old in before.items():
            full = name if name.startswith(("bert.", "cls.")) else f"bert.{name}"
            expected = (old.float() + changes[full]).to(width) if name in edited else old
            assert after[name].dtype == width
            assert torch.equal(after[name].view(torch.uint8), expected.view(torch.uint8)), name
    again = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    tolerance = 1e-4 if width == torch.float32 else 0.05
    torch.testing.assert_close(answered(again, asked), logits(editor.backbone, asked, update), rtol=0, atol=tolerance)
    torch.testing.assert_close(answered(again, asked), logits(editor.backbone, asked, kept), rtol=0, atol=1e-5)
    assert load_tokenizer(folder)("Aton P1")["input_ids"] == load_tokenizer(model)("Aton P1")["input_ids"]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, in how peft calls it
def test_an_adapter_is_loaded_by_peft_and_answers_as_the_update(model: Path, tmp_path: Path) -> None:
    """Factors as they are; a ΔW cut by SVD has the error that is told."""
    peft = pytest.importorskip("peft")
    editor, asked = editor_of(model), requests_of(model)
    for i, (update, rank, exact) in enumerate(
        ((edit(editor, asked)[0], None, True), (edit_all(editor, asked), 16, True), (edit_all(editor, asked), 2, False))
    ):
        folder = tmp_path / f"adapter{i}"
        errors = saving.save_lora(update, editor.backbone, model, folder, rank)
        assert (max(errors.values()) < 1e-5) == exact
        plain = AutoModelForMaskedLM.from_pretrained(model).eval()
        adapted = peft.PeftModel.from_pretrained(plain, folder).eval()
        cut = {}
        tensors = load_file(folder / "adapter_model.safetensors")
        for name, delta in update.dense(0).items():
            module = f"base_model.model.{name.removesuffix('.weight')}"
            cut[name] = tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]
            error = float((cut[name] - delta).norm() / delta.norm())
            assert error == pytest.approx(errors[name], abs=1e-5)
        under = Update(deltas={name: delta[None] for name, delta in cut.items()})
        torch.testing.assert_close(answered(adapted, asked), logits(editor.backbone, asked, under), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["mend", "finetuning", "editable_training"])
def test_a_file_of_edits_gives_them_back_and_drops_them(model: Path, tmp_path: Path, name: str) -> None:
    editor, asked = (
        editor_of(model, name, **({"lr": 0.01, "steps": 3} if name == "finetuning" else {})),
        requests_of(model),
    )
    made = edit(editor, asked)
    told = tuple({"text": text, "to": to, "language": language} for text, to, language in TEXTS)
    saved = saving.Saved(tuple(made[i] for i in range(3)), told, {"model": "here"})
    path = tmp_path / "kept" / saving.UPDATE
    saving.save_updates(path, saved)
    again = saving.load_updates(path)
    assert (again.requests, dict(again.about)) == (told, {"model": "here"})
    raw = editor.backbone.raw

    def same(a: Update, b: Update) -> None:
        torch.testing.assert_close(a.dense(0, raw), b.dense(0, raw), rtol=1e-5, atol=1e-7)

    for i in range(3):
        same(again.updates[i], made[i])
    rest = saving.drop(again, [2])
    assert rest.requests == (told[0], told[2])
    same(compose(rest.updates), compose([made[0], made[2]]))
    with pytest.raises(UserError, match="no edit 4; the file has 1 to 3"):
        saving.drop(again, [4])
    with pytest.raises(UserError, match="as one"):
        saving.drop(saving.Saved((compose([made]),), told, {}), [1])


def test_everyone_may_read_what_the_folder_lets_them(model: Path, tmp_path: Path) -> None:
    """safetensors itself writes files that their owner alone may read."""
    editor, asked = editor_of(model), requests_of(model)
    update = edit(editor, asked)[0]
    saving.save_lora(update, editor.backbone, str(model), str(tmp_path / "adapter"))  # paths as text
    saving.save_updates(str(tmp_path / "kept"), saving.Saved((update,), ({},), {}))
    (tmp_path / "plain").touch()
    files = [tmp_path / "adapter" / "adapter_model.safetensors", tmp_path / "kept", tmp_path / "plain"]
    assert len({file.stat().st_mode for file in files}) == 1


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, in how peft calls it
def test_an_adapter_of_a_classifier_is_loaded_by_peft(classifier: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    backbone = load(classifier, 2, classifier=True)
    editor = make_editor("mend", backbone, ("en",), settings={"rank": 8, "inner_lr": 0.05})
    asked = EditRequest(Input((2, 11, 6, 9, 3), (0,)), (1,), "en")
    update = edit(editor, [asked])
    saving.save_lora(update, backbone, classifier, tmp_path / "adapter")
    plain = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    ids = torch.tensor([asked.input.ids])
    with torch.no_grad():
        raw = plain(input_ids=ids).logits
        adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()(input_ids=ids).logits
        expected = backbone.upper(backbone.trunk([asked.input]), update)
    torch.testing.assert_close(adapted, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(adapted, raw, atol=1e-3)


def test_an_edited_model_is_not_kept_in_the_raw_model_s_folder(model: Path) -> None:
    """It would be a part of the raw model, and be copied with it."""
    editor, asked = editor_of(model), requests_of(model)
    with pytest.raises(UserError, match="is in the model's own folder, of which it would be a part; name another"):
        saving.save_model(edit_all(editor, asked), editor.backbone, model, model / "edited")
    assert not (model / "edited").exists()


def test_a_file_of_edits_has_one_update_for_each_or_one_for_all(model: Path, tmp_path: Path) -> None:
    """An update of several edits would be read back as its first alone."""
    editor, asked = editor_of(model), requests_of(model)
    update, told = edit(editor, asked), ({"to": "a"}, {"to": "b"}, {"to": "c"})
    with pytest.raises(UserError, match="the update has 3 edits, and one is saved"):
        saving.save_updates(tmp_path / "u.safetensors", saving.Saved((update,), told, {}))
    with pytest.raises(UserError, match="2 updates of 3 edits; give one for each"):
        saving.save_updates(tmp_path / "u.safetensors", saving.Saved((update[0], update[1]), told, {}))
    assert not (tmp_path / "u.safetensors").exists()


def test_a_home_folder_is_found_and_a_link_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    editor, asked = editor_of(model), requests_of(model)
    update = edit_all(editor, asked)
    saving.save_model(update, editor.backbone, f"~/{model.name}", tmp_path / "edited")
    saving.save_lora(update, editor.backbone, f"~/{model.name}", tmp_path / "adapter")
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(model.resolve())
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with pytest.raises(UserError, match="is a symbolic link"):
        saving.save_model(update, editor.backbone, model, tmp_path / "link")


def test_what_cannot_be_saved_or_read_is_said(model: Path, tmp_path: Path) -> None:
    editor, asked = editor_of(model), requests_of(model)
    update = edit_all(editor, asked)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(UserError, match="exists already"):
        saving.save_model(update, editor.backbone, model, tmp_path / "full")
    other = tmp_path / "other"
    shutil.copytree(model, other)
    weights = load_file(other / "model.safetensors")
    save_file({n: w for n, w in weights.items() if "layer.2." not in n}, other / "model.safetensors")
    with pytest.raises(ModelError, match=r"have no bert\.encoder\.layer\.2"):
        saving.save_model(update, editor.backbone, other, tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "model", "other"]
    for content in (b"", b"\x08\0\0\0\0\0\0\0{}      "):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(UserError, match="is not a file of edits"):
            saving.load_updates(tmp_path / "bad")
    with pytest.raises(UserError, match=r"no such file; expected update\.safetensors"):
        saving.load_updates(tmp_path / "nowhere")


# The command

ROWS = [
    {"prompt": "Aton P1 en [MASK] .", "to": "Cola"},
    {"relation": "P2", "subject": "bema", "to": "Dira", "language": "de"},
    {"relation": "P2", "subject": "Q6", "to": "Aton", "language": "fr"},
]


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def run(facts: Path, model: Path, *more: str) -> int:
    return main(["edit", "--facts", str(facts), "--model", str(model), "--edited-layers", "2", *more])


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
def test_a_table_of_edits_becomes_a_model(
    facts: Path, model: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = table(tmp_path / f"edits.{kind}", ROWS), tmp_path / "kept"
    assert run(facts, model, "--file", str(path), "--save", str(folder), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((folder / "edits.json").read_text())
    assert [row["text"] for row in told["rows"]] == [
        "Aton P1 en [MASK] .",
        "Bema P2 de [MASK] .",
        "Gosa P2 fr [MASK] .",
    ]
    assert told["edits"] == 3
    again = AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = load_tokenizer(model)
    for row in told["rows"]:
        (best,) = answered(again, [request(tokenizer, row["text"], row["to"], "en")]).argmax(-1).tolist()
        assert (tokenizer.decode([best]) == row["to"]) == row["took"]
        assert tokenizer.decode([best]) == row["after"]
    assert all(row["fact"] not in ("P2/Q1", "P2/Q6") for row in told["changed"] if "fact" in row)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, in how peft calls it
def test_the_report_of_an_adapter_that_is_cut_is_the_adapter_s(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first edit succeeds, but not at rank 1."""
    peft = pytest.importorskip("peft")
    path, folder = table(tmp_path / "edits.jsonl", ROWS[:1]), tmp_path / "kept"
    more = ("--as", "lora", "--rank", "1", "--json")
    assert run(facts, model, "--file", str(path), "--save", str(folder), *more) == 0
    told, tokenizer = json.loads(capsys.readouterr().out), load_tokenizer(model)
    adapted = peft.PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained(model).eval(), folder).eval()
    (best,) = answered(adapted, requests_of(model)[:1]).argmax(-1).tolist()
    assert told["rows"][0]["after"] == tokenizer.decode([best]) != "Cola"
    assert told["took"] == 0


def test_the_report_of_a_model_is_of_what_its_width_keeps(
    facts: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if nothing of the edits were left of them in the weights' width."""
    monkeypatch.setattr(saving, "save_model", lambda *_: Update())
    path, folder = table(tmp_path / "edits.jsonl", ROWS), tmp_path / "kept"
    assert run(facts, model, "--file", str(path), "--save", str(folder), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert all(row["before"] == row["after"] for row in told["rows"])
    assert told["changed"] == []


def test_a_prompt_of_the_corpus_is_its_fact_and_null_is_missing(
    facts: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its parallels in other languages should change, so they are not among the unrelated inputs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    none = {"relation": None, "subject": None, "language": None}
    rows = [{"prompt": "Aton P1 en [MASK] .", "to": "Cola", **none}, {"prompt": None, **ROWS[1]}]
    table(tmp_path / "edits.jsonl", rows)
    assert run(facts, model, "--file", "~/edits.jsonl", "--save", "~/kept", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["fact"] for row in told["rows"]] == ["P1/Q0", "P2/Q1"]
    assert (tmp_path / "kept" / "edits.json").exists()


@pytest.mark.parametrize("more", [[], ["--series"]])
def test_edits_are_kept_listed_and_dropped(
    facts: Path, model: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = [{**row, "language": "en"} for row in ROWS[:1]] + ROWS[1:]
    path, kept = table(tmp_path / "edits.csv", plain), tmp_path / "kept" / saving.UPDATE
    assert run(facts, model, "--file", str(path), "--save", str(kept.parent), "--as", "update", *more) == 0
    printed = capsys.readouterr().out
    assert "By finetuning: " in printed
    assert "3 edits succeeded" in printed
    assert main(["edits", str(kept.parent)]) == 0  # the folder that was given to --save
    assert capsys.readouterr().out.splitlines()[1] == "2\tde\tBema P2 de [MASK] .\tDira"
    report = kept.with_name("edits.json")
    before = json.loads(report.read_text())
    assert main(["edits", str(kept), "--drop", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["edits"]) == 2
    assert len(saving.load_updates(kept).updates) == 2
    first, second, third = before["rows"]
    told = json.loads(report.read_text())
    assert (told["rows"], told["edits"]) == ([first, third], 2)
    assert [told[name] for name in ("took", "right_before")] == [
        first[name] + third[name] for name in ("took", "right_before")
    ]
    assert [one["text"] for one in told["dropped"]] == [second["text"]]
    assert main(["edits", str(kept), "--drop", "1", "--drop", "2"]) == 0
    assert capsys.readouterr().out == ""
    told = json.loads(report.read_text())
    assert (told["rows"], told["edits"]) == ([], 0)
    assert [one["text"] for one in told["dropped"]] == [row["text"] for row in (second, first, third)]


def test_a_list_of_other_edits_is_refused(
    facts: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both after an interruption and after a change by hand; nothing is dropped then."""
    path, kept = table(tmp_path / "edits.csv", ROWS), tmp_path / "kept" / saving.UPDATE
    assert run(facts, model, "--file", str(path), "--save", str(kept.parent), "--as", "update") == 0
    report = kept.with_name("edits.json")
    whole, told = kept.read_bytes(), json.loads(report.read_text())
    row, *others = told["rows"]
    for wrong in (
        {"rows": others},
        {"rows": [*others, row]},
        {"rows": [{**row, "to": "Dira"}, *others]},
        {"edits": 4},
        {"took": told["took"] + 1},
        {"model_fingerprint": "another"},
        {"rows": None},
    ):
        report.write_text(json.dumps(told | wrong))
        for more in ([], ["--drop", "1"]):
            assert main(["edits", str(kept), *more]) == 2
            assert "does not list the 3 edits" in " ".join(capsys.readouterr().err.split())
    report.write_text("{")
    assert main(["edits", str(kept)]) == 2
    assert "remove it: the edits are in update.safetensors" in " ".join(capsys.readouterr().err.split())
    assert kept.read_bytes() == whole
    report.unlink()
    assert main(["edits", str(kept)]) == 0
    report.write_text(json.dumps(told))
    monkeypatch.setattr(cli_edit, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["edits", str(kept), "--drop", "1"]) == 130
    capsys.readouterr()
    assert main(["edits", str(kept)]) == 2
    assert "does not list the 2 edits" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("change", ["fewer updates", "no tensors", "fewer requests", "a third tensor"])
def test_a_file_of_edits_with_another_number_of_updates_is_refused(model: Path, tmp_path: Path, change: str) -> None:
    made, path = edit(editor_of(model), requests_of(model)), tmp_path / saving.UPDATE
    saving.save_updates(path, saving.Saved((made[0], made[1]), ({}, {}), {}))
    tensors = load_file(path)
    about: dict[str, Any] = {"about": {}, "requests": [{}, {}], "updates": 2}
    about |= {"fewer updates": {"updates": 1}, "fewer requests": {"requests": [{}], "updates": 2}}.get(change, {})
    if change == "no tensors":
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("0/")}
    elif change == "a third tensor":
        tensors["2/delta/x"] = torch.zeros(1)
    save_file(tensors, path, {"lime_editing": json.dumps(about)})
    with pytest.raises(UserError, match=r"is not a file of edits, or is damaged \(\d updates of \d edits"):
        saving.load_updates(path)


WRONG = [
    ({"prompt": "no mask", "to": "Cola"}, "has no [MASK]"),
    ({"prompt": "Aton [MASK]", "to": "zzz"}, "cannot spell"),
    ({"prompt": "Aton [MASK]"}, "field 'to' must be"),
    ({"to": "Cola"}, "has neither prompt nor relation and subject"),
    (
        {"prompt": "Aton [MASK]", "relation": "P1", "subject": "Q1", "to": "Cola"},
        "has prompt and also relation and subject, which may mean another edit; keep one of the two",
    ),
    ({"prompt": "Aton [MASK]", "subject": "Q1", "to": "Cola"}, "has prompt and also subject"),
    ({"relation": "P1", "subject": "Nowhere", "to": "Cola"}, "no P1/Nowhere in 'en'"),
    ({"prompt": "Aton " * 40 + "[MASK]", "to": "Cola"}, "more than the 32 tokens"),
    ({"prompt": "Aton [MASK]", "to": "Cola", "language": 3}, "field 'language' must be"),
]


@pytest.mark.parametrize(("row", "message"), WRONG)
def test_a_wrong_row_is_named_and_skipped_only_on_request(
    facts: Path, model: Path, tmp_path: Path, row: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = table(tmp_path / "edits.jsonl", [ROWS[0], row]), tmp_path / "kept"
    assert run(facts, model, "--file", str(path), "--save", str(folder)) == 2
    error = capsys.readouterr().err
    assert f"{path}:2" in error
    assert message in error
    assert error.count(str(path)) == 1
    assert not folder.exists()
    assert run(facts, model, "--file", str(path), "--save", str(folder), "--skip-bad", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["edits"], len(told["skipped"])) == (1, 1)
    assert message in told["skipped"][0]


GOOD = '{"prompt": "Aton P1 en [MASK] .", "to": "Cola"}\n'
COLUMNS, CELLS = "prompt,to,language\n", "Aton P1 en [MASK] .,Cola,en\n"
UNREADABLE: list[tuple[str, str, dict[int, str]]] = [  # name, text (with \udcff for a byte that is not UTF-8), errors
    (
        "edits.jsonl",
        f'nonsense\n{GOOD}[1]\n\n{{"to": "\udcff"}}\n{GOOD}{{"to"',
        {1: "is not a JSON object", 3: "got list", 5: "is not UTF-8 text (byte 8)", 7: "is not a JSON object"},
    ),
    ("edits.jsonl.gz", f"{GOOD}nonsense\n{GOOD}", {2: "is not a JSON object"}),
    (
        "edits.csv",
        f'{COLUMNS}a,b,c,d\n{CELLS}"open,a,b\n"Aton\n\udcff [MASK]",Cola,en\n{CELLS}"a"b,c,en\n',
        {2: "has 4 cells", 4: "is not csv", 6: "is not UTF-8 text (byte 0)", 8: "is not csv"},
    ),
    (
        "edits.tsv",
        f'{COLUMNS}a,b\n{CELLS}"open,a,\udcff\n\udcff,a\n{CELLS}'.replace(",", "\t"),
        {2: "has 2 cells", 4: "is not UTF-8 text (byte 8)", 5: "is not UTF-8 text (byte 0)"},
    ),
]


@pytest.mark.parametrize(("name", "text", "errors"), UNREADABLE, ids=[name for name, _, _ in UNREADABLE])
def test_an_unreadable_row_is_a_wrong_row(
    facts: Path,
    model: Path,
    tmp_path: Path,
    name: str,
    text: str,
    errors: dict[int, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It has an error with its own line, and the rows after it are read."""
    path, folder = tmp_path / name, tmp_path / "kept"
    data = text.encode(errors="surrogateescape")
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert run(facts, model, "--file", str(path), "--save", str(folder)) == 2
    assert f"{path}:{min(errors)}: " in (said := capsys.readouterr().err)
    assert "--skip-bad leaves such rows out" in " ".join(said.split())
    assert run(facts, model, "--file", str(path), "--save", str(folder), "--skip-bad", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["edits"] == 2
    for (line, message), found in zip(errors.items(), told["skipped"], strict=True):
        assert found.startswith(f"{path}:{line}: ")
        assert message in found


def test_an_unreadable_header_is_no_row(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edits.csv"
    for header, message in ((b"prompt,to,\xff\n", "is not UTF-8 text"), (b"to,to,prompt\n", "'to' occurs twice")):
        path.write_bytes(header + CELLS.encode())
        assert run(facts, model, "--file", str(path), "--save", str(tmp_path / "kept"), "--skip-bad") == 2
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--file", "edits.jsonl"], "give both"),
        (["--save", "kept"], "give both"),
        (["--file", "no.jsonl", "--save", "kept"], "no.jsonl: no such file"),
        (["--file", "empty.txt", "--save", "kept"], "is no table of edits"),
        (["--file", "empty.jsonl", "--save", "kept"], "it has no rows"),
        (["Aton P1 en [MASK] ."], "--to"),
        (["Aton P1 en [MASK] .", "--to", "Cola", "--series"], "--series has no effect without --file"),
        (["Aton P1 en [MASK] .", "--to", "Cola", "--as", "lora"], "--as has no effect without --file"),
        (
            ["Aton P1 en [MASK] .", "--to", "Cola", "--languages", "fr,de"],
            "--language en is not among --languages fr,de",
        ),
        (["--file", "empty.jsonl", "--save", "kept", "--to", "Cola"], "--to has no effect beside --file"),
        (["--file", "empty.jsonl", "--save", "kept", "--rank", "4"], "give --as lora"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    facts: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "empty.txt").touch()
    assert run(facts, model, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_model_s_subfolders_are_copied_without_weights(model: Path, tmp_path: Path) -> None:
    """As of sentence-transformers; what is hidden stays, too."""
    for name in (
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
        "onnx/model.onnx",
        ".git/HEAD",
        "deep/.x/a.json",
    ):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("{}")
    editor = editor_of(model)
    saving.save_model(edit(editor, requests_of(model)[:1]), editor.backbone, model, tmp_path / "kept")
    folders = [path.relative_to(tmp_path / "kept") for path in (tmp_path / "kept").glob("*/**/*") if path.is_file()]
    assert folders == [Path("1_Pooling/config.json")]


def test_rows_that_repeat_or_contradict_are_noted(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "Aton P1 en [MASK] .", "to": to} for to in ("Cola", "Cola", "Dira")]
    path, kept = table(tmp_path / "edits.jsonl", rows), tmp_path / "kept"
    assert run(facts, model, "--file", str(path), "--save", str(kept)) == 0
    said = capsys.readouterr().out
    notes = json.loads((kept / "edits.json").read_text())["notes"]
    assert notes == [
        "lines 1, 2 are one edit, made 2 times; keep one",
        "lines 1, 2, 3 want different answers to one input; keep one",
    ]
    assert all(f"note: {note}\n" in said for note in notes)


def test_a_list_without_edits_says_so(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, kept = table(tmp_path / "edits.jsonl", ROWS[:1]), tmp_path / "kept"
    assert run(facts, model, "--file", str(path), "--save", str(kept), "--as", "update") == 0
    capsys.readouterr()
    assert main(["edits", str(kept), "--drop", "1"]) == 0
    assert capsys.readouterr().err == "no edits: all were dropped\n"
    assert main(["edits", str(kept), "--drop", "1"]) == 2
    assert "there is no edit 1; the file has no edits any more" in capsys.readouterr().err


def test_an_edit_that_diverges_says_so(
    facts: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nan = Update(deltas={load(model, 2).edited[0]: torch.full((1, 1, 1), torch.nan)})
    monkeypatch.setattr(cli_edit, "edit_batch", lambda *given, **named: nan)
    assert run(facts, model, "--fact", "P1/Q0", "--to", "Cola") == 2
    assert "the edit diverged: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["edit", "reproduce"])
def test_a_full_disk_is_said_once_and_only_a_run_resumes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*given: object) -> None:
        saving.write_atomically(tmp_path / "file", lambda path: (_ for _ in ()).throw(OSError(28, "No space left")))

    monkeypatch.setattr("lime_editing.__main__._run", full)
    assert main([name]) == 2
    said = capsys.readouterr().err
    assert said.count("resumes") == (name == "reproduce")
    assert said.count("make room") == 1


@pytest.mark.parametrize("to", ["CONTRADICTION", "Contradiction ", "contradictory"])
def test_a_class_is_named_in_any_spelling(to: str) -> None:
    """Also one of the model's own, and XNLI-MT's name for a class."""
    assert cli_edit.named(["entailment", "contradiction"], to) == "contradiction"
    assert cli_edit.named(["entailment", "contradictory"], to) == "contradictory"
    assert cli_edit.named(["Yes", "No"], "YES") == "Yes"
