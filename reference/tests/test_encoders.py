"""Every supported family on random weights in the hub's layout: what we compute is what the model itself computes.

Tolerance: a logit, of magnitude 1 to 10 here, to 2e-5; an entry of a gradient to 2e-5 of the gradient's largest one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertTokenizer,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    ModernBertConfig,
    MPNetConfig,
    RemBertConfig,
    RobertaConfig,
    RoFormerConfig,
    XLMRobertaConfig,
    XmodConfig,
)

from lime_editing.backbone import Backbone, capture, load, load_encoder, load_tokenizer, max_tokens, wrap
from lime_editing.core.corpus import Example, ParallelCorpus
from lime_editing.core.editing import Objective, batch_of, edit, losses_of, make_editor
from lime_editing.core.evaluation import predict
from lime_editing.core.metrics import Scores
from lime_editing.core.task import pair, request
from lime_editing.core.training import Schedule, train
from lime_editing.errors import ModelError
from lime_editing.records import EditRequest, Input, Triple

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(35)))
SIZE: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}
RELATIVE: dict[str, Any] = {
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
}
DISTIL = {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40}
LENGTHS = (3, 9, 17, 5, 30, 30)
CLASSES = ("entailment", "neutral", "contradiction")

#: Every family, and within a family what its configurations do differently. `intermediate_size` is 1.5 times the hidden
#: size, as in ModernBERT: there Wi has the shape of the attention's Wqkv.
FAMILIES: dict[str, Callable[[], Any]] = {
    "bert": lambda: BertConfig(**SIZE),
    "bert-square": lambda: BertConfig(**SIZE | {"intermediate_size": 16}),
    "xlm-r": lambda: XLMRobertaConfig(**SIZE | {"max_position_embeddings": 42}, pad_token_id=0),
    "roberta": lambda: RobertaConfig(**SIZE, pad_token_id=0),
    "distilbert": lambda: DistilBertConfig(vocab_size=len(WORDS), **DISTIL),
    "electra": lambda: ElectraConfig(**SIZE, embedding_size=8),
    "electra-of-one-width": lambda: ElectraConfig(**SIZE, embedding_size=16),
    "rembert": lambda: RemBertConfig(**SIZE, input_embedding_size=8, output_embedding_size=12, pad_token_id=0),
    "deberta-v2": lambda: DebertaV2Config(**SIZE),
    "mdeberta": lambda: DebertaV2Config(**SIZE, **RELATIVE, type_vocab_size=0),
    "mdeberta-with-its-own-head": lambda: DebertaV2Config(**SIZE, **RELATIVE, legacy=False),
    "modernbert": lambda: ModernBertConfig(**SIZE, **SPECIAL, local_attention=4),
    "mmbert": lambda: ModernBertConfig(
        **SIZE, **SPECIAL, local_attention=8, global_attn_every_n_layers=2, classifier_pooling="mean"
    ),
}
KINDS = {"facts": AutoModelForMaskedLM, "pairs": AutoModelForSequenceClassification}


def write(name: str, kind: str, folder: Path) -> Path:
    """A folder as `save_pretrained` makes it, and a tokenizer of whole words; weights large enough to matter."""
    torch.manual_seed(0)
    config = FAMILIES[name]()
    if kind == "pairs":
        config.id2label, config.label2id = dict(enumerate(CLASSES)), {c: i for i, c in enumerate(CLASSES)}
    model = KINDS[kind].from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    BertTokenizer(vocab={w: i for i, w in enumerate(WORDS)}, do_lower_case=False).save_pretrained(folder)
    return folder


def inputs(count: Sequence[int] = LENGTHS) -> list[Input]:
    return [Input(tuple(5 + (7 * i + 11 * k) % 35 for i in range(n)), (1, n - 1)) for k, n in enumerate(count)]


def own_logits(model: Any, asked: Sequence[Input], padded: bool = False) -> Tensor:
    """The model's own answers: one by one, or as one padded batch."""
    if not padded:
        found = [model(torch.tensor([i.ids])).logits for i in asked]
    else:
        width = max(len(i.ids) for i in asked)
        ids = torch.tensor([[*i.ids, *[0] * (width - len(i.ids))] for i in asked])
        seen = torch.tensor([[1] * len(i.ids) + [0] * (width - len(i.ids)) for i in asked])
        found = list(model(input_ids=ids, attention_mask=seen).logits[:, None].unbind(0))
        found = [y if y.dim() == 2 else y[:, :, :] for y in found]
    return torch.cat([y if y.dim() == 2 else y[0, list(i.positions)] for i, y in zip(asked, found, strict=True)])


@pytest.fixture(params=[(name, kind) for name in FAMILIES for kind in KINDS], ids="-".join)
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    name, kind = request.param
    return load(write(name, kind, tmp_path / "model"), 2, classifier=kind == "pairs")


