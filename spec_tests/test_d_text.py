"""Chapter D, text to tokens: tokenizers with special tokens, spaces, unknown words and token types of their own."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from . import oracles, strategies as given_
from .assertions import close, differs, distributed, equal, holds, near
from .conformance import Implementation, clause, every_editor, needs
from .contract import Input, Place, Request, Triple
from .editing import other_labels, updates
from .test_d_data import (
    MASK,
    PAIRS,
    RAW,
    WORLD,
    entities,
    folder_of,
    name_of,
    template,
    tokenize,
    tokenize_pair,
    written,
)
from .texts import CLASSES, KINDS, write_classes, write_tokenizer
from .tiny import LANGUAGES, cross_entropy, divergence, make_felt, outer_sum, perturb, setting, with_update

#: German subjects are words that the tokenizers with a vocabulary do not know.
WORDS = ["en", "country", "of", "is", "capital", "lies", "on", "earth", "ensubject", "(", ")", ".", "claim", "premise"]
WORDS += ["de", "zh", *(letter for letter in "abcdklmnvwxyz")]
SHUFFLED = ("contradiction", "entailment", "neutral")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with a tokenizer, and that tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    return folder, write_tokenizer(request.param, folder, WORDS)


def place(relation: str, subject: int, language: str) -> Place:
    return {"relation": relation, "subject": f"Q{subject}", "language": language}


#: An edit, its updating language and a retained fact: another subject and relation; the edit's own subject in the
#: relation beside; its own relation; its own subject and language; all three in one language.
CALLS: dict[str, tuple[Place, str, Place]] = {
    "nothing shared": (place("P17", 1, "en"), "de", place("P36", 4, "de")),
    "one subject": (place("P17", 1, "en"), "en", place("P36", 1, "en")),
    "one subject abroad": (place("P17", 1, "en"), "de", place("P36", 1, "de")),
    "one relation": (place("P17", 1, "de"), "en", place("P17", 2, "en")),
    "a relation that begins with [Y]": (place("P36", 4, "en"), "de", place("P17", 4, "en")),
}


def plain(x: Mapping[str, Any]) -> dict[str, list[int]]:
    return {"input_ids": list(x["input_ids"]), "positions": list(x["positions"])}


def spelled(encode: Any, where: Place, language: str, named_in: str, masks: int) -> dict[str, list[int]]:
    """The whole sentence as the tokenizer has it, with masks side by side."""
    text = template(language, where["relation"]).replace("[X]", name_of(where, named_in))
    (ids,) = encode([text.replace("[Y]", encode.mask_token)])["input_ids"]
    at = ids.index(encode.mask_token_id)
    filled = [*ids[:at], *[encode.mask_token_id] * masks, *ids[at + 1 :]]
    return {"input_ids": filled, "positions": list(range(at, at + masks))}


def alone(encode: Any, name: str) -> list[int]:
    return list(encode(name, add_special_tokens=False)["input_ids"])


def encoded(
    implementation: Implementation, folder: Path, call: tuple[Place, str, Place], seeds: Sequence[int]
) -> list[Triple]:
    with folder_of(written(WORLD)) as facts:
        return implementation.encoded_facts(facts, folder, *call, seeds)


@clause("D10")
@pytest.mark.parametrize("what", CALLS)
def test_inputs_are_what_the_tokenizer_makes_of_a_sentence(
    implementation: Implementation, tokenizer: tuple[Path, Any], what: str
) -> None:
    """Special tokens, spaces and unknown words as it has them; masks, and nothing else, are predicted."""
    folder, encode = tokenizer
    edit, update, retain = CALLS[what]
    named_in = edit["language"] if implementation.ruling("subject") == "edit-language" else update
    for triple in encoded(implementation, folder, CALLS[what], range(6)):
        count = len(triple["edit"]["labels"])
        expected = {
            "edit": spelled(encode, edit, edit["language"], edit["language"], count),
            "update": spelled(encode, edit, update, named_in, count),
            "retain": spelled(
                encode, retain, retain["language"], retain["language"], len(triple["retain"]["positions"])
            ),
        }
        for role, wanted in expected.items():
            got = plain(triple[role])  # type: ignore[literal-required]
            tokens = encode.convert_ids_to_tokens(got["input_ids"])
            equal("D10", got, wanted, f"{role} input", tokens=tokens, tokenizer=folder.name, facts=what)


@clause("D10", "D4", "D5")
def test_labels_and_lengths_have_no_special_tokens(implementation: Implementation, tokenizer: tuple[Path, Any]) -> None:
    """A desired label is a name as it is spelled alone, and a retain input has as many masks as such a name."""
    folder, encode = tokenizer
    triples = encoded(implementation, folder, CALLS["nothing shared"], range(300))
    names = {tuple(alone(encode, name)) for name in entities(implementation, CALLS["nothing shared"][0])}
    lengths = Counter(len(alone(encode, name)) for name in oracles.labels(WORLD, "de").values())
    found = {tuple(triple["edit"]["labels"]) for triple in triples}
    equal("D10", found, names, "desired labels", tokenizer=folder.name)
    share = len(triples) / lengths.total()
    drawn = Counter(len(triple["retain"]["positions"]) for triple in triples)
    distributed("D5", drawn, {length: share * count for length, count in lengths.items()}, "numbers of masks")


@clause("D10", "D4")
def test_names_with_unknown_words_are_desired_too(
    implementation: Implementation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An entity counts, whatever the tokenizer makes of its name."""
    folder = tmp_path_factory.mktemp("unknown-names")
    encode = write_tokenizer("wordpiece", folder, [word for word in WORDS if word != "b"])
    triples = encoded(implementation, folder, CALLS["nothing shared"], range(300))
    names = {tuple(alone(encode, name)) for name in entities(implementation, CALLS["nothing shared"][0])}
    assert any(encode.unk_token_id in name for name in names)
    equal("D4", {tuple(triple["edit"]["labels"]) for triple in triples}, names, "desired labels, some of unknown words")


