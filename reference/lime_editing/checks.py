"""Checks of what a user gives to the Python API: each returns the first fault as a sentence, or None.

`refuse` raises what they find. They only lead to errors, so neither they nor its calls are part of the code digest.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from pathlib import Path, PurePosixPath
from reprlib import repr as _short
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints
from unicodedata import category, normalize

from .errors import UserError

#: One of several files of a table or of weights: its number, and how many there are.
SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.)")
_TABLE = re.compile(r"\.(parquet|jsonl|tsv|csv|arrow)(\.gz)?$", re.IGNORECASE)  # a table, by its name
_READ = re.compile(rf"{_TABLE.pattern}|\.zip$", re.IGNORECASE)  # what a folder without tables is read from
#: How a file begins that is packed: what it is, and the end of its name.
_PACKED = {b"\x1f\x8b": ("gzip", ".gz"), b"PK\x03\x04": ("a zip archive or a spreadsheet", ".zip")}
_LAYER = re.compile(r"\.(?:layers?|h)\.(\d+)\.")
LARGEST = 1e30  # a setting's number; a larger one is infinite in float32 after a few products
#: Numbers of settings and schedules that must be above 0. Others may be 0; only a layer may be negative.
POSITIVE = (
    *("lr", "inner_lr", "rank", "lstm", "hidden", "max_scale", "steps", "series", "largest", "ridge", "clip"),
    *("n_update", "n_retain", "edits", "pairs", "epochs", "batch"),  # of evaluations, trainings and a fine-tuning
)
#: The functions that make a record.
_MAKERS = {"Backbone": "load or wrap", "Editor": "make_editor", "Update": "edit or compose", "Counts": "count"}


def refuse(kind: type[UserError], *faults: str | Literal[False] | None, at: object = None, whose: str = "") -> None:
    """Raise the first fault as a `kind`, after the place that it is `at`. A fault that cannot be asked for is False."""
    for fault in filter(None, faults):
        raise kind(f"{whose}{fault}" if at is None else f"{at}: {fault}")


def shown(value: Any) -> str:
    return " ".join(_short(value).split())


def of_record(record: Any) -> str | None:
    """Fields of a record that are not of their kind or out of range. A plug-in's numbers may have any range."""
    own, kinds = type(record).__module__.startswith(f"{__package__}."), _kinds(record.__class__)
    for name in (field.name for field in fields(record)):
        above = name in POSITIVE if own and name != "layer" else None
        if wrong := _of_value(name, getattr(record, name), kinds.get(name), above):
            return wrong
    return None


def of_arguments(function: Callable[..., Any], given: Mapping[str, Any], *some: str) -> str | None:
    """Arguments of a function that its annotations do not allow, and empty lists for `some` of them.

    `given` are the function's locals at its start. What has no plain kind, such as a Task, is not looked at.
    """
    for name, kind in _kinds(function).items():
        if name in given and (wrong := _of_value(name, given[name], kind, name in ("batch", "chunk", "clip"))):
            return wrong
    empty = [name for name in some if not given[name]]
    return f"there are no {empty[0]}; give at least one" if empty else None


