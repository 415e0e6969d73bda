"""The border between the suite and an implementation.

An implementation is a Python module or object. It provides some of the functions below, under these names; nothing
is subclassed and nothing is registered. Each chapter of SPEC.md is a capability: `CLAIMS` lists the claimed ones or,
without it, a chapter is claimed as soon as one of its functions exists. A claimed chapter is tested whole.

Plain data crosses the border. Chapters T M S A B D R speak numbers, strings, lists, dicts and NumPy arrays, and D
reads files; torch tensors and a Hugging Face model appear in E, L and C, and a model's folder in U. Randomness comes in
as an integer seed or as explicit uniform draws. A penalty or a loss returns its gradient beside its value, so that a
dead gradient shows.

Arguments may come by place or by name, so their names are those below. What is handed out is not changed in place. A
dictionary, list or tuple that is asked for is returned as such, and not as a generator.

Arrays and models are handed out in float64, or in float32 under --dtype; what comes back may be in either, and is
compared in its own width. A number may be Python's, NumPy's or a 0-d tensor, a list may be a tuple.

Errors that a clause asks for are ValueError or LookupError (KeyError included), with a message that names the culprit.
Whatever else a function raises is a crash, and so are orders to a test framework, such as `pytest.skip`. A call may
take `--call-timeout` seconds. Warnings are counted and judge nothing. A missing function of a claimed chapter leaves
its clauses "claimed in part".

Shapes: T tokens of one edit, n the input width and m the output width of an edited matrix, L languages, B examples,
P predicted positions, V vocabulary or classes. A matrix W maps n inputs to m outputs; torch stores it as (m, n).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # chapters M, S, D and R are judged without torch
    import torch

Array = NDArray[np.float64]
Role = Literal["update", "retain"]
Masks = Literal["none", "language", "shared"]

#: The functions of each chapter. E has more that belong to one editor (OF_EDITOR) or to the capability `factored`.
NAMES: dict[str, tuple[str, ...]] = {
    "T": ("parallel",),
    "M": ("succ", "hit", "metrics", "breakdown", "aggregate"),
    "S": ("evaluation_pairs", "training_triples"),
    "A": ("apply_mask", "gate", "gate_probability", "mask_penalty", "mask_factors", "mask_factors_gradient"),
    "B": ("initial_masks", "editor_shapes"),
    "E": (
        "make_editor",
        "parameters",
        "mask_parameters",
        "optimizer_groups",
        "capture",
        "edit",
        "dense",
        "raw_logits",
        "edited_logits",
        "losses",
        "train_step",
    ),
    "L": ("rel_loss", "loc_loss"),
    "D": (
        "split",
        "fact_inputs",
        "encoded_facts",
        "pair_edits",
        "encoded_pairs",
        "pair_training",
        "classifier_examples",
    ),
    "R": ("paper_preset", "experiments", "record", "table", "stopping", "mask_similarity"),
    "U": ("run", "preferences"),
    "C": ("compose_edits", "edit_after", "drop_edit", "save_edited", "edit_series", "series_metrics"),
}

#: Capabilities beside the chapters: claimed by naming them in `CLAIMS`.
CAPABILITIES: dict[str, str] = {
    "batched": "E8: independent edits are computed in one batch",
    "factored": "B4: an edit is held as factors of O(T·(n+m)); provides `factors`",
    "resumable": "U7: a run that was interrupted goes on from what its folder holds",
    "ranked": "E18: `make_editor` takes the rank of MEND's residual blocks as `rank`",
}

#: The editors of the paper; all but finetuning are learned. Chapter E is claimed for those in `EDITORS` alone.
EDITORS = ("mend", "editable_training", "knowledge_editor", "finetuning")
LEARNED = EDITORS[:3]

#: Functions of chapter E that only one editor has.
OF_EDITOR: dict[str, tuple[str, ...]] = {
    "mend": ("transform",),
    "editable_training": ("trained_weights",),
    "knowledge_editor": ("gates",),
}

#: Rulings with named alternatives; the first is what SPEC.md requires. An implementation declares another one in
#: `RULINGS`, is tested against it, and the table shows the declared deviation.
RULINGS: dict[str, tuple[str, ...]] = {
    "kl_direction": ("paper", "released"),
    "penalty": ("sum", "mean"),
    "mask_scale": ("none", "learned"),
    "con_positions": ("mask", "all"),
    "subject": ("parallel", "edit-language"),
    "knowledge_editor_condition": ("input+label", "input"),
    "loc_positions": ("mask", "all"),
    "label_pool": ("all", "own"),
    "finetuning_optimiser": ("adam", "rmsprop"),
    "editable_training_inner_lr": ("1e-4", "1e-2"),
    "stopping": ("averages", "edits"),
}


#: The hyper-parameters of R1 that concern a run of MEND with masks per language on all languages.
SETTINGS = (
    "mend_lr",
    "mend_inner_lr",
    "lambda_rel",
    "lambda_loc",
    "mask_lr",
    "lambda_mask",
    "max_steps",
    "validate_every",
    "patience",
)


class Example(TypedDict):
    """One member of the corpus: a fact said in a language. `fact` is the same for all parallel examples."""

    id: str
    fact: str
    language: str
    #: Raw and desired prediction, where a test is about them (T3); an implementation may ignore both.
    raw: NotRequired[int]
    desired: NotRequired[int]


class Outcome(TypedDict):
    """One judged prediction: `edit` and `edit_language` say under which edit, `language` is that of the input."""

    edit: str
    edit_language: str
    role: Role
    language: str
    hit: bool


class Pair(TypedDict):
    """One edit of an evaluation, with the sampled ids of its update and retain inputs."""

    edit: str
    update: list[str]
    retain: list[str]


class IdTriple(TypedDict):
    """One training example: the ids of x_e, x_u and x_r."""

    edit: str
    update: str
    retain: str


class Input(TypedDict):
    """One unpadded model input: token ids with their special tokens, and the positions that are predicted."""

    input_ids: list[int]
    positions: list[int]
    #: Of a pair, where the tokenizer makes them; missing is all zero.
    token_type_ids: NotRequired[list[int]]


class Request(Input):
    """An edit request (T5): the input, one desired token or class per position, and the editing language."""

    labels: list[int]
    language: str


class Labelled(Input):
    """An input with the class that a classifier learns for it."""

    label: int


class Triple(TypedDict):
    """One training example as a model sees it. The update input has as many positions as the edit has labels."""

    edit: Request
    update: Input
    retain: Input


class Losses(TypedDict):
    """Weighted parts of one training objective (chapter L), averaged over the batch; total = rel + loc + mask."""

    rel: float
    loc: float
    mask: float
    total: float


class Gates(TypedDict):
    """What conditions a matrix in KnowledgeEditor: ΔW = scale · (∇W ⊙ outer(*a) + outer(*b)).

    `a` and `b` are each a vector over the outputs (m,) and one over the inputs (n,), one of which is a softmax vector.
    ∇W is the sum of outer products of the masked factors.
    """

    scale: torch.Tensor
    a: tuple[torch.Tensor, torch.Tensor]
    b: tuple[torch.Tensor, torch.Tensor]


class FactRow(TypedDict):
    """One line of an mLAMA file, with the language of its folder and the relation of its file (chapter D)."""

    language: str
    relation: str
    sub_uri: str
    obj_uri: str
    sub_label: str
    obj_label: str


class Place(TypedDict):
    """Where a fact is said: its relation, its subject's `sub_uri`, and a language."""

    relation: str
    subject: str
    language: str


