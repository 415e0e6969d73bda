"""Runs an implementation in its own process and interpreter, and answers the suite over two pipes.

The suite starts this file alone in the interpreter of the implementation. It needs Python 3.8 and NumPy 1.20 or later,
and torch only where the implementation brings it. README.md in this folder describes the protocol. In short: each
message is one line of JSON, and then the bytes of its arrays. Nothing is unpickled and nothing is evaluated.
"""

from __future__ import annotations

import ast
import contextlib
import faulthandler
import importlib
import importlib.util
import inspect
import json
import operator
import os
import platform
import random
import struct
import sys
import textwrap
import traceback
import tracemalloc
import warnings
import zlib
from collections import Counter
from collections.abc import Mapping

import numpy as np

PROTOCOL = 1
#: The dtypes that may cross, all little-endian.
DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)
#: How much of what an implementation prints in one call is sent on, in characters.
PRINTED = 4000
#: Answers of a pure function of the suite, such as `tokenize`, that are kept.
KEPT = 100_000


# Messages


class Wire:
    """Messages over two binary files: a line of JSON, then the bytes of its arrays."""

    def __init__(self, incoming, outgoing):
        self.incoming, self.outgoing = incoming, outgoing

    def send(self, message, arrays=()):
        """Errors: OSError where the other side is gone."""
        arrays = [np.ascontiguousarray(array).reshape(array.shape) for array in arrays]
        head = dict(message, arrays=[[array.dtype.name, list(array.shape)] for array in arrays])
        self.outgoing.write(json.dumps(head, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        for array in arrays:
            if array.size:
                little = array.astype(array.dtype.newbyteorder("<"), copy=False)
                self.outgoing.write(little.reshape(-1).view(np.uint8).data)
        self.outgoing.flush()

    def receive(self):
        """The next message and its arrays. Errors: EOFError at the end; ValueError where it is no message."""
        line = self.incoming.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the other side is gone")
        message = json.loads(line.decode())
        return message, [self._array(*described) for described in message.pop("arrays")]

    def _array(self, name, shape):
        if name not in DTYPES:
            raise ValueError(f"an array of dtype {name!r} cannot cross")
        array = np.empty([int(size) for size in shape], np.dtype(name).newbyteorder("<"))
        if array.size:
            bytes_of = memoryview(array.reshape(-1).view(np.uint8))
            done = 0
            while done < len(bytes_of):
                count = self.incoming.readinto(bytes_of[done:])
                if not count:
                    raise EOFError("the other side is gone")
                done += count
        return array.astype(name, copy=False)


class Coder:
    """Values as JSON and arrays. A subclass says what becomes of objects that are no plain data."""

    def __init__(self):
        self.arrays = []

    def encode(self, value):
        kind = type(value)
        if value is None or kind in (bool, str, int):
            return value
        if kind is float:
            return value if np.isfinite(value) else {"$": "float", "v": repr(value)}
        if kind is list:
            return [self.encode(part) for part in value]
        if kind is tuple:
            return {"$": "tuple", "v": [self.encode(part) for part in value]}
        if kind is dict and "$" not in value and all(type(key) is str for key in value):
            return {key: self.encode(part) for key, part in value.items()}
        return self._other(value)

    def _other(self, value):  # noqa: PLR0911  # one line for each kind of value
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, np.generic) and value.dtype.name in DTYPES:
            return self.array(np.asarray(value), "scalar")
        if isinstance(value, np.ndarray):
            return self.array(value, "numpy") if value.dtype.name in DTYPES else self.encode(value.tolist())
        for basic in (bool, int, float, str):
            if isinstance(value, basic):
                return self.encode(basic(value))
        if isinstance(value, Mapping):
            return {"$": "dict", "v": [[self.encode(key), self.encode(part)] for key, part in value.items()]}
        if isinstance(value, (set, frozenset)):
            return {"$": "set", "v": [self.encode(part) for part in value]}
        if isinstance(value, tuple):
            return {"$": "tuple", "v": [self.encode(part) for part in value]}
        if isinstance(value, (list, range)):
            return [self.encode(part) for part in value]
        if isinstance(value, os.PathLike):
            return {"$": "path", "v": os.fspath(value)}
        return self.foreign(value)

    def array(self, array, kind):
        self.arrays.append(array)
        return {"$": "array", "v": len(self.arrays) - 1, "kind": kind}

    def tensor(self, tensor):
        return self.array(as_array(tensor), "torch")

    def foreign(self, value):
        raise TypeError(f"a {type(value).__name__} cannot cross to another process")

    def decode(self, value, arrays):  # noqa: PLR0911  # as above
        if isinstance(value, list):
            return [self.decode(part, arrays) for part in value]
        if not isinstance(value, dict):
            return value
        kind = value.get("$")
        if kind is None:
            return {key: self.decode(part, arrays) for key, part in value.items()}
        inside = value["v"]
        if kind == "float":
            return float(inside)
        if kind == "tuple":
            return tuple(self.decode(part, arrays) for part in inside)
        if kind == "dict":
            return {self.decode(key, arrays): self.decode(part, arrays) for key, part in inside}
        if kind == "set":
            return {self.decode(part, arrays) for part in inside}
        if kind == "array":
            return self.array_back(arrays[inside], value["kind"])
        return self.foreign_back(value, arrays)

    def array_back(self, array, kind):
        if kind == "scalar":
            return array[()]
        torch = sys.modules.get("torch")
        return torch.from_numpy(array) if kind == "torch" and torch is not None else array

    def foreign_back(self, value, arrays):
        raise ValueError("a message holds a {!r}, which has no meaning here".format(value["$"]))


def as_array(tensor):
    """A torch tensor as an array of its own width, or of the next one that NumPy has."""
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return tensor.numpy()


def same(one, other):
    """Whether two arrays are the same bit for bit."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bytes_of = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (one, other)]
    return np.array_equal(*bytes_of)


# What the suite looks at while a call runs


class Seen:
    """What a watched call made.

    `largest` is the element count of the largest tensor that an operation returned. `found` are the tensors of `least`
    elements at least that an operation made, and `made` their elements together; views of older tensors are none, nor
    are tensors that have a shape and no memory. `peak` is the memory of all of Python's and NumPy's objects, in bytes.
    Without torch, or with one that cannot tell, `counted` is False.
    """

    def __init__(self, least=0):
        self.least, self.largest, self.made, self.found, self.peak, self.counted = least, 0, 0, [], 0, False

    def add(self, largest, made, found, peak, counted):
        """What another call made."""
        self.largest, self.made, self.peak = max(self.largest, largest), self.made + made, max(self.peak, peak)
        self.found, self.counted = [*self.found, *found], counted

    def as_dict(self):
        told = {"largest": self.largest, "made": self.made, "peak": self.peak, "counted": self.counted}
        return dict(told, found=self.found[:20])


@contextlib.contextmanager
def watching(seen):
    """Record in `seen` what the body makes."""
    with contextlib.ExitStack() as stack:
        mode = _dispatch_mode(seen)
        if mode is not None:
            seen.counted = True
            stack.enter_context(mode)
        outer = tracemalloc.is_tracing()
        if not outer:
            tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        try:
            yield seen
        finally:
            seen.peak = max(seen.peak, tracemalloc.get_traced_memory()[1] - before)
            if not outer:
                tracemalloc.stop()


def _dispatch_mode(seen):
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    try:
        from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC0415
        from torch.utils._pytree import tree_flatten  # noqa: PLC0415
    except ImportError:
        return None

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            made = [value for value in tree_flatten(result)[0] if isinstance(value, torch.Tensor)]
            seen.largest = max([seen.largest, *(value.numel() for value in made)])
            large = [value for value in made if seen.least and value.numel() >= seen.least and not value.is_meta]
            if large:
                given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
                old = {memory(value)[0] for value in given}
                new = [value for value in large if memory(value)[0] not in old]
                seen.made += sum(value.numel() for value in new)
                seen.found += [f"{func} made {tuple(value.shape)}" for value in new]
            return result

    return Mode()


def memory(tensor):
    """The address of the memory that a tensor lies in, and how many numbers fit in it."""
    if hasattr(tensor, "untyped_storage"):
        found = tensor.untyped_storage()
        return found.data_ptr(), found.nbytes() // tensor.element_size()
    found = tensor.storage()  # before torch 2
    return found.data_ptr(), found.size()


class _Backwards:
    """What os.scandir gives, from the last name to the first."""

    def __init__(self, found):
        with found:
            self._entries = iter(sorted(found, key=lambda entry: entry.name, reverse=True))

    def __iter__(self):
        return self._entries

    def __next__(self):
        return next(self._entries)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Nothing is open."""


@contextlib.contextmanager
def backward_listings():
    """Folders are listed from the last name to the first."""
    listed, scanned = os.listdir, os.scandir
    os.listdir = lambda path=".": sorted(listed(path), reverse=True)
    os.scandir = lambda path=".": _Backwards(scanned(path))
    try:
        yield
    finally:
        os.listdir, os.scandir = listed, scanned


@contextlib.contextmanager
def global_state(seed):
    """The global random generators of Python, NumPy and torch stand at `seed`; afterwards where they stood before."""
    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    if torch is not None:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if torch is not None:
            torch.set_rng_state(before[2])


# Models


def read_safetensors(path):
    """{name: array} of a safetensors file: eight bytes with the length of its header, the header, the numbers."""
    kinds = {"F16": "float16", "F32": "float32", "F64": "float64", "I64": "int64", "I32": "int32", "U8": "uint8"}
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        head = json.loads(file.read(length).decode())
        body = file.read()
    found = {}
    for name, entry in head.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            found[name] = np.frombuffer(body[start:end], "bool" if entry["dtype"] == "BOOL" else kinds[entry["dtype"]])
            found[name] = found[name].reshape(entry["shape"]).copy()
    return found


def load_model(folder):
    """The model of a transformers folder in the width of its file, whatever version of transformers is here.

    Errors: ValueError where a parameter is neither in the file nor another name of one that is.
    """
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    config = transformers.AutoConfig.from_pretrained(folder)
    arrays = read_safetensors(os.path.join(folder, "model.safetensors"))
    state = torch.get_rng_state()
    model = getattr(transformers, config.architectures[0])(config)
    torch.set_rng_state(state)
    model = model.to(getattr(torch, next(iter(arrays.values())).dtype.name)).eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)
    model.tie_weights()
    named = model.state_dict(keep_vars=True)
    given = {id(named[name]) for name in arrays if name in named}
    missing = [name for name, value in model.named_parameters() if name not in arrays and id(value) not in given]
    unknown = [name for name in arrays if name not in named]
    if missing or unknown:
        kind = f"transformers {transformers.__version__} has {config.architectures[0]} in another layout"
        raise ValueError(f"{kind}: it lacks {unknown}, and has {missing} beside them")
    return model


