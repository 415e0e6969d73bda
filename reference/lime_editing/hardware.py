"""Hardware: several processes for one cell, devices, bf16, and batches halved when memory is full."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from . import checks
from .borders import first_line
from .errors import UserError
from .names import Precision

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes that share one cell, and the rank of this one."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages for all."""
        return self.rank == 0

    def share(self, items: int) -> range:
        """The indices of this process's share of `items`. Shares differ by one item at most, and may be empty."""
        return range(items * self.rank // self.count, items * (self.rank + 1) // self.count)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, the same bits in all of them."""
        if self.count == 1:
            return
        from accelerate.utils import reduce  # noqa: PLC0415 (a second to import, and one process needs none of it)

        # One message is faster than many small ones.
        total = reduce(torch.cat([t.flatten() for t in tensors]), "sum")
        for tensor, summed in zip(tensors, total.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def wait(self) -> None:
        if self.count > 1:
            from accelerate import PartialState  # noqa: PLC0415

            PartialState().wait_for_everyone()

    def leave(self) -> None:
        """Close the channels between the processes."""
        if self.count > 1:
            from accelerate import PartialState  # noqa: PLC0415

            PartialState().destroy_process_group()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process runs the block before the others, which then read its caches."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


ALONE = Processes()


def later(values: Tensor) -> Callable[[], list[float]]:
    """A function that returns the values. The copy from a GPU is asynchronous."""
    if not values.is_cuda:
        return values.tolist
    kept = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    kept.copy_(values, non_blocking=True)
    copied = torch.cuda.current_stream(values.device).record_event()

    def read() -> list[float]:
        copied.synchronize()
        return kept.tolist()

    return read


def launched() -> int:
    """The number of processes that `torchrun` or `accelerate launch` has started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: str) -> Processes:
    """The processes that `torchrun` has started, one device each; without it, this one alone."""
    if launched() == 1:
        return ALONE
    kind, _, number = device.partition(":")
    if number:
        raise UserError(f"--device {device}: each of several processes takes its own device; give --device {kind}")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if kind == "cuda" and torch.cuda.device_count() < here:
        raise UserError(f"there are {here} processes and {torch.cuda.device_count()} GPUs; start one process for each")
    from accelerate import PartialState  # noqa: PLC0415

    state = PartialState(cpu=kind == "cpu")
    return Processes(state.process_index, state.num_processes)


def check_device(device: str, precision: Precision, elsewhere: bool = False) -> None:
    """UserError: an unusable device or precision. `elsewhere`: of another machine, so only the name is checked."""
    if not isinstance(device, (str, torch.device)):
        raise UserError(f"device {device!r} cannot be used: it is not a name; available: {', '.join(devices())}")
    checks.refuse(UserError, checks.of_choice("precision", precision, Precision))
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise UserError(f"device {device!r} cannot be used: unknown; available: {', '.join(devices())}") from error
    if elsewhere and kind != "meta":
        return
    try:
        torch.ones(1, device=device).sum().item()  # a device may exist and not work
    except Exception as error:  # each kind of device has its own error type
        raise UserError(
            f"device {device!r} cannot be used: {first_line(error)}; available: {', '.join(devices())}"
        ) from error
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"{torch.cuda.get_device_name(device)} does not support bf16; use --precision float32")


def devices() -> list[str]:
    found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return found + [kind for kind in ("mps", "xpu") if getattr(torch, kind).is_available()]


def name_of(device: str) -> str:
    """The machine's name in a record: its CPU, or its GPU and CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = f"{os.cpu_count()}-core {platform.machine()} CPU"
    return cpu if device == "cpu" else f"{device} of a {cpu}"


def halving(attempt: Callable[[int], T], size: int) -> tuple[T, int]:
    """`attempt(size)`, with `size` halved until it fits in memory, and that size. UserError: not even 1 fits."""
    while True:
        try:
            return attempt(size), size
        except torch.OutOfMemoryError as error:
            reason = str(error).split(". ", maxsplit=1)[0]
        # Outside the except clause, whose traceback would keep the failed attempt's tensors.
        if size == 1:
            raise UserError(f"the device has too little memory for one edit ({reason}); use a smaller model or another")
        size = (size + 1) // 2
        torch.cuda.empty_cache()
