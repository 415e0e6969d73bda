"""WALKTHROUGH.md says what is so: its adapter, run as it stands there, on the code base that it is about."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from .. import skeleton
from .shown import driven

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "spec_tests" / "WALKTHROUGH.md").read_text(encoding="utf-8")
FILES = ("test_t_task.py", "test_e_editors.py", "test_a_masks.py", "test_b_budget.py", "test_l_objectives.py")
#: All that the adapter claims, but for long trainings and three of four kinds of models.
CLAIMED = "not short_training and not descends and not square and not roberta and not classifier"
EXCUSED = "bert and (outer_products or rate_starts or downhill)"
_ONE_BY_ONE = "torch.stack([third_party.edit_loss(*one) for one in zip(logits, labels, strict=True)]).mean()"
#: The adapter with a mistake of the page's list: its place there, what is written for what, and tests that find it.
MISTAKES = {
    "transposed": (0, "update.detach()", "update.detach().T", "outer_products and none-square"),
    "not restored": (1, "    editor.restore()\n", "", "leave_the_raw_model and mend-bert-training"),
    "mean over labels": (2, _ONE_BY_ONE, "third_party.edit_loss(logits[:, 0], labels[:, 0])", "rel_is or its_examples"),
    "sum over examples": (2, _ONE_BY_ONE, _ONE_BY_ONE.replace("mean", "sum"), "rel_is or its_examples"),
    "languages sorted": (3, '"languages": languages', '"languages": sorted(languages)', "uses_the_mask and mend-en"),
    "labels of 0": (4, "-100)\n", "0)\n", "captured_rows and bert"),
}
FIXED = [
    *(f"spec_tests/{name}" for name in FILES),
    "-q",
    "--hypothesis-profile=mutants",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
]
#: Each run with modules of its own: the code base, mended or not, and the adapter.
DRIVER = """
import contextlib, io, json, sys, types
import pytest
import spec_tests.meta

def module(name, text):
    made = types.ModuleType(name)
    exec(compile(text, name, "exec"), made.__dict__)
    sys.modules[name] = made
    return made

found = {}
for name, (code_base, adapter, arguments) in json.load(sys.stdin).items():
    spec_tests.meta.third_party = module("spec_tests.meta.third_party", code_base)
    module("my_adapter", adapter)
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.redirect_stderr(text):
        code = pytest.main(["--implementation", "my_adapter", *arguments])
    found[name] = [int(code), text.getvalue()]
json.dump(found, sys.stdout)
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


ADAPTER = "\n\n".join(blocks("python"))
CODE_BASE = (ROOT / "spec_tests" / "meta" / "third_party.py").read_text(encoding="utf-8")


def replaced(text: str, old: str, new: str) -> str:
    assert old in text, f"{old!r} is gone"
    return text.replace(old, new)


def mended() -> str:
    """The code base with the fix that the page names."""
    found = re.search(r"`(weight\.[^`]+)` has to be `(weight\.[^`]+)`", PAGE)
    assert found, "the page names no fix"
    return replaced(CODE_BASE, *found.groups())


@dataclass(frozen=True)
class Run:
    returncode: int
    stdout: str

    @property
    def violated(self) -> set[str]:
        """The clauses that do not hold, by the table of the run."""
        return set(re.findall(r"^([A-Z]\d+) +FAILED ", self.stdout, flags=re.MULTILINE))


