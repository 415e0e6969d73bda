"""Chapter D: facts read from a folder and split, what an edit of a fact reads, and edits of sentence pairs.

The statistical tests draw 6,000 edits of facts and 30,000 of pairs at a false-alarm rate of 1e-6 with fixed seeds;
`meta/test_power.py` shows what they can see.
"""

from __future__ import annotations

import json
import re
import tempfile
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from . import golden, oracles, probes, strategies as given_
from .assertions import distributed, equal, holds, rejects
from .conformance import Implementation, clause, needs
from .contract import FactRow, Input, PairEdit, PairRow, Place, Triple
from .strategies import TEMPLATES, template

MASK = 3
SEEDS = range(6000)
FIELDS = ("sub_uri", "obj_uri", "sub_label", "obj_label")


def tokenize(text: str) -> list[int]:
    """One id per word, number of a word or punctuation mark."""
    return [MASK if word == "[MASK]" else 10 + zlib.crc32(word.encode()) for word in _words(text)]


def _words(text: str) -> list[str]:
    return re.findall(r"\[MASK\]|\w+|[^\w\s]", text)


# Folders


def written(rows: Sequence[FactRow], ending: str = "\n", start: str = "", blank: str = "") -> dict[str, str]:
    """The files of a folder by path.

    Of a relation that no row is about, the first language has an empty file, and the others have none.
    """
    files = {}
    spoken = list(dict.fromkeys(row["language"] for row in rows))
    for language in spoken:
        told = {relation: template(language, relation) for relation in TEMPLATES}
        files[f"{language}/templates.jsonl"] = [{"relation": r, "template": text} for r, text in told.items()]
        for relation in TEMPLATES:
            mine = [row for row in rows if (row["language"], row["relation"]) == (language, relation)]
            if not mine and language != spoken[0]:
                continue
            files[f"{language}/{relation}.jsonl"] = [
                # As in mLAMA's files, which know a fact by more than its subject.
                {"lineid": place, "uuid": _uuid(row), **{name: row[name] for name in FIELDS}}  # type: ignore[literal-required]
                for place, row in enumerate(mine)
            ]
    lines = {name: [json.dumps(line, ensure_ascii=False) for line in content] for name, content in files.items()}
    return {name: start + blank + "".join(line + ending for line in content) for name, content in lines.items()}