class Texts(TypedDict):
    """Translations as XNLI's hypotheses have them: the languages, and a text for each at the same index."""

    language: list[str]
    translation: list[str]


class PairRow(TypedDict):
    """One row of XNLI: the premise as {language: text}, the hypothesis, and the gold class 0, 1 or 2."""

    premise: dict[str, str]
    hypothesis: Texts
    label: int


class PairEdit(TypedDict):
    """An edit of a sentence pair, by row number and language, with retain inputs named in the same way."""

    row: int
    language: str
    input: Input
    label: int
    retain: list[tuple[int, str]]


class Experiment(TypedDict):
    """One row of the paper's Table 1 or 2 (chapter R). Finetuning is trained on no language, and has masks "none"."""

    table: int
    editor: str
    training_languages: list[str]
    masks: Masks
    edit_languages: list[str]
    input_languages: list[str]
    #: The name of the run that the row shows: an editor trained one way, with whatever seeds.
    run: str


class StoredRun(TypedDict):
    """A run that a table is made of: an editor trained one way with one seed, and how its edits came out.

    `training` is None for finetuning, else "en", "all" or "lime" (all languages, and a mask for each).
    """

    name: str
    editor: str
    training: str | None
    seed: int
    outcomes: list[Outcome]


class TableRow(TypedDict):
    """One row of a table, in percent and as exact or as rounded as it is shown: two digits at least."""

    editor: str
    training: str | None
    acc: float
    con: float
    succ: float
    #: The names of the runs that it comes from.
    runs: list[str]


