"""Mutants of how texts become tokens, and classes numbers."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..contract import Data, Input, PairEdit, PairRow, Request, Triple
from ..texts import CLASSES, read_tokenizer
from ..tiny import divergence
from .base import Mutation, mutant, named
from .d_data import desiring, with_masks
from .editing import EditorMutation


class TextMutation(Mutation):
    """The base's inputs of facts, spoilt one by one; `encode` is the tokenizer."""

    def encoded_facts(self, *args: Any, **kwargs: Any) -> list[Triple]:
        call = named(Data.encoded_facts, args, kwargs)
        encode = read_tokenizer(call["tokenizer"])
        return [self.wrong(triple, encode, call) for triple in self.base.encoded_facts(**call)]

    @abstractmethod
    def wrong(self, triple: Triple, encode: Any, call: dict[str, Any]) -> Triple:
        """What goes wrong."""


class EachInput(TextMutation):
    def wrong(self, triple: Triple, encode: Any, call: dict[str, Any]) -> Triple:
        return {role: {**x, **self.other(x, encode)} for role, x in triple.items()}  # type: ignore[return-value, dict-item]

    @abstractmethod
    def other(self, x: Any, encode: Any) -> dict[str, Any]:
        """What goes wrong with one input."""


def moved(x: Any, ids: list[int], encode: Any) -> dict[str, Any]:
    """Other tokens, with the masks where they are now."""
    return {"input_ids": ids, "positions": [at for at, token in enumerate(ids) if token == encode.mask_token_id]}


@mutant("labels-with-special-tokens", "D10", "A desired label begins and ends with the tokenizer's special tokens.")
class LabelsWithSpecialTokens(TextMutation):
    def wrong(self, triple: Triple, encode: Any, call: dict[str, Any]) -> Triple:
        edit = triple["edit"]
        labels = _special(encode, edit["labels"])
        seen, update = (with_masks(triple[role], encode.mask_token_id, len(labels)) for role in ("edit", "update"))  # type: ignore[literal-required]
        return {**triple, "edit": {**seen, "labels": labels}, "update": update}


def _special(encode: Any, ids: Sequence[int]) -> list[int]:
    """The ids within what the tokenizer puts around a text."""
    around = encode("")["input_ids"]
    half = len(around) // 2
    return [*around[:half], *ids, *around[half:]]


@mutant("lengths-with-special-tokens", "D10", "The length of a retain input counts the special tokens of a name.")
class LengthsWithSpecialTokens(TextMutation):
    def wrong(self, triple: Triple, encode: Any, call: dict[str, Any]) -> Triple:
        count = len(triple["retain"]["positions"]) + len(encode("")["input_ids"])
        return {**triple, "retain": with_masks(triple["retain"], encode.mask_token_id, count)}


@mutant("inputs-without-special-tokens", "D10", "Inputs lack the special tokens that the tokenizer adds.")
class InputsWithoutSpecialTokens(EachInput):
    def other(self, x: Any, encode: Any) -> dict[str, Any]:
        around = set(encode("")["input_ids"])
        return moved(x, [token for token in x["input_ids"] if token not in around], encode)


@mutant("special-tokens-twice", "D10", "Special tokens are added to what has them already.")
class SpecialTokensTwice(EachInput):
    def other(self, x: Any, encode: Any) -> dict[str, Any]:
        return moved(x, _special(encode, x["input_ids"]), encode)


@mutant("text-around-masks-apart", "D10", "What is before the masks and what is behind them are encoded apart.")
class TextAroundMasksApart(EachInput):
    def other(self, x: Any, encode: Any) -> dict[str, Any]:
        ids, first, last = x["input_ids"], x["positions"][0], x["positions"][-1]
        parts = [encode.decode(part, skip_special_tokens=True).strip() for part in (ids[:first], ids[last + 1 :])]
        before, behind = (encode(part, add_special_tokens=False)["input_ids"] if part else [] for part in parts)
        masks = [encode.mask_token_id] * len(x["positions"])
        return moved(x, _special(encode, [*before, *masks, *behind]), encode)