def _of_value(name: str, value: Any, kind: Any, above: bool | None) -> str | None:
    """A value that an annotation does not allow, or (`above`, as of `of_number`) that is out of range."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None and NoneType in kinds:
        return None
    kind, *more = (one for one in kinds if one is not NoneType)
    listed, wrong = get_args(kind)[0] if get_origin(kind) is Sequence else None, None
    if is_dataclass(kind):
        wrong = of_kind(value, (kind, *more), name)
    elif kind is int and name == "seed":
        wrong = of_seed(value)
    elif kind in (int, float) and not more:
        wrong = of_number(name, value, kind is int, above)
    elif kind is str and not more:
        wrong = of_texts(**{name: value})
    elif get_origin(kind) is Literal:
        wrong = of_choice(name, value, kind)
    elif listed is str:
        wrong = of_names(value, name)
    elif is_dataclass(listed):
        wrong = of_list(value, listed, name)
    elif (kind is bool and not isinstance(value, bool)) or (get_origin(kind) is Callable and not callable(value)):
        wrong = f"{name} must be {'true or false' if kind is bool else 'a function'}; got {value!r}"
    return wrong


def of_choice(name: str, value: Any, kind: Any) -> str | None:
    return None if value in get_args(kind) else f"{name} must be one of {', '.join(get_args(kind))}; got {value!r}"


@cache
def _kinds(kind: Any) -> Mapping[str, Any]:
    try:
        return get_type_hints(kind)
    except NameError:  # of a plug-in: a name that is imported for type checkers alone
        return {}


def of_inputs(inputs: Sequence[Any], what: str = "input", padded: bool = False) -> str | None:
    """Inputs that cannot be read. Only an evaluation may ask beyond an input's end, for padding (clause M7)."""
    for i, one in enumerate(inputs):
        if other := _no_numbers(one.ids) or _no_numbers(one.positions) or _no_numbers(one.types):
            return f"{what} {i} must have its tokens, positions and types as tuples of whole numbers; got {other}"
        if not one.ids or not one.positions:
            return f"{what} {i} has no {'predicted positions' if one.ids else 'tokens'}"
        if min(one.positions) < 0 or len(one.types) not in (0, len(one.ids)):
            return f"{what} {i} has a negative position, or another number of token types than of tokens: {shown(one)}"
        if max(one.positions) >= len(one.ids) and not padded:
            return f"{what} {i} has the positions {shown(one.positions)}, but only {len(one.ids)} tokens"
    return None if inputs else "there are no inputs; give at least one"


def _no_numbers(values: Any) -> str | None:
    if not isinstance(values, (tuple, list)):
        return f"one {type(values).__name__} (tuple(x.tolist()) makes a tuple of an array)"
    other = [kind.__name__ for kind in {*map(type, values)} if not issubclass(kind, Integral)]
    return f"{shown(values)}, with {other[0]} in it" if other else None


def of_list(value: Any, kind: Any, what: str) -> str | None:
    """A value that is no list of objects of this kind."""
    if isinstance(value, kind) or not isinstance(value, Sequence):
        return f"{what} must be a list of {kind.__name__}; got {'one' if isinstance(value, kind) else shown(value)}"
    other = [one for one in value if not isinstance(one, kind)]
    return f"{what} must be a list of {kind.__name__}; got {shown(other[0])} in it" if other else None


def of_kind(value: Any, kinds: tuple[Any, ...], what: str) -> str | None:
    """A value that is of none of these classes."""
    if isinstance(value, kinds):  # a step of a training asks this, and what is shown takes long
        return None
    classes, maker = " or ".join(kind.__name__ for kind in kinds), _MAKERS.get(kinds[0].__name__)
    return f"{what} must be of the class {classes}; got {shown(value)}{f'; {maker} makes one' if maker else ''}"


def of_texts(**given: Any) -> str | None:
    """Arguments that are no texts, or are texts that no file can hold; a language is not empty, either."""
    for name, value in given.items():
        if not isinstance(value, str) or (name == "language" and not value):
            return f"{name} must be a {'non-empty ' * (name == 'language')}text; got {shown(value)}"
        if not value.isascii() and re.search("[\ud800-\udfff]", value):
            return f"{name} must be Unicode text; {value!r} has half of a character"
    return None


def of_names(value: Any, what: str = "languages", again: bool = False) -> str | None:
    """A value that is no list of names, or has one twice. A set has no order that every process has."""
    listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if not listed or not all(isinstance(one, str) and one for one in value):
        return f"{what} must be a list of languages, such as ['en', 'fr']; got {shown(value)}"
    twice = [] if again else [name for name, count in Counter(value).items() if count > 1]
    return f"{what} has {twice[0]!r} twice; give each once" if twice else None


def of_seed(seed: Any, *place: Any) -> str | None:
    """A seed, or a place in its draws, that has another `repr` than its number or text: it would draw other numbers."""
    if type(seed) is not int or not -(2**63) <= seed < 2**64:
        return f"a seed must be a plain int of 64 bits, such as int(seed); got {seed!r}"
    other = [one for one in place if type(one) is not str and type(one) is not int]
    return f"a draw's place must be plain int and str; got {other[0]!r}" if other else None