class Plan(TypedDict):
    """How a run is trained and judged (chapter U). Lengths count edits, which are one training step each in the paper.

    All numbers are multiples of `batch`. Learning rates of masks, λ and clipping are the paper's, as for `make_editor`.
    """

    #: Of the training, at most, and of one optimiser step.
    edits: int
    batch: int
    validate_every: int
    patience: int
    #: Sampled inputs of each role of an edit, in validations and evaluations.
    n_update: int
    n_retain: int
    #: Edits of a validation, and of an evaluation, at most (S9); None for all.
    validation_limit: int | None
    test_limit: int | None
    #: As of `make_editor`.
    lr: float | None
    inner_lr: float | None


class Told(TypedDict):
    """An example of a run's data. `fact` is "relation/sub_uri", or of a sentence pair its row number in its split."""

    fact: str
    language: str


class Asked(TypedDict):
    """One edit of a run, what it is made for, and the inputs that were sampled for it, each with where it is told."""

    edit: Told
    request: Request
    update: list[tuple[Told, Input]]
    retain: list[tuple[Told, Input]]


class RunStep(TypedDict):
    """One optimiser step of a run; under `ACCUMULATES` it has the edits of all calls that it steps for."""

    #: Edits of the training so far, this step's included.
    edits: int
    #: Each with one input of each role.
    asked: list[Asked]
    #: What `train_step` takes to draw the gates of this step.
    seed: int
    #: The objective's total before the step.
    loss: float


class Validation(TypedDict):
    """One validation of a run, after so many edits of training: what was asked, and acc, con and succ of it."""

    edits: int
    asked: list[Asked]
    acc: float
    con: float
    succ: float


class JudgedEdit(Asked):
    """One edit of an evaluation, and whether each of its inputs is a hit, in their order."""

    update_hits: list[bool]
    retain_hits: list[bool]


class RunEvaluation(TypedDict):
    """An evaluation of a run: its edits, and the acc, con and succ of it that the run reports."""

    edits: list[JudgedEdit]
    acc: float
    con: float
    succ: float


class Trace(TypedDict):
    """What a run did, in the order in which it did it; of a run that was resumed, since then."""

    steps: list[RunStep]
    validations: list[Validation]
    #: Edits after which the training stopped, and after which the parameters were those that are judged; 0 without one.
    stopped: int
    judged: int
    #: From English and from every language, to all languages.
    evaluations: dict[Literal["en", "all"], RunEvaluation]
    #: Editors for chapter E's functions: as the run began, and as it was judged.
    start: Any
    editor: Any


class SeriesEdit(TypedDict):
    """One edit of a series, with the sampled ids of its update inputs (chapter C)."""

    edit: str
    update: list[str]


