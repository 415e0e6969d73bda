"""A step in few operations: the same numbers as in many, in any shape, read by nobody until they are asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from lime_editing.backbone import Backbone, Sent, arrays, wrap
from lime_editing.backbone.arrays import Bucket
from lime_editing.backbone.quick import Norm, quick
from lime_editing.core import evaluation, graphs, training
from lime_editing.core.corpus import Example, ParallelCorpus
from lime_editing.core.editing import Editor, Objective, batch_of, make_editor, masks_of, uniforms_of
from lime_editing.core.masks import draw_uniforms, gate, init_masks, side_by_side
from lime_editing.core.metrics import Scores
from lime_editing.core.sampling import evaluation_pairs
from lime_editing.core.training import Schedule, Stepped, computed, gradients, train
from lime_editing.editors import knowledge_editor, mend
from lime_editing.errors import UserError
from lime_editing.hardware import ALONE
from lime_editing.records import EditRequest, Input, Triple
from lime_editing.reproduce import processes

SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
MODELS: dict[str, Callable[[], Any]] = {
    "bert": lambda: BertForMaskedLM(BertConfig(**SMALL)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**SMALL, pad_token_id=1)),
    "bert-classes": lambda: BertForSequenceClassification(BertConfig(**SMALL, num_labels=3)),
    "xlm-r-classes": lambda: XLMRobertaForSequenceClassification(
        XLMRobertaConfig(**SMALL, pad_token_id=1, num_labels=3)
    ),
}
LEARNED = ("mend", "editable_training", "knowledge_editor")
LANGUAGES = ("de", "en", "fr")
SETTINGS = {
    "mend": mend.Settings(rank=8, inner_lr=0.1),
    "knowledge_editor": knowledge_editor.Settings(lstm=6, hidden=5),
}


@cache
def backbone(model: str, layers: int = 2) -> Backbone:
    torch.manual_seed(0)
    made = MODELS[model]()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    return wrap(made.eval().requires_grad_(False), layers)


def editor(name: str, model: str, kind: Any = "language") -> Editor:
    made = make_editor(name, backbone(model), LANGUAGES, kind, settings=SETTINGS.get(name))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in made.parameters.values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return made


def one_input(rng: np.random.Generator, classes: bool, positions: int | None = None) -> Input:
    length = int(rng.integers(3, 20))
    ids = tuple(int(i) for i in rng.integers(5, 60, length))
    if classes:
        return Input(ids, (0,), (0,) * 2 + (1,) * (length - 2) if rng.random() < 0.5 else ())
    count = int(rng.integers(1, min(5, length))) if positions is None else positions
    chosen = rng.choice(max(length, count), count, replace=False)
    ids += (7,) * (max(length, count) - length)
    return Input(ids, tuple(int(i) for i in sorted(chosen)))


def triples(model: str, count: int, seed: int = 0) -> list[Triple]:
    """Inputs of very different lengths and numbers of predicted positions."""
    rng, classes, found = np.random.default_rng(seed), "classes" in model, []
    for i in range(count):
        x = one_input(rng, classes)
        labels = tuple(int(y) for y in rng.integers(0, 3 if classes else 60, len(x.positions)))
        request = EditRequest(x, labels, LANGUAGES[i % 3])
        found.append(Triple(request, one_input(rng, classes, len(labels)), one_input(rng, classes)))
    return found


class NoReads(TorchDispatchMode):
    """An operation that would make the host wait for a GPU, or copy something there, is an error."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "lift_fresh", "_unique2", "repeat_interleave")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(i, Tensor) and i.dtype == torch.bool
            for i in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        assert name not in self.READS, name
        assert not by_mask, name
        return func(*args, **(kwargs or {}))


def close(found: Sequence[Tensor | None], expected: Sequence[Tensor | None], tolerance: float = 2e-5) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert (a - b).norm() <= tolerance * max(float(b.norm()), 1e-3), (a - b).norm() / b.norm()