def _uuid(row: FactRow) -> str:
    """What mLAMA calls a fact in all languages."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{row['relation']} {row['sub_uri']} {row['obj_uri']}"))


@contextmanager
def folder_of(files: Mapping[str, str]) -> Iterator[Path]:
    """The files in a folder of their own, written in the given order."""
    with tempfile.TemporaryDirectory() as name:
        for path, text in files.items():
            place = Path(name) / path
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(text.encode())
        yield Path(name)


def canonical(parts: Mapping[str, Iterable[FactRow]]) -> dict[str, list[tuple[str, ...]]]:
    """Splits without their order."""
    names = ("language", "relation", *FIELDS)
    return {split: sorted(tuple(row[n] for n in names) for row in rows) for split, rows in parts.items()}  # type: ignore[literal-required]


def split_of(implementation: Implementation, files: Mapping[str, str]) -> dict[str, list[tuple[str, ...]]]:
    with folder_of(files) as folder:
        return canonical(implementation.split(folder))


# D1, D2: splits

#: Facts of one relation, and how many of them are in train, validation and test.
COUNTS = [
    *((1, 1, 0, 0), (2, 2, 0, 0), (3, 2, 1, 0), (4, 3, 1, 0), (5, 4, 0, 1), (6, 5, 0, 1), (7, 6, 0, 1), (8, 6, 1, 1)),
    *((9, 7, 1, 1), (10, 8, 1, 1), (15, 12, 2, 1), (25, 20, 2, 3), (35, 28, 4, 3), (104, 83, 11, 10)),
]


@clause("D1")
@pytest.mark.parametrize(
    ("facts", "train", "validation", "test"), COUNTS, ids=[f"{count[0]}-facts" for count in COUNTS]
)
def test_boundaries_are_rounded(
    implementation: Implementation, facts: int, train: int, validation: int, test: int
) -> None:
    """Facts of different subjects: the boundaries by hand, a half to the even neighbour."""
    rows = [given_.fact_row("en", "P17", place, place) for place in range(facts)]
    got = split_of(implementation, written(rows))
    sizes = tuple(len(got[name]) for name in ("train", "validation", "test"))
    what = "the boundaries of the splits are not round(n·8/10) and round(n·9/10)"
    equal("D1", sizes, (train, validation, test), what, facts=facts)


@clause("D1")
def test_facts_of_equal_texts_are_counted_apart(implementation: Implementation) -> None:
    """Ten subjects of one name, with one object: a fact is known by its subject, and not by what it reads like."""
    rows = [{**given_.fact_row("en", "P17", place, 0), "sub_label": "one name"} for place in range(10)]
    got = split_of(implementation, written(rows))  # type: ignore[arg-type]
    subjects = {name: [row[2] for row in told] for name, told in got.items()}
    expected = {"train": [f"Q{n}" for n in range(8)], "validation": ["Q8"], "test": ["Q9"]}
    equal("D1", subjects, expected, "facts that read alike are not counted as facts of their own")


@clause("D1")
def test_each_relation_of_each_language_is_split_in_file_order(implementation: Implementation) -> None:
    """Ten facts of three relations in two languages: the first eight, the ninth and the tenth of each."""
    said = [(language, relation) for language in ("de", "en") for relation in TEMPLATES]
    rows = [
        given_.fact_row(language, relation, 1000 * group + 7 * place % 10, place)
        for group, (language, relation) in enumerate(said)
        for place in range(10)
    ]
    places = {"train": range(8), "validation": range(8, 9), "test": range(9, 10)}
    expected = {name: [row for i, row in enumerate(rows) if i % 10 in chosen] for name, chosen in places.items()}
    what = "facts are not split relation by relation in file order"
    equal("D1", split_of(implementation, written(rows)), canonical(expected), what, rows=rows)


@clause("D1", "D2")
@given(given_.fact_rows())
def test_splits_follow_the_definition(implementation: Implementation, rows: list[FactRow]) -> None:
    """Eight, one and one tenth in file order, then subjects of an earlier split are dropped, and nothing else is."""
    expected, got = canonical(oracles.split(rows)), split_of(implementation, written(rows))
    first = canonical(oracles.parts_in_file_order(rows))
    for name, told in got.items():
        what = f"{name} has facts that are elsewhere in file order"
        equal("D1", [row for row in told if row not in first[name]], [], what, rows=rows)
    equal("D2", got, expected, "subjects are kept to a split otherwise, or more is dropped", rows=rows)


@clause("D2")
@given(given_.fact_rows())
def test_a_subject_is_in_one_split(implementation: Implementation, rows: list[FactRow]) -> None:
    """Over all languages and relations."""
    with folder_of(written(rows)) as folder:
        parts = implementation.split(folder)
    subjects = {name: {row["sub_uri"] for row in part} for name, part in parts.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        equal(
            "D2", subjects[one] & subjects[other], set(), "a subject is in two splits", splits=(one, other), rows=rows
        )


@clause("D2")
def test_objects_are_free(implementation: Implementation) -> None:
    """Twenty facts with one object: it is in all splits."""
    rows = [given_.fact_row("en", "P17", place, 1) for place in range(20)]
    got = {name: len(part) for name, part in split_of(implementation, written(rows)).items()}
    equal("D2", got, {"train": 16, "validation": 2, "test": 2}, "an object is kept to one split")


@clause("D2")
def test_test_goes_before_validation(implementation: Implementation) -> None:
    """A subject that only validation and test have stays in test."""
    rows = [given_.fact_row("en", "P17", place, place) for place in range(10)]
    rows[9] |= {"sub_uri": "Q8"}
    got = split_of(implementation, written(rows))
    what = "a subject of validation and test does not stay in test"
    equal("D2", (len(got["validation"]), len(got["test"])), (0, 1), what)


@clause("D2")
@pytest.mark.parametrize("other", ["q0", "Q00", "Q0 ", "Q\uff10", "Q0/en", "/m/Q0"])
def test_subjects_of_similar_identifiers_are_apart(implementation: Implementation, other: str) -> None:
    """A subject is known by its identifier as it is: one that train has drops no other."""
    rows = [given_.fact_row("en", "P17", place, place) for place in range(10)]
    rows[9] |= {"sub_uri": other}
    got = [row[2] for row in split_of(implementation, written(rows))["test"]]
    equal("D2", got, [other], "a subject is taken for another one, which train has", other=other)


#: As a file may be called: like mLAMA's of T-REx, like its three of GoogleRE, and as anybody calls a relation.
RELATIONS = ("P17", "p36", "Q5", "17", "date_of_birth", "place_of_birth", "place_of_death", "capital", "part-of")


@clause("D2")
def test_a_relation_is_read_whatever_its_name(implementation: Implementation) -> None:
    """Data that are not mLAMA itself: ten facts of each relation, in a language with a region, in splits and labels."""
    rows = [
        given_.fact_row(said, relation, 100 * number + place, place)
        for said in ("en", "zh-TW")
        for number, relation in enumerate(RELATIONS)
        for place in range(10)
    ]
    files = {}
    for said in ("en", "zh-TW"):
        told = [{"relation": relation, "template": f"{relation} of [X] is [Y]"} for relation in RELATIONS]
        files[f"{said}/templates.jsonl"] = told
        for relation in RELATIONS:
            mine = [row for row in rows if (row["language"], row["relation"]) == (said, relation)]
            files[f"{said}/{relation}.jsonl"] = [{name: row[name] for name in FIELDS} for row in mine]  # type: ignore[literal-required]
    texts = {name: "".join(json.dumps(line) + "\n" for line in lines) for name, lines in files.items()}
    what = "facts are left out, or told elsewhere, because of what their relation or language is called"
    equal("D2", split_of(implementation, texts), canonical(oracles.split(rows)), what, relations=RELATIONS)
    with folder_of(texts) as folder:
        for number, relation in enumerate(RELATIONS):
            mine, other = (
                {"relation": relation, "subject": f"Q{100 * number + n}", "language": "zh-TW"} for n in (0, 1)
            )
            (triple,) = implementation.fact_inputs(folder, tokenize, MASK, mine, "en", other, [0])  # type: ignore[arg-type]
            known = [tokenize(name) for name in oracles.labels(rows, "zh-TW", relation).values()]
            label = list(triple["edit"]["labels"])
            holds("D2", label in known, f"label of a fact of {relation}", expected=known, got=label)


#: Ten texts each that a reader of tables takes for something else; the last is then one of those before it.
READ_AS_NUMBERS = {
    "leading zeros": [*(str(n) for n in range(1, 10)), "01"],
    "decimals": [*(f"{n}.0" for n in range(1, 10)), "1.00"],
    "powers of ten": [*(f"{n}e3" for n in range(1, 10)), "1000"],
    "signs": [*(f"-{n}" for n in range(1, 10)), "-01"],
    "digits of two kinds": [*(str(n) for n in range(1, 10)), "\u0661"],
    "large numbers": [*(str(2**60 + n) for n in range(1, 10)), f"{2**60 + 10}"],
    "dates": [*(f"2020-01-0{n}" for n in range(1, 10)), "2020-1-1"],
    "no values": ["nan", "NaN", "None", "null", "NULL", "NA", "N/A", "inf", "true", "True"],
}


@clause("D2", "D4")
@pytest.mark.parametrize("kind", READ_AS_NUMBERS)
def test_texts_that_read_like_numbers_are_texts(implementation: Implementation, kind: str) -> None:
    """A file whose identifiers and names are all of one kind: each stays as it is spelled, in splits and labels."""
    texts = READ_AS_NUMBERS[kind]
    rows = [
        {**given_.fact_row("en", "P17", 0, 0), **dict.fromkeys(FIELDS, text)}  # type: ignore[typeddict-item]
        for text in texts
    ]
    files = written(rows)
    what = "an identifier or a name is taken for a number, or for none"
    equal("D2", split_of(implementation, files), canonical(oracles.split(rows)), what, kind=kind, texts=texts)
    place = _place("P17", texts[0], "en")
    with folder_of(files) as folder:
        triples = implementation.fact_inputs(folder, letters, MASK, place, "en", place, range(300))
    told = texts[:8] if implementation.ruling("label_pool") == "own" else texts
    drawn = sorted({tuple(triple["edit"]["labels"]) for triple in triples})
    what = "desired labels of names that read like numbers"
    equal("D4", drawn, sorted(tuple(letters(name)) for name in told), what, kind=kind, texts=texts)


@clause("D1")
@pytest.mark.parametrize("order", ["backward", "constant"])
def test_a_number_in_a_line_is_no_order(implementation: Implementation, order: str) -> None:
    """File order is that of the lines, whatever a field of theirs counts."""
    rows = [given_.fact_row("en", "P17", place, place) for place in range(20)]
    files = written(rows)
    lines = [json.loads(line) for line in files["en/P17.jsonl"].splitlines()]
    told = [{**line, "lineid": 7 if order == "constant" else 100 - place} for place, line in enumerate(lines)]
    changed = {**files, "en/P17.jsonl": "".join(json.dumps(line) + "\n" for line in told)}
    what = "facts are in the order of a field, and not of their lines"
    equal("D1", split_of(implementation, changed), split_of(implementation, files), what, lineid=order)


@clause("D2")
def test_the_real_data_have_the_published_counts(implementation: Implementation, pytestconfig: pytest.Config) -> None:
    """mLAMA 1.1: subjects and facts of each split."""
    folder = pytestconfig.getoption("mlama")
    if folder is None:
        pytest.skip("not claimed: mLAMA is no part of the suite; --mlama FOLDER names it")
    parts = implementation.split(Path(folder))
    got = {name: (len({row["sub_uri"] for row in part}), len(part)) for name, part in parts.items()}
    expected = {"train": (27_225, 628_612), "validation": (1_820, 23_718), "test": (3_916, 53_993)}
    equal("D2", got, expected, "mLAMA has other subjects and facts in its splits", folder=folder)


# D3 to D6: what an edit reads


def world() -> list[FactRow]:
    """Two languages that name entities at different lengths; three entities make up most facts of a relation.

    In English P17 has five entities of 1 to 3 tokens, P36 one of 4; in German all names have 1, 2 or 5.
    """
    names = {
        "en": ("a1", "a2 b2", "a3 b3 c3", "a4", "a5 b5"),
        "de": ("z1 y1 x1 w1 v1", "z2", "z3 y3", "z4 y4 x4 w4 v4", "z5"),
    }
    rows = []
    for language, said in names.items():
        # Entity 4 is known from the last fact alone, which is in test; English lacks no fact that German has.
        for place, entity in enumerate([0] * 9 + [1] * 4 + [2] * 2 + [3, 4]):
            if language == "en" or place % 5:
                rows.append(given_.fact_row(language, "P17", place, entity, said[entity]))
        for place, text in enumerate(["k1 l1 m1 n1"] * 6 if language == "en" else ["k1 l1"] * 6):
            rows.append(given_.fact_row(language, "P36", place, 0, text))
    return rows


WORLD = world()
EDIT: Place = {"relation": "P17", "subject": "Q1", "language": "en"}
RETAIN: Place = {"relation": "P36", "subject": "Q4", "language": "de"}


@pytest.fixture(scope="session")
def many(implementation: Implementation) -> list[Triple]:
    """One fact edited in English under 6,000 seeds, updated and retained in German."""
    return inputs(implementation, EDIT, "de", RETAIN, SEEDS)


def inputs(
    implementation: Implementation, edit: Place, update: str, retain: Place, seeds: Sequence[int]
) -> list[Triple]:
    with folder_of(written(WORLD)) as folder:
        return implementation.fact_inputs(folder, tokenize, MASK, edit, update, retain, seeds)


def _split_of(place: Place) -> str:
    key = (place["relation"], place["subject"], place["language"])
    rows = {s: {(r["relation"], r["sub_uri"], r["language"]) for r in part} for s, part in oracles.split(WORLD).items()}
    return next((split for split, keys in rows.items() if key in keys), "none")


def entities(implementation: Implementation, place: Place) -> list[str]:
    """The names that may be desired in an edit of this fact: of all splits, or by declared ruling of its own."""
    own = implementation.ruling("label_pool") == "own"
    rows = oracles.split(WORLD)[_split_of(place)] if own else WORLD
    return list(oracles.labels(rows, place["language"], place["relation"]).values())


#: Facts that are known in both languages, and that some split has in both.
places = st.sampled_from(
    [
        (row["relation"], row["sub_uri"])
        for row in WORLD
        if row["language"] == "de"
        and all(
            _split_of({"relation": row["relation"], "subject": row["sub_uri"], "language": language}) != "none"
            for language in ("en", "de")
        )
    ],
)


@st.composite
def fact_calls(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of `inputs`, of facts that are known in both languages."""
    (relation, subject), (other, unrelated) = draw(places), draw(places)
    edit, update, retain = (draw(st.sampled_from(["en", "de"])) for _ in range(3))
    return {
        "edit": {"relation": relation, "subject": subject, "language": edit},
        "update": update,
        "retain": {"relation": other, "subject": unrelated, "language": retain},
        "seeds": [draw(given_.seeds)],
    }