class Series(TypedDict):
    """A series: its edits in their order, and the ids of the retain inputs that are unrelated to all of them."""

    edits: list[SeriesEdit]
    retain: list[str]


class SeriesOutcome(TypedDict):
    """One judged prediction in a series: `made` says how many edits had been made when it was asked.

    An update input belongs to the edit of this number, counted from 1, made in `edit_language`. A retain input belongs
    to none: then `edit` is 0 and `edit_language` is empty.
    """

    made: int
    edit: int
    edit_language: str
    role: Role
    language: str
    hit: bool


class SelfDescription(Protocol):
    """What an implementation may say about itself; each attribute may be missing."""

    #: All chapters and capabilities that it claims, for example {"M", "S", "batched"}; else the chapters are inferred.
    CLAIMS: frozenset[str]
    #: Declared alternatives, for example {"kl_direction": "released"}.
    RULINGS: Mapping[str, str]
    #: The editors that it has, of `EDITORS` (all, where missing); tests that make another are not claimed.
    EDITORS: Sequence[str]
    #: Where it accumulates gradients: how many calls of `train_step` make an optimiser step (one, where missing). The
    #: suite then calls it as often with the same triples, and the last of these calls takes the step.
    ACCUMULATES: int


class Task(Protocol):
    """Chapter T. T2, T4, T5 and T6 are about editors and are tested through chapter E's functions."""

    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        """Ids of I(x), x itself included, in any order; within `languages` where given.

        Errors: an unknown id; a corpus with two examples of one fact in one language.
        """