def test_trunk_and_upper_part_answer_as_the_model(backbone: Backbone) -> None:
    """At several lengths, with and without padding, from every layer on."""
    for edited in (1, 2, 4):
        cut = wrap(backbone.model, edited)
        for asked in (inputs(), inputs((12, 12))):
            with torch.no_grad():
                ours = cut.upper(cut.trunk(asked))
                torch.testing.assert_close(ours, own_logits(cut.model, asked), atol=2e-5, rtol=2e-5)
                torch.testing.assert_close(ours, own_logits(cut.model, asked, padded=True), atol=2e-5, rtol=2e-5)


def test_the_gradient_of_the_edited_matrices_is_autograds(backbone: Backbone) -> None:
    asked, model = inputs(), backbone.model
    states = backbone.trunk(asked)
    factors, _ = capture(backbone, states, lambda logits: logits.log_softmax(-1)[:, 1].sum())
    model.requires_grad_(True)
    whole = own_logits(model, asked).log_softmax(-1)[:, 1].sum()
    theirs = torch.autograd.grad(whole, [backbone.linears[name].weight for name in backbone.edited])
    for name, gradient in zip(backbone.edited, theirs, strict=True):
        x, delta = factors[name]
        ours = torch.einsum("btm,btn->mn", delta, x)
        torch.testing.assert_close(ours, gradient, atol=2e-5 * float(gradient.abs().max()), rtol=0)
        assert gradient.abs().max() > 0


def test_an_edit_holds_and_leaves_the_model_as_it_is(backbone: Backbone) -> None:
    asked = inputs((7,))[0] if not backbone.classifies else Input(inputs((7,))[0].ids, (0,))
    wanted = (6, 9) if not backbone.classifies else (2,)
    before = {name: p.clone() for name, p in backbone.model.named_parameters()}
    editor = make_editor("finetuning", backbone, ["en"], settings={"lr": 1e-2, "steps": 200})
    update = edit(editor, [EditRequest(asked, wanted, "en")])
    assert predict(backbone, [asked], update) == [wanted]
    assert all(torch.equal(before[name], p) for name, p in backbone.model.named_parameters())


@dataclass(frozen=True)
class Toy:
    """Six inputs in two languages, as a `Task`."""

    classifies: bool

    @property
    def corpus(self) -> ParallelCorpus:
        return ParallelCorpus.of(Example(f"f{i}", code, f"f{i}/{code}") for i in range(6) for code in ("de", "en"))

    editable = None

    def _input(self, example: Example) -> Input:
        first = 5 + int(example.fact[1:]) + 6 * (example.language == "de")
        return Input((2, first, 4, 20, 3), (0,) if self.classifies else (2,))

    def request(self, edit: Example, rng: np.random.Generator) -> EditRequest:
        return EditRequest(self._input(edit), (int(rng.integers(3)),), edit.language)

    def update_input(self, update: Example, edit: Example, request: EditRequest) -> Input:
        return self._input(update)

    def retain_input(self, retain: Example, rng: np.random.Generator) -> Input:
        return self._input(retain)


TRAINED = [(name, kind, "mend") for name in FAMILIES for kind in KINDS]
TRAINED += [("mmbert", "pairs", "knowledge_editor"), ("rembert", "pairs", "knowledge_editor")]
TRAINED += [("mmbert", "facts", "editable_training"), ("mdeberta", "facts", "editable_training")]


@pytest.mark.parametrize(("name", "kind", "method"), TRAINED, ids=map("-".join, TRAINED))
def test_a_short_training_works(name: str, kind: str, method: str, tmp_path: Path) -> None:
    """The parameters move, and stay finite; RemBERT's embeddings are narrower than what KnowledgeEditor reads."""
    found = load(write(name, kind, tmp_path / "model"), 2, classifier=kind == "pairs")
    settings = {"knowledge_editor": {"lstm": 4, "hidden": 4}, "mend": {"rank": 4, "lr": 1e-2}}.get(method)
    editor = make_editor(method, found, ["de", "en"], "language", settings=settings)
    before = {name: p.detach().clone() for name, p in editor.parameters.items()}
    schedule = Schedule(edits=6, batch=2, validate_every=6, patience=6, checkpoint_every=6)
    for _ in train(editor, Toy(found.classifies), lambda _: Scores(0.5, 0.5, 0.5), schedule, Objective(), 0):
        pass
    assert all(bool(p.isfinite().all()) for p in editor.parameters.values())
    assert any(not torch.equal(before[name], p) for name, p in editor.parameters.items())


