"""Mutants of identity: what a record leaves out, what it knows a run by, and which edits are taken for one."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from ..contract import FactRow, Outcome, Reproduction, StoredRun, TableRow
from .base import Mutation, mutant, named
from .d_data import facts_in
from .m_metrics import MetricMutation, mean, shares


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


class RecordMutation(Mutation):
    """The base's record, with a part of it spoilt; `call` has the arguments by name."""

    def record(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        call = named(Reproduction.record, args, kwargs)
        return {**self.base.record(**call), **self.other(call)}

    @abstractmethod
    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        """What goes wrong."""


class OfFacts(RecordMutation):
    """The data are known by some fields of their facts, in file order."""

    FIELDS: tuple[str, ...] = ("language", "relation", "sub_uri", "obj_uri", "sub_label", "obj_label")

    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        rows = facts_in(call["facts"])
        return {"data": digest([self.told(rows), self.templates(Path(call["facts"]))])}

    def told(self, rows: list[FactRow]) -> Any:
        return [[row[name] for name in self.FIELDS] for row in rows]  # type: ignore[literal-required]

    def templates(self, folder: Path) -> Any:
        lines = [(path.parent.name, path.read_text("utf-8-sig")) for path in sorted(folder.glob("*/templates.jsonl"))]
        return [[said, sorted(line for line in text.splitlines() if line)] for said, text in lines]


@mutant("fingerprint-without-templates", "R9", "The data are known by their facts, without the templates.")
class WithoutTemplates(OfFacts):
    def templates(self, folder: Path) -> Any:
        return []


@mutant("fingerprint-of-object-labels", "R9", "Of the facts, the names of the objects alone are in the fingerprint.")
class OfObjectLabels(OfFacts):
    FIELDS = ("obj_label",)


@mutant("fingerprint-without-subject-names", "R9", "The names of the subjects are not in the fingerprint.")
class WithoutSubjectNames(OfFacts):
    FIELDS = ("language", "relation", "sub_uri", "obj_uri", "obj_label")


@mutant("fingerprint-without-identifiers", "R9", "The identifiers of subjects and objects are not in the fingerprint.")
class WithoutIdentifiers(OfFacts):
    FIELDS = ("language", "relation", "sub_label", "obj_label")


@mutant("fingerprint-without-subjects-identifiers", "R9", "The identifier of a subject is not in the fingerprint.")
class WithoutSubjectIdentifiers(OfFacts):
    FIELDS = ("language", "relation", "obj_uri", "sub_label", "obj_label")


@mutant("fingerprint-without-languages", "R9", "In which language a fact is told is not in the fingerprint.")
class WithoutLanguages(OfFacts):
    FIELDS = ("relation", "sub_uri", "obj_uri", "sub_label", "obj_label")

    def templates(self, folder: Path) -> Any:
        return [texts for _, texts in super().templates(folder)]


@mutant("fingerprint-without-relations", "R9", "Which relation a fact is of is not in the fingerprint.")
class WithoutRelations(OfFacts):
    FIELDS = ("language", "sub_uri", "obj_uri", "sub_label", "obj_label")


@mutant("fingerprint-without-order", "R9", "Facts are sorted before they are hashed, though their order is content.")
class WithoutOrder(OfFacts):
    def told(self, rows: list[FactRow]) -> Any:
        return sorted(super().told(rows))


@mutant("fingerprint-of-distinct-facts", "R9", "A fact that is told twice is hashed once, though it counts twice.")
class OfDistinctFacts(OfFacts):
    def told(self, rows: list[FactRow]) -> Any:
        return list(dict.fromkeys(map(tuple, super().told(rows))))


@mutant("fingerprint-in-ascii", "R9", "Letters that are not ASCII are left out of the fingerprint.")
class InAscii(OfFacts):
    def told(self, rows: list[FactRow]) -> Any:
        return [[field.encode("ascii", "ignore").decode() for field in told] for told in super().told(rows)]


@mutant("fingerprint-of-the-first-facts", "R9", "The fingerprint is of the first facts of the data.")
class OfTheFirstFacts(OfFacts):
    def told(self, rows: list[FactRow]) -> Any:
        return super().told(rows)[:5]


@mutant("model-known-by-its-name", "R9", "The raw model is known by its folder's name.")
class ModelByName(RecordMutation):
    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        return {"model": Path(call["model"]).name}


@mutant("model-known-by-its-configuration", "R9", "The raw model is known by its configuration, not by its weights.")
class ModelByConfiguration(RecordMutation):
    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        parts = [(Path(call["model"]) / name).read_text("utf-8") for name in ("config.json", "tokenizer.json")]
        return {"model": digest(parts)}


@mutant("model-known-by-its-size", "R9", "The raw model is known by the size of its files.")
class ModelBySize(RecordMutation):
    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        return {"model": sum(path.stat().st_size for path in Path(call["model"]).iterdir())}


@mutant("tokenizer-not-recorded", "R9", "The tokenizer is not in the fingerprint of the model.")
class TokenizerNotRecorded(RecordMutation):
    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        model = Path(call["model"])
        weights = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
        return {"model": digest([weights, (model / "config.json").read_text("utf-8")])}


@mutant("special-tokens-not-recorded", "R9", "Of the tokenizer, tokenizer.json alone is in the fingerprint.")
class SpecialTokensNotRecorded(RecordMutation):
    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        model = Path(call["model"])
        names = ("config.json", "tokenizer.json", "model.safetensors")
        return {"model": digest([hashlib.sha256((model / name).read_bytes()).hexdigest() for name in names])}


@mutant("model-not-recorded", "R9", "The record does not say which model was edited.")
class ModelNotRecorded(RecordMutation):
    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        return {"model": "the raw model"}


class WithoutSettings(Mutation):
    """Some hyper-parameters of a run are not in its record."""

    LEFT_OUT: tuple[str, ...] = ()

    def record(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        call = named(Reproduction.record, args, kwargs)
        settings = {name: value for name, value in (call["settings"] or {}).items() if name not in self.LEFT_OUT}
        return self.base.record(**call | {"settings": settings})


@mutant("loss-weights-not-recorded", "R9", "The weights of the objective are not in the record.")
class LossWeightsNotRecorded(WithoutSettings):
    LEFT_OUT = ("lambda_rel", "lambda_loc", "lambda_mask")


@mutant("mask-weight-not-recorded", "R9", "The weight of the penalty is not in the record.")
class MaskWeightNotRecorded(WithoutSettings):
    LEFT_OUT = ("lambda_mask",)


@mutant("mask-rate-not-recorded", "R9", "The learning rate of the masks is not in the record.")
class MaskRateNotRecorded(WithoutSettings):
    LEFT_OUT = ("mask_lr",)


@mutant("inner-rate-not-recorded", "R9", "Where the inner learning rates start is not in the record.")
class InnerRateNotRecorded(WithoutSettings):
    LEFT_OUT = ("mend_inner_lr",)


@mutant("schedule-not-recorded", "R9", "How long is trained, and how patiently, is not in the record.")
class ScheduleNotRecorded(WithoutSettings):
    LEFT_OUT = ("max_steps", "validate_every", "patience")


@mutant("patience-not-recorded", "R9", "The patience of a training is not in its record.")
class PatienceNotRecorded(WithoutSettings):
    LEFT_OUT = ("patience",)


@mutant("one-ruling-not-recorded", "R9", "The direction of the divergence is not in the record.")
class OneRulingNotRecorded(Mutation):
    def record(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        found = self.base.record(*args, **kwargs)
        return {**found, "rulings": {n: v for n, v in found["rulings"].items() if n != "kl_direction"}}


@mutant("seed-in-the-name-alone", "R9", "The seed is not in the record.")
class SeedInTheName(RecordMutation):
    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        return {"seed": 0}


# Edits and runs that are taken for one another


@mutant("edits-of-two-runs-confused", "R4", "Edits of two runs are one edit where they have one name.")
class EditsOfTwoRunsConfused(Mutation):
    def table(self, runs: Sequence[StoredRun], edit_language: str | None) -> list[TableRow]:
        rows = self.base.table(runs, edit_language)
        for row in rows:
            mine = [run for run in runs if (run["editor"], run["training"]) == (row["editor"], row["training"])]
            pooled = [outcome for run in mine for outcome in run["outcomes"]]
            said = sorted({outcome["edit_language"] for outcome in pooled})
            rates = [
                [
                    mean(list(shares([o for o in pooled if o["edit_language"] == one], role, "edit").values()))
                    for one in said
                ]
                for role in ("update", "retain")
            ]
            acc, con = (100 * mean(one) for one in rates)
            row |= {"acc": acc, "con": con, "succ": 2 * acc * con / (acc + con) if acc + con else 0.0}
        return rows


@mutant("runs-of-one-seed-confused", "R4", "Of runs with one seed, the last is shown, whatever they trained.")
class RunsOfOneSeedConfused(Mutation):
    def table(self, runs: Sequence[StoredRun], edit_language: str | None) -> list[TableRow]:
        last: dict[Any, StoredRun] = {}
        for run in runs:
            last[run["editor"], run["seed"]] = run
        moved: list[StoredRun] = [{**run, "outcomes": last[run["editor"], run["seed"]]["outcomes"]} for run in runs]
        return self.base.table(moved, edit_language)


@mutant("edits-known-by-name-alone", "M4", "One name in two editing languages is one edit.")
class EditsByNameAlone(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        languages: dict[str, set[str]] = {}
        for outcome in outcomes:
            languages.setdefault(outcome["edit"], set()).add(outcome["edit_language"])
        if all(len(said) == 1 for said in languages.values()):
            return right
        merged = [{**o, "edit_language": min(languages[o["edit"]])} for o in outcomes]
        return self.base.metrics(merged)


@mutant("edits-of-one-name-pooled", "M4", "Within a breakdown, edits of one name are pooled over languages.")
class EditsOfOneNamePooled(Mutation):
    def breakdown(self, outcomes: Sequence[Outcome], by: str) -> dict[str, dict[str, float]]:
        found = self.base.breakdown(outcomes, by)
        names = {(o["edit"], o["edit_language"]) for o in outcomes}
        if by != "language" or len({name for name, _ in names}) == len(names):
            return found
        for said in found:
            rates = [
                shares([o for o in outcomes if o["language"] == said], role, "edit") for role in ("update", "retain")
            ]
            acc, con = (float(np.mean(list(one.values()))) for one in rates)
            found[said] = {"acc": acc, "con": con, "succ": 2 * acc * con / (acc + con) if acc + con else 0.0}
        return found


class ModelMutation(RecordMutation):
    """The model is known by something that some models share."""

    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        folder = Path(call["model"])
        rest = [(path.name, path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
        return {"model": digest([rest, self.told(load_file(folder / "model.safetensors"))])}

    @abstractmethod
    def told(self, weights: dict[str, Any]) -> Any:
        """What of the weights is in the fingerprint."""


@mutant("fingerprint-of-sums", "R9", "Of each tensor of the model the sum of its numbers is in the fingerprint.")
class OfSums(ModelMutation):
    def told(self, weights: dict[str, Any]) -> Any:
        return [(name, round(float(one.double().sum()), 9)) for name, one in sorted(weights.items())]


@mutant("fingerprint-of-values", "R9", "The tensors of the model are in the fingerprint without their names.")
class OfValues(ModelMutation):
    def told(self, weights: dict[str, Any]) -> Any:
        return sorted(digest(one.tolist()) for one in weights.values())


@mutant(
    "model-known-by-its-first-numbers", "R9", "Of each tensor of the model a thousand numbers are in the fingerprint."
)
class OfFirstNumbers(ModelMutation):
    def told(self, weights: dict[str, Any]) -> Any:
        return [(name, one.flatten()[:1000].tolist()) for name, one in sorted(weights.items())]


@mutant("tokenizer-known-by-its-words", "R9", "Of the tokenizer the vocabulary is in the fingerprint, and no rule.")
class TokenizerByItsWords(RecordMutation):
    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        folder = Path(call["model"])
        words = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
        weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        return {"model": digest([words, weights, (folder / "config.json").read_text("utf-8")])}


@mutant("fingerprint-of-composed-letters", "R9", "Names are normalised before they are hashed.")
class OfComposedLetters(OfFacts):
    def told(self, rows: list[FactRow]) -> Any:
        return [[unicodedata.normalize("NFC", value) for value in row] for row in super().told(rows)]


@mutant("fingerprint-of-joined-fields", "R9", "The fields of a fact are hashed one behind the other.")
class OfJoinedFields(OfFacts):
    def told(self, rows: list[FactRow]) -> Any:
        return ["".join(row) for row in super().told(rows)]


@mutant("rates-of-two-digits", "R9", "Hyper-parameters are recorded as they are printed, with two digits.")
class RatesOfTwoDigits(Mutation):
    def record(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        call = named(Reproduction.record, args, kwargs)
        return self.base.record(
            **call | {"settings": {n: float(f"{v:.1e}") for n, v in (call["settings"] or {}).items()}}
        )


@mutant("zeros-not-recorded", "R9", "A hyper-parameter that is 0 is not in the record.")
class ZerosNotRecorded(Mutation):
    def record(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        call = named(Reproduction.record, args, kwargs)
        settings = {name: value for name, value in (call["settings"] or {}).items() if value}
        return self.base.record(**call | {"settings": settings})


@mutant("head-not-recorded", "R9", "Of the model the encoder alone is in the fingerprint.")
class HeadNotRecorded(ModelMutation):
    def told(self, weights: dict[str, Any]) -> Any:
        return [(name, digest(one.tolist())) for name, one in sorted(weights.items()) if not name.startswith("cls.")]


@mutant("biases-and-norms-not-recorded", "R9", "Of the model the matrices alone are in the fingerprint.")
class MatricesAlone(ModelMutation):
    def told(self, weights: dict[str, Any]) -> Any:
        return [(name, digest(one.tolist())) for name, one in sorted(weights.items()) if one.ndim > 1]


@mutant("one-run-of-finetuning", "R4", "Of Finetuning, which is not trained, the first run alone is shown.")
class OneRunOfFinetuning(Mutation):
    def table(self, runs: Sequence[StoredRun], edit_language: str | None) -> list[TableRow]:
        untrained = [run for run in runs if run["training"] is None]
        rows = self.base.table([run for run in runs if run not in untrained[1:]], edit_language)
        return [{**row, "runs": [run["name"] for run in untrained]} if row["training"] is None else row for row in rows]


@mutant("fingerprint-of-words", "R9", "Names are hashed as their words, without marks and further spaces.")
class OfWords(OfFacts):
    def told(self, rows: list[FactRow]) -> Any:
        return [
            [" ".join(word for word in value.replace('"', "").split(" ") if word) for value in row]
            for row in super().told(rows)
        ]


@mutant("fingerprint-of-lines-of-templates", "R9", "The files of templates are hashed as they are written.")
class OfLinesOfTemplates(OfFacts):
    def templates(self, folder: Path) -> Any:
        return [path.read_bytes().replace(b"\r\n", b"\n").hex() for path in sorted(folder.glob("*/templates.jsonl"))]


@mutant("fingerprint-of-this-process", "R9", "The fingerprint is Python's hash, which another process has otherwise.")
class OfThisProcess(OfFacts):
    ELSEWHERE = True

    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        return {"data": hash(super().other(call)["data"])}


@mutant("model-known-by-its-beginning", "R9", "Of the model's file the first MiB is in the fingerprint.")
class ModelByItsBeginning(RecordMutation):
    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        paths = sorted(path for path in Path(call["model"]).iterdir() if path.is_file())
        return {"model": digest([(path.name, path.read_bytes()[: 2**20].hex()) for path in paths])}


@mutant("languages-of-the-first-run", "R4", "A row has the editing languages of its first run, in all of its runs.")
class LanguagesOfTheFirstRun(Mutation):
    def table(self, runs: Sequence[StoredRun], edit_language: str | None) -> list[TableRow]:
        first: dict[Any, set[str]] = {}
        kept: list[StoredRun] = []
        for run in runs:
            said = first.setdefault((run["editor"], run["training"]), {o["edit_language"] for o in run["outcomes"]})
            kept.append({**run, "outcomes": [o for o in run["outcomes"] if o["edit_language"] in said]})
        return self.base.table(kept, edit_language)


@mutant("weights-in-half-precision", "R9", "The weights of the model are hashed as they are in half precision.")
class WeightsInHalfPrecision(ModelMutation):
    def told(self, weights: dict[str, Any]) -> Any:
        return [(name, digest(one.half().tolist())) for name, one in sorted(weights.items())]


@mutant("first-lines-recorded", "R9", "Of each file the first hundred facts, and their number, are in the fingerprint.")
class FirstLinesRecorded(OfFacts):
    def told(self, rows: list[FactRow]) -> Any:
        files: dict[tuple[str, str], list[FactRow]] = {}
        for row in rows:
            files.setdefault((row["language"], row["relation"]), []).append(row)
        return [(len(one), super(FirstLinesRecorded, self).told(one[:100])) for one in files.values()]


@mutant("model-known-by-its-day", "R9", "The model is known by the names, sizes and times of its files.")
class ModelByItsDay(RecordMutation):
    def other(self, call: dict[str, Any]) -> dict[str, Any]:
        files = [(path.name, path.stat()) for path in sorted(Path(call["model"]).iterdir()) if path.is_file()]
        return {"model": digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in files])}
