"""Inputs as arrays: built on the host, and copied to the device at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..records import Input

Integers: TypeAlias = NDArray[np.int64]
Array: TypeAlias = Any  # a record's field: an NDArray on the host, a Tensor on the device
R = TypeVar("R", bound=tuple[Any, ...])
MANY = 64  # a batch of this many edits uses a GPU fully
NO_LABEL = -100  # the label of a padding position; cross entropy ignores it


class Rows(NamedTuple):
    """B inputs in R rows of C tokens; inputs in one row do not attend to each other.

    ids, types and places (R, C) are token, type and position ids. asking and answering (R, C) are the index of a
    token's input, as a query and as a key; None if each row is exactly one input.
    """

    ids: Array
    types: Array
    places: Array
    asking: Array | None
    answering: Array | None


class Places(NamedTuple):
    """The places of B inputs in the trunk's output, and their predicted positions.

    tokens (B, S) are indices of the R·C tokens; padding (B, 1, 1, S) is 0 or -inf, or None without padding; slots (B,
    P) are indices of predicted positions among the B·S tokens; predicted (N,) are the used ones of the B·P slots.
    """

    tokens: Array
    padding: Array | None
    slots: Array
    predicted: Array


class Bucket(NamedTuple):
    """Sizes that many batches share: S tokens and P predicted positions per input, and N per kind of input."""

    tokens: int
    positions: int
    predicted: int

    @classmethod
    def of(cls, kinds: Sequence[Sequence[Input]]) -> Bucket:
        """The smallest bucket for these kinds, which have the same number of inputs."""
        inputs, count = list(chain.from_iterable(kinds)), len(kinds[0])
        predicted = max(sum(len(i.positions) for i in kind) for kind in kinds)
        most = max(1, *(len(i.positions) for i in inputs))
        return cls(
            # The longest of many inputs varies less, and padding costs more.
            _up(max(map(_width, inputs)), 8 if count < MANY else 4),
            1 << (most - 1).bit_length(),
            predicted if most == 1 else _up(predicted, max(8, count // 8)),
        )


def rows_of(
    inputs: Sequence[Input], pad: int, first: int, shared: bool, bucket: Bucket | None = None
) -> tuple[Rows, Integers]:
    """The inputs in rows (`shared`: several may share one), and each one's start. `first` is the first position id."""
    lengths, widths = np.array([len(i.ids) for i in inputs]), np.array([_width(i) for i in inputs])
    starts, shape = _starts(widths, shared, bucket)
    said, whole = _runs(starts, lengths), _runs(starts, widths)
    ids, types, answering = np.full(shape, pad), np.zeros(shape, int), np.full(shape, -1)
    places, asking = np.full(shape, max(0, first - 1)), np.full(shape, -1)
    ids.flat[said] = np.fromiter(chain.from_iterable(i.ids for i in inputs), int)
    types.flat[said] = np.fromiter(chain.from_iterable(i.types or (0,) * len(i.ids) for i in inputs), int)
    answering.flat[said] = np.repeat(np.arange(len(inputs)), lengths)
    # Predicted padding (clause M7) attends to its input; the input does not attend to it.
    asking.flat[whole] = np.repeat(np.arange(len(inputs)), widths)
    of_place = (said, lengths) if first else (whole, widths)
    places.flat[of_place[0]] = first + _runs(np.zeros_like(starts), of_place[1])
    whole_rows = bucket is None and len(said) == ids.size and shape[0] == len(inputs)
    return Rows(ids, types, places, *((None, None) if whole_rows else (asking, answering))), starts


def places_of(inputs: Sequence[Input], starts: Integers, kinds: int = 1, bucket: Bucket | None = None) -> Places:
    """The places of inputs with these starts. Input i has kind i mod `kinds`; predictions are sorted by kind."""
    lengths, widths = np.array([len(i.ids) for i in inputs]), np.array([_width(i) for i in inputs])
    counts = np.array([len(i.positions) for i in inputs])
    s, p = (widths.max(), max(1, counts.max())) if bucket is None else (bucket.tokens, bucket.positions)
    column, there = np.arange(s), np.arange(p) < counts[:, None]
    tokens = starts[:, None] + np.minimum(column, widths[:, None] - 1)
    full = bucket is None and bool((lengths == s).all())
    padding = None if full else np.where(column < lengths[:, None], 0.0, -np.inf)[:, None, None]
    slots = np.zeros((len(inputs), p), int)
    slots[there] = np.fromiter(chain.from_iterable(i.positions for i in inputs), int)
    slots += s * np.arange(len(inputs))[:, None]
    numbers = np.arange(slots.size).reshape(slots.shape)
    predicted = [numbers[kind::kinds][there[kind::kinds]] for kind in range(kinds)]
    if bucket is not None:
        predicted = [filled(each, bucket.predicted, 0) for each in predicted]
    return Places(tokens, padding, slots, np.concatenate(predicted))