def test_a_step_of_fixed_shape_has_the_losses_of_a_step_of_any_shape(backbone: Backbone) -> None:
    """Also where every input needs a row of its own, because positions are those in the row."""
    toy, rng = Toy(backbone.classifies), np.random.default_rng(0)
    examples = toy.corpus.examples
    requests = [toy.request(example, rng) for example in examples[:3]]
    triples = [
        Triple(asked, toy.update_input(example, example, asked), toy.retain_input(example, rng))
        for asked, example in zip(requests, examples[3:6], strict=True)
    ]
    made = make_editor("mend", backbone, ["de", "en"])
    free, fixed = (
        losses_of(made, batch_of(made, triples, None, bool(f)).on(torch.device("cpu")), Objective()) for f in (0, 1)
    )
    for name, loss in free.items():
        torch.testing.assert_close(fixed[name], loss, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_classifier_is_made_of_every_encoder(name: str, tmp_path: Path) -> None:
    """Pairs have token types where the model has them, and none elsewhere."""
    folder = write(name, "facts", tmp_path / "model")
    made, tokenizer = load_encoder(folder, CLASSES, 2), load_tokenizer(folder)
    assert made.classifies
    assert made.model.config.label2id == {c: i for i, c in enumerate(CLASSES)}
    both = pair(tokenizer, "w1 w2", "w3")
    types = {"token_type_ids": torch.tensor([both.types])} if made.reads_types else {}
    with torch.no_grad():
        theirs = made.model(torch.tensor([both.ids]), **types).logits
    torch.testing.assert_close(made.upper(made.trunk([both])), theirs, atol=2e-5, rtol=2e-5)
    assert made.max_tokens == max_tokens(folder)


def test_of_a_gated_mlp_both_matrices_are_edited(tmp_path: Path) -> None:
    """Wi is known from the attention's Wqkv, which has its shape, by its place."""
    found = load(write("modernbert", "facts", tmp_path / "model"), 2)
    assert found.edited == tuple(f"model.layers.{i}.mlp.{part}.weight" for i in (2, 3) for part in ("Wi", "Wo"))
    assert found.shapes["model.layers.3.mlp.Wi.weight"] == (16, 48)


def test_debertas_own_head_is_found_as_the_hub_stores_it(tmp_path: Path) -> None:
    """On the hub config.json does not say which of the two heads the weights have."""
    folder = write("mdeberta-with-its-own-head", "facts", tmp_path / "model")
    path = folder / "config.json"
    about = json.loads(path.read_text())
    del about["legacy"]
    path.write_text(json.dumps(about))
    found = load(folder, 2)
    assert "lm_predictions" in dict(found.model.named_children())
    wanted = request(load_tokenizer(folder), "w1 [MASK] w2", "w7", "en")
    assert found.upper(found.trunk([wanted.input])).shape == (1, len(WORDS))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "albert": (lambda: AlbertConfig(**SIZE, embedding_size=8), "share one set of weights"),
    "xmod": (lambda: XmodConfig(**SIZE, languages=["de_DE", "en_XX"]), "adapters of each language"),
    "mpnet": (lambda: MPNetConfig(**SIZE), "looked for an encoder"),
    "roformer": (lambda: RoFormerConfig(**SIZE, embedding_size=16), "looked for an encoder"),
    "deberta-with-a-convolution": (lambda: DebertaV2Config(**SIZE, conv_kernel_size=3), "a convolution"),
    "bert-as-a-decoder": (lambda: BertConfig(**SIZE, is_decoder=True), "it is a decoder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why_and_what_is_supported(name: str, tmp_path: Path) -> None:
    make, reason = REFUSED[name]
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(make()).eval()
    model.save_pretrained(tmp_path)
    for attempt in (lambda: wrap(model), lambda: load(tmp_path)):
        with pytest.raises(ModelError, match=reason) as raised:
            attempt()
        assert "XLM-R, RoBERTa, CamemBERT, DistilBERT, ELECTRA, RemBERT, DeBERTa-v2/v3" in str(raised.value)


def test_a_language_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"not supported; supported are BERT"):
        load(tmp_path)


def test_chunks_change_nothing_where_a_model_is_loaded_and_are_refused_where_it_is_given(tmp_path: Path) -> None:
    """In chunks an edited matrix would be called several times, and a hook would see the last chunk alone."""
    plain = load(write("bert", "facts", tmp_path / "model"), 2)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chunk_size_feed_forward": 2}))
    chunked, asked = load(tmp_path / "model", 2), inputs()
    assert torch.equal(plain.upper(plain.trunk(asked)), chunked.upper(chunked.trunk(asked)))
    with pytest.raises(ModelError, match="chunk_size_feed_forward=0"):
        wrap(AutoModelForMaskedLM.from_pretrained(tmp_path / "model"))


def test_a_token_without_an_embedding_is_named(tmp_path: Path) -> None:
    found = load(write("bert", "facts", tmp_path / "model"), 2)
    with pytest.raises(ModelError, match="do not belong together"):
        found.trunk([Input((2, len(WORDS), 3), (1,))])
