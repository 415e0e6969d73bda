"""Options, the machine that is measured on, and `measure`, which times a function against the limit.

pytest perf/ --benchmark-only                        the quick subset, on one CPU thread
pytest perf/ --benchmark-only --whole                all, at mBERT size as well
pytest perf/ --benchmark-only --device cuda --whole  bf16 autocast and TF32 at mBERT size
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from lime_editing.backbone import Backbone
from perf import report, setting
from perf.counting import Size

PRECISIONS = {"cpu": ("fp32",), "cuda": ("bf16", "tf32")}
#: Sizes and batches that a test runs with, by device: quick ones, and those of --whole.
SIZES = {"cpu": (("small",), ("small", "mbert")), "cuda": (("mbert",), ("mbert",))}
BATCHES = {"cpu": ((10,), (10, 64)), "cuda": ((64,), (64, 512))}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("perf")
    group.addoption("--device", choices=sorted(PRECISIONS), default="cpu", help="where to measure")
    group.addoption("--whole", action="store_true", help="the slow benchmarks too, at mBERT size")


def pytest_configure(config: pytest.Config) -> None:
    # Warnings are errors here, and it is none that a benchmark was skipped.
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used")
    config.addinivalue_line("markers", "whole: too slow for the quick subset; runs with --whole")
    config.addinivalue_line("markers", "quick: a part of what --whole and a GPU measure, for the quick subset alone")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    device, whole = metafunc.config.getoption("--device"), metafunc.config.getoption("--whole")
    if "precision" in metafunc.fixturenames:
        metafunc.parametrize("precision", PRECISIONS[device])
    # A test that names its own sizes or batches keeps them.
    marks = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    own = {name for names in marks for name in ([names] if isinstance(names, str) else names)}
    for name, values in (("size_name", SIZES), ("batch", BATCHES)):
        if name in metafunc.fixturenames and name not in own:
            metafunc.parametrize(name, values[device][whole])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    unwanted = "quick" if config.getoption("--whole") or config.getoption("--device") == "cuda" else "whole"
    left_out = [item for item in items if item.get_closest_marker(unwanted)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@dataclass(frozen=True)
class Machine:
    """A device and the precision of its matrix products."""

    device: str
    precision: str

    def computing(self) -> AbstractContextManager[object]:
        """The context in which a measured function runs."""
        return torch.autocast(self.device, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def backbone(self, size: Size) -> Backbone:
        """A model of this size, on the device and in the precision."""
        return setting.backbone_of(size, self.device, self.precision)

    def wait(self) -> None:
        """Until all that was asked of the device is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object]) -> float:
        self.wait()
        start = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - start

    def paired(self, base: Callable[[], object], other: Callable[[], object], pairs: int) -> tuple[float, float, float]:
        """How many times as long as `base` the `other` takes: the median of so many pairs, and its 95% interval.

        The two alternate, and which goes first alternates too. On a CPU it is the process's own time that counts.
        """
        clock = self.seconds if self.device == "cuda" else _cpu_seconds
        ratios = []
        with self.computing():
            base(), other()
            for i in range(pairs):
                first, second = (clock(run) for run in ((base, other) if i % 2 else (other, base)))
                ratios.append(second / first if i % 2 else first / second)
        # By ranks: as many signs below the median as chance would leave.
        ratios.sort()
        out = max(0, int((pairs - 1.96 * pairs**0.5) / 2))
        return statistics.median(ratios), ratios[out], ratios[-1 - out]

    def gemm_rates(self) -> list[float]:
        """FLOP/s of some square matrix products, large enough for the device."""
        n = 8192 if self.device == "cuda" else 1024
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        # Random, since a GPU multiplies ones at a higher clock.
        a, b, out = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(3))
        return [2 * n**3 / self.seconds(lambda: torch.mm(a, b, out=out)) for _ in range(4)]

    def bandwidth(self) -> float:
        """Bytes per second of a copy too large for any cache, read and written."""
        a = torch.ones(2**26, device=self.device)
        b = torch.empty_like(a)
        b.copy_(a)
        return 8 * len(a) / statistics.median(self.seconds(lambda: b.copy_(a)) for _ in range(5))

    def close(self, actual: Any, expected: Any, scale: float = 1.0) -> None:
        """Assert that two tensors agree in norm: to float32's rounding, or to what lower precisions allow."""
        tolerance = min(0.3, scale * {"fp32": 1e-4, "tf32": 3e-3, "bf16": 3e-2}[self.precision])
        error = (actual.detach().float() - expected.detach().float()).norm().item()
        assert error <= tolerance * expected.detach().float().norm().item(), "differs from the dense computation"