@pytest.mark.parametrize("kind", ["none", "language", "shared"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", LEARNED)
def test_a_step_of_fixed_shape_gives_the_same_and_reads_nothing(
    name: str, model: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filled-up batch has the losses and gradients of the batch itself; what a GPU computes waits for no host."""
    made, batch = editor(name, model, kind), triples(model, 5)
    drawn = uniforms_of(made, 5, seed=3)
    exact = computed(made, Objective(), batch_of(made, batch, drawn).on(torch.device("cpu")))
    monkeypatch.setattr(mend, "leaves_out", lambda rows: False)
    sent = batch_of(made, batch, drawn, fixed=True)
    fixed = sent.on(torch.device("cpu"))
    with NoReads():
        found = computed(made, Objective(), fixed)
    close(found, exact)
    expected = gradients(made, batch, 3, Objective())
    assert found[0] is not None
    assert found[0].tolist() == pytest.approx(list(expected.values()), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("model", ["roberta", "bert-classes"])
def test_many_inputs_of_fixed_shape_share_rows(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, batch = editor("mend", model), triples(model, 9)
    exact = computed(made, Objective(), batch_of(made, batch, uniforms_of(made, 9, 0)).on(torch.device("cpu")))
    monkeypatch.setattr(arrays, "MANY", 4)
    sent = batch_of(made, batch, uniforms_of(made, 9, 0), fixed=True)
    assert len(sent.record.rows.ids) < 27
    close(computed(made, Objective(), sent.on(torch.device("cpu"))), exact)


def test_batches_of_like_inputs_share_a_shape() -> None:
    """Else a graph could never be used again; a longer input makes another shape."""
    made = editor("mend", "bert")
    rng = np.random.default_rng(0)

    def alike(extra: int) -> Sent[Any]:
        batch = []
        for i in range(4):
            x, u, r = (Input(tuple(int(k) for k in rng.integers(5, 60, n + extra)), (1,)) for n in (5 + i % 3, 6, 7))
            batch.append(Triple(EditRequest(x, (int(rng.integers(60)),), "en"), u, r))
        return batch_of(made, batch, uniforms_of(made, 4, 0), fixed=True)

    assert alike(0).shapes == alike(0).shapes == alike(1).shapes
    assert alike(0).shapes != alike(9).shapes


@pytest.mark.parametrize("model", MODELS)
def test_inputs_that_share_a_row_do_not_see_each_other(model: str) -> None:
    """Many inputs of very different lengths, in rows of several, have the logits that each has alone."""
    made, rng = backbone(model), np.random.default_rng(5)
    inputs = [one_input(rng, "classes" in model) for _ in range(25)]
    rows, _ = made.rows(inputs)
    assert len(rows.ids) < len(inputs)
    assert rows.ids.size < 0.9 * len(inputs) * max(len(i.ids) for i in inputs)
    with torch.no_grad():
        together = made.upper(made.trunk(inputs))
        alone = torch.cat([made.upper(made.trunk([one])) for one in inputs])
        for one, logits in zip(inputs, together.split([len(i.positions) for i in inputs]), strict=True):
            told = {"token_type_ids": torch.tensor([one.types])} if one.types and "xlm" not in model else {}
            theirs = made.model(input_ids=torch.tensor([one.ids]), **told).logits[0]
            if not one.types or told:
                expected = theirs[None] if "classes" in model else theirs[list(one.positions)]
                torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("model", ["bert", "roberta"])
def test_predicted_padding_is_what_the_model_says_there(model: str) -> None:
    """Clause M7's "all" asks for the padding of a short input; packing must leave it where a padded batch has it."""
    made, rng = backbone(model), np.random.default_rng(6)
    short, long = one_input(rng, False), Input(tuple(int(i) for i in rng.integers(5, 60, 19)), (0,))
    short = replace(short, ids=short.ids[:4], positions=tuple(range(9)))
    ids = torch.full((1, 9), made.pad_id)
    ids[0, :4] = torch.tensor(short.ids)
    told = torch.tensor([[1] * 4 + [0] * 5])
    with torch.no_grad():
        expected = made.model(input_ids=ids, attention_mask=told).logits[0]
        found = made.upper(made.trunk([short, long, long, short]))
    torch.testing.assert_close(found[:9], expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found[-9:], expected, atol=2e-5, rtol=1e-4)


def test_the_reader_is_a_packed_bidirectional_lstm() -> None:
    """Values and gradients, for lengths from one word to all."""
    torch.manual_seed(0)
    lstm = nn.LSTM(7, 5, batch_first=True, bidirectional=True)
    own = {f"{knowledge_editor.LSTM}{name}": p for name, p in lstm.named_parameters()}
    embedded, lengths = torch.randn(6, 9, 7), torch.tensor([1, 9, 4, 2, 8, 5])
    found = knowledge_editor.read(own, embedded, lengths)
    packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
    _, (last, _) = functional_call(lstm, dict(lstm.named_parameters()), (packed,))
    expected = torch.cat([last[0], last[1]], -1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    weights = torch.randn_like(expected)
    each = [torch.autograd.grad((y * weights).sum(), list(own.values())) for y in (found, expected)]
    close(*each, tolerance=1e-5)


def test_second_derivatives_are_right() -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(6, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(6))
        norm.bias.copy_(torch.randn(6))
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    ours = Norm(norm.requires_grad_(False))
    torch.testing.assert_close(ours(x), norm(x))
    assert torch.autograd.gradcheck(ours, (x,))
    assert torch.autograd.gradgradcheck(ours, (x,))


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_a_quick_copy_is_the_model(model: str, twice: bool) -> None:
    """The same logits, and second derivatives where it can be differentiated twice; it shares what it can."""
    made = MODELS[model]().eval().requires_grad_(False).double()
    made.set_attn_implementation("eager")
    copy = quick(made, twice=twice)
    own = {id(p) for p in made.parameters()}
    fresh = [name for name, p in copy.named_parameters() if id(p) not in own]
    assert all(".joint." in name for name in fresh)
    assert len(fresh) == 2 * SMALL["num_hidden_layers"]
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 1, 1]])
    embedded = [m.get_input_embeddings()(ids).requires_grad_() for m in (made, copy)]
    told = torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])
    seen = [m(inputs_embeds=e, attention_mask=told) for m, e in zip((made, copy), embedded, strict=True)]
    torch.testing.assert_close(seen[1].logits, seen[0].logits)
    if not twice:
        return
    found = []
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for m, e in zip((made, copy), embedded, strict=True):
            (first,) = torch.autograd.grad(
                m(inputs_embeds=e, attention_mask=told).logits.pow(2).sum(), e, create_graph=True
            )
            found.append(torch.autograd.grad(first.pow(2).sum(), e)[0])
    torch.testing.assert_close(found[1], found[0])