def of_number(name: str, value: Any, whole: bool = False, above: bool | None = False) -> str | None:
    """A number that is none, or out of range: `above` 0, or (False) 0 or more. None: any."""
    right: Any = Integral if whole else Real
    number = isinstance(value, right) and not isinstance(value, bool) and abs(value) < LARGEST
    if number and (above is None or value > 0 or (value == 0 and not above)):
        return None
    limit = "" if above is None else " above 0" if above else " of 0 or more"
    return f"{name} must be a {'whole' if whole else 'finite'} number{limit}; got {value!r}"


def of_step(editor: Any, optimiser: Any) -> str | None:
    """An optimiser that steps none of the editor's parameters."""
    if not editor.method.TRAINED:
        return f"{editor.method.NAME} is not trained; use it without a training"
    own = {id(parameter) for parameter in editor.parameters.values()}
    other = own.isdisjoint(id(one) for group in getattr(optimiser, "param_groups", ()) for one in group["params"])
    told = f"the optimiser must have the editor's parameters; got {type(optimiser).__name__} without them"
    return told if other else None


def of_parameters(given: Any) -> str | None:
    """What a plug-in's `init` gives that is no tensor by name, or has a name like a mask's."""
    tensors = isinstance(given, dict) and all(hasattr(one, "is_floating_point") for one in given.values())
    if not tensors or not all(one.is_floating_point() for one in given.values()):
        return f"`init` must give a dict of tensors by name, of floating point; got {shown(given)}"
    taken = [name for name in given if name.startswith("mask.") or name.endswith("_scale")]
    rule = "no name may begin with 'mask.' or end with '_scale'"
    return f"the parameter {taken[0]!r} has a name as of masks; {rule}" if taken else None


def of_rates(given: Any) -> str | None:
    """What a plug-in's `learning_rates` gives that is no number of 0 or more by name."""
    if not isinstance(given, dict):
        return f"`learning_rates` must give a dict of numbers by name; got {shown(given)}"
    faults = (of_number(f"the learning rate of {name}", rate) for name, rate in given.items())
    return next(filter(None, faults), None)


def of_made(given: Any, requests: int) -> str | None:
    """What a plug-in's `update` gives that is no Update of one edit for each request (E8), or of none: no change."""
    edits = getattr(given, "edits", None)
    if edits in (0, requests):
        return None
    got = shown(given) if edits is None else f"{edits} for {requests}"
    return f"`update` must give an Update with one edit for each request; got {got}"


def of_reading(content: Any, languages: Sequence[str] | None) -> str | None:
    """What a data set's `read` gives that has no languages, or lacks one that was asked for."""
    if not hasattr(content, "languages") or not hasattr(content, "__len__"):
        return f"`read` must give content with languages and a length; got {shown(content)}"
    lacks = [language for language in languages or () if language not in content.languages]
    return f"unknown language {lacks[0]!r}; known: {', '.join(content.languages)}" if lacks else None


def of_tokenizer(tokenizer: Any, needed: str = "mask_token_id") -> str | None:
    right = callable(tokenizer) and hasattr(tokenizer, needed)
    return None if right else f"give a tokenizer, as of load_tokenizer; got {shown(tokenizer)}"


def of_task(task: Any) -> str | None:
    right = hasattr(task, "request") and hasattr(task, "corpus")
    return None if right else f"task must be one split of a data set, as of Dataset.tasks; got {shown(task)}"


def of_requests(requests: Sequence[Any], backbone: Any) -> str | None:
    """Requests whose labels, positions and parallels do not belong together."""
    model, inputs = backbone.model, backbone.predicted([one.input for one in requests])
    answers = model.config.num_labels if backbone.classifies else model.get_input_embeddings().num_embeddings
    if wrong := of_inputs(inputs, "the input of request"):
        return wrong
    for i, one in enumerate(requests):
        count = len(inputs[i].positions)
        if other := _no_numbers(one.labels):
            return f"request {i} must have its labels as a tuple of whole numbers; got {other}"
        if len(one.labels) != count or any(label not in range(answers) for label in one.labels):
            has = f"the labels {shown(one.labels)} and {count} predicted positions"
            return f"request {i} has {has}; give one number below {answers} for each position"
        if not backbone.classifies and any(len(parallel.positions) != count for parallel in one.parallels):
            return f"request {i} has a parallel with another number of predicted positions than its input"
    return None