def _cpu_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


@pytest.fixture
def machine(request: pytest.FixtureRequest, precision: str) -> Iterator[Machine]:
    """One thread on a CPU; on a GPU the products of float32 are TF32's where asked for."""
    device = request.config.getoption("--device")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    threads, products = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield Machine(device, precision)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(products)


@pytest.fixture(scope="session")
def bandwidths() -> dict[str, float]:
    """Of each device, once measured."""
    return {}


@pytest.fixture
def measure(benchmark: BenchmarkFixture, machine: Machine, bandwidths: dict[str, float]) -> Callable[..., None]:
    """measure(run, group, edits=…, gflop=…): time `run`, warmed up, and note its share of the limit.

    group       the table in which other ways of doing the same stand beside it
    edits       how many edits one call makes
    flop        operations that one edit needs; `bytes_moved` the memory traffic of one call that no product hides
    way         what is timed: "reference", or the name of what it is compared with
    seconds     for as long it is repeated, three times at least, or twice what takes long
    rounds      or so often, without a call to warm up: for what is slow, and was warmed up in another way
    """

    def run_measured(
        run: Callable[[], object],
        group: str,
        edits: int = 1,
        flop: float = 0,
        bytes_moved: float = 0,
        way: str = "reference",
        seconds: float = 0.5,
        rounds: int = 0,
        **extra: Any,
    ) -> None:
        def computed() -> None:
            with machine.computing():
                run()
            machine.wait()

        if not rounds:
            first = machine.seconds(computed)
            rounds = min(100, max(2 if first > 1 else 3, int(seconds / first)))
        # The rate is taken before and after: the neighbours of a shared machine come and go.
        rates = machine.gemm_rates()
        benchmark.group = f"{group}, {machine.precision}"
        benchmark.pedantic(computed, rounds=rounds)
        peak = statistics.median(rates + machine.gemm_rates())
        info = {"way": way, "edits": edits, "precision": machine.precision, "device": machine.device}
        info |= {"peak_gflops": peak / 1e9, **extra}
        if flop:
            info |= {"needed_gflop": edits * flop / 1e9, "limit_seconds": edits * flop / peak}
        if bytes_moved:
            if machine.device not in bandwidths:
                bandwidths[machine.device] = machine.bandwidth()
            info |= {"needed_gbyte": bytes_moved / 1e9, "bandwidth_gbytes": bandwidths[machine.device] / 1e9}
            info["traffic_seconds"] = bytes_moved / bandwidths[machine.device]
        if benchmark.stats is not None:
            median = benchmark.stats.stats.median
            info["edits_per_second"] = edits / median
            if flop:
                info["fraction_of_limit"] = info["limit_seconds"] / median
        benchmark.extra_info.update(info)

    return run_measured


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish() -> Generator[None]:
    """Nor is it an error that all were: then there is nothing to save."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Not saving anything")
        return (yield)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Fractions, ratios and slopes below pytest-benchmark's own tables."""
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    rows = [
        report.Row.of(
            {"group": b.group, "name": b.name, "stats": {"median": b.stats.median}, "extra_info": b.extra_info}
        )
        for b in session.benchmarks
        if b and b.extra_info
    ]
    terminalreporter.section("fractions of the limit")
    for line in report.lines(rows):
        terminalreporter.write_line(line)