def test_bf16_is_that_of_autocast() -> None:
    """The copy in bf16 gives what autocast gives on the model: the weights are rounded once, and not at each use."""
    made = replace(backbone("bert"), precision="bf16")
    inputs = [one_input(np.random.default_rng(i), False) for i in range(4)]
    with torch.no_grad(), made.autocast():
        found = made.upper(made.trunk(inputs))
        plain = replace(made, precision="float32")  # under autocast all the same
        expected = plain.upper(plain.trunk(inputs))
    weights = [m.weight for m in made.copy().model.modules() if isinstance(m, nn.Linear)]
    assert {w.dtype for w in weights} == {torch.float32}  # outside of autocast nothing is in bf16
    with made.autocast():
        assert {m.weight.dtype for m in made.copy().model.modules() if isinstance(m, nn.Linear)} == {torch.bfloat16}
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)


def test_the_draws_of_gates_are_those_of_one_matrix_after_another() -> None:
    """Results of before one draw for all stay comparable."""
    parameters = init_masks({"a": (3, 5), "b": (4, 2)}, 2)
    generator = torch.Generator().manual_seed(11)
    expected = [torch.rand(6, p.shape[1], generator=generator, dtype=torch.float64) for p in parameters.values()]
    found = draw_uniforms(parameters, 6, 11)
    torch.testing.assert_close(found, torch.cat(expected, 1).float(), atol=1e-6, rtol=0)
    assert torch.equal(found[4:], draw_uniforms(parameters, 6, 11)[4:])