def of_files(names: Iterable[str], first: int = 0) -> str | None:
    """Files of a set, such as `train-00000-of-00002.parquet`, of which others are not there. `first`: its number."""
    known = {name: SHARD.split(name, 1) for name in names if SHARD.search(name)}
    sets = {(before, after, count): name for name, (before, _, count, after) in known.items()}
    for (before, after, count), name in sets.items():
        others = [other for key, other in sets.items() if key[:2] == (before, after) and other != name]
        if others and not first:  # of weights, the index says which are read
            return f"{name} and {others[0]} are parts of two uploads, and both would be read; remove those of one"
        parts = [f"{before}-{i:05}-of-{count}{after}" for i in range(first, first + int(count))]
        if missing := [part for part in parts if part not in known]:
            told = f"{len(parts) - len(missing)} of its {len(parts)} files are"
            return f"{missing[0]} is not there, and {told}; download it, too"
    return None


def of_folder(path: str | os.PathLike[str]) -> str | None:
    """A folder below the path that cannot be read, or a link to one elsewhere: tables in it would be left out."""
    errors, root = list[OSError](), Path(path).resolve()
    found = [*os.walk(path, onerror=errors.append)]
    read = _TABLE if any(_TABLE.search(name) for *_, names in found for name in names) else _READ
    links = (Path(folder, name) for folder, below, _ in found for name in below if not name.startswith((".", "__")))
    for link in filter(Path.is_symlink, links):
        there = link.resolve()
        apart = not there.is_relative_to(root) and not root.is_relative_to(there)
        if apart and any(read.search(name) for *_, names in os.walk(there) for name in names):
            return f"{link}: is a link to {there}, which is not followed; copy that folder here, or name it"
    return f"{errors[0].filename}: cannot be read ({errors[0].strerror}); change its permissions" if errors else None


def of_special(facts: Iterable[Any], tokenizer: Any) -> str | None:
    """A name in facts that contains a special token, which the tokenizer would read as such."""
    tokens = special(tokenizer)
    told = ((fact, of_plain(tokens, sub_label=fact.sub_label, obj_label=fact.obj_label)) for fact in facts)
    return next((f"{fact.source}: {fault}" for fact, fault in told if fault), None)


def of_plain(tokens: Iterable[str], **given: str) -> str | None:
    found = ((name, told, token) for name, told in given.items() for token in tokens if token in told)
    return next((f"{name} {told!r} contains the special token {token}; remove it" for name, told, token in found), None)


def special(tokenizer: Any) -> list[str]:
    """The tokens that a tokenizer reads as its own signs, such as [SEP], and not as words; the mask is meant as one."""
    known = getattr(tokenizer, "all_special_tokens", ())
    return [token for token in known if token != tokenizer.mask_token]


def unread(tokenizer: Any, text: str) -> str | None:
    """What a tokenizer does not read as it is written: the name of a special token, or words that it cannot spell."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    words = [word for word in text.split() if unknown in tokenizer(word, add_special_tokens=False)["input_ids"]]
    told = f"the tokenizer cannot spell {', '.join(words[:5])}, and reads {getattr(tokenizer, 'unk_token', '')} there"
    return of_plain(special(tokenizer), text=text) or (f"{told}{spellable(tokenizer, words[0])}" if words else None)


def of_code(language: str) -> str | None:
    """A language code with a sign that nobody sees, or that ids and the command line use as a separator."""
    wrong = any(char in ",/" or char.isspace() or category(char)[0] == "C" for char in language)
    return f"language {language!a} must be a code without spaces, commas, slashes and hidden signs" if wrong else None


def of_layout(names: Iterable[str]) -> str | None:
    """A table in a language folder of mLAMA's layout that is not read there, and has no copy that is."""
    known = [PurePosixPath(name) for name in names]
    roots = {path.parent.parent for path in known if path.name.lower() in ("templates.jsonl", "templates.jsonl.gz")}
    spoken = {path.parent for path in known if re.search(r"\.jsonl(\.gz)?$", path.name, re.IGNORECASE)}
    for path in (path for path in known if path.parent.name and path.parent.parent in roots and path.parent in spoken):
        plain = path.with_name(f"{_TABLE.sub('', path.name)}.jsonl")
        if _TABLE.search(path.name) and path.suffix != ".jsonl" and plain not in known:
            remedy = f"unpack it, or rename it to {plain.name}"
            return f"{path} is not read in mLAMA's layout, which has only .jsonl; {remedy}"
    return None


