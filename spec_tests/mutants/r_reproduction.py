"""Mutants of chapter R, reproduction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import RULINGS, Array, Experiment, StoredRun, TableRow
from .base import Mutation, mutant
from .d_data import facts_in
from .m_metrics import mean


@mutant("one-rate-for-all-editors", "R1", "MEND is trained with the learning rate of the other editors.")
class OneRateForAllEditors(Mutation):
    def paper_preset(self) -> dict[str, float]:
        return {**self.base.paper_preset(), "mend_lr": 5e-5}


@mutant("english-validated-as-all", "R1", "Training on English alone is validated as rarely as training on everything.")
class EnglishValidatedAsAll(Mutation):
    def paper_preset(self) -> dict[str, float]:
        preset = self.base.paper_preset()
        return {**preset, "english_validate_every": preset["validate_every"], "english_patience": preset["patience"]}


@mutant("english-inputs-alone", "R2", "Table 1 updates and retains in English alone.")
class EnglishInputsAlone(Mutation):
    def experiments(self, languages: Sequence[str]) -> list[Experiment]:
        rows = self.base.experiments(languages)
        return [row | {"input_languages": ["en"]} if row["table"] == 1 else row for row in rows]


@mutant("masked-without-its-base", "R2", "Table 2 has the masked editors, and not those without masks.")
class MaskedWithoutItsBase(Mutation):
    def experiments(self, languages: Sequence[str]) -> list[Experiment]:
        rows = self.base.experiments(languages)
        return [r for r in rows if r["table"] == 1 or r["masks"] != "none" or r["editor"] == "finetuning"]


@mutant("default-rulings-recorded", "R3", "A record has the required rulings, whatever the run followed.")
class DefaultRulingsRecorded(Mutation):
    def record(self, facts: Path, model: Path, seed: int, rulings: Mapping[str, str]) -> dict[str, Any]:
        required = {name: alternatives[0] for name, alternatives in RULINGS.items()}
        return {**self.base.record(facts, model, seed, rulings), "rulings": required}


@mutant("fingerprint-of-the-path", "R3", "The data are known by the folder that they were in.")
class FingerprintOfThePath(Mutation):
    def record(self, facts: Path, model: Path, seed: int, rulings: Mapping[str, str]) -> dict[str, Any]:
        return {**self.base.record(facts, model, seed, rulings), "data": str(facts)}


@mutant("fingerprint-of-the-sizes", "R3", "The data are known by the number of their lines.")
class FingerprintOfTheSizes(Mutation):
    def record(self, facts: Path, model: Path, seed: int, rulings: Mapping[str, str]) -> dict[str, Any]:
        return {**self.base.record(facts, model, seed, rulings), "data": len(facts_in(facts))}


@mutant("code-not-recorded", "R3", "A record does not say which code made it.")
class CodeNotRecorded(Mutation):
    def record(self, facts: Path, model: Path, seed: int, rulings: Mapping[str, str]) -> dict[str, Any]:
        found = self.base.record(facts, model, seed, rulings)
        return {name: value for name, value in found.items() if name != "code"}


@mutant("code-of-no-version", "R3", "A record says that its code's version is unknown.")
class CodeOfNoVersion(Mutation):
    def record(self, facts: Path, model: Path, seed: int, rulings: Mapping[str, str]) -> dict[str, Any]:
        return {**self.base.record(facts, model, seed, rulings), "code": "unknown"}


class TableMutation(Mutation):
    """Rows of a table, changed one by one, with the rows' own runs."""

    def table(self, runs: Sequence[StoredRun], edit_language: str | None) -> list[TableRow]:
        by_name = {run["name"]: run for run in runs}
        rows = self.base.table(runs, edit_language)
        return [self.wrong(row, [by_name[name] for name in row["runs"]]) for row in rows]

    @abstractmethod
    def wrong(self, row: TableRow, runs: Sequence[StoredRun]) -> TableRow:
        """What goes wrong."""