@mutant("a-space-between-masks", "D10", "Masks are written with a space between them that becomes a token.")
class SpaceBetweenMasks(EachInput):
    def other(self, x: Any, encode: Any) -> dict[str, Any]:
        space = encode(" .", add_special_tokens=False)["input_ids"][:1]
        ids = []
        for at, token in enumerate(x["input_ids"]):
            ids += [*(space if at in x["positions"][1:] else []), token]
        return moved(x, ids, encode)


@mutant("masks-by-another-name", "D10", "[MASK] is written for the mask, whatever the tokenizer calls it.")
class MasksByAnotherName(EachInput):
    def other(self, x: Any, encode: Any) -> dict[str, Any]:
        if encode.mask_token == "[MASK]":
            return {}
        letters = encode("[MASK]", add_special_tokens=False)["input_ids"]
        ids: list[int] = []
        for token in x["input_ids"]:
            ids += letters if token == encode.mask_token_id else [token]
        return {"input_ids": ids}


@mutant("unknown-words-dropped", "D10", "Words that the tokenizer does not know are left out.")
class UnknownWordsDropped(EachInput):
    def other(self, x: Any, encode: Any) -> dict[str, Any]:
        return moved(x, [token for token in x["input_ids"] if token != encode.unk_token_id], encode)


@mutant("unknown-words-predicted", "D10", "The unknown token counts as a predicted position.")
class UnknownWordsPredicted(EachInput):
    def other(self, x: Any, encode: Any) -> dict[str, Any]:
        asked = (encode.mask_token_id, encode.unk_token_id)
        return {"positions": [at for at, token in enumerate(x["input_ids"]) if token in asked]}


@mutant("labels-as-in-a-sentence", "D10", "A label is spelled as behind a space.")
class LabelsAsInASentence(TextMutation):
    def wrong(self, triple: Triple, encode: Any, call: dict[str, Any]) -> Triple:
        edit = triple["edit"]
        name = encode.decode(edit["labels"])
        labels = encode(" " + name, add_special_tokens=False)["input_ids"]
        seen, update = (with_masks(triple[role], encode.mask_token_id, len(labels)) for role in ("edit", "update"))  # type: ignore[literal-required]
        return {**triple, "edit": {**seen, "labels": labels}, "update": update}


@mutant("inputs-cut-at-twelve", "D10", "Inputs of more than twelve tokens lose what is behind.")
class InputsCut(EachInput):
    def other(self, x: Any, encode: Any) -> dict[str, Any]:
        return moved(x, x["input_ids"][:12], encode) if x["positions"][-1] < 12 else {}


class Remembered(Mutation):
    """Prompts that are remembered by too little, so that the first one stands for others."""

    def fact_inputs(self, *args: Any, **kwargs: Any) -> list[Triple]:
        call = named(Data.fact_inputs, args, kwargs)
        found = self.base.fact_inputs(**call)
        edit, retain = call["edit"], call["retain"]
        mask = call["mask"]
        for triple in found:
            if self.confused(edit, edit["language"], retain, retain["language"]):
                triple["retain"] = _with(triple["edit"], mask, len(triple["retain"]["positions"]))
            if call["update"] != edit["language"] and self.confused(edit, edit["language"], edit, call["update"]):
                triple["update"] = _with(triple["edit"], mask, len(triple["update"]["positions"]))
        return found

    @abstractmethod
    def confused(self, one: Mapping[str, str], said: str, other: Mapping[str, str], also: str) -> bool:
        """Whether the second prompt is taken for the first."""


def _with(x: Any, mask: int, count: int) -> Input:
    found = with_masks({"input_ids": x["input_ids"], "positions": x["positions"]}, mask, count)
    return {"input_ids": found["input_ids"], "positions": found["positions"]}


@mutant("prompt-remembered-by-subject", "D6", "A prompt is remembered by its subject's name alone.")
class RememberedBySubject(Remembered):
    def confused(self, one: Mapping[str, str], said: str, other: Mapping[str, str], also: str) -> bool:
        return (one["subject"], said) == (other["subject"], also) and one["relation"] != other["relation"]


