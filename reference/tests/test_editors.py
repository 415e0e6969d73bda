"""Every registered editor is a `Method`: its members, and functions that are pure."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from lime_editing import (
    Backbone,
    Editor,
    EditRequest,
    Input,
    Method,
    Update,
    UserError,
    edit,
    editors,
    fit,
    load,
    make_editor,
)
from lime_editing.core.training import adam
from lime_editing.editors import Measuring, methods, register

METHODS = list(methods().values())
FUNCTIONS = ("init", "learning_rates", "update")
#: Small widths, and rates at which the tiny model's answers change.
SMALL = {"rank": 4, "lstm": 4, "hidden": 4, "steps": 3, "inner_lr": 0.1}
REQUESTS = [
    EditRequest(Input((2, 11, 6, 9, 4, 5, 3), (4,)), (12,), "en"),
    EditRequest(Input((2, 13, 7, 8, 4, 4, 5, 3), (4, 5)), (14, 15), "de"),
    EditRequest(Input((2, 16, 6, 10, 4, 5, 3), (4,)), (11,), "en"),
]
each = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.NAME)


@pytest.fixture
def backbone(model: Path) -> Backbone:
    return load(model, 2)


def settings_of(method: Method) -> Any:
    return method.Settings(**{f.name: SMALL[f.name] for f in fields(method.Settings()) if f.name in SMALL})


def editor_of(method: Method, backbone: Backbone) -> Editor:
    made = make_editor(method.NAME, backbone, ("de", "en"), settings=settings_of(method))
    return fit(made, REQUESTS * 4) if isinstance(method, Measuring) else made


def tensors_of(update: Update) -> dict[str, torch.Tensor]:
    named = {f"{name}.{side}": t for name, pair in update.factors.items() for side, t in zip("uv", pair, strict=True)}
    return {**named, **update.deltas, **{f"{name}.weight": w for name, w in update.weights.items()}}


@each
def test_an_editor_has_the_members_of_a_method(method: Method) -> None:
    assert methods()[method.NAME] is method
    assert method.NAME.isidentifier()
    assert method.TITLE
    assert method.TRAINED in (True, False)
    for name in FUNCTIONS:
        expected = [p for p in inspect.signature(getattr(Method, name)).parameters if p != "self"]
        assert list(inspect.signature(getattr(method, name)).parameters) == expected


@each
def test_settings_are_a_frozen_record_with_defaults(method: Method) -> None:
    settings = method.Settings()
    assert is_dataclass(settings)
    first = fields(settings)[0].name
    with pytest.raises((FrozenInstanceError, AttributeError)):
        setattr(settings, first, 1)


@each
def test_init_depends_on_the_seed_alone(method: Method, backbone: Backbone) -> None:
    """The same parameters for the same seed, of the raw matrices' type, and the raw matrices as they were."""
    before = {name: w.clone() for name, w in backbone.raw.items()}
    first, again, other = (method.init(backbone.raw, backbone.width, settings_of(method), seed) for seed in (0, 0, 1))
    assert first.keys() == again.keys() == other.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert {p.dtype for p in first.values()} <= {torch.float32}
    assert [p.shape for p in first.values()] == [p.shape for p in other.values()]
    assert all(torch.equal(backbone.raw[name], w) for name, w in before.items())
    # What is made of the raw matrices is a copy: training it must not change the raw model.
    storages = {w.untyped_storage().data_ptr() for w in backbone.raw.values()}
    assert not storages & {p.untyped_storage().data_ptr() for p in first.values()}


@each
def test_every_parameter_has_one_learning_rate(method: Method, backbone: Backbone) -> None:
    editor = editor_of(method, backbone)
    rates = method.learning_rates(editor.own_parameters(), editor.settings)
    if method.TRAINED:
        assert rates
        assert rates.keys() == editor.own_parameters().keys()
        assert all(isinstance(rate, float) and rate > 0 for rate in rates.values())


@pytest.mark.parametrize("method", [m for m in METHODS if m.TRAINED], ids=lambda method: method.NAME)
def test_every_parameter_is_owned_once(method: Method, backbone: Backbone) -> None:
    """Its own and those of its masks: each is in one group of the one optimiser, and is a tensor of its own."""
    editor = make_editor(method.NAME, backbone, ("de", "en"), "language", settings=settings_of(method))
    owned = [id(p) for group in adam(editor).param_groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in editor.parameters.values())
    assert len(set(owned)) == len(owned)
    assert editor.own_parameters().keys() | editor.mask_parameters().keys() == editor.parameters.keys()
    assert len({p.untyped_storage().data_ptr() for p in editor.parameters.values()}) == len(editor.parameters)