#: Names of one token and of none that a tokenizer knows, with the same token twice, spaces within and around, marks.
SPELLINGS = ("7", "(a)", "a a", "b  c", "d .", "q", "7 7 7 k", "k 7", " m", "n ")


@clause("D10", "D4", "D5")
def test_every_token_of_a_name_counts(implementation: Implementation, tokenizer: tuple[Path, Any]) -> None:
    """A label has all that the tokenizer makes of a name: a space alone, a mark, the same token again, the unknown."""
    folder, encode = tokenizer
    rows = [
        {**given_.fact_row(said, "P17", n, n), "obj_label": name}
        for said in ("en", "de")
        for n, name in enumerate(SPELLINGS)
    ]
    with folder_of(written(rows)) as facts:  # type: ignore[arg-type]
        triples = implementation.encoded_facts(
            facts, folder, place("P17", 0, "en"), "de", place("P17", 1, "de"), range(300)
        )
    own = implementation.ruling("label_pool") == "own"
    names = {tuple(alone(encode, name)) for name in (SPELLINGS[: round(0.8 * len(SPELLINGS))] if own else SPELLINGS)}
    found = {tuple(triple["edit"]["labels"]) for triple in triples}
    equal("D10", found, names, "desired labels", tokenizer=folder.name, names=SPELLINGS)
    lengths = Counter(len(alone(encode, name)) for name in SPELLINGS)
    drawn = Counter(len(triple["retain"]["positions"]) for triple in triples)
    expected = {length: len(triples) * count / len(SPELLINGS) for length, count in lengths.items()}
    distributed("D5", drawn, expected, "numbers of masks", tokenizer=folder.name, names=SPELLINGS)


@clause("D10")
@pytest.mark.parametrize("name", [" a", "a ", "a  b", "a\u00a0b"], ids=["before", "behind", "within", "no-break"])
def test_the_spaces_of_a_subject_are_its_own(
    implementation: Implementation, tokenizer: tuple[Path, Any], name: str
) -> None:
    """The tokenizer reads the sentence with the subject as the data spell it."""
    folder, encode = tokenizer
    rows = [{**given_.fact_row("en", "P30", n, n, "akm"[n]), "sub_label": name if n else "b"} for n in range(3)]
    with folder_of(written(rows)) as facts:  # type: ignore[arg-type]
        (triple,) = implementation.encoded_facts(facts, folder, place("P30", 1, "en"), "en", place("P30", 2, "en"), [0])
    text = template("en", "P30").replace("[X]", name)
    wanted = list(encode(text.replace("[Y]", encode.mask_token))["input_ids"])
    for role in ("edit", "update", "retain"):
        got = plain(triple[role])  # type: ignore[literal-required]
        masks = len(got["positions"])
        at = wanted.index(encode.mask_token_id)
        filled = [*wanted[:at], *[encode.mask_token_id] * masks, *wanted[at + 1 :]]
        equal("D10", got["input_ids"], filled, f"{role} input", subject=name, tokenizer=folder.name)