def test_a_learned_scale_multiplies_the_gates_of_the_same_row() -> None:
    made = make_editor("mend", backbone("bert"), LANGUAGES, "language", mask_scale="learned")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in made.mask_parameters().values():
            p.copy_(torch.randn(p.shape, generator=generator))
    rows = torch.tensor([2, 0, 2])
    expected = [
        gate(made.parameters[f"mask.{name}.{part}"][rows]) * made.parameters[f"mask.{name}.{part}_scale"][rows]
        for name in made.backbone.shapes
        for part in ("x", "delta")
    ]
    torch.testing.assert_close(masks_of(made, rows, None), torch.cat(expected, 1))
    # In a step they are gathered from what the penalty needs anyway.
    found = masks_of(made, rows, None, side_by_side(made.parameters))
    torch.testing.assert_close(found, torch.cat(expected, 1))


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("name", LEARNED)
def test_the_fused_step_is_adam_s(name: str, fixed: bool) -> None:
    """Every parameter, masks included, is where plain Adam takes it: the fused kernel reads gradients as they lie."""
    made, plain = editor(name, "bert"), editor(name, "bert")
    ours = training.adam(made)
    theirs = torch.optim.Adam(
        [
            {
                **group,
                "params": [
                    plain.parameters[n] for n, p in made.parameters.items() if any(p is q for q in group["params"])
                ],
            }
            for group in ours.param_groups
        ],
        foreach=False,
        fused=False,
    )
    for group in theirs.param_groups:
        group.update(fused=False, foreach=False)
    for step in range(3):
        batch = triples("bert", 4, step)
        parts = partial(training.parts_of, made, batch, step, fixed, ALONE)
        training.accumulated(made, parts, 4, Objective(), None, ALONE, 4)
        training.descend(made, ours, 1.0)
        gradients(plain, batch, step, Objective())
        training.descend(plain, theirs, 1.0)
    start = editor(name, "bert").parameters
    for key, p in plain.parameters.items():
        moved = p.detach() - start[key].detach()
        assert moved.abs().max() > 0
        torch.testing.assert_close(made.parameters[key].detach() - start[key].detach(), moved, rtol=2e-2, atol=1e-6)


# The loop


class Words:
    """A task over random inputs, which notes the thread that asks."""

    def __init__(self) -> None:
        self.corpus = ParallelCorpus.of(Example(f"{i}", code, f"{i}/{code}") for i in range(12) for code in LANGUAGES)
        self.editable, self.threads = None, set[int]()

    def within(self, languages: Sequence[str]) -> Words:
        return self

    def _rng(self, one: Example, kind: int) -> np.random.Generator:
        self.threads.add(threading.get_ident())
        return np.random.default_rng([kind, self.corpus.index[one.id]])

    def request(self, edit: Example, rng: np.random.Generator) -> EditRequest:
        x = one_input(self._rng(edit, 0), False)
        return EditRequest(x, tuple(int(y) for y in rng.integers(0, 60, len(x.positions))), edit.language)

    def update_input(self, update: Example, edit: Example, request: EditRequest) -> Input:
        return one_input(self._rng(update, 1), False, len(request.labels))

    def retain_input(self, retain: Example, rng: np.random.Generator) -> Input:
        return one_input(self._rng(retain, 2), False, int(rng.integers(1, 3)))


PLAN = Schedule(edits=28, batch=4, validate_every=12, patience=100, checkpoint_every=8)


def events(made: Editor, task: Words, seen: Callable[[], object] = lambda: None) -> list[Any]:
    def validate(one: Editor) -> Scores:
        return Scores(0.5, 0.5, float(next(iter(one.parameters.values())).detach().double().sum()))

    found = []
    for event in train(made, task, validate, PLAN, Objective(lambda_mask=1e-3), 7):
        seen()
        found.append(
            replace(event, parameters={}, best={}, first={}, second={}) if isinstance(event, training.State) else event
        )
    return found


def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batch is prepared, and a loss is read, while a step is computed, as on a GPU."""
    monkeypatch.setattr(training, "overlaps", lambda device: True)


def test_preparing_batches_ahead_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The events and the parameters of a training are the same, and another thread has asked for the inputs."""
    results = []
    for way in (lambda _: None, ahead):
        way(monkeypatch)
        made, task = editor("mend", "bert"), Words()
        results.append((events(made, task), made.parameters, task.threads))
    (plain, theirs, alone), (early, ours, other) = results
    assert plain == early
    assert all(torch.equal(theirs[name], p) for name, p in ours.items())
    assert alone == {threading.get_ident()}
    assert other
    assert threading.get_ident() not in other


