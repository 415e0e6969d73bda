"""Errors from what the program does not control: files, models, data, devices, packages and the network.

`border` turns any exception into one sentence: what, where, why, and what to do. This module imports nothing heavy.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from .checks import SHARD, of_files
from .errors import UserError

#: The first line of a git-lfs pointer file, which replaces a large file that is not downloaded.
POINTER = b"version https://git-lfs.github.com/spec/"
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # a hub id: `name` or `owner/name`
#: File extensions; no hub id ends with one.
FILES = re.compile(r"\.(csv|tsv|jsonl?|parquet|arrow|zip|gz|tar|tgz|txt|xml|xlsx|safetensors|bin|pt|py)", re.IGNORECASE)
#: A model source, described for messages.
MODEL = "a folder with config.json, model.safetensors and a tokenizer, or a hub id (name or owner/name)"
INDEX = "model.safetensors.index.json"  # the file beside weights in several files that names the file of each
VOCABULARY = re.compile(r"tokenizer\.json|.*vocab.*|.*\.(model|spm)|dict\.txt")  # a file with the words of a tokenizer
ADAPTER = "adapter_config.json"  # PEFT's file beside an adapter
SUPPORTED = "BERT, XLM-R, RoBERTa, CamemBERT, DistilBERT, ELECTRA, RemBERT, DeBERTa-v2/v3, mDeBERTa, ModernBERT, mmBERT"
OFFLINE = "network access is off; download it first, or run without --offline and HF_HUB_OFFLINE"
RESUMES = ", and the same command resumes"  # the end of a sentence, where a command goes on from what it has kept
ONLINE = "check the network, or name a folder of this machine"


@contextmanager
def border(
    kind: type[UserError], tried: str, look: Callable[[], str | None] = lambda: None, more: str = ""
) -> Iterator[None]:
    """Turn an exception of the block (not a UserError) into a `kind`: `tried`, the cause (see `look`), and `more`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found = None
        with suppress(Exception):  # a failing check must not hide the error
            found = look()
        raise kind(f"{tried}: {found or explain(error)}{more}") from error


def explain(error: BaseException) -> str:
    """The cause of an error in library code, with its remedy if the error is a known one."""
    known = filter(None, map(_known, _chain(error)))
    return next(known, f"{type(error).__name__}: {first_line(error)} (--debug shows where)")


def first_line(error: BaseException) -> str:
    first, *more = [*filter(None, map(str.strip, str(error).splitlines()))] or ["no reason given"]
    return " ".join([first, *more[:1]]) if first.endswith(":") else first


def recognised(file: Path, table: str, said: str) -> Iterator[str]:
    """The sentences of a TOML table whose regular expressions match the text; NAME is replaced by the match."""
    for pattern, sentence in sentences(file)[table].items():
        if found := re.search(pattern, said, re.IGNORECASE | re.MULTILINE):
            yield sentence.replace("NAME", found[0])


@cache
def sentences(file: Path) -> dict[str, dict[str, str]]:
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _say(table: str, said: str) -> str | None:
    found = next(recognised(Path(__file__).with_suffix(".toml"), table, said), None)
    network = f"it is not in the cache, and {OFFLINE}" if offline() else f"the network gives nothing; {ONLINE}"
    return found and found.replace("SUPPORTED", SUPPORTED).replace("MODEL", MODEL).replace("NETWORK", network)


def _known(one: BaseException) -> str | None:
    if isinstance(one, OSError) and (remedy := _say("system", errno.errorcode.get(one.errno or 0, "no number"))):
        return f"{f'{one.filename}: ' if one.filename else ''}{os.strerror(one.errno or 0)}; {remedy}"
    if isinstance(one, json.JSONDecodeError):
        return f"not JSON ({one.msg} at line {one.lineno}); restore the file"
    if isinstance(one, UnicodeDecodeError):
        return f"not UTF-8 text (byte {one.start}); convert it to UTF-8"
    return _say("said", f"{type(one).__module__}.{type(one).__name__}: {one}")


def offline() -> bool:
    told = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return told.upper() in ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads it


def _chain(error: BaseException | None) -> list[BaseException]:
    known: list[BaseException] = []
    while error is not None and error not in known:
        known.append(error)
        error = error.__cause__ or error.__context__
    return known