@clause("D10")
def test_unknown_words_are_unknown_tokens(
    implementation: Implementation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A subject that the tokenizer does not know is there as its unknown token, and is not predicted."""
    folder = tmp_path_factory.mktemp("unknown")
    encode = write_tokenizer("wordpiece", folder, WORDS)
    for triple in encoded(implementation, folder, CALLS["nothing shared"], range(3)):
        ids, positions = triple["update"]["input_ids"], list(triple["update"]["positions"])
        unknown = [at for at, token in enumerate(ids) if token == encode.unk_token_id]
        named = implementation.ruling("subject") == "parallel"
        wanted = f"{encode.unk_token} once or more" if named else f"no {encode.unk_token}"
        got = encode.convert_ids_to_tokens(ids)
        holds("D10", bool(unknown) == named, "a sentence with a German subject", expected=wanted, got=got)
        masks = [at for at, token in enumerate(ids) if token == encode.mask_token_id]
        equal("D10", positions, masks, "predicted positions", tokens=encode.convert_ids_to_tokens(ids))


# Pairs

PAIR_WORDS = [*WORDS, *(str(number) for number in range(10))]


@pytest.fixture(scope="module", params=["wordpiece", "metaspace"])
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with a classifier's configuration, which has the classes in an order of its own, and its tokenizer."""
    folder = tmp_path_factory.mktemp("classifier")
    encode = write_tokenizer(request.param, folder, PAIR_WORDS)
    write_classes(folder, SHUFFLED)
    return folder, encode


def as_model(label: int) -> int:
    """The model's number of the data's class."""
    return SHUFFLED.index(CLASSES[label])


@clause("D10", "D7")
def test_pairs_have_token_types_and_the_models_classes(
    implementation: Implementation, classifier: tuple[Path, Any]
) -> None:
    """A pair is encoded as a pair, and what is wrong, and what is desired, is so by the names of the classes."""
    folder, encode = classifier
    predictions = {said: [as_model(label) for label in told] for said, told in RAW.items()}
    edits = implementation.encoded_pairs(PAIRS, predictions, folder, 2, 3)
    got = sorted((edit["row"], edit["language"], edit["label"]) for edit in edits)
    expected = sorted(
        (row, said, as_model(pair["label"]))
        for said, told in RAW.items()
        for row, pair in enumerate(PAIRS)
        if told[row] != pair["label"]
    )
    equal("D10", got, expected, "row, language and desired class", classes=SHUFFLED)
    for edit in edits:
        row, said = PAIRS[edit["row"]], edit["language"]
        hypothesis = row["hypothesis"]["translation"][row["hypothesis"]["language"].index(said)]
        wanted = encode(row["premise"][said], hypothesis)
        found: Any = edit["input"]
        equal("D10", list(found["input_ids"]), list(wanted["input_ids"]), "tokens of a pair", row=edit["row"])
        types = list(found.get("token_type_ids") or [0] * len(found["input_ids"]))
        none = [0] * len(wanted["input_ids"])
        equal("D10", types, list(wanted.get("token_type_ids") or none), "token types of a pair", row=edit["row"])


@clause("D10")
@pytest.mark.parametrize("words", [70, 140, 400])
def test_long_pairs_are_read_whole(implementation: Implementation, classifier: tuple[Path, Any], words: int) -> None:
    """A pair that the model reads whole is not cut."""
    folder, encode = classifier
    premise = " ".join(["premise", "of"] * (words // 2))
    rows: list[Any] = [
        {**row, "premise": {"en": premise}, "hypothesis": {"language": ["en"], "translation": [f"en claim {n % 10}"]}}
        for n, row in enumerate(PAIRS)
    ]
    wrong = [(as_model(row["label"]) + 1) % 3 for row in rows]
    wanted = [list(encode(premise, row["hypothesis"]["translation"][0])["input_ids"]) for row in rows]
    assert words < len(wanted[0]) < 512
    edits = implementation.encoded_pairs(rows, {"en": wrong}, folder, 1, 0)
    equal("D10", len(edits), len(rows), "edits of long pairs that are all wrong", words=words)
    for edit in edits[:3]:
        equal("D10", list(edit["input"]["input_ids"]), wanted[edit["row"]], "tokens of a long pair", words=words)


@clause("D10")
@pytest.mark.parametrize("classes", [CLASSES, CLASSES[::-1], SHUFFLED], ids="-".join)
def test_a_class_is_known_by_its_name(
    implementation: Implementation, tmp_path_factory: pytest.TempPathFactory, classes: tuple[str, ...]
) -> None:
    """Whatever order a model has them in: what it gets right is not edited, and the rest towards the gold name."""
    folder = tmp_path_factory.mktemp("classes")
    write_tokenizer("wordpiece", folder, PAIR_WORDS)
    write_classes(folder, classes)
    # All right, but for row 4, which has one wrong answer in English.
    gold = [classes.index(CLASSES[row["label"]]) for row in PAIRS]
    predictions = {"en": [number if row != 4 else (number + 1) % 3 for row, number in enumerate(gold)]}
    edits = implementation.encoded_pairs(PAIRS, predictions, folder, 1, 0)
    got = [(edit["row"], edit["language"], edit["label"]) for edit in edits]
    equal("D10", got, [(4, "en", gold[4])], "row, language and desired class", classes=classes)


# D7 from one language to all


@clause("D7")
def test_english_pairs_retain_pairs_of_all_languages(implementation: Implementation) -> None:
    """Where English alone is edited, every edit is English, and what it retains comes from all languages evenly."""
    edits = [
        edit
        for seed in range(300)
        for edit in implementation.pair_edits(PAIRS, {"en": RAW["en"]}, tokenize_pair, 10, seed)
    ]
    equal("D7", {edit["language"] for edit in edits}, {"en"}, "editing languages")
    wrong = [row for row, pair in enumerate(PAIRS) if RAW["en"][row] != pair["label"]]
    equal("D7", sorted(edit["row"] for edit in edits[: len(wrong)]), wrong, "edited rows")
    said = Counter(language for edit in edits for _, language in edit["retain"])
    distributed("D7", said, dict.fromkeys(RAW, said.total() / len(RAW)), "languages of retained pairs")


# Models that read token types


def typed(rng: np.random.Generator, types: str, words: int = 4) -> Input:
    """A pair of two texts; their token types are 0 and 1, all 0, or missing."""
    first, second = (rng.integers(5, 60, size=words).tolist() for _ in range(2))
    one: Input = {"input_ids": [2, *first, 3, *second, 3], "positions": [0]}
    if types != "missing":
        one["token_type_ids"] = [0] * (words + 2) + [int(types == "pair")] * (words + 1)
    return one


def logits_of(model: torch.nn.Module, one: Input) -> torch.Tensor:
    ids = torch.tensor([one["input_ids"]])
    types = torch.tensor([one.get("token_type_ids", [0] * ids.shape[1])])
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=types).logits


@pytest.fixture
def typing_model() -> Any:
    """A classifier in which the two token types are far apart."""
    world = setting("classifier")
    with torch.no_grad():
        table = world.model.bert.embeddings.token_type_embeddings.weight  # type: ignore[union-attr]
        table[1] = table[0] + 2.0 * torch.linspace(-1, 1, table.shape[1], dtype=table.dtype)
    return world


@clause("D10")
@needs("E")
def test_predictions_depend_on_token_types(implementation: Implementation, typing_model: Any) -> None:
    """Raw logits are those of the model with the token types of the input; without any they are all 0."""
    editor = make_felt(implementation, "mend", typing_model)
    rng = np.random.default_rng(93)
    inputs = [typed(rng, types) for types in ("pair", "zero", "missing", "pair")]
    for number, found in enumerate(implementation.raw_logits(editor, inputs)):
        expected = logits_of(typing_model.model, inputs[number]).detach()
        near("D10", found, expected, f"raw logits of input {number}", input=inputs[number])


@clause("D10")
@needs("E")
def test_edits_and_objectives_depend_on_token_types(implementation: Implementation, typing_model: Any) -> None:
    """What is captured is the gradient of the pair with its types, and so are the predictions that train an editor."""
    editor = make_felt(implementation, "mend", typing_model)
    perturb(implementation, editor)
    rng = np.random.default_rng(94)
    inputs = [typed(rng, "pair") for _ in range(3)]
    request: Request = {**inputs[0], "labels": [1], "language": LANGUAGES[0]}
    own = copy.deepcopy(typing_model.model).requires_grad_(True)
    weights = dict(own.named_parameters())
    matrices = list(typing_model.edited)
    slopes = torch.autograd.grad(cross_entropy(logits_of(own, request), [1]), [weights[m] for m in matrices])
    captured = implementation.capture(editor, request)
    for matrix, slope in zip(matrices, slopes, strict=True):
        found = outer_sum(*captured[matrix])
        near("D10", found, slope, f"the gradient captured for {matrix}")
    triple: Triple = {"edit": request, "update": inputs[1], "retain": inputs[2]}
    plain_types = [0] * len(inputs[1]["input_ids"])
    parts = implementation.losses(editor, [triple], seed=0)[0]
    for role, part in (("update", "rel"), ("retain", "loc")):
        changed: Any = {**triple, role: {**triple[role], "token_type_ids": plain_types}}  # type: ignore[literal-required]
        other = implementation.losses(editor, [changed], seed=0)[0]
        holds(
            "D10",
            abs(other[part] - parts[part]) > 1e-6,
            f"{part} with and without token types",
            expected="two values that differ",
            got=(parts[part], other[part]),
        )
    edits = implementation.edit(editor, [request])
    with_types, without = (
        implementation.edited_logits(editor, edits, 0, [one])[0]
        for one in (inputs[1], {**inputs[1], "token_type_ids": plain_types})
    )
    differ = not torch.allclose(with_types, without, atol=1e-6)
    holds("D10", differ, "edited logits with and without token types", expected="logits that differ", got="the same")


@clause("D10")
@needs("E")
@every_editor
def test_every_editor_reads_token_types(implementation: Implementation, typing_model: Any, name: str) -> None:
    """Its edit of a pair is another one than without the types, and its objective is that of models that read them."""
    editor, raw = make_felt(implementation, name, typing_model), typing_model.model
    rng = np.random.default_rng(96)
    inputs = [typed(rng, "pair") for _ in range(3)]
    labels = other_labels("classifier", logits_of(raw, inputs[0]).argmax(-1).tolist())
    request: Request = {**inputs[0], "labels": labels, "language": LANGUAGES[0]}
    plain: Request = {**request, "token_type_ids": [0] * len(request["input_ids"])}
    update, other = updates(implementation, editor, [request, plain])
    for matrix, found in update.items():
        what = f"the edit of {matrix} with and without token types"
        differs("D10", found, other[matrix], what, expected="two edits", editor=name, edit=request)
    if name == "finetuning":
        return
    triple: Triple = {"edit": request, "update": inputs[1], "retain": inputs[2]}
    parts, _ = implementation.losses(editor, [triple], seed=0)
    edited = with_update(raw, update)
    new, old = logits_of(edited, inputs[2]), logits_of(raw, inputs[2])
    turned = implementation.ruling("kl_direction") == "released"
    expected = {"rel": 0.1 * cross_entropy(logits_of(edited, inputs[1]), labels)}
    expected["loc"] = divergence(old, new) if turned else divergence(new, old)
    for part, value in expected.items():
        what = f"in training {part} is not that of models that read token types"
        close("D10", parts[part], float(value.detach()), what, "losses", editor=name, triple=triple)


@clause("D10")
@needs("E")
def test_a_batch_of_mixed_lengths_keeps_token_types(implementation: Implementation, typing_model: Any) -> None:
    """Edits, and predictions under one, of pairs of several lengths, and of one without types, beside each other."""
    editor = make_felt(implementation, "mend", typing_model)
    perturb(implementation, editor)
    rng = np.random.default_rng(95)
    inputs = [typed(rng, types, words) for types, words in (("pair", 4), ("missing", 6), ("pair", 2), ("pair", 9))]
    requests: list[Request] = [{**one, "labels": [1], "language": LANGUAGES[0]} for one in inputs]
    together = implementation.edit(editor, requests)
    for place, request in enumerate(requests):
        alone = implementation.dense(editor, implementation.edit(editor, [request]), 0)
        for matrix, found in implementation.dense(editor, together, place).items():
            near(
                "D10", found, alone[matrix], f"another ΔW of {matrix} for edit {place} of a batch", input=inputs[place]
            )
    single = [implementation.edited_logits(editor, together, 0, [one])[0] for one in inputs]
    for place, found in enumerate(implementation.edited_logits(editor, together, 0, inputs)):
        near("D10", found, single[place], f"logits of input {place} of a batch", input=inputs[place])


# A shared cache


@clause("D3", "D6")
@pytest.mark.parametrize("what", CALLS)
def test_sentences_that_share_a_subject_or_a_template_are_told_apart(implementation: Implementation, what: str) -> None:
    """However a prompt is remembered: the same subject in another relation, the same relation about another subject."""
    edit, update, retain = CALLS[what]
    with folder_of(written(WORLD)) as folder:
        triples = implementation.fact_inputs(folder, tokenize, MASK, edit, update, retain, range(4))
    named_in = edit["language"] if implementation.ruling("subject") == "edit-language" else update
    for triple in triples:
        for role, where, language, named in (
            ("edit", edit, edit["language"], edit["language"]),
            ("update", edit, update, named_in),
            ("retain", retain, retain["language"], retain["language"]),
        ):
            got = plain(triple[role])  # type: ignore[literal-required]
            masks = " ".join(["[MASK]"] * len(got["positions"]))
            text = template(language, where["relation"]).replace("[X]", name_of(where, named)).replace("[Y]", masks)
            equal("D3" if role == "edit" else "D6", got["input_ids"], tokenize(text), f"{role} input", text=text)
