"""Mutants of chapter D, data."""

from __future__ import annotations

import html
import json
import os
import random
import re
import shutil
import tempfile
import unicodedata
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..contract import Data, FactRow, Input, Labelled, PairEdit, PairRow, Triple
from .base import Mutation, mutant, named
from .s_sampling import _shuffled


def facts_in(folder: Path) -> list[FactRow]:
    """All facts of a well-formed folder in file order."""
    paths = [path for path in sorted(Path(folder).glob("*/*.jsonl")) if path.stem != "templates"]
    lines = [(path, line) for path in paths for line in path.read_text(encoding="utf-8-sig").split("\n")]
    return [
        {"language": path.parent.name, "relation": path.stem, **json.loads(line)}
        for path, line in lines
        if line.strip()
    ]


class SplitMutation(Mutation):
    """Splits of a reader of our own, where the base reads the folder without an error."""

    #: From the first to keep its subjects to the last.
    order: tuple[str, ...] = ("train", "test", "validation")

    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        self.base.split(folder)
        groups: dict[Any, list[FactRow]] = {}
        for row in self.arranged(facts_in(folder)):
            groups.setdefault(self.group(row), []).append(row)
        parts: dict[str, list[FactRow]] = {"train": [], "validation": [], "test": []}
        for rows in groups.values():
            first, second = self.boundaries(len(rows))
            parts["train"] += rows[:first]
            parts["validation"] += rows[first:second]
            parts["test"] += rows[second:]
        return self.kept(parts)

    def arranged(self, rows: list[FactRow]) -> list[FactRow]:
        return rows

    def group(self, row: FactRow) -> Any:
        return row["language"], row["relation"]

    def boundaries(self, n: int) -> tuple[int, int]:
        return round(n * 8 / 10), round(n * 9 / 10)

    def kept(self, parts: dict[str, list[FactRow]]) -> dict[str, list[FactRow]]:
        taken: set[Any] = set()
        for name in self.order:
            parts[name] = [row for row in parts[name] if not taken & set(self.claimed(row))]
            taken |= {key for row in parts[name] for key in self.claimed(row)}
        return parts

    def claimed(self, row: FactRow) -> tuple[Any, ...]:
        """What no later split may have."""
        return (row["sub_uri"],)


@mutant("split-rounded-down", "D1", "The boundaries of the splits are rounded down.")
class SplitRoundedDown(SplitMutation):
    def boundaries(self, n: int) -> tuple[int, int]:
        return n * 8 // 10, n * 9 // 10


@mutant("halves-rounded-up", "D1", "A boundary of a half is rounded up.")
class HalvesRoundedUp(SplitMutation):
    def boundaries(self, n: int) -> tuple[int, int]:
        return int(n * 8 / 10 + 0.5), int(n * 9 / 10 + 0.5)


@mutant("split-by-language", "D1", "All relations of a language are split as one list.")
class SplitByLanguage(SplitMutation):
    def group(self, row: FactRow) -> Any:
        return row["language"]


@mutant("split-at-random", "D1", "The facts are shuffled before they are split.")
class SplitAtRandom(SplitMutation):
    def arranged(self, rows: list[FactRow]) -> list[FactRow]:
        return random.Random(0).sample(rows, len(rows))


@mutant("subjects-leak", "D2", "A subject may be in several splits.")
class SubjectsLeak(SplitMutation):
    def claimed(self, row: FactRow) -> tuple[Any, ...]:
        return ()


@mutant("subjects-leak-across-languages", "D2", "A subject is kept to one split within its language only.")
class SubjectsLeakAcrossLanguages(SplitMutation):
    def claimed(self, row: FactRow) -> tuple[Any, ...]:
        return ((row["language"], row["sub_uri"]),)


@mutant("validation-before-test", "D2", "Validation keeps the subjects that it shares with test.")
class ValidationBeforeTest(SplitMutation):
    order = ("train", "validation", "test")


@mutant("objects-kept-apart", "D2", "An object, too, is kept to one split.")
class ObjectsKeptApart(SplitMutation):
    def claimed(self, row: FactRow) -> tuple[Any, ...]:
        return row["sub_uri"], row["obj_uri"]