def of_content(name: str, start: bytes) -> str | None:
    """A file that is packed, which its name does not say."""
    for begins, (what, end) in _PACKED.items():
        if start.startswith(begins) and not name.lower().endswith(end):
            return f"is {what}; name it {PurePosixPath(name).name}{end}, or unpack it"
    return None


def of_columns(names: Iterable[str]) -> str | None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    return f"column {twice[0]!r} occurs twice; rename one" if twice else None


def of_tables(files: Mapping[str, Any]) -> str | None:
    """A table, {path: split}, that a word in its name sets apart from its split's own in that folder: dev_hard, dev."""
    names = {path: re.findall("[a-z]+", _TABLE.sub("", PurePosixPath(path).name.lower())) for path in files}
    words = {path: [word for word in found if len(word) > 3 or word == "dev"] for path, found in names.items()}
    plain = (path for path in sorted(files, key=len, reverse=True) if len(words[path]) == 1)
    own = {(PurePosixPath(path).parent, files[path]): path for path in plain}  # of several the shortest
    for path, split in files.items():
        if split and len(words[path]) > 1 and (beside := own.get((PurePosixPath(path).parent, split))):
            return f"{path} and {beside} would both be read as split {split!r}; move one elsewhere, or join them in one"
    return None


def of_parts(files: Mapping[str, str], names: Sequence[str], spelled: Callable[[str], str]) -> str | None:
    """Tables in XNLI's schema, {path: split}, without rows, or with other orders of classes. `names`: if unnamed."""
    first = orders = ""
    for path, split in files.items():
        others = [other for other, own in files.items() if own == split and other != path]
        if others and PurePosixPath(path).name == "state.json":
            both = f"{path} and {others[0]} both hold split {split!r}"
            return f"{both}, and a saved dataset is read alone; save them as one (concatenate_datasets), or remove one"
        with suppress(Exception):  # what is damaged is said where it is read
            rows, own = _rows_and_classes(Path(path))
            if not rows:
                return f"{path}: has no rows; remove it"
            told = ", ".join(map(spelled, own or names))
            first, orders = first or f"{path} (split {split!r})", orders or told
            if told != orders:
                both = f"the classes in the order {told}, and {first} in the order {orders}"
                return f"{path} (split {split!r}) has {both}; give all in one order (align_labels_with_mapping)"
    return None


def _rows_and_classes(path: Path) -> tuple[int, Sequence[str] | None]:
    """The number of rows (of a saved dataset: 1), and the names of the numbered labels, if the file has them."""
    from datasets import Features, load_from_disk  # noqa: PLC0415  slow to import
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415

    if path.name == "state.json":
        return 1, getattr(load_from_disk(str(path.parent)).features["label"], "names", None)
    file = ParquetFile(path)
    label = Features.from_arrow_schema(file.schema_arrow)["label"]
    unnumbered = ("names in place of numbers",) if str(label.dtype).endswith("string") else None
    return file.metadata.num_rows, getattr(label, "names", unnumbered)


def of_templates(key: tuple[str, str], one: str, here: str, other: str, there: str) -> str | None:
    """Two templates of one (language, relation), `here` and `there`."""
    if one == other:
        return None
    same = normalize("NFC", one) == normalize("NFC", other)
    remedy = "they differ in Unicode composition only: normalise the texts to NFC" if same else "keep one"
    both = f"relation {key[1]!r} has another template in {key[0]!r} than at {there}"
    return f"{here}: {both}: {one!r}, {other!r}; {remedy}"