def sentence(relation: str, language: str, subject: str, masks: int) -> Input:
    """The template with a name filled in and `masks` masks."""
    filled = template(language, relation).replace("[X]", subject).replace("[Y]", " ".join(["[MASK]"] * masks))
    ids = tokenize(filled)
    return {"input_ids": ids, "positions": [i for i, token in enumerate(ids) if token == MASK]}


def name_of(place: Place, language: str) -> str:
    keys = {(row["relation"], row["sub_uri"], row["language"]): row["sub_label"] for row in WORLD}
    return keys[place["relation"], place["subject"], language]


def plain(x: Mapping[str, Any]) -> Input:
    return {"input_ids": list(x["input_ids"]), "positions": list(x["positions"])}


@clause("D3", "D4")
@given(fact_calls())
def test_the_edit_input_has_a_mask_for_each_token_of_its_label(
    implementation: Implementation, call: dict[str, Any]
) -> None:
    """Template, subject and masks in their places; the label is that of an entity of the relation and language."""
    (triple,) = inputs(implementation, **call)
    edit = triple["edit"]
    place, language, labels = call["edit"], call["edit"]["language"], list(edit["labels"])
    expected = sentence(place["relation"], language, name_of(place, language), len(labels))
    what = "the edit input is not the template with a [MASK] for each token of its label"
    equal("D3", plain(edit), expected, what, labels=labels, **call)
    known = [tokenize(name) for name in entities(implementation, place)]
    what = "a desired label is no entity of the relation in the editing language"
    holds("D4", labels in known, what, expected=known, got=labels, **call)
    equal("D4", edit["language"], language, "an edit is in another language", **call)


@clause("D4", "D6")
@given(fact_calls())
def test_the_update_input_is_the_parallel_sentence(implementation: Implementation, call: dict[str, Any]) -> None:
    """In the updating language, with a mask for each token of the edit's label; whose subject is a matter of D6."""
    (triple,) = inputs(implementation, **call)
    place, language = call["edit"], call["update"]
    named_in = place["language"] if implementation.ruling("subject") == "edit-language" else language
    masks, got = len(triple["edit"]["labels"]), plain(triple["update"])
    what = "an update input has another number of [MASK] than its edit's label has tokens"
    equal("D4", got["input_ids"].count(MASK), masks, what, labels=triple["edit"]["labels"], **call)
    expected = sentence(place["relation"], language, name_of(place, named_in), masks)
    what = f"an update input is not the parallel sentence with the subject as {named_in} names it"
    equal("D6", got, expected, what, named_in=named_in, masks=masks, **call)


@clause("D5", "D6")
@given(fact_calls())
def test_the_retain_input_is_a_sentence_of_its_own(implementation: Implementation, call: dict[str, Any]) -> None:
    """Its template, its subject, and as many masks as some entity name of its language has tokens."""
    (triple,) = inputs(implementation, **call)
    place, masks = call["retain"], len(triple["retain"]["positions"])
    language = place["language"]
    lengths = {len(tokenize(name)) for name in oracles.labels(WORLD, language).values()}
    what = "a retain input has as many [MASK] as no entity name of its language has tokens"
    holds("D5", masks in lengths, what, expected=lengths, got=masks, **call)
    expected = sentence(place["relation"], language, name_of(place, language), masks)
    what = "a retain input is not its own template with its own subject"
    equal("D6", plain(triple["retain"]), expected, what, **call)


#: What a program that fills templates may take for something else, or for the same.
NAMES = {
    "backslashes": r"\1 \g<0> \\n",
    "dollars": "$1 ${x} $&",
    "braces": "{0} {} %s %(x)s",
    "placeholder": "[X] of [X]",
    "patterns": "a|b*c",
    "entities": "&amp; <i>",
    "decomposed": "Zoe\u0308 \u0041\u030a",
    "compatible": "\ufb01n \u00bd",
    "capitals": "ÉCOLE",
}


def letters(text: str) -> list[int]:
    """One id per character that is no space, and per mask."""
    return [MASK if part == "[MASK]" else 10 + ord(part) for part in re.findall(r"\[MASK\]|\S", text)]