class Model:
    """A raw model that the suite handed out, and what the suite knows of it."""

    def __init__(self, model):
        self.model = model
        self.known, self.modes, self.gradients = {}, {}, {}

    def _tensors(self):
        return dict(list(self.model.named_parameters()) + list(self.model.named_buffers()))

    def _modes(self):
        return {name: module.training for name, module in self.model.named_modules()}

    def set(self, arrays, modes, frozen, gradients, hooks):
        """What the suite did to its own copy: numbers, modes, frozen parameters, gradients, hooks of no effect."""
        import torch  # noqa: PLC0415

        tensors = self._tensors()
        with torch.no_grad():
            for name, array in arrays.items():
                if name in tensors:
                    tensors[name].copy_(torch.from_numpy(array))
        for name, value in self.model.named_parameters():
            value.requires_grad_(name not in frozen)
            value.grad = torch.from_numpy(gradients[name].copy()) if name in gradients else None
        for name, module in self.model.named_modules():
            module.training = modes.get(name, module.training)
            for _ in range(hooks.get(name, 0)):
                module.register_forward_hook(lambda *_: None)
        self.changes()

    def changes(self):
        """What changed since the suite last knew: numbers, training modes, gradients; None where nothing did."""
        arrays, gradients = {}, {}
        for name, value in self._tensors().items():
            array = as_array(value)
            if name not in self.known or not same(array, self.known[name]):
                arrays[name] = self.known[name] = array.copy()
        for name, value in self.model.named_parameters():
            now, known = value.grad, self.gradients.get(name)
            if now is None and known is None:
                continue
            now = None if now is None else as_array(now)
            if now is None or known is None or not same(now, known):
                gradients[name] = self.gradients[name] = None if now is None else now.copy()
        modes = {name: value for name, value in self._modes().items() if self.modes.get(name) is not value}
        self.modes.update(modes)
        return {"arrays": arrays, "modes": modes, "gradients": gradients} if arrays or modes or gradients else None

    def logits(self, inputs, with_gradient):
        """What the model computes now, hooks included."""
        import torch  # noqa: PLC0415

        with torch.enable_grad() if with_gradient else torch.no_grad():
            return self.model(**inputs).logits


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
HOOKS += ("_forward_hooks_with_kwargs", "_forward_hooks_always_called")