def spellable(tokenizer: Any, text: str) -> str:
    """What to do about a text that a tokenizer cannot spell: write it in another Unicode composition, or in others."""
    for form in ("NFC", "NFD"):
        ids = tokenizer(normalize(form, text), add_special_tokens=False)["input_ids"]
        if ids and not {tokenizer.unk_token_id, tokenizer.mask_token_id} & {*ids}:
            return f": it can in the composition {form}, which unicodedata.normalize({form!r}, text) gives"
    return "; use words and letters that it knows"


def of_unused(loading: Mapping[str, Any], layers: int) -> str | None:
    """Weights that no parameter has the name of: all have a prefix, or they are of a further layer or part of one."""
    names, missing = {*loading["unexpected_keys"]}, {*loading["missing_keys"]}
    for name, prefix in sorted((m, one.removesuffix(m)) for one in names for m in missing if one.endswith(f".{m}")):
        if 2 * sum(f"{prefix}{m}" in names for m in missing) > len(missing):  # not all: tied ones are in no file
            return f"have {prefix!r} before each name, such as {prefix}{name}; remove it from the names"
    numbers = {name: int(found[1]) for name in sorted(names) if (found := _LAYER.search(name))}
    beyond = [] if any(map(_LAYER.search, missing)) else [name for name, number in numbers.items() if number >= layers]
    if beyond:
        return f"config.json has fewer layers: {beyond[0]} is in none; restore it"
    part = f"have {next(iter(numbers), '')}, and a layer of this kind of model has no such part"
    return f"{part}; merge what was added to the model, or give the model without it" if numbers else None


def of_head(config: Any, classifies: bool, missing: Sequence[str]) -> str | None:
    """A head that gives no single answer, or that the weights have and config.json does not tie to its embeddings."""
    if classifies and (config.num_labels < 2 or (config.problem_type or "").startswith(("regression", "multi_label"))):
        told = f"num_labels: {config.num_labels}, problem_type: {config.problem_type}"
        return f"a classifier must choose one of several classes, and config.json says {told}; give another"
    untied = missing and not config.tie_word_embeddings and all("decoder." in name for name in missing)
    told = "config.json says tie_word_embeddings: false, but they have no"
    return f"{told} {missing[0]}; set it to true" if untied else None


def of_case(tokenizer: Any) -> str | None:
    """A tokenizer that lower-cases text, with a vocabulary that has words in upper case, which it can never give."""
    pieces = tokenizer.get_vocab()
    cased = [piece for piece in pieces if piece.isascii() and piece.isalpha() and piece[0].isupper()][:20]
    pieced = any(piece.startswith("##") for piece in pieces)
    if not pieced or len(cased) < 20 or any(tokenizer.tokenize(piece) == [piece] for piece in cased):
        return None
    remedy = "say do_lower_case: false in its tokenizer_config.json"
    return f"it lower-cases text, and its vocabulary has words such as {cased[0]!r}; {remedy}"