@clause("D3", "D4", "D6")
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_is_a_name_whatever_its_characters(implementation: Implementation, name: str) -> None:
    """Subjects and objects stand in the inputs and labels letter by letter as the data spell them."""
    rows = [given_.fact_row(said, "P17", s, s, f"{said}{s} {name}") for said in ("de", "en") for s in range(10)]
    for row in rows:
        row["sub_label"] += f" {name}"
    edit, retain = ({"relation": "P17", "subject": f"Q{s}", "language": "en"} for s in (1, 2))
    with folder_of(written(rows)) as folder:
        (triple,) = implementation.fact_inputs(folder, letters, MASK, edit, "de", retain, [0])  # type: ignore[arg-type]
    subject = {(row["language"], row["sub_uri"]): row["sub_label"] for row in rows}
    named_in = "en" if implementation.ruling("subject") == "edit-language" else "de"
    for role, said, who in (
        ("edit", "en", subject["en", "Q1"]),
        ("update", "de", subject[named_in, "Q1"]),
        ("retain", "en", subject["en", "Q2"]),
    ):
        got = plain(triple[role])  # type: ignore[literal-required]
        # [X] first: what it is filled with is not looked through for [Y].
        before, after = (part.replace("[X]", who) for part in template(said, "P17").split("[Y]"))
        expected = letters(before + "[MASK]" * len(got["positions"]) + after)
        what = f"the {role} input is not its template, filled as the data spell it"
        equal("D3" if role == "edit" else "D6", got["input_ids"], expected, what, name=who)
    labels = list(triple["edit"]["labels"])
    own = implementation.ruling("label_pool") == "own"
    told = [letters(row["obj_label"]) for row in (oracles.split(rows)["train"] if own else rows)]
    holds("D4", labels in told, "a desired label is spelled otherwise than in the data", expected=name, got=labels)


@clause("D3", "D6")
@pytest.mark.parametrize("relation", TEMPLATES)
def test_a_subject_is_named_as_its_relation_names_it(implementation: Implementation, relation: str) -> None:
    """A subject that three relations call otherwise: an input is known by both, and so is its name."""
    rows = [
        {**given_.fact_row(said, of, subject, subject), "sub_label": f"{said}{of}name{subject}"}
        for said in ("de", "en")
        for of in TEMPLATES
        for subject in range(3)
    ]
    mine, other = (_place(relation, f"Q{subject}", "en") for subject in (0, 1))
    with folder_of(written(rows)) as folder:  # type: ignore[arg-type]
        (triple,) = implementation.fact_inputs(folder, tokenize, MASK, mine, "de", other, [0])
    named_in = "en" if implementation.ruling("subject") == "edit-language" else "de"
    for role, said, who in (
        ("edit", "en", f"en{relation}name0"),
        ("update", "de", f"{named_in}{relation}name0"),
        ("retain", "en", f"en{relation}name1"),
    ):
        got = plain(triple[role])  # type: ignore[literal-required]
        expected = sentence(relation, said, who, len(got["positions"]))
        what = f"the {role} input does not name its subject as its relation does"
        equal("D3" if role == "edit" else "D6", got, expected, what, rows=rows)


#: Templates of English and German: what stands before, between and behind the places, in either order.
ORDERS = {
    "subject first": ("The city of [X] is in [Y] today .", "Die Stadt [X] liegt in [Y] heute ."),
    "object first": ("In all [Y] the city is [X] today .", "Das ganze [Y] hat als Stadt [X] heute ."),
    "one order each": ("The city of [X] is in [Y] today .", "Das ganze [Y] hat als Stadt [X] ."),
    "side by side": ("The city [X] [Y]", "[Y] [X] die Stadt"),
    "nothing else": ("[X] [Y]", "[Y] [X]"),
    "marks": (r"The {city} of [X] \1 is %s in [Y] $1 {}", "100% {0} [Y] %(x)s hat ${x} [X] & <b>"),
}


@clause("D3", "D6")
@pytest.mark.parametrize("order", ORDERS)
def test_a_template_is_filled_wherever_its_places_are(implementation: Implementation, order: str) -> None:
    """Subject and masks, three in a row, stand where each language's template has them."""
    rows = [
        {**given_.fact_row(said, "P17", s, s, f"{said} long name{s}"), "sub_label": f"{said} city{s}"}
        for said in ("en", "de")
        for s in range(10)
    ]
    files = {path: content for path, content in written(rows).items() if content}  # type: ignore[arg-type]
    for said, text in zip(("en", "de"), ORDERS[order], strict=True):
        files[f"{said}/templates.jsonl"] = json.dumps({"relation": "P17", "template": text}) + "\n"
    mine, other = (_place("P17", f"Q{subject}", "en") for subject in (1, 2))
    with folder_of(files) as folder:
        (triple,) = implementation.fact_inputs(folder, tokenize, MASK, mine, "de", other, [0])
    named_in = "en" if implementation.ruling("subject") == "edit-language" else "de"
    for role, place, who in (("edit", 0, "en city1"), ("update", 1, f"{named_in} city1"), ("retain", 0, "en city2")):
        got = plain(triple[role])  # type: ignore[literal-required]
        ids = tokenize(ORDERS[order][place].replace("[X]", who).replace("[Y]", "[MASK] [MASK] [MASK]"))
        expected = {"input_ids": ids, "positions": [at for at, token in enumerate(ids) if token == MASK]}
        what = f"the {role} input is not its template with its places filled"
        equal("D3" if role == "edit" else "D6", got, expected, what, template=ORDERS[order][place])


#: Names of entities that read alike, or are long: those of the first kind are one token each.
ALIKE = ("name", "Name", "NAME", "nAME", "n\u00e4me", "na\u0308me", "\uff4eame", "na_me", " ".join("abcdefghijklmnop"))


@clause("D4", "D5")
def test_names_that_read_alike_are_of_entities_of_their_own(implementation: Implementation) -> None:
    """Each is desired as it is spelled, and counts for the lengths: eight of one token, and one of sixteen."""
    rows = [
        {**given_.fact_row(said, "P17", place, place), "obj_label": name}
        for said in ("de", "en")
        for place, name in enumerate(ALIKE)
    ]
    # Facts of train alone, so that whose split names the entities makes no difference.
    rows += [given_.fact_row(said, "P17", 0, 0, ALIKE[0]) for said in ("de", "en") for _ in range(4)]
    cut = lambda text: [MASK if word == "[MASK]" else 10 + zlib.crc32(word.encode()) for word in text.split()]  # noqa: E731
    mine, other = (_place("P17", f"Q{subject}", "en") for subject in (0, 1))
    with folder_of(written(rows)) as folder:  # type: ignore[arg-type]
        triples = implementation.fact_inputs(folder, cut, MASK, mine, "de", other, range(300))
    drawn = sorted({tuple(triple["edit"]["labels"]) for triple in triples})
    equal(
        "D4", drawn, sorted(tuple(cut(name)) for name in ALIKE), "desired labels of names that read alike", names=ALIKE
    )
    lengths = Counter(len(cut(name)) for name in ALIKE)
    expected = {length: len(triples) * count / len(ALIKE) for length, count in lengths.items()}
    what = "numbers of retained [MASK] where names read alike"
    distributed("D5", Counter(len(triple["retain"]["positions"]) for triple in triples), expected, what, names=ALIKE)