def surroundings(model):
    """Of a model everything that a user may have set, each thing by name."""
    named = dict(model.named_parameters())
    modules = dict(model.named_modules())
    gradients = {name: value.grad for name, value in named.items() if value.numel() < 2000}
    return {
        "parameters (the objects)": {name: id(value) for name, value in named.items()},
        "storage of the parameters": {name: value.data_ptr() for name, value in named.items()},
        "requires_grad": {name: value.requires_grad for name, value in named.items()},
        "gradients": {n: None if one is None else (one.data_ptr(), one.tolist()) for n, one in gradients.items()},
        "modes": {name: module.training for name, module in modules.items()},
        "modules": {name: type(module).__name__ for name, module in modules.items()},
        "what modules are set to": {
            ".".join(filter(None, (name, own))): repr(value)
            for name, module in modules.items()
            for own, value in vars(module).items()
            if isinstance(value, (bool, int, float, str)) and not own.startswith("_") and own != "training"
        },
        "buffers": {name: (id(value), value.tolist()) for name, value in model.named_buffers()},
        "hooks": {
            name: {kind: list(getattr(module, kind)) for kind in HOOKS if hasattr(module, kind)}
            for name, module in modules.items()
        },
        "configuration": {
            **{str(name): repr(value) for name, value in model.config.to_dict().items()},
            "attention": repr(getattr(model.config, "_attn_implementation", None)),
        },
    }