def is_pointer(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER
    return False


def pointer(path: Path | str) -> str:
    remedy = "run `git lfs pull` in its folder, or download the file"
    return f"{path} is a git-lfs pointer and not the file itself; {remedy}"


def expanded(text: str) -> Path:
    """A path with `~` of a known home. Any other `~` is part of a name, such as that of a backup."""
    return Path(os.path.expanduser(text))  # Path.expanduser fails where the user is unknown


def place(source: str | Path, kind: type[UserError], expected: str, owner: bool = False) -> str:
    """A local file or folder, with ~ expanded, or a hub id: `name` (without `owner`) or `owner/name`.

    A text that looks like a path is never sent to a hub: `kind` says what was expected.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise kind(f"got {source!r} for a path; expected {expected}")
    text = str(source)
    path = expanded(text)
    if text.strip() and os.path.lexists(path):
        if not os.path.exists(path):
            raise kind(f"{text}: is a link to {os.readlink(path)}, which is not there; correct or remove the link")
        return str(path)
    above, slash, _ = text.partition("/")
    if not HUB_ID.fullmatch(text) or FILES.fullmatch(path.suffix) or (owner and not slash):
        raise kind(f"{text or repr(text)}: no such file or folder; expected {expected}")
    if slash and Path(above).is_dir():
        raise kind(f"{text}: no such folder, though {above} is one here, so no hub id is meant; expected {expected}")
    return text


def damage(source: str, weights: bool, what: str) -> str | None:
    """What is wrong with the files of a model's folder, from which `what` is read; None if nothing is found."""
    return next(_damages(Path(source), weights, what), None)


def _damages(folder: Path, weights: bool, what: str) -> Iterator[str]:
    if folder.exists() and not folder.is_dir():
        yield f"it is a file; expected {MODEL}"
    names = [path.name for path in sorted(folder.iterdir())] if folder.is_dir() else []
    for snapshot in sorted(folder.glob("snapshots/*/config.json"))[:1]:
        yield f"it is a folder of the hub's cache, which keeps files elsewhere; give {snapshot.parent}"
    for path in (folder / name for name in names):
        read = weights if path.suffix == ".safetensors" else path.suffix == ".json" or VOCABULARY.fullmatch(path.name)
        if read and not path.exists():
            yield f"{path}: is a link to a file that is not there; download it again"
        if read and not os.access(path, os.R_OK):
            yield f"{path}: cannot be read; change its permissions"
        if is_pointer(path):
            yield pointer(path)
        if path.suffix == ".json":
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                yield f"{path}: {explain(error)}"
                continue
            for shard in told.get("weight_map", {}).values() if weights and path.name.endswith(".index.json") else ():
                if shard not in names:
                    yield f"{shard} is not in it, which {path.name} names; download it again"
    yield from _of_weights(folder, names) if weights else _of_words(names, what)


def _of_weights(folder: Path, names: Sequence[str]) -> Iterator[str]:
    tensors = [name for name in names if name.endswith(".safetensors") and not name.startswith("adapter_model.")]
    if lack := of_files(tensors, 1):
        yield lack
    if any(SHARD.search(name) for name in tensors) and not {"model.safetensors", INDEX} & {*names}:
        yield f"{INDEX} is not in it, which says where each weight is; download it, too"
    if names and not {"model.safetensors", INDEX} & {*names}:
        yield str(_say("weights", "\n".join(names))).replace("FOLDER", str(folder))
    if folder.is_dir() and "config.json" not in names:
        yield f"there is no config.json in it; expected {MODEL}"


def _of_words(names: Sequence[str], what: str) -> Iterator[str]:
    pieces = [name for name in names if name.endswith((".model", ".spm")) and "tokenizer.json" not in names]
    if pieces and not (find_spec("sentencepiece") and find_spec("google")):
        yield f"its tokenizer is a SentencePiece model ({pieces[0]}); pip install sentencepiece protobuf"
    if "vocab.txt" in names and "tokenizer.json" not in names:
        yield "there is no tokenizer.json in it, which its tokenizer needs; copy it from where the model is from"
    if names and what == "a tokenizer" and not any(VOCABULARY.fullmatch(name) for name in names):
        yield "there is no tokenizer.json and no vocabulary file in it; copy them from where the model is from"


def adapted(model: str, loaded: bool = False) -> bool:
    """Whether an adapter is beside the weights of a folder or hub id (offline: in the cache), and would be `loaded`."""
    folder = expanded(model)
    if loaded and not find_spec("peft"):
        return False
    if folder.exists():
        weights = {found.name for found in folder.glob("*.safetensors")} - {"adapter_model.safetensors"}
        return bool(weights) and (folder / ADAPTER).is_file()
    from huggingface_hub import hf_hub_download  # noqa: PLC0415  slow to import

    with suppress(Exception):  # not there, or out of reach for transformers too
        return bool(hf_hub_download(model, ADAPTER, local_files_only=offline()))
    return False


def beside(model: str) -> list[str]:
    """Warnings about files beside a model's weights that are not loaded."""
    return [f"{model}: the adapter beside the weights is not loaded; merge it if it is meant"] * adapted(model)