@clause("D4")
def test_desired_labels_are_uniform_over_the_entities(implementation: Implementation, many: list[Triple]) -> None:
    """6,000 labels: the entity of nine facts no more often than that of one, the known one neither more nor less."""
    known = [tuple(tokenize(name)) for name in entities(implementation, EDIT)]
    drawn = Counter(tuple(triple["edit"]["labels"]) for triple in many)
    distributed(
        "D4", drawn, dict.fromkeys(known, len(SEEDS) / len(known)), "desired labels are not uniform over the entities"
    )


@clause("D5")
def test_retain_masks_follow_the_lengths_of_entity_names(many: list[Triple]) -> None:
    """6,000 retain inputs: in the proportions of the lengths of their language's entities, of all relations."""
    lengths = Counter(len(tokenize(name)) for name in oracles.labels(WORLD, "de").values())
    share = len(SEEDS) / lengths.total()
    drawn = Counter(len(triple["retain"]["positions"]) for triple in many)
    expected = {length: share * count for length, count in lengths.items()}
    distributed("D5", drawn, expected, "the [MASK] of retain inputs are not as many as entity names have tokens")


@clause("D5")
def test_the_retain_length_is_drawn_apart_from_the_label(many: list[Triple]) -> None:
    """6,000 edits: the number of retained masks tells nothing about the label's length."""
    pairs = [(len(t["edit"]["labels"]), len(t["retain"]["positions"])) for t in many]
    first, second = (Counter(values) for values in zip(*pairs, strict=True))
    expected = {(a, b): first[a] * second[b] / len(pairs) for a in first for b in second}
    distributed("D5", Counter(pairs), expected, "the number of retained [MASK] depends on the label")


def told_twice() -> list[FactRow]:
    """Ten lines about seven subjects: three come again, under another name and with an object of three words."""
    rows, known = [], set()
    for said in ("de", "en"):
        for place, subject in enumerate([0, 1, 2, 1, 3, 4, 4, 5, 6, 0]):
            row = given_.fact_row(said, "P17", subject, place, f"{said}name{place}")
            if (said, subject) in known:
                row |= {"sub_label": f"{said} other {place}", "obj_label": f"{said} other name{place}"}
            known.add((said, subject))
            rows.append(row)
    return rows


@clause("D4", "D5")
def test_a_subject_that_is_told_twice_is_one_input(implementation: Implementation) -> None:
    """mLAMA tells of some subjects twice in a relation: all their objects are entities, and count for the lengths."""
    rows = told_twice()
    place, retain = (_place("P17", f"Q{subject}", "en") for subject in (1, 2))
    with folder_of(written(rows)) as folder:
        triples = implementation.fact_inputs(folder, tokenize, MASK, place, "en", retain, range(300))
    # The subject Q0 is in train with its first object, so that D2 drops the second.
    own = implementation.ruling("label_pool") == "own"
    names = oracles.labels(oracles.split(rows)["train"] if own else rows, "en").values()
    drawn = {tuple(triple["edit"]["labels"]) for triple in triples}
    what = "the two objects of a subject that is told twice are not both entities"
    equal("D4", sorted(drawn), sorted(tuple(tokenize(name)) for name in names), what, rows=rows)
    lengths = Counter(len(tokenize(name)) for name in oracles.labels(rows, "en").values())
    expected = {length: len(triples) * count / lengths.total() for length, count in lengths.items()}
    what = "the [MASK] of retain inputs where further lines of a subject name longer entities"
    distributed("D5", Counter(len(triple["retain"]["positions"]) for triple in triples), expected, what, rows=rows)


@clause("D5")
def test_an_entity_of_several_relations_counts_once_for_the_lengths(implementation: Implementation) -> None:
    """One entity of four words that three relations have, and three of one word that one relation has."""
    rows = [given_.fact_row(said, "P17", s, s, f"{said}name{s}") for said in ("de", "en") for s in range(3)]
    rows += [
        {**given_.fact_row(said, relation, 9, 9, f"{said} is known to all"), "obj_uri": "Q900"}  # type: ignore[typeddict-item]
        for said in ("de", "en")
        for relation in TEMPLATES
    ]
    mine, other = (_place("P17", f"Q{subject}", "en") for subject in (0, 1))
    with folder_of(written(rows)) as folder:
        triples = implementation.fact_inputs(folder, tokenize, MASK, mine, "de", other, range(400))
    lengths = Counter(len(tokenize(name)) for name in oracles.labels(rows, "en").values())
    expected = {length: len(triples) * count / lengths.total() for length, count in lengths.items()}
    what = "the [MASK] of retain inputs where several relations have an entity"
    distributed("D5", Counter(len(triple["retain"]["positions"]) for triple in triples), expected, what, rows=rows)


@clause("T1")
@needs("D")
@pytest.mark.parametrize("subject", [0, 1, 4])
def test_a_subject_that_is_told_twice_is_named_as_in_its_first_line(
    implementation: Implementation, subject: int
) -> None:
    """Whether it comes again at once, later or in another split: in the edit, the update and the retain input."""
    rows = told_twice()
    mine, other = (_place("P17", f"Q{number}", "en") for number in (subject, 5))
    with folder_of(written(rows)) as folder:
        (asked,) = implementation.fact_inputs(folder, tokenize, MASK, mine, "de", other, [0])
        (beside,) = implementation.fact_inputs(folder, tokenize, MASK, other, "en", mine, [0])
    named_in = "en" if implementation.ruling("subject") == "edit-language" else "de"
    for role, x, said, who in (
        ("edit", asked["edit"], "en", "en"),
        ("update", asked["update"], "de", named_in),
        ("retain", beside["retain"], "en", "en"),
    ):
        expected = sentence("P17", said, f"{who}subject{subject}", len(x["positions"]))
        what = f"the {role} input does not name its subject as the first of its lines does"
        equal("T1", plain(x), expected, what, rows=rows)


def _place(relation: str, subject: str, language: str) -> Place:
    return {"relation": relation, "subject": subject, "language": language}


def of_train_or_all(implementation: Implementation, rows: list[FactRow]) -> list[tuple[int, ...]]:
    """The labels that may be desired of P17 in English: of all splits, or by declared ruling of train, the edit's."""
    own = implementation.ruling("label_pool") == "own"
    names = oracles.labels(oracles.split(rows)["train"] if own else rows, "en", "P17").values()
    return sorted(tuple(tokenize(name)) for name in names)


@clause("D4")
def test_a_relation_of_many_entities_desires_each(implementation: Implementation) -> None:
    """All of 130, under 3,000 seeds: that one is missed has a chance below one in ten million."""
    rows = [given_.fact_row("en", "P17", n, n, f"name{n}") for n in range(130)]
    mine, other = (_place("P17", f"Q{number}", "en") for number in (0, 1))
    with folder_of(written(rows)) as folder:
        triples = implementation.fact_inputs(folder, tokenize, MASK, mine, "en", other, range(3000))
    drawn = sorted({tuple(triple["edit"]["labels"]) for triple in triples})
    equal("D4", drawn, of_train_or_all(implementation, rows), "desired labels of a relation of many entities")