def test_nothing_is_prepared_while_an_event_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads an event may use the tokenizer, which need not bear two threads."""
    ahead(monkeypatch)
    task, asked = Words(), list[int]()
    plain = task.request
    monkeypatch.setattr(task, "request", lambda *given: asked.append(1) or plain(*given))

    def seen() -> None:
        before = len(asked)
        time.sleep(0.02)
        assert len(asked) == before

    events(editor("mend", "bert"), task, seen)


def test_an_error_in_preparing_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead(monkeypatch)
    task = Words()

    def broken(retain: Example, rng: np.random.Generator) -> Input:
        raise UserError("broken data")

    monkeypatch.setattr(task, "retain_input", broken)
    with pytest.raises(UserError, match="broken data"):
        events(editor("mend", "bert"), task)


def test_a_loss_that_is_not_finite_changes_no_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in its own step, nor in the next one, which a GPU has begun before the loss is read."""
    made, task = editor("mend", "bert"), Words()
    steps = iter(range(100))
    plain, before = training.losses_of, dict[str, Tensor]()

    def losses(*given: Any) -> dict[str, Tensor]:
        found = plain(*given)
        if next(steps) == 3:
            before.update({name: p.detach().clone() for name, p in made.parameters.items()})
            found["total"] = found["total"] * torch.nan
        return found

    monkeypatch.setattr(training, "losses_of", losses)
    ahead(monkeypatch)
    with pytest.raises(UserError, match="nan at step 4"):
        events(made, task)
    assert before
    assert all(torch.equal(before[name], p) for name, p in made.parameters.items())


# Recorded steps, on a stand-in for a GPU: a graph runs its computation again on what lies in its buffers


class Stub:
    """What `graphs` needs of torch.cuda."""

    def __init__(self) -> None:
        self.made = 0
        self.fails: Exception | None = None
        self.current: Any = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stream = SimpleNamespace(wait_stream=lambda other: None)

        @contextmanager
        def recording(graph: Any, **options: Any) -> Iterator[None]:
            if self.fails is not None:
                raise self.fails
            assert options["capture_error_mode"] == "thread_local"
            self.made += 1
            self.current = graph
            yield

        @contextmanager
        def on(_: Any) -> Iterator[None]:
            yield

        fake = SimpleNamespace(
            Stream=lambda device: stream,
            graph_pool_handle=lambda: (0, 0),
            CUDAGraph=lambda: SimpleNamespace(replay=None),
            graph=recording,
            stream=on,
            current_stream=lambda device=None: stream,
            empty_cache=lambda: None,
        )
        monkeypatch.setattr(graphs.torch, "cuda", fake)


def stubbed(made: Editor, stub: Stub, calls: list[int]) -> graphs.Graphs[Any]:
    """Graphs of a step, on the stand-in: replaying computes anew from the buffers, as a graph does."""
    found: graphs.Graphs[Any]

    def compute(batch: Any) -> Any:
        calls.append(1)
        result = computed(made, Objective(), batch)
        graph, stub.current = stub.current, None
        if graph is not None:

            def replay() -> None:
                for kept, new in zip(found._results or (), computed(made, Objective(), batch), strict=True):
                    if kept is not None and new is not None:
                        kept.copy_(new)

            graph.replay = replay
        return result

    found = graphs.Graphs(compute, torch.device("cpu"))
    return found


