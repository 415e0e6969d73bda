"""An implementation in another process, as an object with the functions of the contract.

What the suite holds of it stays what it would be in this process: editors and edits are handles, live parameters are
tensors that follow those of the other process and are followed by them, and a raw model that was handed out shows what
became of it there. See README.md in this folder.
"""

from __future__ import annotations

import atexit
import builtins
import functools
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..border import SuiteError, TimedOut
from ..conformance import OPTIONAL
from ..contract import NAMES, OF_EDITOR
from . import server

#: What an implementation says about itself.
ATTRIBUTES = ("CLAIMS", "RULINGS", "EDITORS", "ACCUMULATES")
FUNCTIONS = tuple(name for names in (*NAMES.values(), *OPTIONAL.values(), *OF_EDITOR.values()) for name in names)
#: Functions whose result stays in the other process, and those that give live tensors.
HANDLES = ("make_editor", "edit", "compose_edits", "edit_after", "drop_edit")
LIVE = ("parameters", "mask_parameters")
#: Entries of a result, a dictionary, that stay in the other process.
HANDLES_IN = {"run": ("start", "editor")}
#: Arguments that are functions of the suite without any effect: for the same arguments they are asked once.
PURE = ("tokenize",)
#: Seconds until an interpreter has imported an implementation.
START = 300.0
#: Seconds that one call may take.
LIMIT = 120.0


class Died(Exception):
    """The process of the implementation ended during a call."""


class Printed(UserWarning):
    """The implementation wrote to its standard output."""


class Handle:
    """An object of the implementation that stays in its process, such as an editor."""

    def __init__(self, process: Process, number: int, kind: str) -> None:
        self.process, self.number, self.kind = process, number, kind
        weakref.finalize(self, process.dropped.append, number)

    def __repr__(self) -> str:
        return f"<{self.kind} in the process of the implementation>"