class Metrics(Protocol):
    """Chapter M. All rates are fractions in [0, 1]."""

    def succ(self, acc: float, con: float) -> float:
        """The harmonic mean of acc and con."""

    def hit(self, predicted: Sequence[int], expected: Sequence[int], is_mask: Sequence[bool], role: Role) -> bool:
        """Whether one padded row of predictions hits; all of one length. `expected` is y_e or the raw prediction."""

    def metrics(self, outcomes: Sequence[Outcome], languages: Sequence[str] | None = None) -> dict[str, float]:
        """{"acc", "con", "succ"} over the editing languages in `outcomes`, or over exactly `languages`.

        Errors (M10): a requested language, or a role of it, without outcomes; no outcomes at all.
        """

    def breakdown(
        self, outcomes: Sequence[Outcome], by: Literal["edit_language", "language"]
    ) -> dict[str, dict[str, float]]:
        """{"acc", "con", "succ"} per editing language (l → all), or per language of the input (→ l)."""

    def aggregate(self, runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """{"acc", "con", "succ"} of several runs, each given with its acc and con."""


class Sampling(Protocol):
    """Chapter S. Results are ids; the order of `corpus` carries no meaning."""

    def evaluation_pairs(
        self,
        corpus: Sequence[Example],
        edit_languages: Sequence[str],
        update_languages: Sequence[str],
        n_update: int,
        n_retain: int,
        seed: int,
        limit: int | None = None,
    ) -> list[Pair]:
        """The edits of an evaluation with their inputs; `limit` bounds the number of edits (S9).

        x_u may be drawn with replacement (then n_update of them) or without (then at most |I(x_e)|).
        """

    def training_triples(
        self,
        corpus: Sequence[Example],
        languages: Sequence[str],
        n: int,
        seed: int,
        validate_every: int | None = None,
    ) -> list[IdTriple]:
        """The first `n` triples of a training on `languages`; a validation is sampled after every `validate_every`."""


class MaskAlgebra(Protocol):
    """Chapter A. Gates are hard concrete with beta 2/3, gamma -0.1, zeta 1.1 unless given."""

    def apply_mask(self, w: Array, m: Array) -> Array:
        """mask(W, m) for arrays of one shape."""

    def gate(
        self,
        log_alpha: Array,
        uniforms: Array | None = None,
        beta: float = 2 / 3,
        gamma: float = -0.1,
        zeta: float = 1.1,
    ) -> Array:
        """The gates: sampled from the `uniforms` in (0, 1) (training), or deterministic where None (test)."""

    def gate_probability(self, log_alpha: Array, beta: float = 2 / 3, gamma: float = -0.1, zeta: float = 1.1) -> Array:
        """The probability that each gate is not zero."""

    def mask_penalty(
        self, log_alpha: Mapping[str, Mapping[str, Array]], weight: float
    ) -> tuple[float, dict[str, dict[str, Array]]]:
        """L_mask and its gradient, for {matrix: {"x": (L, n), "delta": (L, m)}}; the gradient has the same structure.

        Under penalty = "mean" the mean over all gates of all languages and matrices.
        """

    def mask_factors(
        self,
        log_alpha: Mapping[str, Array],
        languages: Sequence[str],
        language: str,
        x: Array,
        delta: Array,
        seed: int | None = None,
    ) -> tuple[Array, Array]:
        """mask(x, m_x) and mask(δ, m_δ) of one edit in `language`, for x (T, n) and δ (T, m).

        `log_alpha` is {"x": (L, n), "delta": (L, m)}, with rows in the order of `languages`; under
        mask_scale = "learned" also "x_scale" and "delta_scale" of these shapes, which multiply the gates.
        With a seed the gates are sampled, one draw for the edit; without, they are the deterministic ones.
        """

    def mask_factors_gradient(
        self,
        log_alpha: Mapping[str, Array],
        languages: Sequence[str],
        language: str,
        x: Array,
        delta: Array,
        grad_x: Array,
        grad_delta: Array,
        seed: int | None = None,
    ) -> dict[str, Array]:
        """Gradient of Σ grad_x ⊙ x' + Σ grad_delta ⊙ δ' for (x', δ') = mask_factors(...), structured as `log_alpha`."""


class Budget(Protocol):
    """Chapter B. `shapes` maps each edited matrix to (n, m)."""

    def initial_masks(
        self, shapes: Mapping[str, tuple[int, int]], languages: Sequence[str]
    ) -> dict[str, dict[str, Array]]:
        """All parameters of freshly made masks: {matrix: {"x": (L, n), "delta": (L, m), ...}}."""

    def editor_shapes(
        self, shapes: Mapping[str, tuple[int, int]], languages: Sequence[str], masks: Masks
    ) -> dict[str, tuple[int, ...]]:
        """The shapes of every parameter and buffer of a MEND editor (the raw model's not included)."""


class Editors(Protocol):
    """Chapter E. `editor` and `edits` are the implementation's own objects; the suite only hands them back.

    Models come from transformers, in float32 or float64, on the CPU, with dropout 0; the same object may be given
    to several editors. Their attention is transformers' default, whose kernel for the CPU has no second derivative:
    for second order, run it under `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`, or on a copy of the model that is
    set to "eager". Matrices go by the model's own parameter names ("bert.encoder.layer.1.output.dense.weight").
    """

    def make_editor(
        self,
        name: str,
        model: torch.nn.Module,
        edited: Sequence[str],
        languages: Sequence[str],
        masks: Masks = "none",
        seed: int = 0,
        inner_lr: float | None = None,
        lr: float | None = None,
    ) -> Any:
        """An untrained editor of `model`'s parameters `edited`; `inner_lr` overrides the initial inner learning rate.

        `lr` overrides the learning rate of what an editor trains: MEND's transform, KnowledgeEditor's network, Editable
        Training's θ'; masks and inner learning rates keep theirs. (The paper's are made for 500,000 steps, and E10 has
        under a hundred.) For finetuning it is Adam's. `inner_lr` concerns MEND and Editable Training.
        With the capability `ranked` some tests of MEND also pass `rank`, an int: the largest rank of a residual block.
        `languages` are those that an edit may come from. Errors: an unknown name; a parameter that does not exist;
        masks other than "none" for finetuning.
        """

    def parameters(self, editor: Any) -> dict[str, torch.Tensor]:
        """The live trainable tensors, masks included; the suite may overwrite them in place. Finetuning has none.

        A masked editor has all parameters of its base editor under the same names, and its masks' beside them. They
        may be a tensor for each part of the editor, or one vector of all, with the masks at any place in it.
        """

    def mask_parameters(self, editor: Any) -> dict[str, dict[str, torch.Tensor]]:
        """Live mask parameters {matrix: {"x": (L, n), "delta": (L, m), ...}}, L = 1 when shared; {} without masks.

        They are parts (views) of what `parameters` gives, each of one tensor there, which may hold several masks.
        """

    def optimizer_groups(self, editor: Any) -> list[list[str]]:
        """For each parameter group of each optimiser, the names (of `parameters`) that it updates."""

    def capture(self, editor: Any, request: Request) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Per matrix the input x (T, n) and δ (T, m), the gradient of the request's cross entropy at the output.

        Both are the raw model's, whatever the editor, and without masks. The cross entropy is the mean over the
        request's positions. Rows whose gradient is zero may be left out.
        """

    def transform(
        self, editor: Any, matrix: str, x: torch.Tensor, delta: torch.Tensor, language: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """MEND: (x̃, δ̃) = g(mask(x), mask(δ)) for x (T, n) and δ (T, m), with the gates of test time."""

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        """One independent edit for each request, as at test time; the model stays as it is."""

    def dense(self, editor: Any, edits: Any, index: int) -> dict[str, torch.Tensor]:
        """ΔW of one edit per edited matrix, (m, n) as torch stores it: the edited weight is W + ΔW, W the raw one."""

    def factors(self, editor: Any, edits: Any, index: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Capability `factored`: per matrix U (r, n) and V (r, m) with ΔW = Vᵀ U; not asked of finetuning.

        For Editable Training ΔW = (θ' - θ) + Vᵀ U: what training did to the matrix is held once, not per edit.
        """

    def trained_weights(self, editor: Any) -> dict[str, tuple[str, torch.Tensor]]:
        """Editable Training: per matrix the name in `parameters` through which it is trained, and θ' (m, n).

        What goes by that name is θ' or its difference from the raw θ, alone or in one vector of all parameters: both
        have the same gradient.
        """

    def gates(self, editor: Any, request: Request) -> dict[str, Gates]:
        """KnowledgeEditor: what conditions each matrix in the edit of this request."""

    def raw_logits(self, editor: Any, inputs: Sequence[Input]) -> list[torch.Tensor]:
        """For each input the raw model's logits (P, V) at its positions."""

    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        """For each input the logits (P, V) at its positions under one edit."""

    def losses(
        self, editor: Any, triples: Sequence[Triple], seed: int
    ) -> tuple[Losses, dict[str, torch.Tensor | None]]:
        """The training objective of a batch at λ_rel 0.1, λ_loc 1, λ_mask 1, and its gradient for every parameter.

        The seed draws the gates. Not asked of finetuning, and neither is `train_step`. Nothing is changed by the call.
        """

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        """One optimiser step on a batch, and the losses before it; afterwards the live tensors hold the new values.

        Under `ACCUMULATES` = k every k-th call takes the step, down the gradients of all k.
        """


class Objectives(Protocol):
    """Chapter L, on tensors. An example's loss is the mean over its positions; a batch's, over its examples."""

    def rel_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, weight: float
    ) -> tuple[float, torch.Tensor]:
        """L_rel for logits (B, P, V), labels (B, P), mask (B, P), False in padding; with the gradient of the logits."""

    def loc_loss(
        self, edited: torch.Tensor, raw: torch.Tensor, mask: torch.Tensor, weight: float
    ) -> tuple[float, torch.Tensor, torch.Tensor | None]:
        """L_loc for two logits (B, P, V); with the gradient of the edited ones, and of the raw ones (None or zeros)."""