def filled(values: NDArray[Any], size: int, value: int) -> NDArray[Any]:
    """`values`, padded with `value` to `size`."""
    return np.pad(values, (0, size - len(values)), constant_values=value)


def padded(rows: Sequence[Sequence[int]], value: int, width: int | None = None) -> Tensor:
    """Rows of any lengths as one tensor (B, S), padded with `value`."""
    width = max(map(len, rows)) if width is None else width
    return torch.from_numpy(np.array([[*row, *[value] * (width - len(row))] for row in rows]))


@dataclass(frozen=True, slots=True)
class Sent(Generic[R]):
    """A record of arrays (it may be nested) in two buffers: one of integers, one of floats."""

    record: R
    integers: Tensor
    numbers: Tensor

    @classmethod
    def of(cls, record: R, like: Tensor) -> Sent[R]:
        """Floats get the dtype of `like`; the buffers are pinned if `like` is on a GPU."""
        buffers = []
        for leaves, dtype in zip(_by_kind(record), (torch.long, like.dtype), strict=True):
            buffer = torch.empty(sum(leaf.size for leaf in leaves), dtype=dtype, pin_memory=like.is_cuda)
            if leaves:
                np.concatenate([leaf.ravel() for leaf in leaves], out=buffer.numpy(), casting="same_kind")
            buffers.append(buffer)
        return cls(record, *buffers)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of all arrays; batches with equal shapes can use the same buffers."""
        return tuple(leaf.shape for leaves in _by_kind(self.record) for leaf in leaves)

    def on(self, device: torch.device) -> R:
        """The record as tensors. The copies are asynchronous."""
        return self.within(self.integers.to(device, non_blocking=True), self.numbers.to(device, non_blocking=True))

    def within(self, integers: Tensor, numbers: Tensor) -> R:
        """The record as views of two buffers."""
        parts = [
            iter(buffer.split([leaf.size for leaf in leaves]))
            for buffer, leaves in zip((integers, numbers), _by_kind(self.record), strict=True)
        ]
        built: R = _built(self.record, parts)
        return built


def _width(one: Input) -> int:
    """Clause M7's "all" predicts padding as well."""
    return max(len(one.ids), *(p + 1 for p in one.positions))


def _up(size: int, to: int) -> int:
    return -(-size // to) * to


def _runs(starts: Integers, lengths: Integers) -> Integers:
    """start, start + 1, … of each run, concatenated."""
    before = np.cumsum(lengths) - lengths
    numbers: Integers = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return numbers


def _starts(widths: Integers, shared: bool, bucket: Bucket | None) -> tuple[Integers, tuple[int, int]]:
    """Each input's start in rows (R, C). Inputs share rows if that saves a tenth: a shuffled batch is 1/3 padding."""
    count, longest, few = len(widths), int(widths.max()), len(widths) < 3 * MANY
    alone = longest if bucket is None else bucket.tokens
    if not shared:
        return alone * np.arange(count), (count, alone)
    capacity = alone * max(2, 64 // alone) if bucket is None else _up(alone * max(2, 64 // alone), 8)
    starts, order = np.zeros_like(widths), np.argsort(-widths, kind="stable")
    row, used, low, high = 0, 0, 0, count - 1
    while low <= high:
        # The longest input starts a row, and the shortest ones fill it.
        one = order[low] if used == 0 else order[high]
        if used + widths[one] > capacity:
            row, used = row + 1, 0
            continue
        low, high = (low + 1, high) if used == 0 else (low, high - 1)
        starts[one] = row * capacity + used
        used += widths[one]
    if (row + 1) * capacity > 0.9 * count * longest if bucket is None else few:
        return alone * np.arange(count), (count, alone)
    return starts, (row + 1 if bucket is None else _up(row + 1, 8), capacity)


def _by_kind(record: Any) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    leaves = list(_leaves(record))
    whole = [leaf for leaf in leaves if leaf.dtype.kind == "i"]
    return whole, [leaf for leaf in leaves if leaf.dtype.kind != "i"]


def _leaves(record: Any) -> Iterator[NDArray[Any]]:
    if isinstance(record, tuple):
        for part in record:
            yield from _leaves(part)
    elif record is not None:
        yield record


def _built(record: Any, parts: Sequence[Iterator[Tensor]]) -> Any:
    if isinstance(record, tuple):
        built = [_built(part, parts) for part in record]
        return record._make(built) if hasattr(record, "_make") else tuple(built)
    return None if record is None else next(parts[record.dtype.kind != "i"]).view(record.shape)