class Remote:
    """An implementation in an interpreter of its own.

    `spelling` is package.module or path/to/file.py, and after a colon an object in it. A process that dies or has to
    be ended is followed by a new one at the next call. Errors: SuiteError where none can be started, or where the
    implementation cannot be imported there.
    """

    def __init__(
        self,
        spelling: str,
        python: str | Path = sys.executable,
        *,
        limit: float = LIMIT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.spelling, self.python, self.limit = spelling, _interpreter(python), limit
        self._environment = dict(environment or {})
        self._options: dict[str, Any] = {}
        self._process: Process | None = None
        self._folders = Folders()
        atexit.register(self.close)
        self._declared, self._functions, self.unwritten, self.environment = self._running().greeting

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._declared:
            return self._declared[name]
        if name in self._functions:
            return functools.partial(self._call, name)
        raise AttributeError(f"{self.spelling} has no {name}")

    def close(self) -> None:
        """End the process, and remove what was written for it."""
        atexit.unregister(self.close)
        if self._process is not None:
            self._process.end()
        self._process = None
        self._folders.close()

    def elsewhere(self, **environment: str) -> Remote:
        """The same implementation in another process, with other environment variables."""
        changed = {**self._environment, **environment}
        return Remote(self.spelling, self.python, limit=self.limit, environment=changed)

    @contextmanager
    def during_calls(self, **options: Any) -> Iterator[None]:
        """What holds during all calls of the body: backward_listings=True, global_state=seed, watch=Seen."""
        before = self._options
        self._options = {**before, **options}
        try:
            yield
        finally:
            self._options = before

    def look(self, model: Any = None) -> Any:
        """What all code of the process shares, or what a user may have set of a raw model."""
        return self._running().look(model)

    def start_anew(self) -> None:
        """The next call has a new process."""
        if self._process is not None:
            self._process.end()

    def _running(self) -> Process:
        if self._process is None or self._process.death is not None:
            self._process = Process(self)
        return self._process

    def _call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        process = next((one.process for one in _held(args, kwargs) if one.process.death is not None), None)
        if process is None:
            process = self._running()
            try:
                with process.limiting(f"`{name}`", self.limit):
                    return process.call(name, args, kwargs, self._options)
            except Died as error:
                process.death = error
        # Later calls with an object of that process end in the same way: for Hypothesis they are one failure.
        raise Died(str(process.death))


def _held(*values: Any) -> list[Handle]:
    """The handles among arguments, also in lists and dictionaries of them."""
    found = []
    for value in values:
        if isinstance(value, Handle):
            found.append(value)
        elif isinstance(value, Mapping):
            found += _held(*value.values())
        elif isinstance(value, list | tuple):
            found += _held(*value)
    return found


def _interpreter(python: str | Path) -> str:
    """The path of an interpreter. Errors: SuiteError where there is none."""
    given = os.path.expanduser(str(python))
    if os.path.isdir(given):
        inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
        given = os.path.join(given, inside)
    named = shutil.which(given)
    if named is None:
        raise SuiteError(f"--python {python}: there is no interpreter; expected a path, or an environment's folder")
    # A link into another environment must stay a link: it tells the interpreter where its packages are.
    return os.path.abspath(named)


class Folders:
    """Raw models as transformers folders, one for each content."""

    def __init__(self) -> None:
        self.root: Path | None = None

    def of(self, model: Any) -> Path:
        content = hashlib.blake2b(digest_size=16)
        content.update(repr(sorted(model.config.to_dict().items(), key=str)).encode())
        for name, value in model.state_dict().items():
            content.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            content.update(np.ascontiguousarray(server.as_array(value)).tobytes())
        if self.root is None:
            self.root = Path(tempfile.mkdtemp(prefix="lime-spec-models-"))
        folder = self.root / content.hexdigest()
        if not folder.is_dir():
            with _without_progress():
                model.save_pretrained(folder)
        return folder

    def close(self) -> None:
        if self.root is not None:
            shutil.rmtree(self.root, ignore_errors=True)
        self.root = None


@contextmanager
def _without_progress() -> Iterator[None]:
    from transformers.utils import logging  # noqa: PLC0415

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class RawModel:
    """A raw model that was handed out: the suite's own object follows what becomes of the copy in the process."""

    def __init__(self, model: Any, number: int) -> None:
        self.number, self.model = number, weakref.ref(model)
        self.known = self._arrays(model)
        self.state = self.state_of(model)

    @staticmethod
    def _arrays(model: Any) -> dict[str, Any]:
        named = [*model.named_parameters(), *model.named_buffers()]
        return {name: server.as_array(value).copy() for name, value in named}

    @staticmethod
    def state_of(model: Any) -> dict[str, Any]:
        """What a user may have set: modes, frozen parameters, gradients, and how many hooks there are."""
        named = dict(model.named_parameters())
        hooks = {
            name: sum(not isinstance(hook, _Asks) for hook in module._forward_hooks.values())
            for name, module in model.named_modules()
        }
        return {
            "modes": {name: module.training for name, module in model.named_modules()},
            "frozen": [name for name, value in named.items() if not value.requires_grad],
            "gradients": {name: server.as_array(v.grad).copy() for name, v in named.items() if v.grad is not None},
            "hooks": {name: count for name, count in hooks.items() if count},
        }

    def changed(self, model: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """What the suite did to it since the process last knew: numbers, and the state where that is another one."""
        now, state = self._arrays(model), self.state_of(model)
        arrays = {name: array for name, array in now.items() if not server.same(array, self.known[name])}
        plain = ({k: v for k, v in one.items() if k != "gradients"} for one in (state, self.state))
        gradients = (one["gradients"] for one in (state, self.state))
        if not arrays and len({repr(one) for one in plain}) == 1 and _same_arrays(*gradients):
            return None
        new = {name: count - self.state["hooks"].get(name, 0) for name, count in state["hooks"].items()}
        self.known, self.state = now, state
        return arrays, {**state, "hooks": new}

    def follow(self, arrays: Mapping[str, Any], modes: Mapping[str, bool], gradients: Mapping[str, Any | None]) -> None:
        """Take over what the implementation did to its copy."""
        import torch  # noqa: PLC0415

        model = self.model()
        if model is None:
            return
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        unknown = [name for name in (*arrays, *gradients) if name not in tensors]
        if unknown:
            raise Died(f"{', '.join(unknown)} of the raw model changed, which the suite's transformers does not have")
        with torch.no_grad():
            for name, array in arrays.items():
                tensors[name].copy_(torch.from_numpy(array))
                self.known[name] = array
        for name, value in modes.items():
            _nearest(model, name).training = value
        for name, gradient in gradients.items():
            tensors[name].grad = None if gradient is None else torch.from_numpy(gradient.copy())
        self.state = self.state_of(model)


def _same_arrays(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(server.same(array, other[name]) for name, array in one.items())


def _nearest(model: Any, name: str) -> Any:
    """The module of this name, or the next one above it: versions of transformers differ in what is inside."""
    known = dict(model.named_modules())
    while name not in known:
        name = name.rpartition(".")[0]
    return known[name]


class _Asks:
    """A hook on the suite's own model: what it computes is what the copy in the process computes, hooks and all."""

    def __init__(self, process: Process, raw: RawModel) -> None:
        self.process, self.raw = process, raw

    def __deepcopy__(self, memo: Any) -> Callable[..., None]:
        return _says_nothing

    def __call__(self, model: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> Any:
        import torch  # noqa: PLC0415

        if self.process.death is not None or args or not all(isinstance(one, torch.Tensor) for one in kwargs.values()):
            return output
        found = self.process.forward(self.raw.number, dict(kwargs), torch.is_grad_enabled())
        own = output.logits.detach()
        loose = 1e-3 if torch.float32 in (found.dtype, own.dtype) else 1e-6
        if found.shape != own.shape or (found - own).abs().max() > loose * own.abs().max():
            output.logits = found.to(own.dtype).reshape(found.shape)
        return output


def _says_nothing(*_: Any) -> None:
    return None


class Mirror:
    """The live tensors of an editor in this process, block for block as they lie in the other one."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}
        self.known: dict[int, Any] = {}
        self.tensors: dict[str, Any] = {}
        self.leaves: list[Any] = []

    def take(self, blocks: Mapping[int, Any], moved: Sequence[tuple[int, Any]]) -> None:
        import torch  # noqa: PLC0415

        for number, array in blocks.items():
            if number not in self.blocks:
                self.blocks[number] = torch.from_numpy(array.copy())
            else:
                self.blocks[number].copy_(torch.from_numpy(array))
            self.known[number] = array
        for index, place in moved:
            if index < len(self.leaves):
                self.leaves[index].data = self._at(place)

    def at(self, place: Sequence[Any]) -> Any:
        """The tensor at a place, the same object each time."""
        return self.tensors.setdefault(repr(place), self._at(place))

    def _at(self, place: Sequence[Any]) -> Any:
        number, _, offset, shape, strides = place
        return self.blocks[number].as_strided(tuple(shape), tuple(strides), offset)

    def written(self) -> list[tuple[int, Any]]:
        """The blocks into which the suite wrote since the process last knew."""
        found = []
        for number, block in self.blocks.items():
            array = block.detach().numpy()
            if not server.same(array, self.known[number]):
                self.known[number] = array.copy()
                found.append((number, self.known[number]))
        return found


class Question(server.Coder):
    """Values of one message to a process, and of its answer."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process
        self.models: list[int] = []
        self.mirror: Mirror | None = None
        self.leaves: list[Any] = []

    def foreign(self, value: Any) -> Any:
        torch = sys.modules.get("torch")
        if isinstance(value, Handle):
            return {"$": "handle", "v": value.number}
        if torch is not None and isinstance(value, torch.nn.Module):
            self.models.append(self.process.model(value))
            return {"$": "model", "v": self.models[-1]}
        if callable(value):
            return {"$": "callable", "v": self.process.callable(value), "pure": value.__name__.startswith(PURE)}
        return super().foreign(value)

    def foreign_back(self, value: Mapping[str, Any], arrays: Sequence[Any]) -> Any:
        inside = value["v"]
        if value["$"] == "handle":
            return Handle(self.process, inside, value["type"])
        if value["$"] == "path":
            return Path(inside)
        if value["$"] == "live" and self.mirror is not None:
            self.leaves.append(self.mirror.at(inside))
            return self.leaves[-1]
        return super().foreign_back(value, arrays)


class Process:
    """One process of an implementation, from its start to its end."""

    def __init__(self, remote: Remote) -> None:
        self.remote, self.death = remote, None
        self.dropped: list[int] = []
        self.dropped_models: list[int] = []
        self.mirrors: weakref.WeakKeyDictionary[Handle, Mirror] = weakref.WeakKeyDictionary()
        self.models: dict[int, RawModel] = {}
        self.by_model: dict[int, RawModel] = {}
        self.callables: dict[int, Callable[..., Any]] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="lime-spec-"))
        self._deadline: float | None = None
        self._late = self._importing = False
        self._start()
        with self.limiting("its start", START):
            self.greeting = self._greet()

    death: Exception | None

    def _start(self) -> None:
        files = [self.folder / name for name in ("stdout", "stderr")]
        for file in files:
            file.touch()
        # Beside what the user has set: one thread, no hub, and messages in one encoding.
        fixed = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
        environment = {**fixed, **os.environ, **self.remote._environment}
        environment.pop("PYTHONHOME", None)
        command = [self.remote.python, str(Path(server.__file__).absolute()), *map(str, files)]
        with files[1].open("ab") as errors:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=os.name != "nt",
            )
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.wire = server.Wire(self.popen.stdout, self.popen.stdin)
        threading.Thread(target=self._watch, name="call limits", daemon=True).start()

    def _greet(self) -> tuple[dict[str, Any], list[str], list[str], dict[str, Any]]:
        paths = [os.getcwd()]
        asked = {"do": "hello", "implementation": self.remote.spelling, "paths": paths}
        answer, arrays = self._ask({**asked, "attributes": ATTRIBUTES, "functions": FUNCTIONS}, ())
        self._remark("import", answer)
        where = f"in {self.remote.python}"
        if "error" in answer:
            error = answer["error"]
            self.end()
            raise SuiteError(
                f"cannot import the implementation {self.remote.spelling!r} {where}: {error['type']}: "
                f"{error['message']}\n{error['trace']}".rstrip()
            )
        declared = Question(self).decode(answer["declared"], arrays)
        return declared, answer["functions"], answer["unwritten"], answer["environment"]

    # Messages

    def _ask(self, message: Mapping[str, Any], arrays: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
        """Send, answer what the implementation asks of the suite's functions, and return what it says at last."""
        dropped, self.dropped[:] = self.dropped[:], []
        gone, self.dropped_models[:] = self.dropped_models[:], []
        try:
            self.wire.send({**message, "drop": dropped, "drop_models": gone}, arrays)
            while True:
                answer, got = self.wire.receive()
                if "ready" in answer:
                    self._importing = True
                elif "callback" in answer:
                    self._answer_callback(answer, got)
                else:
                    return answer, got
        except (EOFError, OSError, ValueError) as error:
            raise self._ended(message, error) from None
        except BaseException:
            # The answer to this message is still to come: nothing can be asked any more.
            self._die(Died("the implementation's process was ended, since a call did not return"))
            raise

    def _answer_callback(self, asked: Mapping[str, Any], arrays: Sequence[Any]) -> None:
        coder = Question(self)
        args, kwargs = coder.decode(asked["args"], arrays), coder.decode(asked["kwargs"], arrays)
        try:
            result = coder.encode(self.callables[asked["callback"]](*args, **kwargs))
        except Exception as error:
            self.failed = error
            self.wire.send({"failed": f"{type(error).__name__}: {error}"})
            return
        self.wire.send({"result": result}, coder.arrays)

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Call one function of the implementation."""
        coder = Question(self)
        editors = [part for part in (*args, *kwargs.values()) if isinstance(part, Handle) and part in self.mirrors]
        live = next((part for part in args if isinstance(part, Handle)), None) if name in LIVE else None
        if live is not None:
            self.mirrors.setdefault(live, Mirror())
        message: dict[str, Any] = {"do": "call", "name": name, "live": live.number if live else 0}
        message |= {"args": [coder.encode(part) for part in args]}
        message |= {"handle": name in HANDLES, "handles_in": HANDLES_IN.get(name, ())}
        message |= {"kwargs": {key: coder.encode(part) for key, part in kwargs.items()}}
        held = _held(args, kwargs)
        message |= {"editors": [part.number for part in held], "models": coder.models, "leaves": name == LIVE[0]}
        message["push"] = []
        for editor in editors:
            for number, array in self.mirrors[editor].written():
                coder.arrays.append(array)
                message["push"].append([editor.number, number, len(coder.arrays) - 1])
        torch = sys.modules.get("torch")
        message["grad"] = torch is None or torch.is_grad_enabled()
        seen = options.get("watch")
        message |= {key: value for key, value in options.items() if key != "watch"}
        if seen is not None:
            message["watch"] = {"least": seen.least}
        answer, arrays = self._ask(message, coder.arrays)
        if seen is not None and "seen" in answer:
            seen.add(**answer["seen"])
        return self._result(name, answer, arrays, {part.number: part for part in held}, live)

    def _result(
        self, name: str, answer: Mapping[str, Any], arrays: Sequence[Any], held: Mapping[int, Handle], live: Any
    ) -> Any:
        if "misfit" in answer:
            raise SuiteError(f"`{name}` does not take the arguments of the contract: {answer['misfit']}")
        if "callback_failed" in answer:
            raise SuiteError(f"a function that `{name}` was given failed: {answer['callback_failed']}") from self.failed
        for editor, blocks, moved in answer["blocks"]:
            found = {number: arrays[index] for number, index in blocks}
            self.mirrors.setdefault(held[editor], Mirror()).take(found, moved)
        self._remark(name, answer)
        coder = Question(self)
        for number, change in answer["raw"]:
            if number in self.models:
                self.models[number].follow(**coder.decode(change, arrays))
        if "error" in answer:
            raise rebuilt(answer["error"])
        if live is not None:
            coder.mirror = self.mirrors[live]
        result = coder.decode(answer["result"], arrays)
        if live is not None and name == LIVE[0]:
            self.mirrors[live].leaves = coder.leaves
        return result

    def _remark(self, name: str, answer: Mapping[str, Any]) -> None:
        """Warnings that the implementation gave, and what it printed, as warnings here."""
        for category, base, text, file, line, times in answer.get("warnings", ()):
            for _ in range(min(times, 1000)):
                warnings.warn_explicit(text, _category(category, base), file, line)
        for stream, text in answer.get("printed", {}).items():
            getattr(sys, stream).write(text if text.endswith("\n") else text + "\n")
            if stream == "stdout":
                warnings.warn("it wrote to standard output", Printed, stacklevel=2)

    # Raw models

    def model(self, model: Any) -> int:
        """The number of a model of the suite, which the process has from now on."""
        raw = self.by_model.get(id(model))
        coder = Question(self)
        if raw is not None and raw.model() is model:
            changed = raw.changed(model)
            if changed is not None:
                told = {"arrays_of": coder.encode(changed[0]), **self._state(coder, changed[1])}
                self._ask({"do": "update", "id": raw.number, **told}, coder.arrays)
            return raw.number
        number = len(self.models) + 1
        raw = RawModel(model, number)
        body = {"do": "model", "id": number, "folder": str(self.remote._folders.of(model))}
        answer, _ = self._ask({**body, **self._state(coder, raw.state)}, coder.arrays)
        if "error" in answer:
            raise SuiteError(f"the raw model could not be loaded in {self.remote.python}: {answer['error']['message']}")
        other = [name for name, array in raw.known.items() if answer["sums"].get(name, 0) != _sum(array)]
        if other and any(name in answer["sums"] for name in other):
            raise SuiteError(f"the raw model has other numbers in {self.remote.python}: {', '.join(other)}")
        self.models[number] = self.by_model[id(model)] = raw
        weakref.finalize(model, self._forget, id(model), number)
        model.register_forward_hook(_Asks(self, raw), with_kwargs=True)
        return number

    @staticmethod
    def _state(coder: Question, state: Mapping[str, Any]) -> dict[str, Any]:
        return {**state, "gradients": coder.encode(state["gradients"])}

    def _forget(self, identity: int, number: int) -> None:
        self.by_model.pop(identity, None)
        self.models[number] = _GONE
        self.dropped_models.append(number)

    def forward(self, number: int, inputs: Mapping[str, Any], with_gradient: bool) -> Any:
        """The logits that the process's copy of a raw model gives now."""
        coder = Question(self)
        body = {"do": "forward", "id": number, "inputs": coder.encode(inputs), "grad": with_gradient}
        with self.limiting("a pass of the raw model", self.remote.limit):
            answer, arrays = self._ask(body, coder.arrays)
        if "error" in answer:
            raise rebuilt(answer["error"])
        return Question(self).decode(answer["result"], arrays)

    def look(self, model: Any = None) -> Any:
        """What all code of the process shares, or what a user may have set of a raw model."""
        number = 0 if model is None else self.model(model)
        with self.limiting("a look at the process", self.remote.limit):
            answer, arrays = self._ask({"do": "look", "id": number}, ())
        return Question(self).decode(answer["result"], arrays)

    def callable(self, function: Callable[..., Any]) -> int:
        number = next((key for key, known in self.callables.items() if known is function), len(self.callables) + 1)
        self.callables[number] = function
        return number

    # The end

    @contextmanager
    def limiting(self, what: str, seconds: float) -> Iterator[None]:
        """The body may take so long; then the process is ended."""
        outer, self._what = self._deadline, what
        self._seconds = seconds
        self._deadline = outer or (time.monotonic() + seconds if seconds else None)
        try:
            yield
        finally:
            self._deadline = outer

    def _watch(self) -> None:
        while self.death is None and self.popen.poll() is None:
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                self._late = True
                break
            time.sleep(0.05)
        # Children that it left hold its pipes: without them the suite reads the end.
        self._kill()

    def _ended(self, message: Mapping[str, Any], error: Exception) -> BaseException:
        """What to raise once the process is gone."""
        name = f"`{message['name']}`" if "name" in message else "the handing over of a raw model"
        self._kill()
        code = self.popen.wait()
        said = self._last_words()
        if self._late:
            found: BaseException = TimedOut(
                f"{self._what} did not return within {self._seconds:g} s (--call-timeout), and its process was ended"
            )
        elif message["do"] == "hello" and self._importing:
            found = SuiteError(
                f"cannot import the implementation {self.remote.spelling!r} in {self.remote.python}: "
                f"its process {_how(code)}{said and ': ' + said}"
            )
        elif message["do"] == "hello":
            found = SuiteError(f"the interpreter {self.remote.python} does not start: {_why_not(self.remote, said)}")
        elif isinstance(error, ValueError):
            found = SuiteError(f"the answer to {name} was no message: {error}")
        else:
            found = Died(f"the implementation's process {_how(code)} in {name}{said and ': ' + said}")
        self._die(found if isinstance(found, Died) else Died(str(found)))
        return found

    def _last_words(self) -> str:
        text = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace").strip()
        sys.stderr.write(text[-4000:] + "\n" if text else "")
        lines = [line for line in text.splitlines() if line.strip()]
        fatal = [line for line in lines if line.startswith("Fatal Python error")]
        return (fatal or lines[-1:] or [""])[0]

    def _die(self, why: Exception) -> None:
        if self.death is None:
            self.death = why
        self._kill()
        with _ignoring(subprocess.TimeoutExpired):
            self.popen.wait(timeout=10)
        for pipe in (self.popen.stdin, self.popen.stdout):
            with _ignoring(OSError):
                if pipe is not None:
                    pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _kill(self) -> None:
        """End the process, and all that it started."""
        if os.name != "nt":
            with _ignoring(ProcessLookupError, PermissionError):
                os.killpg(self.popen.pid, signal.SIGKILL)
        elif self.popen.poll() is None:
            self.popen.kill()

    def end(self) -> None:
        """Hang up, and do not wait for long."""
        if self.death is None:
            with _ignoring(OSError):
                self.wire.outgoing.close()
            with _ignoring(subprocess.TimeoutExpired):
                self.popen.wait(timeout=2)
        self._die(Died("its process was ended"))


@contextmanager
def _ignoring(*errors: type[BaseException]) -> Iterator[None]:
    try:
        yield
    except errors:
        return


def _sum(array: Any) -> int:
    return server.zlib.crc32(array.tobytes())


def _how(code: int) -> str:
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with exit code {code}"


def _why_not(remote: Remote, said: str) -> str:
    """Why an interpreter cannot run the server."""
    asked = "import sys; print('.'.join(map(str, sys.version_info[:2]))); import numpy"
    try:
        done = subprocess.run(
            [remote.python, "-c", asked], capture_output=True, text=True, timeout=60, check=False, env=os.environ
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    version = done.stdout.strip()
    if version and tuple(map(int, version.split("."))) < (3, 8):
        return f"it is Python {version}, and 3.8 or later is needed"
    if "numpy" in done.stderr:
        return "it has no NumPy, which is all that the suite needs there"
    return said or done.stderr.strip() or "it said nothing"


@functools.cache
def _kind(name: str, base: str, kind: type) -> type:
    """A class of this name under a built-in one."""
    found = getattr(builtins, base, kind)
    parent = found if isinstance(found, type) and issubclass(found, kind) else kind
    return type(name, (parent,), {"__str__": lambda self: self.said, "__module__": "implementation"})


def rebuilt(error: Mapping[str, Any]) -> Exception:
    """The exception that the implementation raised: of its name, under the built-in class that it is.

    What is no Exception there, such as SystemExit, is one here: the suite goes on.
    """
    bases = [name for name in error["bases"] if _is_exception(name)]
    made: Any = _kind(error["type"], bases[0] if bases else "Exception", Exception)
    found: Any = made.__new__(made, error["message"])
    found.said, found.where = error["message"], error["where"]
    found.args = (error["message"],)
    found.add_note("in the implementation's process:\n" + error["trace"].rstrip())
    return found  # type: ignore[no-any-return]


def _is_exception(name: str) -> bool:
    kind = getattr(builtins, name, None)
    return isinstance(kind, type) and issubclass(kind, Exception)


def _category(name: str, base: str) -> type[Warning]:
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, Warning):
        return known
    return _warning(name, base)


@functools.cache
def _warning(name: str, base: str) -> type[Warning]:
    return type(name, (getattr(builtins, base, UserWarning),), {"__module__": "implementation"})


class _Gone:
    """A raw model that the suite has dropped."""

    def follow(self, **_: Any) -> None:
        """Nobody looks."""


_GONE: Any = _Gone()
