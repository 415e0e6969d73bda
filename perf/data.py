"""How much memory and time data of the paper's size take: synthetic mLAMA and XNLI, read, split, sampled, tokenised.

    python -m perf.data facts --folder /scratch      843,143 rows in 53 languages and 43 relations, as a zip archive
    python -m perf.data pairs --folder /scratch      392,702 + 2,490 + 5,010 rows in 15 languages, in XNLI's schema

The data are made in the folder where they are not there yet, and stay. Each step prints its seconds and what the
process holds after it: resident memory, of it what no file backs, and the highest of the resident so far.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from lime_editing import data
from lime_editing.backbone import load_tokenizer
from lime_editing.core.training import batch_of_triples
from lime_editing.data import Reader
from lime_editing.data.facts.read import LANGUAGES
from lime_editing.data.pairs.task import predicted
from lime_editing.names import Rulings

ROWS, SUBJECTS, RELATIONS = 843_143, 32_961, 43
PAIRS = {"train": 392_702, "validation": 2_490, "test": 5_010}
CODES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
BATCH, STEPS = 32, 50
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def words(rng: random.Random, count: int) -> str:
    return " ".join("".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(count))


def make_facts(path: Path) -> None:
    """Groups of one size, whose subjects overlap from language to language."""
    rng = random.Random(0)
    relations = [f"P{i}" for i in range(RELATIONS - 2)] + ["place_of_birth", "place_of_death"]
    size, more = divmod(ROWS, len(LANGUAGES) * RELATIONS)
    pools = {relation: rng.sample(range(SUBJECTS), 600) for relation in relations}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        group = 0
        for language in sorted(LANGUAGES):
            names = [words(rng, 2) for _ in range(SUBJECTS)]
            objects = [words(rng, 1 + i % 2) for i in range(2_000)]
            templates = [{"relation": r, "template": f"[X] {words(rng, 3)} [Y] ."} for r in relations]
            archive.writestr(f"mlama1.1/{language}/templates.jsonl", "\n".join(map(json.dumps, templates)))
            for relation in relations:
                chosen = sorted(rng.sample(pools[relation], size + (group < more)))
                rows = [
                    {
                        "sub_uri": f"Q{subject}",
                        "obj_uri": f"Q{(subject * 7) % 2_000}",
                        "obj_label": objects[(subject * 7) % 2_000],
                        "sub_label": names[subject],
                        "lineid": i,
                        "uuid": f"{rng.getrandbits(128):032x}",
                    }
                    for i, subject in enumerate(chosen)
                ]
                archive.writestr(f"mlama1.1/{language}/{relation}.jsonl", "\n".join(map(json.dumps, rows)))
                group += 1


def make_pairs(folder: Path) -> None:
    features = datasets.Features(
        premise=datasets.Translation(list(CODES)),
        hypothesis=datasets.TranslationVariableLanguages(list(CODES)),
        label=datasets.ClassLabel(names=["entailment", "neutral", "contradiction"]),
    )
    rng = random.Random(0)
    texts = {code: [words(rng, 16) for _ in range(5_000)] for code in CODES}
    (folder / "all_languages").mkdir(parents=True)
    for split, count in PAIRS.items():
        path = folder / "all_languages" / f"{split}-00000-of-00001.parquet"
        with pq.ParquetWriter(path, features.arrow_schema) as writer:
            for start in range(0, count, 5_000):
                rows = range(start, min(start + 5_000, count))
                premises = [{c: f"{texts[c][i % 5_000]} {i}" for c in CODES} for i in rows]
                said = [[f"{texts[c][i * 7 % 5_000][:60]} {i}" for c in CODES] for i in rows]
                columns = {
                    "premise": premises,
                    "hypothesis": [{"language": list(CODES), "translation": text} for text in said],
                    "label": [i % 3 for i in rows],
                }
                writer.write_table(pa.Table.from_pydict(columns, schema=features.arrow_schema))


def memory() -> str:
    told = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    of = {name: int(told[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "VmHWM")}
    return f"{of['VmRSS']:8,.0f} MiB resident, {of['RssAnon']:8,.0f} of no file, highest {of['VmHWM']:8,.0f}"


def timed(name: str, call: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = call()
    print(f"{name:<44}{time.perf_counter() - start:8.1f} s  {memory()}", flush=True)
    return result


def steps(task: Any) -> Iterator[Any]:
    for step in range(STEPS):
        yield batch_of_triples(task, BATCH, 0, step)


def measure(task: str, path: Path) -> None:
    dataset, model = data.find(task), FIXTURES / ("raw_model" if task == "facts" else "raw_classifier")
    tokenizer = timed("tokenizer", lambda: load_tokenizer(model))
    content = timed("read", lambda: dataset.read(str(path), None))
    left_out = f"; left out {sum(content.left_out.values()):,}" if task == "facts" else ""
    print(f"  {len(content):,} items in {len(content.languages)} languages{left_out}")
    timed("fingerprint", lambda: dataset.fingerprint(content))
    timed("remarks, against the paper's counts", lambda: dataset.remarks(str(path), content))
    classes = {name: i for i, name in enumerate(content.classes)} if dataset.classifies else None
    reader = Reader(tokenizer, 512, classes)
    tasks = timed("splits, tokenised as far as a run needs", lambda: dataset.tasks(content, reader, Rulings(), {}))
    timed("corpora of the splits", lambda: [task.corpus.examples[0] for task in tasks.values()])
    timed(f"{STEPS} training steps of {BATCH} triples", lambda: sum(1 for _ in steps(tasks["train"])))
    if task == "nli":
        timed("the whole test set, tokenised", lambda: predicted(tasks["test"], lambda inputs: [0] * len(inputs)))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=("facts", "pairs"))
    arguments.add_argument("--folder", type=Path, required=True, help="where the data are made: some gigabytes")
    arguments.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    path = options.folder / ("mlama.zip" if options.what == "facts" else "xnli")
    if options.measure:
        measure("facts" if options.what == "facts" else "nli", path)
        return
    if not path.exists():
        options.folder.mkdir(parents=True, exist_ok=True)
        (make_facts if options.what == "facts" else make_pairs)(path)
    # In a process of its own, so that the making is no part of it.
    environment = {**os.environ, "HF_DATASETS_CACHE": str(options.folder / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "perf.data", options.what, "--folder", str(options.folder), "--measure"]
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