class Data(Protocol):
    """Chapter D. A folder is mLAMA's unpacked archive:

    <language>/templates.jsonl      {"relation", "template"} in each line, the template with [X] and [Y]
    <language>/<relation>.jsonl     {"sub_uri", "obj_uri", "sub_label", "obj_label", "lineid", "uuid"} in each line

    Errors (D9), from whatever reads the folder: a line that is no JSON object, a missing, empty or non-text field, a
    template without its two places, a relation without a template.
    """

    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        """{"train", "validation", "test"} of all languages in the folder, each in any order."""

    def fact_inputs(
        self,
        folder: Path,
        tokenize: Callable[[str], list[int]],
        mask: int,
        edit: Place,
        update: str,
        retain: Place,
        seeds: Sequence[int],
    ) -> list[Triple]:
        """For each seed one edit of a fact, with the update input in the language `update` and a retain input.

        `tokenize` gives the ids of a text, "[MASK]" as `mask`, and no special tokens; none are added. Every mask is a
        predicted position. The facts are in the folder; which split they are in does not matter here. A subject that
        is told of twice in a relation is one input (T1).
        """

    def encoded_facts(
        self, folder: Path, tokenizer: Path, edit: Place, update: str, retain: Place, seeds: Sequence[int]
    ) -> list[Triple]:
        """`fact_inputs` with the tokenizer in a transformers folder (AutoTokenizer.from_pretrained reads it).

        Inputs have the special tokens that the tokenizer adds by default, labels have none.
        """

    def pair_edits(
        self,
        rows: Sequence[PairRow],
        predictions: Mapping[str, Sequence[int]],
        tokenize: Callable[[str, str], list[int]],
        n_retain: int,
        seed: int,
    ) -> list[PairEdit]:
        """The edits of an evaluation on a test set, for the raw model's predicted class {language: of each row}.

        `predictions` has the editing languages; retain inputs are in all languages of the rows.
        `tokenize` gives the ids of a premise and a hypothesis with their special tokens; the class is predicted at 0.
        """

    def encoded_pairs(
        self,
        rows: Sequence[PairRow],
        predictions: Mapping[str, Sequence[int]],
        model: Path,
        n_retain: int,
        seed: int,
    ) -> list[PairEdit]:
        """`pair_edits` for the classifier in a transformers folder, with its tokenizer and its numbers of the classes.

        `model` has a tokenizer and a config.json whose `id2label` names the classes 0, 1 and 2 of the rows
        "entailment", "neutral" and "contradiction", in an order of its own. `predictions`, as what is returned, number
        the classes as the model does.
        """

    def pair_training(
        self, rows: Sequence[PairRow], tokenize: Callable[[str, str], list[int]], n: int, seed: int
    ) -> list[PairEdit]:
        """The edits of the first `n` training examples on a training set, with one retain input each."""

    def classifier_examples(
        self, splits: Mapping[str, Sequence[PairRow]], tokenize: Callable[[str, str], list[int]]
    ) -> list[Labelled]:
        """What one pass of the raw classifier's fine-tuning sees of {"train", "validation", "test"}, in any order."""


