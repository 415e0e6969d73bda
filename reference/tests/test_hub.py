"""Models in the hub's layouts: what serves facts, what serves pairs, and what is refused, with a word on what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM

from lime_editing.backbone import fingerprint, load, load_encoder, load_tokenizer, max_tokens
from lime_editing.core.sampling import derived_rng
from lime_editing.data import Reader
from lime_editing.data.facts.read import read
from lime_editing.data.facts.task import tasks
from lime_editing.errors import ModelError
from lime_editing.names import Rulings
from lime_editing.records import Input
from reference.tests import hub
from reference.tests.refusals import refused

Make = Callable[[Path], Path]
CLASSES = ("entailment", "neutral", "contradiction")
WITH_HEAD: list[Make] = [hub.mbert, hub.xlm_r]
ENCODERS: list[Make] = [*WITH_HEAD, hub.e5, hub.labse]


@pytest.mark.parametrize("make", WITH_HEAD, ids=lambda make: make.__name__)
def test_a_masked_language_model_answers_facts_as_transformers_runs_it(make: Make, facts: Path, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    backbone, tokenizer = load(folder, 2), load_tokenizer(folder)
    task = tasks(read(facts), Reader(tokenizer, backbone.max_tokens), Rulings(), {})["test"]
    asked = [task.retain_input(example, derived_rng(0)) for example in task.corpus.examples]
    assert tokenizer.unk_token_id not in {token for one in asked for token in one.ids}
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    with torch.no_grad():
        ours = backbone.upper(backbone.trunk(asked))
        theirs = [model(torch.tensor([one.ids])).logits[0, list(one.positions)] for one in asked]
    torch.testing.assert_close(ours, torch.cat(theirs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [hub.e5, hub.labse], ids=lambda make: make.__name__)
def test_an_encoder_without_a_head_is_refused_for_facts(
    make: Make, facts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "model")
    argv = ["reproduce", "--task", "facts", "--facts", str(facts), "--model", str(folder), "--results", str(tmp_path)]
    refused(capsys, argv, (str(folder), "lacks a masked-language head", "give a model with one", "--task nli"))


@pytest.mark.parametrize("make", ENCODERS, ids=lambda make: make.__name__)
def test_any_encoder_gets_a_new_head_for_pairs(make: Make, tmp_path: Path) -> None:
    """The same in each process, another for another seed, and the encoder's own weights below it."""
    folder = make(tmp_path / "model")
    first, again, other = (load_encoder(folder, CLASSES, 2, seed=seed) for seed in (0, 0, 1))
    tokenizer = load_tokenizer(folder)
    assert fingerprint(first, tokenizer) == fingerprint(again, tokenizer) != fingerprint(other, tokenizer)
    assert first.classifies
    assert first.model.config.id2label == dict(enumerate(CLASSES))
    encoder = first.model.base_model.encoder.state_dict()
    kept = other.model.base_model.encoder.state_dict()
    assert all(torch.equal(encoder[name], kept[name]) for name in encoder)
    assert first.upper(first.trunk([Input((5, 6, 7), (0,))])).shape == (1, 3)


def test_old_names_of_weights_are_read(tmp_path: Path) -> None:
    """What is not found under its name is not filled with ones and zeros."""
    folder = hub.mbert(tmp_path / "model")
    path = folder / "model.safetensors"
    weights = hub.load_file(path)
    name = "bert.encoder.layer.1.output.LayerNorm.gamma"
    weights[name] = torch.full_like(weights[name], 3.0)
    hub.save_file(weights, path, {"format": "pt"})
    assert load(folder, 2).model.bert.encoder.layer[1].output.LayerNorm.weight.tolist() == [3.0] * 16


def test_a_pooler_that_is_not_there_is_new(tmp_path: Path) -> None:
    folder = hub.labse(tmp_path / "model")
    path = folder / "model.safetensors"
    hub.save_file({k: v for k, v in hub.load_file(path).items() if "pooler" not in k}, path, {"format": "pt"})
    first, again = (load_encoder(folder, CLASSES).model.bert.pooler.dense.weight for _ in range(2))
    assert torch.equal(first, again)
    assert first.std() > 0


def test_an_encoder_that_lacks_a_layer_is_refused(tmp_path: Path) -> None:
    folder = hub.labse(tmp_path / "model")
    path = folder / "model.safetensors"
    hub.save_file({k: v for k, v in hub.load_file(path).items() if ".layer.1." not in k}, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack a part of an encoder: bert\.encoder\.layer\.1\."):
        load_encoder(folder, CLASSES)
    with pytest.raises(ModelError, match=r"lack a part of a masked language model: "):
        load(folder)


def test_a_classifier_is_no_encoder_unless_of_other_classes(tmp_path: Path) -> None:
    """A head of as many classes has been fine-tuned; another is put in its place."""
    folder = hub.xlm_r(tmp_path / "model")
    load_encoder(folder, CLASSES).model.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"is a classifier of 3 classes already: .*--raw-model"):
        load_encoder(folder, CLASSES)
    assert load_encoder(folder, ["no", "yes"]).model.config.id2label == {0: "no", 1: "yes"}
    assert load(folder, classifier=True).classifies


def test_an_encoder_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = hub.labse(tmp_path / "model")
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"intermediate_size": 32', '"intermediate_size": 48'))
    with pytest.raises(ModelError, match=r"lack a part of an encoder: bert\.encoder\.layer\.0\.intermediate\.dense"):
        load_encoder(folder, CLASSES)


@pytest.mark.parametrize("make", ENCODERS, ids=lambda make: make.__name__)
def test_the_longest_input_is_known_without_weights(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    expected = load_encoder(folder, CLASSES).max_tokens
    (folder / "model.safetensors").unlink()
    assert max_tokens(folder) == expected == 32


def test_weights_that_are_pickled_alone_are_not_loaded(tmp_path: Path) -> None:
    folder = hub.labse(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_encoder(folder, CLASSES)


def test_layers_by_name_are_edited_in_the_models_order(tmp_path: Path) -> None:
    folder = hub.xlm_r(tmp_path / "model")
    names = [f"roberta.encoder.layer.{i}.output.dense.weight" for i in (2, 0)]
    assert load(folder, names).edited == (names[1], names[0])
    assert load(folder, names).first == 0
    with pytest.raises(ModelError, match=r"'layer\.7' in the model; there are: roberta\.encoder"):
        load(folder, [*names, "layer.7"])
