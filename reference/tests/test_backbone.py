"""Raw models: which are taken, which are refused, and that none is changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaForSequenceClassification,
)

from lime_editing.backbone import load, load_tokenizer, wide, wrap
from lime_editing.core.editing import edit, make_editor
from lime_editing.core.evaluation import predict
from lime_editing.core.sets import fit
from lime_editing.core.task import request
from lime_editing.data.facts.read import read
from lime_editing.data.facts.task import fingerprint, split
from lime_editing.editors import Measuring, methods
from lime_editing.errors import LanguageError, ModelError
from lime_editing.records import EditRequest, Input

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}

SUPPORTED = {
    "bert": lambda: BertForMaskedLM(BertConfig(**SMALL)),
    "xlm-r": lambda: XLMRobertaForMaskedLM(XLMRobertaConfig(**SMALL)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**SMALL)),
    "bert-classes": lambda: BertForSequenceClassification(BertConfig(**SMALL, num_labels=3)),
    "xlm-r-classes": lambda: XLMRobertaForSequenceClassification(XLMRobertaConfig(**SMALL, num_labels=3)),
    "square-mlp": lambda: BertForMaskedLM(BertConfig(**SMALL | {"intermediate_size": 16})),
}


@pytest.mark.parametrize("make", SUPPORTED.values(), ids=SUPPORTED.keys())
def test_the_last_layers_matrices_are_found(make: object) -> None:
    backbone = wrap(make().eval(), 2)  # type: ignore[operator]
    assert backbone.first == 1
    assert [name.split("encoder.")[1] for name in backbone.edited] == [
        f"layer.{layer}.{part}.dense.weight" for layer in (1, 2) for part in ("intermediate", "output")
    ]


@pytest.mark.parametrize("make", SUPPORTED.values(), ids=SUPPORTED.keys())
def test_trunk_and_upper_part_are_the_model_on_any_padding(make: object) -> None:
    model = make().eval()  # type: ignore[operator]
    backbone = wrap(model, 1)
    inputs = [Input((2, 7, 8, 9, 3), (0, 2)), Input((2, 7, 3), (0, 1))]
    with torch.no_grad():
        ours = backbone.upper(backbone.trunk(inputs))
        alone = [model(torch.tensor([i.ids])).logits for i in inputs]
    theirs = [y if y.dim() == 2 else y[0, list(i.positions)] for i, y in zip(inputs, alone, strict=True)]
    torch.testing.assert_close(ours, torch.cat(theirs), atol=1e-5, rtol=1e-5)


def test_a_wide_map_in_pieces_is_the_whole_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, gradients and second derivatives, with and without a bias."""
    monkeypatch.setattr(wide, "PIECE", 3)
    hidden, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 4), (25, 4), (25,)))

    def in_pieces(h: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        with wide.InPieces():
            return torch.nn.functional.linear(h, weight, *rest)

    for rest in ((), (bias,)):
        torch.testing.assert_close(in_pieces(hidden, *rest), torch.nn.functional.linear(hidden, weight, *rest))
        assert torch.autograd.gradcheck(in_pieces, (hidden.requires_grad_(), *rest))
        assert torch.autograd.gradgradcheck(in_pieces, (hidden.requires_grad_(), *rest))
    assert "_Wide" in type(in_pieces(hidden).grad_fn).__name__


def test_threads_do_not_disturb_each_other(model: Path) -> None:
    """Each gets the answer under its own edit, though edits are applied by hooks."""
    backbone, tokenizer = load(model, 2), load_tokenizer(model)
    editor = make_editor("finetuning", backbone, ["en"], settings={"lr": 0.05})
    asked = [request(tokenizer, "Aton P1 en [MASK] .", answer, "en") for answer in ("Cola", "Dira", "Gosa")]
    updates: list[Any] = [None, *edit(editor, asked)]
    expected = [predict(backbone, [asked[0].input], update) for update in updates]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(predict, backbone, [asked[0].input], update) for _ in range(60) for update in updates]
        assert [job.result() for job in jobs] == expected * 60
        for job in [pool.submit(edit, editor, asked) for _ in range(8)]:
            for name, deltas in job.result().deltas.items():
                assert torch.equal(deltas, torch.cat([update.deltas[name] for update in updates[1:]]))


def test_an_unknown_matrix_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ModelError, match=r"'layer\.9'.*bert\.encoder\.layer\.0\.intermediate\.dense\.weight"):
        wrap(SUPPORTED["bert"]().eval(), ["layer.9"])


def test_more_layers_than_there_are_is_refused() -> None:
    with pytest.raises(ModelError, match="the model has 3"):
        wrap(SUPPORTED["bert"]().eval(), 4)


def test_active_dropout_is_refused() -> None:
    with pytest.raises(ModelError, match=r"model\.eval"):
        wrap(SUPPORTED["bert"]().train())


def test_a_loaded_model_is_frozen(model: Path) -> None:
    backbone = load(model, 2)
    assert not backbone.model.training
    assert not any(p.requires_grad for p in backbone.model.parameters())


def test_an_input_longer_than_the_model_reads_is_refused(model: Path) -> None:
    with pytest.raises(ModelError, match="33 tokens, and the model reads only 32"):
        load(model, 2).trunk([Input(tuple(range(5, 16)) * 3, (0,))])


def test_unknown_languages_list_the_known(facts: Path) -> None:
    with pytest.raises(LanguageError, match=r"'xx'; known in .*: de, en, fr"):
        read(facts, ["xx"])


def test_splits_keep_a_subject_together_and_follow_file_order(facts: Path) -> None:
    parts = split(read(facts))
    assert [len(parts[name].facts) for name in ("train", "validation", "test")] == [60, 6, 6]
    subjects = [{fact.sub_uri for fact in part.facts} for part in parts.values()]
    assert subjects == [{f"Q{i}" for i in range(10)}, {"Q10"}, {"Q11"}]


def test_windows_line_endings_and_a_byte_order_mark_change_nothing(facts: Path, model: Path) -> None:
    before = fingerprint(read(facts))
    for path in facts.rglob("*.jsonl"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert fingerprint(read(facts)) == before
    assert load_tokenizer(model).mask_token == "[MASK]"


def test_an_update_stays_what_it_is_while_its_editor_is_trained() -> None:
    backbone = wrap(SUPPORTED["bert"]().eval(), 2)
    request = EditRequest(Input((2, 5, 4, 7, 3), (2,)), (9,), "en")
    for method in methods().keys() - {"editable_training"}:  # whose θ' is too large to copy for each edit
        editor = make_editor(method, backbone, ("en",))
        editor = fit(editor, [request, request]) if isinstance(editor.method, Measuring) else editor
        with torch.no_grad():
            update = edit(editor, [request])
            before = {name: d.clone() for name, d in update.dense(0, backbone.raw).items()}
            for parameter in editor.parameters.values():
                parameter.add_(1)
        assert all(torch.equal(before[name], d) for name, d in update.dense(0, backbone.raw).items()), method