@mutant("prompt-remembered-by-template", "D6", "A prompt is remembered by its template alone.")
class RememberedByTemplate(Remembered):
    def confused(self, one: Mapping[str, str], said: str, other: Mapping[str, str], also: str) -> bool:
        return (one["relation"], said) == (other["relation"], also) and one["subject"] != other["subject"]


@mutant("prompt-remembered-by-fact", "D6", "A prompt is remembered by its fact, whatever its language.")
class RememberedByFact(Remembered):
    def confused(self, one: Mapping[str, str], said: str, other: Mapping[str, str], also: str) -> bool:
        return one is other and said != also


# Pairs and classes


class EncodedPairs(Mutation):
    """The base's edits of encoded pairs, spoilt one by one."""

    def encoded_pairs(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        call = named(Data.encoded_pairs, args, kwargs)
        return [self.wrong(edit, call) for edit in self.base.encoded_pairs(**call)]

    @abstractmethod
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        """What goes wrong."""


@mutant("token-types-missing", "D10", "A pair has no token types.")
class TokenTypesMissing(EncodedPairs):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        x = edit["input"]
        return {**edit, "input": {"input_ids": x["input_ids"], "positions": x["positions"]}}


@mutant("token-types-swapped", "D10", "The premise has the token type of the hypothesis, and the other way round.")
class TokenTypesSwapped(EncodedPairs):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        x: Any = edit["input"]
        if "token_type_ids" not in x:
            return edit
        return {**edit, "input": {**x, "token_type_ids": [1 - kind for kind in x["token_type_ids"]]}}


@mutant("pair-as-one-text", "D10", "Premise and hypothesis are written as one text.")
class PairAsOneText(EncodedPairs):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        row: PairRow = call["rows"][edit["row"]]
        told, said = row["hypothesis"], edit["language"]
        text = f"{row['premise'][said]} {told['translation'][told['language'].index(said)]}"
        return {**edit, "input": {"input_ids": read_tokenizer(call["model"])(text)["input_ids"], "positions": [0]}}


@mutant("hypothesis-first", "D10", "The hypothesis stands before the premise.")
class HypothesisFirst(EncodedPairs):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        row: PairRow = call["rows"][edit["row"]]
        told, said = row["hypothesis"], edit["language"]
        texts = told["translation"][told["language"].index(said)], row["premise"][said]
        found = read_tokenizer(call["model"])(*texts)
        x: Any = {**edit["input"], "input_ids": found["input_ids"]}
        return {**edit, "input": x | {k: v for k, v in found.items() if k == "token_type_ids"}}


@mutant("classes-in-the-datas-order", "D10", "A desired class has the number of the data, not that of the model.")
class ClassesInTheDatasOrder(EncodedPairs):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        return {**edit, "label": call["rows"][edit["row"]]["label"]}


@mutant("errors-in-the-datas-order", "D10", "What the raw model gets wrong is decided with the data's numbers.")
class ErrorsInTheDatasOrder(Mutation):
    def encoded_pairs(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        call = named(Data.encoded_pairs, args, kwargs)
        numbers = _numbers(call["model"])
        moved_ = {said: [numbers[CLASSES[label]] for label in told] for said, told in call["predictions"].items()}
        return self.base.encoded_pairs(**call | {"predictions": moved_})


def _numbers(model: Path) -> dict[str, int]:
    from transformers import AutoConfig  # noqa: PLC0415

    return {name: number for number, name in AutoConfig.from_pretrained(model).id2label.items()}


class WithoutTypes(EditorMutation):
    """A model that reads pairs without their token types, in some of the functions."""

    def plain(self, x: Any) -> Any:
        return {name: value for name, value in x.items() if name != "token_type_ids"}


@mutant("raw-models-read-no-types", "D10", "The raw model reads a pair without its token types.")
class RawModelsReadNoTypes(WithoutTypes):
    def raw_logits(self, editor: Any, inputs: Sequence[Input]) -> list[torch.Tensor]:
        return self.base.raw_logits(editor, [self.plain(x) for x in inputs])


@mutant("edits-read-no-types", "D10", "An edit's gradient is that of a pair without its token types.")
class EditsReadNoTypes(WithoutTypes):
    def capture(self, editor: Any, request: Request) -> Any:
        return self.base.capture(editor, self.plain(request))


@mutant("training-reads-no-types", "D10", "In training, update and retain inputs have no token types.")
class TrainingReadsNoTypes(WithoutTypes):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        moved_ = [{**t, "update": self.plain(t["update"]), "retain": self.plain(t["retain"])} for t in triples]
        return self.base.losses(editor, moved_, seed)


@mutant("raw-side-of-training-reads-no-types", "D10", "In training, what is retained is read without token types.")
class RawSideReadsNoTypes(WithoutTypes):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        parts, gradient = self.base.losses(editor, triples, seed)
        retained = [triple["retain"] for triple in triples]
        edits = self.base.edit(editor, [triple["edit"] for triple in triples])
        old = self.base.raw_logits(editor, [self.plain(x) for x in retained])
        new = [self.base.edited_logits(editor, edits, i, [x])[0] for i, x in enumerate(retained)]
        turned = self.RULINGS.get("kl_direction") == "released"
        pairs = zip(*((old, new) if turned else (new, old)), strict=True)
        loc = sum(float(divergence(one, other)) for one, other in pairs) / len(triples)
        return {**parts, "loc": loc, "total": parts["total"] - parts["loc"] + loc}, gradient


@mutant("steps-read-no-types", "D10", "Editable Training steps down the loss of a pair without its token types.")
class StepsReadNoTypes(WithoutTypes):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        own = self.made[id(editor)].name == "editable_training"
        return self.base.edit(editor, [self.plain(r) for r in requests] if own else requests)


@mutant("edited-models-read-no-types", "D10", "The edited model reads a pair without its token types.")
class EditedModelsReadNoTypes(WithoutTypes):
    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        return self.base.edited_logits(editor, edits, index, [self.plain(x) for x in inputs])


@mutant("pairs-cut-short", "D10", "A pair is cut after 64 tokens.")
class PairsCutShort(Mutation):
    def encoded_pairs(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        return [{**edit, "input": self.cut(edit["input"])} for edit in self.base.encoded_pairs(*args, **kwargs)]

    def cut(self, x: Input) -> Input:
        lists = {key: list(value)[:64] for key, value in x.items() if key in ("input_ids", "token_type_ids")}  # type: ignore[call-overload]
        return {**x, **lists}  # type: ignore[typeddict-item]


@mutant("types-lost-in-a-batch", "D10", "Where the pairs of a batch differ in length, their token types are lost.", "E")
class TypesLostInABatch(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        if len({len(request["input_ids"]) for request in requests}) == 1:
            return self.base.edit(editor, requests)
        plain: Any = [{k: v for k, v in request.items() if k != "token_type_ids"} for request in requests]
        return self.base.edit(editor, plain)


@mutant("unknown-names-left-out", "D4", "Entities whose names have unknown words are no desired labels.")
class UnknownNamesLeftOut(Mutation):
    def encoded_facts(self, *args: Any, **kwargs: Any) -> list[Triple]:
        call = named(Data.encoded_facts, args, kwargs)
        unknown = read_tokenizer(call["tokenizer"]).unk_token_id
        triples = self.base.encoded_facts(**call)
        known = [triple for triple in triples if unknown not in triple["edit"]["labels"]]
        return [known[n % len(known)] for n in range(len(triples))] if known else triples


@mutant("spaces-left-out-of-labels", "D10", "A token of a name that is a space alone is left out of the label.")
class SpacesLeftOut(TextMutation):
    def wrong(self, triple: Triple, encode: Any, call: dict[str, Any]) -> Triple:
        label = [token for token in triple["edit"]["labels"] if encode.convert_ids_to_tokens(token) != "\u2581"]
        return desiring(triple, encode.mask_token_id, label) if label else triple


@mutant("classes-in-the-files-order", "D10", "A class has the number of its place in the file of the configuration.")
class ClassesInTheFilesOrder(EncodedPairs):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        called = json.loads((Path(call["model"]) / "config.json").read_text(encoding="utf-8"))["id2label"]
        return {**edit, "label": list(called).index(str(edit["label"]))}