#: PyTorch's ways to compute attention, which a process may switch off.
ATTENTION = ("flash", "mem_efficient", "math")


#: Variables by which a process tells its libraries how to compute, beside those that it had at the start. Others a
#: library may set for itself when it is first used.
VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "CUDA_LAUNCH_BLOCKING", "CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS")
VARIABLES += ("NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED")
VARIABLES += ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ENABLE_MPS_FALLBACK", "TOKENIZERS_PARALLELISM")
VARIABLES += ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
AT_START = frozenset(os.environ)


def variables():
    """The environment's variables that nobody changes but the user: a value for each, None where there is none."""
    return {name: os.environ.get(name) for name in sorted(AT_START.union(VARIABLES))}


def process_state():
    """The state that all code of a process shares, each thing by name."""
    found = {
        "variables of the environment": variables(),
        "random generator of NumPy": repr(np.random.get_state()),
        "random generator of Python": repr(random.getstate()),
        "working directory": os.getcwd(),
    }
    torch = sys.modules.get("torch")
    if torch is None:
        return found
    told = {"random generator of torch": repr(torch.get_rng_state().tolist())}
    told.update({"default dtype": str(torch.get_default_dtype()), "grad mode": torch.is_grad_enabled()})
    told["number of threads"] = torch.get_num_threads()
    for what, name in (
        ("anomaly detection", "is_anomaly_enabled"),
        ("precision of matrix products", "get_float32_matmul_precision"),
        ("inference mode", "is_inference_mode_enabled"),
        ("autocast", "is_autocast_cpu_enabled"),
        ("autocast's cache", "is_autocast_cache_enabled"),
        ("deterministic algorithms", "are_deterministic_algorithms_enabled"),
        *((kind + " attention", "backends.cuda." + kind + "_sdp_enabled") for kind in ATTENTION),
    ):
        with warnings.catch_warnings(), contextlib.suppress(AttributeError):  # newer than the oldest torch
            warnings.simplefilter("ignore")
            value = operator.attrgetter(name)(torch)
            told[what] = value() if callable(value) else value
    told["numbers below the normal ones"] = bool(torch.full((4,), 1e-40).mul(0.5).any())
    return dict(found, **told)