Runs = dict[str, Run]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All runs of this file, one after the other in a process of their own."""
    folder = tmp_path_factory.mktemp("walkthrough")
    xfails, adapter = folder / "xfails.toml", folder / "my_adapter.py"
    xfails.write_text("\n".join(blocks("toml")), encoding="utf-8")
    adapter.write_text(ADAPTER, encoding="utf-8")
    there = ["--implementation", str(adapter), "--python", sys.executable]
    chapters, known = ["--chapters", "T,E,L"], ["--xfails", str(xfails)]
    asked = {
        "as released": (CODE_BASE, ADAPTER, [*chapters, "-k", CLAIMED]),
        "mended": (mended(), ADAPTER, [*chapters, "-k", CLAIMED]),
        "excused": (CODE_BASE, ADAPTER, [*chapters, *known, "-k", EXCUSED]),
        "excused and mended": (mended(), ADAPTER, [*chapters, *known, "-k", EXCUSED]),
        "in its own process": (CODE_BASE, ADAPTER, [*chapters, *there, "-k", EXCUSED]),
    }
    for name, (_, old, new, tests) in MISTAKES.items():
        wrong = replaced(replaced(ADAPTER, old, new), '{"T", "E", "L"}', '{"T", "E", "L", "A"}')
        asked[name] = (mended(), wrong, ["-k", tests])
    found = driven(DRIVER, {name: (*texts, [*FIXED, *options]) for name, (*texts, options) in asked.items()})
    return {name: Run(*values) for name, values in found.items()}


def test_it_begins_with_the_skeleton(tmp_path: Path) -> None:
    """The page's command writes an empty adapter, and the page fills in each of its functions that it claims."""
    command = re.search(r"`lime-spec (start my_adapter.py [^`]+)`", PAGE)
    assert command, "the page does not say how to begin"
    _, file, _, chapters, _, editors = command.group(1).split()
    skeleton.write(tmp_path / file, chapters, editors)
    asked = set(re.findall(r"^def (\w+)", (tmp_path / file).read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert asked - named(ADAPTER) == {"factors"}


def named(text: str) -> set[str]:
    """The functions of a module, and what else it gives a name to."""
    return set(re.findall(r"^(?:def )?(\w+)(?:\(| = )", text, flags=re.MULTILINE))


def test_the_verdict_is_the_same_in_its_own_process(runs: Runs) -> None:
    """What is judged over pipes violates what it violates in the suite's process."""
    run = runs["in its own process"]
    assert run.violated == {"E11"}, run.stdout[-3000:]
    assert run.returncode == 1
    assert f"--python {sys.executable}" in run.stdout


def test_the_page_is_short() -> None:
    """A hundred and fifty lines, adapter and all."""
    assert len(PAGE.splitlines()) <= 150


def test_the_suite_finds_the_defect_and_nothing_else(runs: Runs) -> None:
    """Of all that is claimed, the clauses whose failures the page shows are violated, and no other."""
    shown = set(re.findall(r"^([A-Z]\d+) +FAILED", blocks("text")[0], flags=re.MULTILINE))
    assert shown == {"E11"}
    assert runs["as released"].violated == shown, runs["as released"].stdout[-3000:]
    assert runs["as released"].returncode == 1


@pytest.mark.parametrize("line", blocks("text")[0].splitlines())
def test_what_the_page_prints_is_printed(runs: Runs, line: str) -> None:
    """Each line of the page's output, up to blanks and to what … stands for, is a line of the run's."""
    pattern = r"\s+".join(re.escape(part).replace("…", ".*") for part in line.split())
    assert re.search(rf"^\s*{pattern}", runs["as released"].stdout, flags=re.MULTILINE), runs["as released"].stdout


def test_the_mended_code_base_conforms(runs: Runs) -> None:
    """With the page's fix all that is claimed passes, and the deviation is declared."""
    assert runs["mended"].returncode == 0, runs["mended"].stdout[-3000:]
    assert "declared deviation: kl_direction = released (required: paper)\n" in runs["mended"].stdout
    assert "not claimed" in runs["mended"].stdout


def test_known_failures_are_excused(runs: Runs) -> None:
    """With the page's file the exit code is 0; once the code base is mended, the file is what is wrong."""
    assert runs["excused"].returncode == 0, runs["excused"].stdout[-3000:]
    assert runs["excused and mended"].returncode != 0
    assert "passes: take it out" in runs["excused and mended"].stdout


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_adapters_are_found(runs: Runs, mistake: str) -> None:
    """Each mistake of the page's list violates the clauses that the page names for it."""
    said = re.findall(r"^- (.+)$", PAGE.rpartition("```")[2], flags=re.MULTILINE)[MISTAKES[mistake][0]]
    assert runs[mistake].violated == set(re.findall(r"[A-Z]\d+", said)), runs[mistake].stdout[-3000:]
    assert runs[mistake].returncode == 1