@clause("D4")
def test_an_entity_that_a_relation_lacks_in_the_edits_language_is_not_desired(implementation: Implementation) -> None:
    """An entity that the relation has in German alone is no label in English, though English names it elsewhere."""
    rows = [given_.fact_row("en", "P17", n, n, f"enname{n}") for n in range(3)]
    rows += [given_.fact_row("de", "P17", n, n, f"dename{n}") for n in range(6)]
    for relation in ("P30", "P36"):
        rows += [
            {**given_.fact_row("en", relation, n, n, f"enname{n}"), "obj_uri": f"Q{n}"}
            for n in ((3, 4) if relation == "P30" else (5,))
        ]
    mine, other = (_place("P17", f"Q{number}", "en") for number in (0, 1))
    with folder_of(written(rows)) as folder:
        triples = implementation.fact_inputs(folder, tokenize, MASK, mine, "de", other, range(200))
    drawn = sorted({tuple(triple["edit"]["labels"]) for triple in triples})
    what = "other labels are desired than the names of the relation's entities in the editing language"
    equal("D4", drawn, of_train_or_all(implementation, rows), what, rows=rows)


# D7: sentence pairs

PREDICTED = {"de": 3, "en": 5, "zh": 2}
#: Retain inputs of an edit, and edits of a training, in the statistical tests.
RETAINED, TRAINED = 10, 30_000


def pair_rows(count: int) -> list[PairRow]:
    """Rows as XNLI's: three have one premise, and hypotheses list their languages in an order of their own."""
    listed = sorted(PREDICTED, reverse=True)
    return [
        {
            "premise": {language: f"{language} premise {row // 3}" for language in PREDICTED},
            "hypothesis": {"language": list(listed), "translation": [f"{said} claim {row}" for said in listed]},
            "label": row % 3,
        }
        for row in range(count)
    ]


PAIRS = pair_rows(30)
#: Each language is wrong in every 2nd, 3rd or 5th row, by one class or two.
RAW = {
    language: [(row["label"] + (i % every == 1) * (1 + i % 2)) % 3 for i, row in enumerate(PAIRS)]
    for language, every in PREDICTED.items()
}


def tokenize_pair(premise: str, hypothesis: str) -> list[int]:
    return [1, *tokenize(premise), 2, *tokenize(hypothesis), 2]


def pair_input(row: int, language: str) -> Input:
    ids = tokenize_pair(f"{language} premise {row // 3}", f"{language} claim {row}")
    return {"input_ids": ids, "positions": [0]}


def check_inputs(edits: Iterable[PairEdit]) -> None:
    for edit in edits:
        at = (edit["row"], edit["language"])
        what = "an input is not the premise and the hypothesis of its language"
        equal("D7", plain(edit["input"]), pair_input(*at), what, row=at[0], language=at[1])


def check_retained(edits: Iterable[PairEdit]) -> None:
    for edit in edits:
        related = [place for place in edit["retain"] if place[0] == edit["row"]]
        what = "a parallel pair is drawn as unrelated"
        equal("D7", related, [], what, row=edit["row"], language=edit["language"])


@clause("D7")
@pytest.mark.parametrize("seed", [0, 1])
def test_wrong_predictions_are_edited_towards_the_gold_class(implementation: Implementation, seed: int) -> None:
    """Each wrong input once, no right one, and each as one input of its own language's premise and hypothesis."""
    edits = implementation.pair_edits(PAIRS, RAW, tokenize_pair, 2, seed)
    got = sorted((edit["row"], edit["language"], edit["label"]) for edit in edits)
    expected = sorted(
        (i, language, row["label"])
        for language, predicted in RAW.items()
        for i, row in enumerate(PAIRS)
        if predicted[i] != row["label"]
    )
    equal("D7", got, expected, "other pairs are edited than the wrong ones, or not towards the gold class")
    check_inputs(edits)
    check_retained(edits)