@contextlib.contextmanager
def kept_process():
    """Put back what a wrong implementation changes, so that it harms its own test only."""
    torch = sys.modules.get("torch")
    states = random.getstate(), np.random.get_state()
    folder, told = os.getcwd(), variables()
    for name in set(VARIABLES) - AT_START:
        os.environ.pop(name, None)
    if torch is not None:
        dtype, threads, grad = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
        drawn, deterministic = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
        anomalies, precision = torch.is_anomaly_enabled(), torch.get_float32_matmul_precision()
        attention = {kind: getattr(torch.backends.cuda, kind + "_sdp_enabled")() for kind in ATTENTION}
        # An earlier call may have left them so for good: a further one would then change nothing.
        torch.use_deterministic_algorithms(False)
        torch.set_flush_denormal(False)
        torch.set_autocast_cache_enabled(True)
        torch.autograd.set_detect_anomaly(False)
        torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        os.chdir(folder)
        for name, value in told.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if torch is not None:
            torch.set_rng_state(drawn)
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            torch.set_grad_enabled(grad)
            torch.use_deterministic_algorithms(deterministic)
            torch.set_flush_denormal(False)
            torch.set_autocast_cache_enabled(True)
            torch.autograd.set_detect_anomaly(anomalies)
            torch.set_float32_matmul_precision(precision)
            for kind, enabled in attention.items():
                getattr(torch.backends.cuda, "enable_" + kind + "_sdp")(enabled)


# Parameters that both sides see


