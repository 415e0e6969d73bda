"""CUDA graphs: a GPU computation is recorded once for each input shape, then replayed."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from ..backbone.arrays import R, Sent

MOST = 16  # recorded shapes at most; the least recently used one is dropped
Results = Sequence[Tensor | None]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph, and its two input buffers."""

    graph: torch.cuda.CUDAGraph
    integers: Tensor
    numbers: Tensor


class Graphs(Generic[R]):
    """`compute`, which maps a record of tensors to tensors of the same shapes each time, as CUDA graphs.

    A shape is computed as usual at first, and recorded at its second call. The next call overwrites the results. If
    recording fails, or memory is full, a warning is given, and all later calls are computed as usual.
    """

    def __init__(self, compute: Callable[[R], Results], device: torch.device) -> None:
        self.compute, self.device = compute, device
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        self._seen: set[tuple[tuple[int, ...], ...]] = set()
        self._recorded: OrderedDict[tuple[tuple[int, ...], ...], _Recorded] = OrderedDict()
        self._results: Results | None = None
        self._works = True

    def __call__(self, sent: Sent[R]) -> Results:
        if self._works:
            try:
                return self._quickly(sent)
            except RuntimeError as error:
                reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            # Outside the except clause, whose traceback would keep the failed attempt's tensors.
            self._works, self._results = False, None
            self._recorded.clear()
            torch.cuda.empty_cache()
            warnings.warn(f"steps are not recorded as CUDA graphs, which makes them slower ({reason})", stacklevel=2)
        return self.compute(sent.on(self.device))

    def _quickly(self, sent: Sent[R]) -> Results:
        shapes = sent.shapes
        if shapes not in self._seen:
            self._seen.add(shapes)
            # On the recording stream: libraries must be initialised there before a recording.
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self._stream):
                found = self.compute(sent.on(self.device))
            torch.cuda.current_stream(self.device).wait_stream(self._stream)
            if self._results is None:
                self._results = [None if t is None else t.new_empty(t.shape) for t in found]
            return found
        if shapes not in self._recorded:
            self._recorded[shapes] = self._record(sent)
            if len(self._recorded) > MOST:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(shapes)
        recorded = self._recorded[shapes]
        recorded.integers.copy_(sent.integers, non_blocking=True)
        recorded.numbers.copy_(sent.numbers, non_blocking=True)
        recorded.graph.replay()
        return self._results or ()

    def _record(self, sent: Sent[R]) -> _Recorded:
        integers, numbers = (b.to(self.device, copy=True) for b in (sent.integers, sent.numbers))
        record, graph = sent.within(integers, numbers), torch.cuda.CUDAGraph()
        # Other threads may prepare batches at the same time, and so allocate pinned memory.
        mode = "thread_local"
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode=mode):
            found = [t for t in self.compute(record) if t is not None]
            torch._foreach_copy_([t for t in self._results or () if t is not None], found)
        return _Recorded(graph, integers, numbers)