@each
def test_an_update_is_a_pure_function_of_editor_and_edits(method: Method, backbone: Backbone) -> None:
    editor = editor_of(method, backbone)
    held = {**editor.parameters, **dict(backbone.model.named_parameters())}
    before = {name: t.detach().clone() for name, t in held.items()}
    first, again = (tensors_of(edit(editor, REQUESTS)) for _ in range(2))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(held[name], t) for name, t in before.items())
    assert not any(p.requires_grad or p.grad is not None for p in backbone.model.parameters())


@each
def test_edits_of_a_batch_do_not_know_of_each_other(method: Method, backbone: Backbone) -> None:
    editor = editor_of(method, backbone)
    # A solve in float32 carries further what a batch rounds otherwise.
    rtol, atol = (1e-3, 1e-4) if method.NAME == "rome" else (1e-4, 1e-5)
    together = edit(editor, REQUESTS)
    for i, request in enumerate(REQUESTS):
        alone = edit(editor, [request]).dense(0, backbone.raw)
        beside = together.dense(i, backbone.raw)
        assert alone.keys() == beside.keys() <= backbone.raw.keys()
        for name, delta in alone.items():
            torch.testing.assert_close(beside[name], delta, rtol=rtol, atol=atol)


@each
def test_an_update_is_of_the_edited_matrices(method: Method, backbone: Backbone) -> None:
    """Shapes as `Update` says, and a change somewhere."""
    update = edit(editor_of(method, backbone), REQUESTS)
    for name, (u, v) in update.factors.items():
        n, m = backbone.shapes[name]
        assert (len(u), u.shape[-1]) == (len(REQUESTS), n)
        assert (len(v), v.shape[-1]) == (len(REQUESTS), m)
        assert u.shape[1] == v.shape[1]
    for name, delta in update.deltas.items():
        assert delta.shape == (len(REQUESTS), *reversed(backbone.shapes[name]))
    assert any(t.any() for t in tensors_of(update).values())


# What `register` refuses


class Good:
    NAME, TITLE, TRAINED = "good", "Good", True

    class Settings:
        pass

    def init(self, raw: Any, width: int, settings: Any, seed: int) -> dict[str, torch.Tensor]:
        return {"rate": torch.ones(1)}

    def learning_rates(self, parameters: Any, settings: Any) -> dict[str, float]:
        return dict.fromkeys(parameters, 0.1)

    def update(self, parameters: Any, settings: Any, edits: Any) -> Update:
        return Update({name: (x, -parameters["rate"] * delta) for name, (x, delta) in edits.gradient().factors.items()})


Good.Settings = editors.mend.Settings  # type: ignore[assignment,misc]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a-file-s-name": ({"NAME": "../good"}, "cannot have the NAME '../good'"),
    "a-name-with-a-comma": ({"NAME": "a,b"}, "cannot have the NAME"),
    "the-raw-model": ({"NAME": "unedited"}, "cannot have the NAME 'unedited'"),
    "another-editor": ({"NAME": "mend"}, "an editor named 'mend' exists"),
    "settings-of-no-record": ({"Settings": dict}, r"good\.Settings is not a dataclass"),
    "settings-without-defaults": ({"Settings": EditRequest}, r"good\.Settings does not take 0 arguments"),
    "too-few-arguments": ({"update": lambda self, edits: None}, r"good\.update does not take 3 arguments"),
    "too-many-arguments": ({"init": lambda self, a, b, c, d, e: {}}, r"good\.init does not take 4 arguments"),
    "no-function": ({"learning_rates": {}}, r"good\.learning_rates does not take 2 arguments"),
}


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize(("members", "said"), BAD.values(), ids=BAD.keys())
def test_what_is_no_editor_is_refused(members: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        register(type("Bad", (Good,), members)())


@pytest.mark.usefixtures("registries")
def test_a_missing_member_is_named() -> None:
    class Bare:
        NAME = "bare"

    with pytest.raises(UserError, match="lacks TITLE, TRAINED, Settings, init, learning_rates, update"):
        register(Bare())  # type: ignore[arg-type]


@pytest.mark.usefixtures("registries")
def test_an_editor_is_registered_once_and_found(backbone: Backbone) -> None:
    one = Good()
    for _ in range(2):
        register(one)
    assert methods()["good"] is one
    assert tensors_of(edit(make_editor("good", backbone, ["de", "en"]), REQUESTS))
    with pytest.raises(UserError, match="an editor named 'good' exists"):
        register(Good())


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("rates", [{}, {"rate": 0.1, "other": 0.1}], ids=["too-few", "too-many"])
def test_a_parameter_without_a_learning_rate_is_named(rates: dict[str, float], backbone: Backbone) -> None:
    register(type("Careless", (Good,), {"NAME": "careless", "learning_rates": lambda self, p, s: rates})())
    with pytest.raises(UserError, match=r"careless: each parameter needs one learning rate; too many or missing: \w+"):
        make_editor("careless", backbone, ["en"]).learning_rates()