class Live:
    """The live tensors of an editor: what one side writes into them, the other side sees at the next message.

    A tensor is a place in a block of memory. Tensors that overlap here overlap in the suite's process, too.
    """

    def __init__(self):
        self.blocks, self.sent, self.addresses, self.leaves = [], [], {}, []

    def place(self, tensor):
        """[block, dtype, offset, shape, strides] of a tensor, whose block is kept from now on."""
        if isinstance(tensor, np.ndarray):
            if not tensor.flags.c_contiguous or not tensor.flags.writeable:
                raise TypeError("an array of parameters has to be contiguous and writeable")
            where = tensor.__array_interface__["data"][0], tensor.size
            block = lambda: tensor.reshape(-1)  # noqa: E731
            shape, strides, offset = tensor.shape, [s // tensor.itemsize for s in tensor.strides], 0
        else:
            if tensor.device.type != "cpu":
                raise TypeError(f"parameters lie on {tensor.device}; expected the CPU")
            where = memory(tensor)
            block = lambda: tensor.detach().as_strided((where[1],), (1,), 0).numpy()  # noqa: E731
            shape, strides, offset = tensor.shape, tensor.stride(), tensor.storage_offset()
        key = (*where, str(tensor.dtype))
        if key not in self.addresses:
            self.addresses[key] = len(self.blocks)
            self.blocks.append(block())
            self.sent.append(None)
        number = self.addresses[key]
        return [number, self.blocks[number].dtype.name, offset, list(shape), list(strides)]

    def write(self, number, array):
        self.blocks[number][...] = array
        self.sent[number] = array

    def changed(self):
        """{block: its numbers} of blocks that the suite does not know as they are."""
        found = {}
        for number, block in enumerate(self.blocks):
            if self.sent[number] is None or not same(block, self.sent[number]):
                found[number] = self.sent[number] = block.copy()
        return found

    def moved(self):
        """{index: place} of trainable tensors that lie elsewhere now: `p.data = ...` gives a tensor new memory."""
        found = {}
        for index, (tensor, known) in enumerate(self.leaves):
            now = self.place(tensor)
            if now != known:
                found[index] = now
                self.leaves[index] = (tensor, now)
        return found


# The server


class Answer(Coder):
    """Values of one answer. Tensors of a call whose result is live are places in blocks of memory."""

    def __init__(self, server, live=None):
        super().__init__()
        self.server, self.live, self.leaves = server, live, []

    def tensor(self, tensor):
        return super().tensor(tensor) if self.live is None else self._live(tensor)

    def array(self, array, kind):
        if self.live is None or kind != "numpy":
            return super().array(array, kind)
        return self._live(array)

    def _live(self, tensor):
        place = self.live.place(tensor)
        self.leaves.append((tensor, place))
        return {"$": "live", "v": place}

    def foreign(self, value):
        return self.server.kept(value)

    def foreign_back(self, value, arrays):
        kind, inside = value["$"], value["v"]
        if kind == "path":
            from pathlib import Path  # noqa: PLC0415

            return Path(inside)
        if kind == "handle":
            return self.server.objects[inside]
        if kind == "model":
            return self.server.models[inside].model
        if kind == "callable":
            return self.server.callable(inside, value["pure"])
        return super().foreign_back(value, arrays)


class Stays:
    """Something that stays in this process, whatever it is."""

    def __init__(self, inside):
        self.inside = inside


class SuitesError(Exception):
    """What the suite's own function raised while the implementation called it."""


class Server:
    """Answers one message after the other until the suite hangs up."""

    def __init__(self, wire, printed):
        self.wire, self.printed = wire, printed
        self.target = None
        self.objects, self.models, self.lives, self.pristine, self.callables = {}, {}, {}, {}, {}
        self.count = 0
        #: The model of each editor.
        self.model_of = {}

    def serve(self):
        while True:
            try:
                message, arrays = self.wire.receive()
            except EOFError:
                return
            for number in message.get("drop", ()):
                for table in (self.objects, self.lives, self.model_of):
                    table.pop(number, None)
            for number in message.get("drop_models", ()):
                self.models.pop(number, None)
            getattr(self, "do_" + message["do"])(message, arrays)

    def answer(self, body, coder=None):
        self.wire.send(dict(body, printed=self.printed.take()), coder.arrays if coder else ())

    # What the suite asks for

    def do_hello(self, message, arrays):
        """Import the implementation, and say what it claims."""
        self.wire.send({"ready": PROTOCOL})
        caught = []
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self.target = found(message["implementation"], message["paths"])
        except BaseException as error:  # whatever an import raises is the implementation's
            self.answer({"error": described(error), "warnings": counted(caught)})
            return
        coder = Answer(self)
        named = {name: getattr(self.target, name) for name in message["attributes"] if hasattr(self.target, name)}
        declared = {name: coder.encode(value) for name, value in named.items()}
        functions = [name for name in message["functions"] if callable(getattr(self.target, name, None))]
        unwritten = [name for name in functions if empty(getattr(self.target, name))]
        said = {"declared": declared, "functions": functions, "unwritten": unwritten, "environment": environment()}
        self.answer(dict(said, warnings=counted(caught)), coder)
        one_thread()

    def do_model(self, message, arrays):
        """A raw model for the implementation: a copy of the folder's, which is read once."""
        import copy  # noqa: PLC0415

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if message["folder"] not in self.pristine:
                    self.pristine[message["folder"]] = load_model(message["folder"])
                self.models[message["id"]] = made = Model(copy.deepcopy(self.pristine[message["folder"]]))
        except Exception as error:  # it is said, and the suite decides
            self.answer({"error": described(error)})
            return
        made.set({}, *self._state(message, arrays))
        one_thread()
        self.answer({"sums": {name: zlib.crc32(array.tobytes()) for name, array in made.known.items()}})

    def do_update(self, message, arrays):
        """What the suite did to a raw model since it handed it out."""
        changed = Answer(self).decode(message["arrays_of"], arrays)
        self.models[message["id"]].set(changed, *self._state(message, arrays))
        self.answer({})

    def _state(self, message, arrays):
        gradients = Answer(self).decode(message["gradients"], arrays)
        return message["modes"], message["frozen"], gradients, message["hooks"]

    def do_look(self, message, arrays):
        """What all code of the process shares, or what a user may have set of a raw model."""
        coder = Answer(self)
        model = self.models.get(message["id"])
        self.answer({"result": coder.encode(surroundings(model.model) if model else process_state())}, coder)

    def do_forward(self, message, arrays):
        """The logits of a raw model as it is now."""
        inputs = Answer(self).decode(message["inputs"], arrays)
        coder = Answer(self)
        try:
            logits = self.models[message["id"]].logits(inputs, message["grad"])
            self.answer({"result": coder.encode(logits)}, coder)
        except Exception as error:  # a hook of the implementation may raise anything
            self.answer({"error": described(error)})

    def do_call(self, message, arrays):
        """Call one function of the implementation."""
        coder = Answer(self)
        editors = message["editors"]
        for editor, number, index in message["push"]:
            self.lives[editor].write(number, arrays[index])
        function = getattr(self.target, message["name"])
        args, kwargs = coder.decode(message["args"], arrays), coder.decode(message["kwargs"], arrays)
        misfit = binding(function, args, kwargs)
        if misfit:
            self.answer({"misfit": misfit})
            return
        seen = Seen(message["watch"]["least"]) if "watch" in message else None
        body, result, caught = {}, None, []
        try:
            with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"), around(message, seen):
                gradients_are(message["grad"])
                warnings.simplefilter("always")
                result = function(*args, **kwargs)
        except SuitesError as error:
            body = {"callback_failed": str(error)}
        except BaseException as error:  # whatever is raised is the implementation's
            body = {"error": described(error)}
        else:
            coder, body = self._result(message, result)
        gradients_were(message["grad"])
        models = {self.model_of[editor] for editor in editors if editor in self.model_of}
        models |= set(message["models"])
        if "handle" in body.get("result_of", ()):
            self.model_of.update((body["result_of"]["handle"], model) for model in message["models"])
        body["raw"] = [[m, coder.encode(change)] for m in sorted(models) for change in [self._change(m)] if change]
        body["blocks"] = self._blocks(coder, {*editors, *([message["live"]] if message["live"] else [])})
        body["warnings"] = counted(caught)
        if seen is not None:
            body["seen"] = seen.as_dict()
        self.answer(body, coder)

    def _change(self, number):
        return self.models[number].changes() if number in self.models else None

    def _result(self, message, result):
        """The result as the answer has it: a handle, live tensors, or plain data."""
        if message["handle"]:
            coder = Answer(self)
            handle = self.kept(result)
            return coder, {"result": handle, "result_of": {"handle": handle["v"]}}
        if message["handles_in"] and isinstance(result, Mapping):
            stay = {key: Stays(result[key]) for key in message["handles_in"] if key in result}
            result = dict(result, **stay)
        live = self.lives.setdefault(message["live"], Live()) if message["live"] else None
        coder = Answer(self, live)
        try:
            body = {"result": coder.encode(result)}
        except Exception as error:  # what cannot be sent is the implementation's
            return Answer(self), {"error": described(error)}
        if live is not None and message["leaves"]:
            live.leaves = coder.leaves
        coder.live = None
        return coder, body

    def _blocks(self, coder, editors):
        """What changed in the live tensors of these editors."""
        found = []
        for editor in sorted(editors):
            live = self.lives.get(editor)
            if live is None:
                continue
            moved = live.moved()
            blocks = [[number, coder.array(array, "block")["v"]] for number, array in live.changed().items()]
            if blocks or moved:
                found.append([editor, blocks, [[index, place] for index, place in moved.items()]])
        return found

    # Objects that stay here, functions that are there

    def kept(self, value):
        """A handle of an object that stays in this process."""
        value = value.inside if isinstance(value, Stays) else value
        self.count += 1
        self.objects[self.count] = value
        return {"$": "handle", "v": self.count, "type": type(value).__name__}

    def callable(self, number, pure):
        """A function that asks the suite. A pure one is asked once for the same arguments."""
        if number in self.callables:
            return self.callables[number]
        answers = {}

        def ask(*args, **kwargs):
            key = (args, tuple(sorted(kwargs.items()))) if pure else None
            with contextlib.suppress(TypeError):
                if key in answers:
                    return self._copied(answers[key])
            coder = Answer(self)
            asked = {"callback": number, "args": coder.encode(args), "kwargs": coder.encode(kwargs)}
            self.wire.send(asked, coder.arrays)
            message, arrays = self.wire.receive()
            if "failed" in message:
                raise SuitesError(message["failed"])
            result = Answer(self).decode(message["result"], arrays)
            if pure and len(answers) < KEPT:
                with contextlib.suppress(TypeError):
                    answers[key] = self._copied(result)
            return result

        self.callables[number] = ask
        return ask

    @staticmethod
    def _copied(result):
        return list(result) if isinstance(result, list) else result


def one_thread():
    """Small matrices are slower on two threads than on one."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def gradients_are(enabled):
    """A call begins in the grad mode that the suite has."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_grad_enabled(enabled)


def gradients_were(enabled):
    """After a call gradients are on again, unless the implementation itself left them otherwise."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.is_grad_enabled() == enabled:
        torch.set_grad_enabled(True)


def around(message, seen):
    """What the suite wants to be so during a call."""
    stack = contextlib.ExitStack()
    if message.get("backward_listings"):
        stack.enter_context(backward_listings())
    if "global_state" in message:
        stack.enter_context(global_state(message["global_state"]))
    if seen is not None:
        stack.enter_context(watching(seen))
    return stack


def empty(function):
    """Whether a function has nothing but its docstring: it has to be written yet."""
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return False
    if not isinstance(node, ast.FunctionDef):
        return False
    return all(isinstance(part, ast.Pass) or _says_nothing(part) for part in node.body)


def _says_nothing(statement):
    value = getattr(statement, "value", None)
    if not isinstance(statement, ast.Expr) or not isinstance(value, ast.Constant):
        return False
    return value.value is ... or isinstance(value.value, str)


def binding(function, args, kwargs):
    """Why the function does not take these arguments; empty where it does."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return ""


def found(spelling, paths):
    """The implementation `package.module` or `path/to/file.py`, and after a colon an object in it."""
    for path in paths:
        if path not in sys.path:
            sys.path.append(path)
    module_name, _, inside = spelling.partition(":")
    if spelling.endswith(".py") or ".py:" in spelling:
        file, _, inside = spelling.rpartition(":") if not spelling.endswith(".py") else (spelling, "", "")
        target = _from_file(os.path.abspath(file))
    else:
        target = importlib.import_module(module_name)
    for part in filter(None, inside.split(".")):
        target = getattr(target, part)
    return target


def _from_file(path):
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path}")
    name = os.path.splitext(os.path.basename(path))[0]
    if os.path.dirname(path) not in sys.path:
        sys.path.append(os.path.dirname(path))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def described(error):
    """An exception as plain data: its type, the built-in types that it is, its message, where it was raised."""
    trace = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in trace if os.path.abspath(frame.filename) != HERE] or list(trace)
    try:
        text = str(error)
    except Exception:  # even that may fail
        text = "(an error without a message)"
    return {
        "type": type(error).__name__,
        "bases": [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"],
        "message": text,
        "where": f"{own[-1].filename}:{own[-1].lineno}" if own else "",
        "trace": "".join(traceback.format_list(own)),
    }


def counted(caught):
    """Warnings as plain data, each kind once, with how often it came."""
    counts = Counter()
    for one in caught:
        bases = [kind.__name__ for kind in one.category.__mro__ if kind.__module__ == "builtins"]
        counts[(one.category.__name__, bases[0], str(one.message), one.filename, one.lineno)] += 1
    return [[*key, times] for key, times in list(counts.items())[:50]]


def environment():
    """The versions of what the implementation runs on."""
    versions = {"numpy": np.__version__}
    for name in ("torch", "transformers"):
        version = _version(name)
        if version:
            versions[name] = version
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": versions,
    }


