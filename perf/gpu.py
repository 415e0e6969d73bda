"""What a GPU says of the reference, in one command: python -m perf.gpu [--parts 1,3] [--limit SECONDS] [--out FOLDER]

1  losses, gradients, edits and a short training against the CPU's, with tolerances
2  the peak of matrix products, the bandwidth of the memory, and what one operation costs the host
3  training steps and evaluations at mBERT's size: edits per second, share of the peak, hours of the paper's training
4  the peak memory of each editor at each batch, from the runs of part 3
5  some cells of the tiny grid beside the CPU's published rows; left out where packages are missing
6  where the time of a step goes: kernels, waiting, host, synchronisations, dispatched operations
7  steps that are captured as CUDA graphs against eager ones: gradients, twenty steps, and that the loop stops in time

Each part is a process of its own with a time limit, so that none loses what another has found, and the files are
written after each. Parts that an earlier run on the same kind of machine has measured stay in them. Nothing but torch,
transformers, numpy and safetensors is needed, except for part 5.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: In order of importance, with the share of the time that each may take.
SHARES = {1: 65, 7: 45, 2: 15, 3: 140, 6: 55, 5: 90}
NAMES = {
    1: "the GPU against the CPU",
    2: "what the machine can do",
    3: "speed and memory at mBERT's size",
    5: "the tiny grid",
    6: "where the time of a step goes",
    7: "recorded steps against eager ones",
}
#: Seconds that a part may take beyond its time to finish a measurement, before it is ended.
GRACE = 20.0
#: Seconds that are kept back for the last files.
KEPT = 5.0


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m perf.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=_parts, default=list(SHARES), help="such as 1,3; 4 comes with 3 (default: all)")
    parser.add_argument("--limit", type=float, default=480.0, help="seconds that all may take together (default: 480)")
    parser.add_argument("--device", default="cuda", help="cpu or a CUDA device (default: cuda)")
    parser.add_argument("--out", type=Path, default=Path("perf/local"), help="folder (default: perf/local)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether everything runs, and no measurement")
    options = parser.parse_args(arguments)
    if options.limit <= 0:
        parser.error(f"--limit {options.limit:g}: expected seconds, more than 0")
    if options.device != "cpu" and not re.fullmatch(r"cuda(:\d+)?", options.device):
        parser.error(f"--device {options.device}: expected cpu, cuda or cuda:N")
    return options


def _parts(text: str) -> list[int]:
    """Part numbers in order of importance."""
    wanted = {3 if part.strip() == "4" else int(part) if part.strip().isdigit() else 0 for part in text.split(",")}
    if not wanted <= set(SHARES):
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers of 1 to 7, with commas between them")
    return [number for number in SHARES if number in wanted]


def main() -> int:
    start = time.monotonic()
    options = options_of()
    # Looking whether there is a GPU must not touch it: a server that has touched it is of no use.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # A server that has imported everything once: each part starts from there in a moment. It never touches the GPU.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        from multiprocessing import forkserver  # noqa: PLC0415 (not on every system)

        context.set_forkserver_preload(["perf.gpu_parts"])
        forkserver.ensure_running()
    from perf import gpu_page, gpu_parts, steps  # noqa: PLC0415 (seconds, while the server imports the same)

    machine = machine_of(options.device)
    if machine is None:
        print(f"--device {options.device}: no such device on this machine; --device cpu --quick tries the program")
        return 2
    path = options.out / f"gpu-{_slug(machine['device'])}{'-quick' if options.quick else ''}.json"
    content = earlier(path, machine) | {"machine": machine}
    weights = {number: SHARES[number] for number in options.parts}
    if 5 in weights and gpu_parts.lacking():
        weights[5] = 0  # it only says so
    for number in options.parts:
        left = options.limit - (time.monotonic() - start) - KEPT
        share = left * weights[number] / max(1, sum(weights[n] for n in weights if n not in content.get("ran", [])))
        record = run(context, number, options, share, min(share + GRACE, left))
        if record.pop("exit_code") == gpu_parts.FORKED:
            print("the import of a package has touched the GPU: each part imports everything anew", flush=True)
            context = multiprocessing.get_context("spawn")
            record = run(context, number, options, share, min(share + GRACE, left))
            record.pop("exit_code")
        record |= {"command": f"python -m perf.gpu {shlex.join(sys.argv[1:])}".strip(), "code": steps.code()}
        content["parts"][str(number)] = record
        content.setdefault("ran", []).append(number)
        kept = {key: value for key, value in content.items() if key != "ran"}
        gpu_parts.write_atomically(path, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        gpu_parts.write_atomically(path.with_suffix(".md"), gpu_page.page(kept))
    ran = [content["parts"][str(number)] for number in options.parts]
    failed = [row for record in ran for row in record["rows"] if row.get("passed") is False or "error" in row]
    print(f"{path}: {time.monotonic() - start:.0f} s, {len(failed)} rows failed", flush=True)
    return int(bool(failed) or any(record["status"].startswith("ended") for record in ran))


def run(context: Any, number: int, options: argparse.Namespace, share: float, most: float) -> dict[str, Any]:
    """One part in its process: what it has found, also where it crashes, or hangs and is ended."""
    from perf import gpu_parts  # noqa: PLC0415

    if most < 5:
        print(f"part {number}, {NAMES[number]}: not started, no time was left", flush=True)
        about = {"name": NAMES[number], "status": "not started", "seconds": 0.0, "limit": 0.0}
        return {**about, "rows": [], "notes": ["no time was left"], "exit_code": 0}
    print(f"part {number}, {NAMES[number]}: up to {share:.0f} s", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        log = gpu_parts.Log(file, options.device, options.quick, start + share)
        log.write()
        process = context.Process(target=gpu_parts.run_part, args=(number, log))
        process.start()
        process.join(max(0.0, most))
        hung = process.is_alive()
        if hung:
            _end(process)
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if hung:
        status = "ended at its time limit"
    elif not found.pop("done", False):
        status = f"ended by an error, exit code {process.exitcode}"
    else:
        status = "cut short" if any(note.startswith("no time") for note in found["notes"]) else "complete"
    found.pop("done", None)
    seconds = time.monotonic() - start
    print(
        f"part {number}: {status}, {len(found['rows'])} rows, {seconds:.1f} s", *found["notes"], sep="\n  ", flush=True
    )
    return {
        "name": NAMES[number],
        "status": status,
        "seconds": seconds,
        "limit": share,
        "exit_code": process.exitcode,
        **found,
    }


def _end(process: Any) -> None:
    """Kill a part and what it has started; it may be too stuck to be waited for long."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, OSError):
        process.kill()
    process.join(5)


def machine_of(device: str) -> dict[str, Any] | None:
    """The device, and what it is used with; None where it is not there."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    system = {"python": platform.python_version(), "cores": os.cpu_count(), "system": platform.system()}
    if device == "cpu":
        return {"device": f"cpu {platform.machine()} {os.cpu_count()} cores", **system, **versions}
    index = int(device.partition(":")[2] or 0)
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        return None
    properties = torch.cuda.get_device_properties(index)
    about = {"device": properties.name, "memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
    return {**about, **system, **versions}


def earlier(path: Path, machine: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run has found on the same kind of machine with the same versions."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["machine"] == machine and isinstance(found["parts"], dict):
            return {"parts": found["parts"]}
        print(f"{path} is of other versions, and is replaced")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        print(f"{path} cannot be read, and is replaced")
    return {"parts": {}}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