@clause("D7")
def test_pairs_are_retained_from_the_whole_test_set(implementation: Implementation) -> None:
    """31,000 retain inputs: right answers as often as wrong ones, each language as often, and no parallel at all."""
    edits = [e for seed in range(100) for e in implementation.pair_edits(PAIRS, RAW, tokenize_pair, RETAINED, seed)]
    check_retained(edits)
    edited = Counter(edit["row"] for edit in edits)
    drawn = Counter((row, language) for edit in edits for row, language in edit["retain"])
    share = RETAINED / ((len(PAIRS) - 1) * len(PREDICTED))
    expected = {
        (row, language): share * (edited.total() - edited[row]) for row in range(len(PAIRS)) for language in PREDICTED
    }
    distributed("D7", drawn, expected, "pairs are not retained from the whole test set")
    related = Counter(edit["row"] // 3 == row // 3 for edit in edits for row, _ in edit["retain"])
    chance = {True: 2 / (len(PAIRS) - 1), False: 1 - 2 / (len(PAIRS) - 1)}
    what = "pairs that share the premise of the edit are not retained as often as others"
    distributed("D7", related, {same: share * related.total() for same, share in chance.items()}, what)
    languages = dict.fromkeys(PREDICTED, sum(expected.values()) / len(PREDICTED))
    what = "languages are not retained as often as each other"
    distributed("D7", Counter(said for edit in edits for _, said in edit["retain"]), languages, what)


@clause("D7")
def test_a_large_test_set_is_retained_whole(implementation: Implementation) -> None:
    """1,000 rows, of which the last is wrong in English: it retains 600 of 2,997 pairs, of any tenth of the rows."""
    rows = pair_rows(1000)
    gold = [row["label"] for row in rows]
    raw = {"en": [*gold[:-1], (gold[-1] + 1) % 3]}
    (edit,) = implementation.pair_edits(rows, raw, tokenize_pair, 600, 4)
    equal("D7", (edit["row"], edit["label"]), (999, gold[-1]), "the only pair that is wrong, and its gold class")
    drawn = Counter((row // 100, said) for row, said in edit["retain"])
    expected = {(part, said): drawn.total() * (100 - (part == 9)) / 999 / 3 for part in range(10) for said in PREDICTED}
    distributed("D7", drawn, expected, "pairs are not retained from the whole of a large test set")


@clause("D7")
def test_pairs_of_equal_texts_are_unrelated(implementation: Implementation) -> None:
    """A row is known by its number: another one that is its copy is in the test set, too, is edited and retained."""
    rows = pair_rows(6)
    rows[5] = {**rows[0]}
    wrong = {said: [(row["label"] + 1) % 3 for row in rows] for said in PREDICTED}
    edits = [e for seed in range(30) for e in implementation.pair_edits(rows, wrong, tokenize_pair, 4, seed)]
    check_retained(edits)
    edited = Counter(edit["row"] for edit in edits)
    equal("D7", edited, dict.fromkeys(range(6), 30 * len(PREDICTED)), "edits of each row, row 5 a copy of row 0")
    retained = {row for edit in edits if edit["row"] == 0 for row, _ in edit["retain"]}
    equal("D7", retained, {1, 2, 3, 4, 5}, "rows that an edit of row 0, whose texts row 5 has too, retains")


@clause("D7")
def test_training_desires_any_class(implementation: Implementation) -> None:
    """30,000 training edits: over classes evenly for each gold class, over inputs too, and no parallel is retained."""
    edits = implementation.pair_training(PAIRS, tokenize_pair, TRAINED, 5)
    equal("D7", len(edits), TRAINED, "a training has another number of edits than were asked for")
    check_inputs(edits[:100])
    check_retained(edits)
    golds = Counter(PAIRS[edit["row"]]["label"] for edit in edits)
    by_gold = {(gold, label): count / 3 for gold, count in golds.items() for label in range(3)}
    drawn = Counter((PAIRS[edit["row"]]["label"], edit["label"]) for edit in edits)
    distributed("D7", drawn, by_gold, "the desired class of a training depends on the gold one")
    evenly = dict.fromkeys(range(3), TRAINED / 3)
    distributed("D7", Counter(edit["label"] for edit in edits), evenly, "desired classes of a training are not uniform")
    places = {(row, language): TRAINED / (len(PAIRS) * len(PREDICTED)) for row in range(30) for language in RAW}
    counts = Counter((edit["row"], edit["language"]) for edit in edits)
    distributed("D7", counts, places, "a training does not edit all pairs as often")
    for what, said in (
        ("edited", [edit["language"] for edit in edits]),
        ("retained", [r[1] for e in edits for r in e["retain"]]),
    ):
        distributed(
            "D7",
            Counter(said),
            dict.fromkeys(PREDICTED, TRAINED / len(PREDICTED)),
            f"languages are not {what} evenly in training",
        )


# D8: the raw classifier

SPLITS = {"train": PAIRS[:12], "validation": PAIRS[12:20], "test": PAIRS[20:]}
PLACES = {"train": range(12), "validation": range(12, 20), "test": range(20, 30)}


@clause("D8")
def test_the_raw_classifier_learns_from_english_training_pairs(implementation: Implementation) -> None:
    """Each row of the training set once, premise and hypothesis in English, with its gold class; nothing else."""
    found = implementation.classifier_examples(SPLITS, tokenize_pair)
    got = sorted((tuple(x["input_ids"]), tuple(x["positions"]), x["label"]) for x in found)
    pairs = [(pair_input(row, "en"), PAIRS[row]["label"]) for row in PLACES["train"]]
    expected = sorted((tuple(x["input_ids"]), tuple(x["positions"]), label) for x, label in pairs)
    equal("D8", got, expected, "the raw classifier sees other examples than the English training pairs")


@clause("D8")
@pytest.mark.parametrize("count", [1, 3, 257])
def test_the_raw_classifier_sees_as_many_pairs_as_there_are(implementation: Implementation, count: int) -> None:
    """Few or many: all, though they fill no batch of any usual size, and one claims what its premise says.

    Middle English, whose code begins as that of English does, is another language.
    """
    rows = pair_rows(count)
    for row in rows:
        row["premise"]["enm"] = "a premise in Middle English"
        row["hypothesis"]["language"].append("enm")
        row["hypothesis"]["translation"].append("a claim in Middle English")
    said = rows[0]["premise"]
    rows[0] = {**rows[0], "hypothesis": {"language": [*said], "translation": [*said.values()]}}
    found = implementation.classifier_examples({**SPLITS, "train": rows}, tokenize_pair)
    got = sorted(tuple(x["input_ids"]) for x in found)
    first = tuple(tokenize_pair(said["en"], said["en"]))
    expected = sorted([first, *(tuple(pair_input(row, "en")["input_ids"]) for row in range(1, count))])
    equal("D8", got, expected, "the raw classifier sees other pairs than all, each once", pairs=count)


@clause("D8")
@pytest.mark.parametrize("label", [0, 2], ids=["same-class", "another-class"])
def test_pairs_of_equal_texts_are_two_pairs(implementation: Implementation, label: int) -> None:
    """Annotators may disagree: both pairs are learned, each with its own class."""
    splits = {**SPLITS, "train": [*PAIRS[:6], {**PAIRS[0], "label": label}]}
    found = implementation.classifier_examples(splits, tokenize_pair)
    got = sorted(x["label"] for x in found if list(x["input_ids"]) == pair_input(0, "en")["input_ids"])
    equal("D8", got, sorted([PAIRS[0]["label"], label]), "classes of two pairs with the same texts")


@clause("D8")
@pytest.mark.parametrize("split", ["validation", "test"])
def test_other_splits_teach_the_raw_classifier_nothing(implementation: Implementation, split: str) -> None:
    """Without the pairs of a split that is not the training set, the examples are the same."""
    expected = implementation.classifier_examples(SPLITS, tokenize_pair)
    got = implementation.classifier_examples({**SPLITS, split: []}, tokenize_pair)
    key = lambda x: (list(x["input_ids"]), x["label"])  # noqa: E731
    equal("D8", sorted(got, key=key), sorted(expected, key=key), f"the raw classifier sees pairs of the {split} set")


# D9: reading

VARIANTS: dict[str, Callable[[], dict[str, str]]] = {
    "windows line endings": lambda: written(WORLD, ending="\r\n"),
    "a byte order mark": lambda: written(WORLD, start="\ufeff"),
    "both": lambda: written(WORLD, ending="\r\n", start="\ufeff"),
    "blank lines": lambda: written(WORLD, ending="\n\n", blank="\n"),
    "no last line ending": lambda: {name: text.rstrip("\n") for name, text in written(WORLD).items()},
    "files in another order": lambda: dict(reversed(written(WORLD).items())),
    "templates in another order": lambda: {
        name: "\n".join(reversed(text.split("\n"))) if "templates" in name else text
        for name, text in written(WORLD).items()
    },
}


def read_and_drawn(implementation: Implementation, files: Mapping[str, str]) -> Any:
    with folder_of(files) as folder:
        return said_by(implementation, folder)


def said_by(implementation: Implementation, folder: Path) -> Any:
    """All that a folder says: its splits, and what some edits draw from it."""
    triples = implementation.fact_inputs(folder, tokenize, MASK, EDIT, "de", RETAIN, range(20))
    drawn = [[list(t["edit"]["labels"]), plain(t["update"]), plain(t["retain"])] for t in triples]
    return canonical(implementation.split(folder)), drawn


@clause("D9")
@pytest.mark.parametrize("variant", VARIANTS, ids=golden.slug)
def test_the_same_content_is_the_same_corpus(implementation: Implementation, variant: str) -> None:
    """Line endings, marks, blank lines and the order of files and templates change neither splits nor draws."""
    expected = read_and_drawn(implementation, written(WORLD))
    got = read_and_drawn(implementation, VARIANTS[variant]())
    equal("D9", got, expected, "the same content in another form is another corpus", form=variant)


@clause("D9")
def test_a_folder_is_what_its_files_say_now(implementation: Implementation) -> None:
    """Files whose last line has become the first, in the place of those that were read before."""
    files = written(WORLD)
    facts = {name: text.splitlines(keepends=True) for name, text in files.items() if "templates" not in name}
    turned = files | {name: "".join(lines[-1:] + lines[:-1]) for name, lines in facts.items()}
    expected = read_and_drawn(implementation, turned)
    with folder_of(files) as folder:
        said_by(implementation, folder)
        for name, text in turned.items():
            (folder / name).write_bytes(text.encode())
        got = said_by(implementation, folder)
    equal("D9", got, expected, "a folder whose files have changed is read as it was before")


@clause("D9")
def test_the_order_of_a_listing_means_nothing(implementation: Implementation) -> None:
    """A file system that lists names from the last to the first."""
    expected = read_and_drawn(implementation, written(WORLD))
    with probes.backward_listings(implementation):
        got = read_and_drawn(implementation, written(WORLD))
    equal("D9", got, expected, "the order in which a folder lists its files changes the corpus")


@clause("D9")
@pytest.mark.parametrize("character", ["\u2028", "\x85", "\x0c", "\xa0"], ids=lambda c: f"U+{ord(c):04X}")
def test_a_line_ends_at_its_line_ending_alone(implementation: Implementation, character: str) -> None:
    """Unicode knows more line separators than files of JSON lines do."""
    rows = [given_.fact_row("en", "P17", 0, 0, f"one{character}name")]
    got = split_of(implementation, written(rows))["train"]
    what = "a character of a name is taken for a line's end"
    equal("D9", [row[-1] for row in got], [rows[0]["obj_label"]], what, character=character)


BAD_LINE = 113


def broken(line: str, name: str = "de/P17.jsonl", blank: int = 0) -> dict[str, str]:
    """A folder in which one file has a bad line 113; some lines before it are blank."""
    rows = [given_.fact_row("de", "P17", 1, 0) for _ in range(BAD_LINE)]
    files = written(rows)
    filler = files[name].split("\n")
    before = [filler[0]] * (BAD_LINE - 1 - blank) + [""] * blank
    return {**files, name: "\n".join([*before, line, *filler[:1]]) + "\n"}


def line_without(field: str, value: Any = None) -> str:
    row = {"sub_uri": "Q1", "obj_uri": "Q2", "sub_label": "s", "obj_label": "o"}
    return json.dumps({k: v for k, v in (row | {field: value}).items() if v is not None})


def refuses(implementation: Implementation, files: Mapping[str, str], naming: tuple[str, ...], what: str) -> None:
    """Both functions that read a folder raise an error that names these words; its path is no word of theirs."""
    with folder_of(files) as folder:

        def short(call: Callable[[], object]) -> object:
            try:
                return call()
            except (ValueError, LookupError, FileNotFoundError) as error:  # the last as of a file that is missing
                raise ValueError(str(error).replace(str(folder), "")) from error

        place: Place = {"relation": "P17", "subject": "Q1", "language": "de"}
        asked = (folder, tokenize, MASK, place, "de", place, [0])
        rejects("D9", lambda: short(lambda: implementation.split(folder)), naming, what)
        rejects("D9", lambda: short(lambda: implementation.fact_inputs(*asked)), naming, what)


@clause("D9")
@pytest.mark.parametrize(
    "line",
    ['{"sub_uri": "Q1",', "[1, 2]", '"text"', "{} {}", "null", "[]", "{}", '""', "0", "false"],
    ids=["cut-off", "list", "text", "two-objects", "null", "empty-list", "empty-object", "empty-text", "zero", "false"],
)
def test_a_line_that_is_no_object_is_named(implementation: Implementation, line: str) -> None:
    """By file and line; what holds nothing is no blank line."""
    refuses(implementation, broken(line), ("P17.jsonl", str(BAD_LINE)), f"the line {line!r}")


@clause("D9")
@pytest.mark.parametrize("kept", [-20, -1, 1], ids=["twenty-bytes-short", "a-byte-short", "one-byte"])
@pytest.mark.parametrize("end", ["the last line", "the first line"])
def test_a_file_that_is_cut_is_named(implementation: Implementation, end: str, kept: int) -> None:
    """A copy that broke off in its last line, or began within its first: what is left of the line is malformed."""
    files = written(WORLD)
    for name in ("de/P17.jsonl", "de/templates.jsonl"):
        lines = files[name].rstrip("\n").split("\n")
        if end == "the last line":
            number, lines[-1] = len(lines), lines[-1][:kept]
        else:
            number, lines[0] = 1, lines[0][-kept:]
        cut = {**files, name: "\n".join(lines)}
        refuses(implementation, cut, (name.partition("/")[2], str(number)), f"{end} of {name}, cut")


@clause("D9")
@pytest.mark.parametrize("name", ["de/P17.jsonl", "de/templates.jsonl"])
def test_bytes_that_are_no_text_are_an_error(implementation: Implementation, name: str) -> None:
    """A letter as another encoding than UTF-8 has it is no letter, and none takes its place."""
    with folder_of(written([given_.fact_row("de", "P17", 1, 0, "country")])) as folder:
        path = folder / name
        path.write_bytes(path.read_bytes().replace(b"country", b"countr\xe9"))
        rejects("D9", lambda: implementation.split(folder), (), f"bytes in {name} that are no UTF-8")


@clause("D9")
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["unix", "windows"])
def test_blank_lines_are_lines(implementation: Implementation, ending: str) -> None:
    """An editor shows the named line, however many blank ones are before it, and however lines end."""
    files = {name: text.replace("\n", ending) for name, text in broken("[1, 2]", blank=5).items()}
    refuses(implementation, files, ("P17.jsonl", str(BAD_LINE)), "a bad line after blank lines")


@clause("D9")
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, 7, "", ["text"]], ids=["missing", "number", "empty", "list"])
def test_a_bad_field_is_named(implementation: Implementation, field: str, value: Any) -> None:
    """By file, line and field: missing, a number, empty, a list."""
    naming = ("P17.jsonl", str(BAD_LINE), field)
    refuses(implementation, broken(line_without(field, value)), naming, f"{field} = {value!r}")