def _version(name):
    module = sys.modules.get(name)
    if module is not None:
        return str(getattr(module, "__version__", ""))
    from importlib import metadata  # noqa: PLC0415

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


class Printed:
    """What the implementation writes to its standard output and error, which are files of their own."""

    def __init__(self, paths):
        self.files = {name: os.open(path, os.O_RDWR | os.O_APPEND) for name, path in paths.items()}
        os.dup2(self.files["stdout"], 1)
        os.dup2(self.files["stderr"], 2)

    def take(self):
        """{"stdout": text, "stderr": text} of what was written since the last time."""
        taken = {}
        for name, number in self.files.items():
            with contextlib.suppress(Exception):
                getattr(sys, name).flush()
            size = os.fstat(number).st_size
            if size:
                os.lseek(number, 0, os.SEEK_SET)
                text = os.read(number, size)
                os.ftruncate(number, 0)
                taken[name] = text[:PRINTED].decode("utf-8", "replace")
        return taken


HERE = os.path.abspath(__file__)


def main():
    """Take the pipes for messages, give the implementation other standard files, and serve."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    printed = Printed({"stdout": sys.argv[1], "stderr": sys.argv[2]})
    sys.argv[1:] = []
    faulthandler.enable(file=2)
    # The folder of this file is not the implementation's.
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != os.path.dirname(HERE)]
    Server(Wire(incoming, outgoing), printed).serve()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