def of_model(model: Any) -> str | None:
    """A model that runs its MLPs in chunks or its layers twice, or weights elsewhere, in half precision, or fixed."""
    if getattr(model.config, "chunk_size_feed_forward", 0):
        return "the model runs its MLPs in chunks; set chunk_size_feed_forward=0: the answers stay"
    if any(p.is_inference() for p in model.parameters()):
        return "the model was loaded under torch.inference_mode(), so that nothing can be edited; load it outside"
    if any(p.is_meta for p in model.parameters()):
        return "the weights are not in memory (torch's meta device, as device_map does); load it without device_map"
    if any(module.training and getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        return "gradient checkpointing is on and the model in training mode: layers run twice; call model.eval() first"
    half = next((name for name, p in model.named_parameters() if p.is_floating_point() and p.element_size() < 4), None)
    return f"the weights are not in float32 ({half}); call model.float() first" if half else None


def of_wrapping(model: Any, edited: Any, precision: Any, precisions: Any) -> str | None:
    """What cannot be wrapped: a model inside another object or with adapters, unknown layers, precisions and modes."""
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if kinds & {"OptimizedModule", "DataParallel", "DistributedDataParallel", "FullyShardedDataParallel"}:
        return f"{type(model).__name__} holds the model; give the model inside it (model.module; compiled: _orig_mod)"
    modules = model.modules() if callable(getattr(model, "modules", None)) else ()
    if any(type(module).__module__.startswith("peft.") for module in modules):
        return "the model has an adapter (PEFT) in it; give what the PeftModel's merge_and_unload() returns"
    if not hasattr(model, "base_model"):
        return f"give a loaded transformers model; got {type(model).__name__}"
    names = isinstance(edited, (list, tuple)) and edited and all(isinstance(name, str) for name in edited)
    if type(edited) is not int and not names:
        told = f"{shown(edited)} ({type(edited).__name__})"
        return f"what to edit must be a whole number of layers (an int) or a list of parameter names; got {told}"
    return of_choice("precision", precision, precisions) or of_mode()


def of_mode(trains: bool = False) -> str | None:
    import torch  # noqa: PLC0415  slow to import

    mode = "inference_mode" if torch.is_inference_mode_enabled() else "no_grad"
    if mode == "no_grad" and (torch.is_grad_enabled() or not trains):
        return None
    remedy = "" if trains else ", or use torch.no_grad(), which is fine"
    return f"torch.{mode}() is on, and this needs gradients; leave it here{remedy}"


def of_update(update: Any, raw: Mapping[str, Any], inputs: int) -> str | None:
    """An update that does not belong to the edited matrices, or does not fit the number of inputs."""
    if wrong := of_edits(update, raw):
        return wrong
    if update.edits and inputs % update.edits:
        return f"the update has {update.edits} edits; the number of inputs is {inputs}; each edit needs equally many"
    other = {*update.factors, *update.deltas, *update.weights} - {*raw}
    if other:
        return f"the update of {min(other)} is of a matrix that is not edited; edited are {', '.join(raw)}"
    return of_sum(update, raw)


def of_edits(update: Any, raw: Mapping[str, Any] = MappingProxyType({})) -> str | None:
    """Parts of an update that are no tensors, of another dtype than `raw`, or not of the shapes of its docstring."""
    import torch  # noqa: PLC0415  slow to import

    factors = [(name, part, "(E, T, n) or (E, T, m)") for name, both in update.factors.items() for part in both]
    deltas = [(name, part, "(E, m, n)") for name, part in update.deltas.items()]
    for name, part, shape in (*factors, *deltas, *((name, part, "(m, n)") for name, part in update.weights.items())):
        if not hasattr(part, "is_floating_point"):
            return f"the update of {name} is {type(part).__name__}; give a tensor, such as torch.from_numpy(array)"
        own, size = raw.get(name, part).dtype, part.dtype.itemsize
        # Under autocast a model computes in fewer bits. Asked last: torch knows autocast on some devices alone.
        half = size < own.itemsize and not torch.is_autocast_enabled(part.device.type)
        if not part.is_floating_point() or half or (size > 4) != (own.itemsize > 4):
            return f"the update of {name} is of {part.dtype}, but in the model this matrix is of {own}; convert it"
        if part.dim() != (2 if shape == "(m, n)" else 3):
            return f"the update of {name} must have the shape {shape}, for E edits; got {tuple(part.shape)}"
        if shape != "(m, n)" and len(part) not in (1, update.edits):  # one edit may be part of each other one
            return f"the update has {update.edits} edits, but {len(part)} of {name}; give as many for each matrix"
    uneven = [name for name, (u, v) in update.factors.items() if u.shape[:2] != v.shape[:2]]
    return f"the factors of {uneven[0]} must have the same edits E and tokens T" if uneven else None


def of_sum(update: Any, before: Mapping[str, Any]) -> str | None:
    """An update that cannot be added to what is `before`, {matrix: W, ΔW, θ', or a pair of lists of factors}."""
    if wrong := of_edits(update):
        return wrong
    for name, part in (*update.factors.items(), *update.deltas.items(), *update.weights.items()):
        there, here = _size(part), _size(before.get(name, part))
        if there != here:
            return f"the update of {name} is {there}, and must be {here}; take edits of one model, on its device"
    return None


def _size(value: Any) -> str:
    """The shape (m, n) of a matrix or of its factors, and the device."""
    if not isinstance(value, tuple):
        return f"{tuple(value.shape[-2:])} on {value.device}"
    u, v = (side[0] if isinstance(side, list) else side for side in value)
    return f"{(v.shape[-1], u.shape[-1])} on {u.device}"