class Reproduction(Protocol):
    """Chapter R."""

    def paper_preset(self) -> dict[str, float]:
        """The paper's hyper-parameters by the names of R1's table; others may stand beside them."""

    def experiments(self, languages: Sequence[str]) -> list[Experiment]:
        """The rows of both tables for a data set in these languages, English among them."""

    def record(
        self,
        facts: Path,
        model: Path,
        seed: int,
        rulings: Mapping[str, str],
        settings: Mapping[str, float] | None = None,
    ) -> dict[str, Any]:
        """What a run is stored with, as plain data: {"configuration", "seed", "code", "data", "model", "rulings"}.

        The run is one of MEND with masks per language. `facts` is a folder in mLAMA's layout, `model` a transformers
        folder of a masked language model with its tokenizer. `rulings` says for each of `RULINGS` what the run follows;
        recording it is all that is asked here, no run is made. `settings`, given by some tests only, are those of
        `SETTINGS` in which the run differs from the preset. "data" and "model" are fingerprints of what was read.
        """

    def table(self, runs: Sequence[StoredRun], edit_language: str | None) -> list[TableRow]:
        """A row for each editor and training: Table 1 for edits in "en", Table 2 for edits in all languages (None).

        The outcomes are those of the table's edits already.
        """

    def stopping(self, succ: Sequence[float], validate_every: int, patience: int, max_steps: int) -> tuple[int, int]:
        """The step after which training stopped, and the one whose parameters are judged.

        `succ` holds what the validations would give that a training to `max_steps` has, the first of them after
        `validate_every` steps. Patience and `max_steps` are multiples of that.
        """

    def mask_similarity(self, log_alpha: Array) -> Array:
        """Figure 5, (L, L), from the mask parameters of each language (L, W): of both factors of all matrices."""