@mutant("first-run-named", "R3", "A row names the first of its runs.")
class FirstRunNamed(TableMutation):
    def wrong(self, row: TableRow, runs: Sequence[StoredRun]) -> TableRow:
        return {**row, "runs": row["runs"][:1]}


@mutant("succ-of-runs-averaged", "R4", "A row's succ is the mean of the succ of its runs.", "M")
class SuccOfRunsAveraged(TableMutation):
    def wrong(self, row: TableRow, runs: Sequence[StoredRun]) -> TableRow:
        return {**row, "succ": 100 * mean([self.base.metrics(run["outcomes"])["succ"] for run in runs])}


@mutant("best-run-shown", "R4", "A row shows the run with the best succ.", "M")
class BestRunShown(TableMutation):
    def wrong(self, row: TableRow, runs: Sequence[StoredRun]) -> TableRow:
        best = max((self.base.metrics(run["outcomes"]) for run in runs), key=lambda rates: rates["succ"])
        return {**row, "acc": 100 * best["acc"], "con": 100 * best["con"], "succ": 100 * best["succ"]}


@mutant("table-in-tenths", "R4", "A row is rounded to one digit.")
class TableInTenths(TableMutation):
    def wrong(self, row: TableRow, runs: Sequence[StoredRun]) -> TableRow:
        return {**row, "acc": round(row["acc"], 1), "con": round(row["con"], 1), "succ": round(row["succ"], 1)}


@mutant(
    "patience-counted-from-the-last-rise",
    "R5",
    "Training stops where succ has not risen from one validation to the next.",
)
class PatienceFromTheLastRise(Mutation):
    def stopping(self, succ: Sequence[float], validate_every: int, patience: int, max_steps: int) -> tuple[int, int]:
        since = 0
        for place in range(len(succ)):
            since = 0 if place == 0 or succ[place] > succ[place - 1] else since + validate_every
            if since >= patience:
                break
        best = succ.index(max(succ[: place + 1]))
        return (place + 1) * validate_every, (best + 1) * validate_every


class StoppingMutation(Mutation):
    """The base's rule, with what it says spoilt."""

    def stopping(self, succ: Sequence[float], validate_every: int, patience: int, max_steps: int) -> tuple[int, int]:
        stopped, judged = self.base.stopping(succ, validate_every, patience, max_steps)
        return self.wrong(list(succ), validate_every, patience, max_steps, stopped, judged)

    @abstractmethod
    def wrong(
        self, succ: list[float], every: int, patience: int, max_steps: int, stopped: int, judged: int
    ) -> tuple[int, int]:
        """What goes wrong."""


@mutant("last-parameters-judged", "R5", "The parameters at the end of the training are judged, not the best.")
class LastParametersJudged(StoppingMutation):
    def wrong(
        self, succ: list[float], every: int, patience: int, max_steps: int, stopped: int, judged: int
    ) -> tuple[int, int]:
        return stopped, stopped


@mutant("ties-count-as-improvement", "R5", "An equal succ is an improvement, and patience begins anew.")
class TiesImprove(StoppingMutation):
    def wrong(
        self, succ: list[float], every: int, patience: int, max_steps: int, stopped: int, judged: int
    ) -> tuple[int, int]:
        risen = [value + 1e-9 * place for place, value in enumerate(succ)]
        return self.base.stopping(risen, every, patience, max_steps)


@mutant("one-validation-too-many", "R5", "Training goes on until succ has not improved for longer than patience.")
class OneValidationTooMany(StoppingMutation):
    def wrong(
        self, succ: list[float], every: int, patience: int, max_steps: int, stopped: int, judged: int
    ) -> tuple[int, int]:
        return self.base.stopping(succ, every, patience + every, max_steps)