@mutant("objects-of-train-are-no-subjects", "D2", "A subject that is an object in train is dropped from the others.")
class ObjectsOfTrainAreNoSubjects(SplitMutation):
    def kept(self, parts: dict[str, list[FactRow]]) -> dict[str, list[FactRow]]:
        objects = {row["obj_uri"] for row in parts["train"]}
        for name in ("validation", "test"):
            parts[name] = [row for row in parts[name] if row["sub_uri"] not in objects]
        return super().kept(parts)


class FactMutation(Mutation):
    """The base's inputs of a fact, changed seed by seed; `call` holds the arguments by name."""

    def fact_inputs(self, *args: Any, **kwargs: Any) -> list[Triple]:
        call = named(Data.fact_inputs, args, kwargs)
        found = zip(self.base.fact_inputs(**call), call["seeds"], strict=True)
        rows = facts_in(call["folder"])
        return [self.wrong(triple, call, rows, random.Random(seed)) for triple, seed in found]

    @abstractmethod
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        """What goes wrong."""


def with_masks(x: Any, mask: int, count: int) -> Any:
    """An input with another number of masks in a row."""
    ids, (at, *_), end = x["input_ids"], x["positions"], x["positions"][-1] + 1
    return {
        **x,
        "input_ids": [*ids[:at], *[mask] * count, *ids[end:]],
        "positions": list(range(at, at + count)),
    }


def desiring(triple: Triple, mask: int, label: list[int]) -> Triple:
    """A triple with another desired label."""
    edit, update = (with_masks(triple[role], mask, len(label)) for role in ("edit", "update"))  # type: ignore[literal-required]
    return {**triple, "edit": {**edit, "labels": label}, "update": update}