@clause("D9")
@pytest.mark.parametrize(
    ("line", "field"),
    [
        ({"relation": "P99", "template": "[X] lies nowhere"}, "template"),
        ({"relation": "P99", "template": "in [Y] lies nothing"}, "template"),
        ({"relation": "P99"}, "template"),
        ({"template": "[X] in [Y]"}, "relation"),
    ],
    ids=["without-object", "without-subject", "without-template", "without-relation"],
)
def test_a_bad_template_is_named(implementation: Implementation, line: dict[str, str], field: str) -> None:
    """By file, line and field: without [X] or [Y], without a relation."""
    files = written([given_.fact_row("de", "P17", 1, 0)])
    templates = files["de/templates.jsonl"] + json.dumps(line)
    number = str(len(templates.split("\n")))
    refuses(implementation, {**files, "de/templates.jsonl": templates}, ("templates.jsonl", number, field), str(line))


@clause("D9")
@pytest.mark.parametrize("relation", ["P71", "place_of_birth", "part-of"])
def test_a_relation_without_template_is_named(implementation: Implementation, relation: str) -> None:
    """Facts that cannot be said, whatever their relation is called."""
    files = written([given_.fact_row("de", "P17", 1, 0)])
    changed = {**files, f"de/{relation}.jsonl": files["de/P17.jsonl"]}
    refuses(implementation, changed, (relation,), "a relation without template")


@clause("D9")
@pytest.mark.parametrize("left", ["no file of templates", "an empty file of templates"])
def test_a_language_without_templates_is_named(implementation: Implementation, left: str) -> None:
    """Its facts cannot be said either; they are not left out."""
    files = written([given_.fact_row(said, "P17", 1, 0) for said in ("de", "en")])
    changed = {name: text for name, text in files.items() if name != "de/templates.jsonl"}
    if left.startswith("an empty"):
        changed["de/templates.jsonl"] = ""
    refuses(implementation, changed, ("de",), f"a language with {left}")


@clause("D9")
def test_an_empty_file_is_no_error(implementation: Implementation) -> None:
    """A relation that a language lacks."""
    files = {**written([given_.fact_row("de", "P17", 1, 0)]), "de/P36.jsonl": ""}
    equal("D9", len(split_of(implementation, files)["train"]), 1, "an empty file changes what is beside it")