class Runs(Protocol):
    """Chapter U: from data and a raw model to outcomes, by the very code that makes an implementation's tables.

    What is asked is a trace: what a training was given and what an evaluation was asked, as plain data. The suite plays
    it again, with chapter E's functions and a model of its own, and compares. To provide it, let the code that runs
    note what it hands to its training step and to its judge; a trace that was made up beside it plays otherwise.
    """

    def run(
        self,
        data: Path | Mapping[str, Sequence[PairRow]],
        model: Path,
        editor: str,
        training: Literal["en", "all", "lime"] | None,
        seed: int,
        plan: Plan,
        folder: Path,
        interrupt: int | None = None,
    ) -> Trace:
        """Train an editor one way (None: finetuning, which is not trained), keep its best, and judge that.

        `data` is a folder in mLAMA's layout, or {"train", "validation", "test"} of sentence pairs; `model` a
        transformers folder with its tokenizer, a masked language model or a classifier, of which the MLP matrices of
        the last three encoder layers are edited. All are in English and other languages.
        `folder` is empty, or has what an interrupted call with the same arguments left (capability `resumable`). With
        `interrupt` the training ends after so many edits as if the process had been killed; what is returned is not
        looked at.
        """

    def preferences(self, editor: Any) -> tuple[Sequence[str], Array]:
        """Figure 5 of an editor with masks per language: its languages, and the cosines (L, L) in their order."""


class ManyEdits(Protocol):
    """Chapter C. `editor` and `edits` are those of chapter E; a composition is edits of length 1, at index 0.

    The first four functions are asked of an implementation of chapter E, the last two of one of chapters S and M.
    """

    def compose_edits(self, editor: Any, edits: Sequence[Any]) -> Any:
        """The sum of all edits in all of these, as one edit."""

    def edit_after(self, editor: Any, before: Any, requests: Sequence[Request]) -> Any:
        """One independent edit for each request, of the model as it is under the composition `before`; its own ΔW."""

    def drop_edit(self, editor: Any, edits: Any, index: int) -> Any:
        """The composition of these edits without the one at `index`. There are two at least."""

    def save_edited(self, editor: Any, edits: Any, index: int, folder: Path) -> None:
        """The model under one edit, as a folder that `from_pretrained` of the raw model's class loads.

        The folder does not exist yet. The raw model was made in this process, not loaded: there is no tokenizer.
        """

    def edit_series(
        self,
        corpus: Sequence[Example],
        edit_languages: Sequence[str],
        update_languages: Sequence[str],
        n_edits: int,
        n_update: int,
        n_retain: int,
        seed: int,
    ) -> Series:
        """A series of edits in the editing languages: `n_edits`, or one for each fact that there is in them.

        Inputs are in the updating languages, and drawn as in `evaluation_pairs`: `n_update` for each edit, and
        `n_retain` for the whole series.
        """

    def series_metrics(self, outcomes: Sequence[SeriesOutcome]) -> dict[str, float]:
        """{"efficacy", "retention", "con"} of a series whose last edit has the highest number in `outcomes`."""