def test_a_shape_is_recorded_when_it_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call gives the losses and gradients of its own batch; the host computes twice for each shape."""
    made, stub, calls = editor("mend", "bert"), Stub(), list[int]()
    batches = [triples("bert", 4, seed) for seed in range(4)]
    fixed = [batch_of(made, batch, uniforms_of(made, 4, 0), fixed=True) for batch in batches]
    shapes = {sent.shapes for sent in fixed}
    expected = [
        [t if t is None else t.clone() for t in computed(made, Objective(), s.on(torch.device("cpu")))] for s in fixed
    ]
    stub.install(monkeypatch)
    run = stubbed(made, stub, calls)
    for _ in range(4):
        for sent, right in zip(fixed, expected, strict=True):
            close(run(sent), right, 1e-6)
    assert len(calls) == 2 * len(shapes)
    assert stub.made == len(run._recorded) == len(shapes)


def test_few_graphs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made, stub = editor("mend", "bert"), Stub()
    monkeypatch.setattr(graphs, "MOST", 2)
    fixed = [batch_of(made, triples("bert", count, 0), uniforms_of(made, count, 0), fixed=True) for count in (1, 2, 3)]
    stub.install(monkeypatch)
    run = stubbed(made, stub, [])
    for index in (0, 0, 1, 1, 0, 2, 2):  # the second was not used for longest
        run(fixed[index])
    assert list(run._recorded) == [fixed[0].shapes, fixed[2].shapes]


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted"), torch.OutOfMemoryError("too little")])
def test_what_cannot_be_recorded_is_computed_and_said_once(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    made, stub, calls = editor("mend", "bert"), Stub(), list[int]()
    sent = batch_of(made, triples("bert", 3), uniforms_of(made, 3, 0), fixed=True)
    expected = computed(made, Objective(), sent.on(torch.device("cpu")))
    stub.install(monkeypatch)
    stub.fails = error
    run = stubbed(made, stub, calls)
    close(run(sent), expected, 0)
    with pytest.warns(UserWarning, match=f"not recorded as CUDA graphs.*{type(error).__name__}: {error}"):
        close(run(sent), expected, 0)
    close(run(sent), expected, 0)  # and no other warning, which would be an error
    assert len(calls) == 3


# Evaluation


def test_an_evaluation_is_read_once_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    made, task = editor("mend", "bert"), Words()
    pairs = evaluation_pairs(task.corpus, LANGUAGES, LANGUAGES, 1, 2, 0, 12)
    reads, plain = list[int](), Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: reads.append(1) or plain(tensor))
    with torch.no_grad():
        evaluation.evaluate(made, task, pairs, 0, batch=4)
    assert len(reads) == 3


def test_a_bucket_holds_its_inputs() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        groups = [[one_input(rng, False) for _ in range(5)] for _ in range(3)]
        bucket = Bucket.of(groups)
        for group in groups:
            assert max(len(i.ids) for i in group) <= bucket.tokens <= max(len(i.ids) for g in groups for i in g) + 7
            assert sum(len(i.positions) for i in group) <= bucket.predicted
            assert max(len(i.positions) for i in group) <= bucket.positions


def test_parts_of_a_batch_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halving for lack of memory keeps losses and gradients; each edit keeps its gates."""
    made, batch = editor("mend", "bert"), triples("bert", 5)
    whole = gradients(made, batch, 3, Objective())
    expected = [p.grad for p in made.parameters.values()]
    for count in (1, 2, 3):
        assert gradients(made, batch, 3, Objective(), at_a_time=count) == pytest.approx(whole, rel=1e-4, abs=1e-6)
        close([p.grad for p in made.parameters.values()], expected)
    assert len(training.parts_of(made, batch, 3, False, ALONE, 2)[0]) == 3
    assert isinstance(next(iter(train(made, Words(), lambda _: Scores(1, 1, 1), PLAN, Objective(), 0))), Stepped)


@pytest.mark.parametrize(
    ("device", "jobs", "gpus", "visible", "expected"),
    [
        ("cuda", None, 2, None, ["0", "1"]),
        ("cuda", 1, 2, None, ["0"]),
        ("cuda", 5, 2, None, ["0", "1", "0", "1", "0"]),
        ("cuda", 3, 1, "GPU-8f6e,2", ["GPU-8f6e"] * 3),
        ("cuda", 4, 0, None, []),
        ("cuda:1", 3, 2, None, [None] * 3),
        ("cuda:1", None, 2, None, [None]),
        ("cpu", 3, 2, None, [None] * 3),
    ],
)
def test_as_many_cells_as_asked_for_share_the_gpus(
    device: str, jobs: int | None, gpus: int, visible: str | None, expected: list[str | None]
) -> None:
    found = processes.assign(device, jobs, 16, gpus, visible)
    assert found == expected
    assert processes.on_one_device(found) == max(map(found.count, found), default=1)