class SimilarityMutation(Mutation):
    """Cosines on dimensions of its own choice."""

    def mask_similarity(self, log_alpha: Array) -> Array:
        rows = []
        for place, row in enumerate(log_alpha):
            chosen = np.argsort(-self.key(log_alpha, place), kind="stable")[: self.count(log_alpha.shape[1])]
            a, b = row[chosen], log_alpha[:, chosen]
            rows.append(b @ a / (np.linalg.norm(a) * np.linalg.norm(b, axis=1)))
        return np.stack(rows)

    def key(self, log_alpha: Array, row: int) -> Array:
        return log_alpha[row]

    def count(self, width: int) -> int:
        return max(1, width // 100)


@mutant("a-hundredth-of-few-is-none", "R6", "A hundredth is rounded down, to no dimension where there are few.")
class HundredthOfFewIsNone(SimilarityMutation):
    def count(self, width: int) -> int:
        return width // 100


@mutant("few-are-compared-as-a-whole", "R6", "Where there are less than a hundred dimensions, all are compared.")
class FewAreComparedAsAWhole(SimilarityMutation):
    def count(self, width: int) -> int:
        return width // 100 or width


@mutant(
    "closed-masks-by-their-size",
    "R6",
    "Where all parameters of a language are negative, its largest ones are compared.",
)
class ClosedMasksByTheirSize(SimilarityMutation):
    def key(self, log_alpha: Array, row: int) -> Array:
        return np.abs(log_alpha[row]) if np.all(log_alpha[row] < 0) else log_alpha[row]


@mutant("similarity-over-all-dimensions", "R6", "Figure 5 compares the languages over all of their parameters.")
class SimilarityOverAll(SimilarityMutation):
    def count(self, width: int) -> int:
        return width


@mutant("preferred-by-magnitude", "R6", "The preferred dimensions are those farthest from zero.")
class PreferredByMagnitude(SimilarityMutation):
    def key(self, log_alpha: Array, row: int) -> Array:
        return np.abs(log_alpha[row])


@mutant("preferred-on-average", "R6", "All rows look at the dimensions that are highest over all languages.")
class PreferredOnAverage(SimilarityMutation):
    def key(self, log_alpha: Array, row: int) -> Array:
        return log_alpha.mean(0)


@mutant("rows-of-neighbouring-runs", "R4", "Runs of one row that do not stand side by side make two rows.")
class RowsOfNeighbouringRuns(Mutation):
    def table(self, runs: Sequence[StoredRun], edit_language: str | None) -> list[TableRow]:
        groups = groupby(runs, key=lambda run: (run["editor"], run["training"]))
        return [row for _, group in groups for row in self.base.table(list(group), edit_language)]


@mutant(
    "all-trainings-without-masks-in-one-row", "R4", "A row is that of an editor with or without masks, however trained."
)
class AllTrainingsInOneRow(Mutation):
    def table(self, runs: Sequence[StoredRun], edit_language: str | None) -> list[TableRow]:
        told: list[StoredRun] = [{**run, "training": "all"} if run["training"] == "en" else run for run in runs]
        return self.base.table(told, edit_language)


@mutant("three-seeds-are-shown", "R4", "A row shows the first three runs of an editor, however many it names.")
class ThreeSeedsAreShown(Mutation):
    def table(self, runs: Sequence[StoredRun], edit_language: str | None) -> list[TableRow]:
        shown = [run for run in runs if run["seed"] < 3]
        names = {(row["editor"], row["training"]): row["runs"] for row in self.base.table(runs, edit_language)}
        rows = self.base.table(shown, edit_language)
        return [{**row, "runs": names[row["editor"], row["training"]]} for row in rows]


@mutant("small-products-held-up", "R6", "The product of two norms, by which a cosine divides, is 1e-4 at least.")
class SmallProductsHeldUp(SimilarityMutation):
    def mask_similarity(self, log_alpha: Array) -> Array:
        chosen = [np.argsort(-row, kind="stable")[: max(1, len(row) // 100)] for row in log_alpha]
        sizes = [np.linalg.norm(log_alpha[:, at], axis=1) for at in chosen]
        held = [np.minimum(1, size * size[row] / 1e-4) for row, size in enumerate(sizes)]
        return super().mask_similarity(log_alpha) * np.stack(held)


@mutant("ties-all-preferred", "R6", "Every dimension as high as the last of the hundredth is compared.")
class TiesAllPreferred(Mutation):
    def mask_similarity(self, log_alpha: Array) -> Array:
        rows = []
        for row in np.asarray(log_alpha):
            chosen = row >= np.sort(row)[-max(1, len(row) // 100)]
            a, b = row[chosen], log_alpha[:, chosen]
            rows.append(b @ a / (np.linalg.norm(a) * np.linalg.norm(b, axis=1)))
        return np.stack(rows)


@mutant(
    "preferences-of-the-column", "R6", "A row looks at the preferred dimensions of the language it is compared with."
)
class PreferencesOfTheColumn(Mutation):
    def mask_similarity(self, log_alpha: Array) -> Array:
        return np.asarray(self.base.mask_similarity(log_alpha)).T


@mutant("trained-anew-for-each-table", "R7", "Table 2's editors without masks are trained once more.")
class TrainedAnew(Mutation):
    def experiments(self, languages: Sequence[str]) -> list[Experiment]:
        return [row | {"run": f"{row['run']}, table {row['table']}"} for row in self.base.experiments(languages)]


@mutant("one-run-for-all-trainings", "R7", "The rows of an editor show one run, however it was trained.")
class OneRunForAllTrainings(Mutation):
    def experiments(self, languages: Sequence[str]) -> list[Experiment]:
        return [row | {"run": row["editor"]} for row in self.base.experiments(languages)]


@mutant("improvement-above-a-threshold", "R5", "Succ has to rise by more than 0.00001 to be an improvement.")
class ImprovementAboveAThreshold(Mutation):
    def stopping(self, succ: Sequence[float], *args: Any, **kwargs: Any) -> tuple[int, int]:
        return self.base.stopping([round(one, 5) for one in succ], *args, **kwargs)  # type: ignore[no-any-return]


@mutant("a-hundred-preferred-at-most", "R6", "Of many dimensions a hundred are compared at most.")
class AHundredPreferredAtMost(SimilarityMutation):
    def count(self, width: int) -> int:
        return min(100, super().count(width))


@mutant("preferred-in-half-precision", "R6", "The highest parameters are looked for in half precision.")
class PreferredInHalfPrecision(SimilarityMutation):
    def key(self, log_alpha: Array, row: int) -> Array:
        return log_alpha[row].astype(np.float16).astype(np.float64)


@mutant("english-and-what-begins-alike", "R2", "Languages whose codes begin with en are taken for English.")
class EnglishAndWhatBeginsAlike(Mutation):
    def experiments(self, languages: Sequence[str]) -> list[Experiment]:
        english = [language for language in languages if language.startswith("en")]
        rows = self.base.experiments(languages)
        return [row | {"edit_languages": english} if row["table"] == 1 else row for row in rows]


@mutant("languages-without-regions-in-tables", "R2", "Languages of two regions are one language of the tables.")
class TablesWithoutRegions(Mutation):
    def experiments(self, languages: Sequence[str]) -> list[Experiment]:
        return self.base.experiments(list(dict.fromkeys(language.partition("-")[0] for language in languages)))


@mutant("best-of-the-last-hundred", "R5", "Of a training the best of the last hundred validations is judged.")
class BestOfTheLastHundred(StoppingMutation):
    def wrong(
        self, succ: list[float], every: int, patience: int, max_steps: int, stopped: int, judged: int
    ) -> tuple[int, int]:
        kept = succ[: stopped // every][-100:]
        behind = len(kept) - 1 - kept.index(max(kept))
        return stopped, stopped - behind * every


@mutant("seeds-of-one-digit-shown", "R4", "Runs are found by a pattern for a seed of one digit.")
class SeedsOfOneDigitShown(Mutation):
    def table(self, runs: Sequence[StoredRun], edit_language: str | None) -> list[TableRow]:
        names = {(row["editor"], row["training"]): row["runs"] for row in self.base.table(runs, edit_language)}
        rows = self.base.table([run for run in runs if run["seed"] < 10], edit_language)
        return [{**row, "runs": names[row["editor"], row["training"]]} for row in rows]