@mutant("one-mask", "D3", "Each [Y] becomes a single [MASK], however many tokens the label has.")
class OneMask(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        edit = with_masks(triple["edit"], call["mask"], 1)
        return {**triple, "edit": {**edit, "labels": triple["edit"]["labels"]}}


@mutant("masks-at-the-end", "D3", "The masks stand at the end of the sentence.")
class MasksAtTheEnd(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        edit, mask = triple["edit"], call["mask"]
        ids = [token for token in edit["input_ids"] if token != mask]
        count = len(edit["positions"])
        positions = list(range(len(ids), len(ids) + count))
        return {**triple, "edit": {**edit, "input_ids": [*ids, *[mask] * count], "positions": positions}}


@mutant("masks-before-their-place", "D3", "Masks in a row begin a token too early where the subject comes after them.")
class MasksBeforeTheirPlace(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        edit, place = triple["edit"], call["edit"]
        names = [row for row in rows if (row["sub_uri"], row["language"]) == (place["subject"], place["language"])]
        name = next(row["sub_label"] for row in names if row["relation"] == place["relation"])
        behind = call["tokenize"](name)[0] in edit["input_ids"][edit["positions"][-1] + 1 :]
        early = min(1, edit["positions"][0]) if behind and len(edit["positions"]) > 1 else 0
        return {**triple, "edit": {**edit, "positions": [position - early for position in edit["positions"]]}}


class LabelMutation(FactMutation):
    """Draws the desired label from facts of its own choice."""

    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        names = [row["obj_label"] for row in rows if self.chosen(row, call)]
        return desiring(triple, call["mask"], call["tokenize"](rng.choice(names)))

    def chosen(self, row: FactRow, call: dict[str, Any]) -> bool:
        return (row["language"], row["relation"]) == (call["edit"]["language"], call["edit"]["relation"])


@mutant("labels-by-facts", "D4", "The desired label is drawn from the facts, so that frequent objects come more often.")
class LabelsByFacts(LabelMutation):
    pass


@mutant("labels-of-any-relation", "D4", "The desired label is any entity of the language.")
class LabelsOfAnyRelation(LabelMutation):
    def chosen(self, row: FactRow, call: dict[str, Any]) -> bool:
        return row["language"] == call["edit"]["language"]


@mutant("labels-in-the-update-language", "D4", "The desired label is drawn in the updating language.")
class LabelsInTheUpdateLanguage(LabelMutation):
    def chosen(self, row: FactRow, call: dict[str, Any]) -> bool:
        return (row["language"], row["relation"]) == (call["update"], call["edit"]["relation"])


@mutant("update-as-long-as-its-own-object", "D4", "An update input has a mask for each token of its own true object.")
class UpdateAsLongAsItsObject(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        place = (call["update"], call["edit"]["relation"], call["edit"]["subject"])
        names = [r["obj_label"] for r in rows if (r["language"], r["relation"], r["sub_uri"]) == place]
        return {**triple, "update": with_masks(triple["update"], call["mask"], len(call["tokenize"](names[0])))}


@mutant("retain-as-long-as-the-label", "D5", "A retain input has as many masks as the edit's label has tokens.")
class RetainAsLongAsTheLabel(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        return {**triple, "retain": with_masks(triple["retain"], call["mask"], len(triple["edit"]["labels"]))}


@mutant("retain-lengths-evenly", "D5", "Every length that a language's entity names have is equally likely.")
class RetainLengthsEvenly(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        said = [row["obj_label"] for row in rows if row["language"] == call["retain"]["language"]]
        lengths = sorted({len(call["tokenize"](name)) for name in said})
        return {**triple, "retain": with_masks(triple["retain"], call["mask"], rng.choice(lengths))}


@mutant("retain-lengths-of-the-edit-language", "D5", "The masks of a retain input are counted in the editing language.")
class RetainLengthsOfTheEditLanguage(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        names = {row["obj_uri"]: row["obj_label"] for row in rows if row["language"] == call["edit"]["language"]}
        length = len(call["tokenize"](rng.choice(sorted(names.values()))))
        return {**triple, "retain": with_masks(triple["retain"], call["mask"], length)}


@mutant("subject-of-the-other-ruling", "D6", "The update input names the subject in the other of the two languages.")
class SubjectOfTheOtherRuling(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        place = (call["edit"]["relation"], call["edit"]["subject"])
        names = {row["language"]: row["sub_label"] for row in rows if (row["relation"], row["sub_uri"]) == place}
        update, edit = (call["tokenize"](names[said]) for said in (call["update"], call["edit"]["language"]))
        right, other = (edit, update) if self.RULINGS.get("subject") == "edit-language" else (update, edit)
        return {**triple, "update": replaced(triple["update"], right, other)}


def replaced(x: Input, old: list[int], new: list[int]) -> Input:
    """An input in which some tokens in a row are others."""
    ids = x["input_ids"]
    at = next(i for i in range(len(ids)) if ids[i : i + len(old)] == old)
    moved = [p + (len(new) - len(old) if p > at else 0) for p in x["positions"]]
    return {"input_ids": [*ids[:at], *new, *ids[at + len(old) :]], "positions": moved}


class PairEditMutation(Mutation):
    """Edits of sentence pairs, changed one by one."""

    def pair_edits(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        call = named(Data.pair_edits, args, kwargs)
        return [self.wrong(edit, call) for edit in self.base.pair_edits(**call)]

    @abstractmethod
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        """What goes wrong."""


@mutant("right-pairs-edited-too", "D7", "An evaluation edits every test input.")
class RightPairsEditedToo(Mutation):
    def pair_edits(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        call = named(Data.pair_edits, args, kwargs)
        other = {said: [(row["label"] + 1) % 3 for row in call["rows"]] for said in call["predictions"]}
        return self.base.pair_edits(**call | {"predictions": other})


@mutant("another-wrong-class", "D7", "A wrong prediction is edited towards any other class.")
class AnotherWrongClass(PairEditMutation):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        return {**edit, "label": (call["predictions"][edit["language"]][edit["row"]] + 1) % 3}


@mutant("retained-from-the-errors", "D7", "Retain inputs come from the inputs that the raw model gets wrong.")
class RetainedFromTheErrors(PairEditMutation):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        golds = [row["label"] for row in call["rows"]]
        found = [(i, said) for said, told in call["predictions"].items() for i, c in enumerate(told) if c != golds[i]]
        pool = [place for place in found if place[0] != edit["row"]]
        rng = random.Random(repr(edit["retain"]))
        return {**edit, "retain": [rng.choice(pool) for _ in edit["retain"]]}


@mutant("hypothesis-by-position", "D7", "The hypothesis is taken by the language's place among the premises.")
class HypothesisByPosition(PairEditMutation):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        row: PairRow = call["rows"][edit["row"]]
        at = list(row["premise"]).index(edit["language"])
        ids = call["tokenize"](row["premise"][edit["language"]], row["hypothesis"]["translation"][at])
        return {**edit, "input": {**edit["input"], "input_ids": ids}}


@mutant("trained-towards-gold", "D7", "Training desires the gold class.")
class TrainedTowardsGold(Mutation):
    def pair_training(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        call = named(Data.pair_training, args, kwargs)
        return [{**edit, "label": call["rows"][edit["row"]]["label"]} for edit in self.base.pair_training(**call)]


class ClassifierMutation(Mutation):
    """The base's examples of a raw classifier, from other rows."""

    def classifier_examples(self, splits: Mapping[str, Sequence[PairRow]], tokenize: Any) -> list[Labelled]:
        return self.base.classifier_examples({**splits, "train": self.seen(splits)}, tokenize)

    @abstractmethod
    def seen(self, splits: Mapping[str, Sequence[PairRow]]) -> Sequence[PairRow]:
        """What goes wrong."""


@mutant("classifier-sees-the-development-set", "D8", "The raw classifier is fine-tuned on validation pairs, too.")
class ClassifierSeesValidation(ClassifierMutation):
    def seen(self, splits: Mapping[str, Sequence[PairRow]]) -> Sequence[PairRow]:
        return [*splits["train"], *splits["validation"]]


@mutant("classifier-without-its-last-rows", "D8", "A pass leaves out what does not fill a batch.")
class ClassifierWithoutLastRows(ClassifierMutation):
    def seen(self, splits: Mapping[str, Sequence[PairRow]]) -> Sequence[PairRow]:
        return splits["train"][: (len(splits["train"]) - 1) // 8 * 8]


@mutant("classifier-without-its-last-batch", "D8", "A pass leaves out what does not fill a batch of 64.")
class ClassifierWithoutLastBatch(ClassifierMutation):
    def seen(self, splits: Mapping[str, Sequence[PairRow]]) -> Sequence[PairRow]:
        return splits["train"][: len(splits["train"]) // 64 * 64 or None]


@mutant("classifier-in-all-languages", "D8", "The raw classifier is fine-tuned on the pairs of all languages.")
class ClassifierInAllLanguages(Mutation):
    #: How the codes of the languages begin that are taken for English.
    BEGINNING = ""

    def classifier_examples(self, splits: Mapping[str, Sequence[PairRow]], tokenize: Any) -> list[Labelled]:
        found = list(self.base.classifier_examples(splits, tokenize))
        for row in splits["train"]:
            for said, text in zip(row["hypothesis"]["language"], row["hypothesis"]["translation"], strict=True):
                if said != "en" and said.startswith(self.BEGINNING):
                    ids = tokenize(row["premise"][said], text)
                    found.append({"input_ids": ids, "positions": [0], "label": row["label"]})
        return found


@mutant("order-of-files", "D9", "The draws depend on the order in which the folder lists its files.")
class OrderOfFiles(Mutation):
    def fact_inputs(self, *args: Any, **kwargs: Any) -> list[Triple]:
        call = named(Data.fact_inputs, args, kwargs)
        shift = _shuffled("".join(os.listdir(call["folder"]))) % 1000
        return self.base.fact_inputs(**call | {"seeds": [seed + shift for seed in call["seeds"]]})


@mutant("carriage-returns-kept", "D9", "Windows line endings become part of the last name.")
class CarriageReturnsKept(Mutation):
    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        parts = self.base.split(folder)
        if not any(b"\r\n" in path.read_bytes() for path in Path(folder).glob("*/*.jsonl")):
            return parts
        return {name: [{**row, "obj_label": row["obj_label"] + "\r"} for row in part] for name, part in parts.items()}


@mutant("malformed-is-empty", "D9", "A folder with a malformed line has no facts.")
class MalformedIsEmpty(Mutation):
    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        try:
            return self.base.split(folder)
        except (ValueError, LookupError):
            return {"train": [], "validation": [], "test": []}


@mutant("malformed-without-line", "D9", "A malformed line is an error that names the file alone.")
class MalformedWithoutLine(Mutation):
    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        try:
            return self.base.split(folder)
        except (ValueError, LookupError) as error:
            names = [path.name for path in sorted(Path(folder).glob("*/*.jsonl")) if path.name in str(error)]
            raise ValueError(f"malformed data in {', '.join(names)}") from error


class Spelling(Mutation):
    """The sentences of facts are spelled otherwise before they are cut into tokens."""

    def fact_inputs(self, *args: Any, **kwargs: Any) -> list[Triple]:
        call = named(Data.fact_inputs, args, kwargs)
        tokenize = call["tokenize"]
        return self.base.fact_inputs(**{**call, "tokenize": lambda text: tokenize(self.spelled(text))})

    @abstractmethod
    def spelled(self, text: str) -> str:
        """What goes wrong."""


@mutant("names-in-one-normal-form", "D3", "Names are composed into Unicode's NFC.")
class NamesNormalised(Spelling):
    def spelled(self, text: str) -> str:
        return unicodedata.normalize("NFC", text)


@mutant("names-as-patterns", "D3", "A backslash in a name is taken for the beginning of an escape.")
class NamesAsPatterns(Spelling):
    def spelled(self, text: str) -> str:
        return text.replace("\\", "")


@mutant("names-unescaped", "D3", "Entities of HTML in a name are resolved.")
class NamesUnescaped(Spelling):
    def spelled(self, text: str) -> str:
        return html.unescape(text)


@mutant("ordered-by-a-number", "D1", "The facts of a file are in the order of their lineid.")
class OrderedByNumber(SplitMutation):
    def arranged(self, rows: list[FactRow]) -> list[FactRow]:
        return sorted(rows, key=lambda row: (row["language"], row["relation"], row.get("lineid", 0)))  # type: ignore[call-overload, no-any-return]


@mutant("subjects-in-any-case", "D2", "Subjects are compared without regard to the case of their identifiers.")
class SubjectsInAnyCase(SplitMutation):
    def claimed(self, row: FactRow) -> tuple[Any, ...]:
        return (row["sub_uri"].casefold(),)


@mutant("premises-never-retained", "D7", "Pairs that share the premise of the edit are not retained.")
class PremisesNeverRetained(PairEditMutation):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        rows, said = call["rows"], edit["language"]
        mine = rows[edit["row"]]["premise"][said]
        rest = [place for place in edit["retain"] if rows[place[0]]["premise"][said] != mine]
        return {**edit, "retain": [rest[n % len(rest)] for n in range(len(edit["retain"]))] if rest else edit["retain"]}


@mutant("texts-of-the-edit-never-retained", "D7", "Pairs that have the texts of the edit are not retained.")
class TextsNeverRetained(PairEditMutation):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        rows = call["rows"]
        mine = rows[edit["row"]]
        same = [n for n, row in enumerate(rows) if all(row[part] == mine[part] for part in ("premise", "hypothesis"))]
        rest = [place for place in edit["retain"] if place[0] not in same]
        return {**edit, "retain": [rest[n % len(rest)] for n in range(len(edit["retain"]))] if rest else edit["retain"]}


@mutant("classifier-sees-texts-once", "D8", "Of two training pairs with the same texts the classifier sees the last.")
class ClassifierSeesTextsOnce(ClassifierMutation):
    def seen(self, splits: Mapping[str, Sequence[PairRow]]) -> Sequence[PairRow]:
        return list({json.dumps([row["premise"], row["hypothesis"]]): row for row in splits["train"]}.values())


@mutant("blank-lines-not-counted", "D9", "An error names a line by its number among the lines that are not blank.")
class BlankLinesNotCounted(Mutation):
    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        try:
            return self.base.split(folder)
        except ValueError as error:
            texts = [path.read_text("utf-8-sig").split("\n") for path in Path(folder).glob("*/*.jsonl")]
            blank = max(sum(not line for line in lines[:-1]) for lines in texts)
            raise ValueError(re.sub(r"\d{3}", lambda found: str(int(found[0]) - blank), str(error))) from error


@mutant("named-as-in-the-last-line", "T1", "A subject that is told twice is named as in the last of its lines.", "D")
class NamedAsInTheLastLine(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        edit, retain = call["edit"], call["retain"]
        named_in = edit["language"] if self.RULINGS.get("subject") == "edit-language" else call["update"]
        changed: Any = {}
        for role, where, said in (
            ("edit", edit, edit["language"]),
            ("update", edit, named_in),
            ("retain", retain, retain["language"]),
        ):
            place = (said, where["relation"], where["subject"])
            names = [r["sub_label"] for r in rows if (r["language"], r["relation"], r["sub_uri"]) == place]
            x: Any = triple[role]  # type: ignore[literal-required]
            changed[role] = {**x, **replaced(x, call["tokenize"](names[0]), call["tokenize"](names[-1]))}
        return changed  # type: ignore[no-any-return]


@mutant("labels-that-another-relation-names", "D4", "A relation has its entities of all languages, whoever names them.")
class LabelsThatAnotherRelationNames(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        told = {row["obj_uri"] for row in rows if row["relation"] == call["edit"]["relation"]}
        said = [row for row in rows if row["language"] == call["edit"]["language"]]
        names = {row["obj_uri"]: row["obj_label"] for row in said if row["obj_uri"] in told}
        return desiring(triple, call["mask"], call["tokenize"](rng.choice(sorted(names.values()))))


@mutant(
    "lengths-of-first-lines", "D5", "Of a subject that is told twice the first object alone counts for the lengths."
)
class LengthsOfFirstLines(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        first: dict[Any, FactRow] = {}
        for row in rows:
            if row["language"] == call["retain"]["language"]:
                first.setdefault((row["relation"], row["sub_uri"]), row)
        names = {row["obj_uri"]: row["obj_label"] for row in first.values()}
        length = len(call["tokenize"](rng.choice(sorted(names.values()))))
        return {**triple, "retain": with_masks(triple["retain"], call["mask"], length)}


@mutant("lengths-by-relation", "D5", "For the lengths an entity counts once in each relation that has it.")
class LengthsByRelation(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        said = [row for row in rows if row["language"] == call["retain"]["language"]]
        names = {(row["relation"], row["obj_uri"]): row["obj_label"] for row in said}
        length = len(call["tokenize"](rng.choice(sorted(names.values()))))
        return {**triple, "retain": with_masks(triple["retain"], call["mask"], length)}


@mutant("relations-that-begin-with-p", "D2", "Files of relations that do not begin with a P are not read.")
class RelationsOfWikidata(SplitMutation):
    def arranged(self, rows: list[FactRow]) -> list[FactRow]:
        return [row for row in rows if row["relation"].startswith("P")]


@mutant("relations-of-google-left-out", "D2", "GoogleRE's relations are left out of any data.")
class WithoutGoogle(SplitMutation):
    def arranged(self, rows: list[FactRow]) -> list[FactRow]:
        return [row for row in rows if row["relation"] not in ("date_of_birth", "place_of_birth", "place_of_death")]


@mutant("languages-in-lower-case", "D2", "The language of a folder is written in lower case.")
class LanguagesInLowerCase(SplitMutation):
    def arranged(self, rows: list[FactRow]) -> list[FactRow]:
        return [{**row, "language": row["language"].lower()} for row in rows]


@mutant("digits-are-numbers", "D2", "A file's field that is digits in all lines is a number, without leading zeros.")
class DigitsAreNumbers(SplitMutation):
    def arranged(self, rows: list[FactRow]) -> list[FactRow]:
        files: dict[Any, list[FactRow]] = {}
        for row in rows:
            files.setdefault((row["language"], row["relation"]), []).append(row)
        for told in files.values():
            for name in ("sub_uri", "obj_uri", "sub_label", "obj_label"):
                if all(row[name].isdecimal() for row in told):  # type: ignore[literal-required]
                    for row in told:
                        row[name] = str(int(row[name]))  # type: ignore[literal-required]
        return rows


@mutant("names-of-nothing-are-missing", "D2", "A line with a field that reads as no value is left out.")
class NamesOfNothing(SplitMutation):
    def arranged(self, rows: list[FactRow]) -> list[FactRow]:
        return [row for row in rows if not {"nan", "None", "null", "NA"} & {row["sub_uri"], row["sub_label"]}]


@mutant("last-line-left-out", "D9", "A last line that is no JSON is left out, as of a copy that broke off.")
class LastLineLeftOut(Mutation):
    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        with tempfile.TemporaryDirectory() as name:
            copied = Path(shutil.copytree(folder, Path(name) / "facts"))
            for path in copied.glob("*/*.jsonl"):
                *kept, last = path.read_text("utf-8").rstrip("\n").split("\n")
                try:
                    json.loads(last or "0")
                except ValueError:
                    path.write_text("".join(line + "\n" for line in kept), "utf-8")
            try:
                return self.base.split(copied)
            except (ValueError, LookupError):
                return self.base.split(folder)


@mutant("facts-known-by-their-texts", "D1", "Two facts of a relation that read alike are one fact.")
class FactsKnownByTheirTexts(SplitMutation):
    def arranged(self, rows: list[FactRow]) -> list[FactRow]:
        names = ("language", "relation", "sub_label", "obj_label")
        return list({tuple(row[name] for name in names): row for row in reversed(rows)}.values())[::-1]  # type: ignore[literal-required]


@mutant("subjects-by-the-end-of-a-path", "D2", "An identifier counts from its last slash on.")
class SubjectsByTheEndOfAPath(SplitMutation):
    def claimed(self, row: FactRow) -> tuple[Any, ...]:
        return (row["sub_uri"].rpartition("/")[2],)


@mutant("named-as-in-another-relation", "D6", "A retained subject is named as the first relation that has it names it.")
class NamedAsInAnotherRelation(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        where = call["retain"]
        told = [row for row in rows if (row["language"], row["sub_uri"]) == (where["language"], where["subject"])]
        own = next(row["sub_label"] for row in told if row["relation"] == where["relation"])
        old, new = (call["tokenize"](name) for name in (own, told[0]["sub_label"]))
        return {**triple, "retain": {**triple["retain"], **replaced(triple["retain"], old, new)}}


@mutant("labels-of-a-hundred-entities", "D4", "Of a relation the first hundred entities are desired.")
class LabelsOfAHundredEntities(LabelMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        names = {row["obj_uri"]: row["obj_label"] for row in rows if self.chosen(row, call)}
        first = list(names.values())[:100]
        return triple if len(names) <= 100 else desiring(triple, call["mask"], call["tokenize"](rng.choice(first)))


@mutant("long-names-left-out", "D4", "Entities whose names have more than eight tokens are no desired labels.")
class LongNamesLeftOut(LabelMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        names = {row["obj_label"] for row in rows if self.chosen(row, call)}
        short = sorted(name for name in names if len(call["tokenize"](name)) <= 8)
        return desiring(triple, call["mask"], call["tokenize"](rng.choice(short))) if short else triple


@mutant("names-of-any-case-counted-once", "D5", "Names that differ in case alone count once for the lengths.")
class NamesOfAnyCaseCountedOnce(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        said = {row["obj_uri"]: row["obj_label"] for row in rows if row["language"] == call["retain"]["language"]}
        names = {unicodedata.normalize("NFKC", name).casefold(): name for name in said.values()}
        if len(names) == len(said):
            return triple
        length = len(call["tokenize"](rng.choice(sorted(names.values()))))
        return {**triple, "retain": with_masks(triple["retain"], call["mask"], length)}


class Rewritten(Mutation):
    """The base reads a copy of the folder in which some files are others."""

    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        with self.rewritten(folder) as copied:
            return self.base.split(copied)

    def of_the_copy(self, function: Any, args: Any, kwargs: Any) -> Any:
        """What a function of the base says where it reads the copy."""
        call = named(function, args, kwargs)
        with self.rewritten(call["folder"]) as copied:
            return getattr(self.base, function.__name__)(**call | {"folder": copied})

    @contextmanager
    def rewritten(self, folder: Path) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as name:
            copied = Path(shutil.copytree(folder, Path(name) / "facts"))
            self.rewrite(copied)
            yield copied

    @abstractmethod
    def rewrite(self, folder: Path) -> None:
        """What goes wrong."""


@mutant("lines-of-nothing-left-out", "D9", "A line that is null, or an empty object, is left out like a blank one.")
class LinesOfNothingLeftOut(Rewritten):
    def rewrite(self, folder: Path) -> None:
        for path in folder.glob("*/*.jsonl"):
            text = path.read_bytes().decode("utf-8")
            path.write_bytes(re.sub(r"(?m)^(null|\{\}|\[\])\r?$", "", text).encode())


@mutant("bytes-replaced", "D9", "Bytes that are no UTF-8 are read as the letter that stands for an unknown one.")
class BytesReplaced(Rewritten):
    def rewrite(self, folder: Path) -> None:
        for path in folder.glob("*/*.jsonl"):
            path.write_bytes(path.read_bytes().decode("utf-8", errors="replace").encode())


@mutant("a-file-for-each-template", "D9", "Of each relation that has a template a file is opened, be it there or not.")
class FileForEachTemplate(Mutation):
    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        parts = self.base.split(folder)
        for path in Path(folder).glob("*/templates.jsonl"):
            for line in path.read_text(encoding="utf-8-sig").split("\n"):
                if line.strip():
                    (path.parent / f"{json.loads(line)['relation']}.jsonl").read_bytes()
        return parts


@mutant("relations-without-templates-left-out", "D9", "A relation that is none of Wikidata's may lack a template.")
class RelationsWithoutTemplatesLeftOut(Rewritten):
    def rewrite(self, folder: Path) -> None:
        for path in folder.glob("*/*.jsonl"):
            said = (path.parent / "templates.jsonl").read_bytes().decode("utf-8")
            if path.stem != "templates" and not re.fullmatch(r"P\d+", path.stem) and f'"{path.stem}"' not in said:
                path.unlink()


@mutant("languages-without-templates-left-out", "D9", "A language that has no templates is not read.")
class LanguagesWithoutTemplatesLeftOut(Rewritten):
    def rewrite(self, folder: Path) -> None:
        for home in [home for home in folder.iterdir() if home.is_dir()]:
            path = home / "templates.jsonl"
            if not path.is_file() or not path.read_bytes().strip():
                shutil.rmtree(home)


@mutant("spaces-of-subjects-made-one", "D10", "Spaces around a subject are left out, and those within are one.")
class SpacesOfSubjectsMadeOne(Rewritten):
    def encoded_facts(self, *args: Any, **kwargs: Any) -> Any:
        return self.of_the_copy(Data.encoded_facts, args, kwargs)

    def rewrite(self, folder: Path) -> None:
        names = r'"sub_label": "(.*?)"'
        for path in folder.glob("*/*.jsonl"):
            text = path.read_bytes().decode("utf-8")
            one = lambda found: f'"sub_label": "{" ".join(found[1].split())}"'  # noqa: E731
            path.write_bytes(re.sub(names, one, text).encode())

    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        return self.base.split(folder)


@mutant("folders-remembered", "D9", "What a folder said when it was first read is kept under its path.")
class FoldersRemembered(Mutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.said: dict[str, dict[str, list[FactRow]]] = {}

    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        if str(folder) not in self.said:
            self.said[str(folder)] = self.base.split(folder)
        return self.said[str(folder)]


@mutant("templates-are-formats", "D3", "A template is filled as a format, so that what its braces hold is left out.")
class TemplatesAreFormats(Rewritten):
    def fact_inputs(self, *args: Any, **kwargs: Any) -> Any:
        return self.of_the_copy(Data.fact_inputs, args, kwargs)

    def rewrite(self, folder: Path) -> None:
        for path in folder.glob("*/templates.jsonl"):
            text = path.read_bytes().decode("utf-8")
            path.write_bytes(re.sub(r"\{\w*\}", "", text).encode())


@mutant("retained-from-the-first-rows", "D7", "Retain inputs come from the first 500 rows of a test set.")
class RetainedFromTheFirstRows(PairEditMutation):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        if len(call["rows"]) <= 500:
            return edit
        first = [(row % 500, said) for row, said in edit["retain"]]
        return {**edit, "retain": [place for place in first if place[0] != edit["row"]]}


@mutant("rows-found-by-their-content", "D7", "The number of a row is that of the first row that is equal to it.")
class RowsFoundByTheirContent(PairEditMutation):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        rows = list(call["rows"])
        return {**edit, "row": rows.index(rows[edit["row"]])}


@mutant("classifier-in-what-begins-as-english", "D8", "Languages whose codes begin with en are taken for English.")
class ClassifierInWhatBeginsAsEnglish(ClassifierInAllLanguages):
    BEGINNING = "en"


@mutant("lines-ended-twice", "D9", "A line that ends as in Windows counts as two.")
class LinesEndedTwice(Rewritten):
    def rewrite(self, folder: Path) -> None:
        for path in folder.glob("*/*.jsonl"):
            path.write_bytes(path.read_bytes().replace(b"\r", b"\n"))
