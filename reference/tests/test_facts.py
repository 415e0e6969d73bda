"""The same facts in every form that they come in, and what is refused of each."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lime_editing.data.facts import task
from lime_editing.data.facts.read import LANGUAGES, Facts, read
from lime_editing.data.facts.task import disagreements, fingerprint
from lime_editing.errors import DataError, LanguageError
from reference.tests.corpora import Rows, lines, m_lama, own_facts, write_lines, write_parquet, write_table, write_zip

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures/facts/mlama1.1"


def upload(folder: Path, root: Path) -> Path:
    """The layout of the authors' upload."""
    shutil.copytree(folder, root / "data" / "mlama1.1")
    (root / "sub_uri_list").mkdir()
    for name, part in task.split(read(folder)).items():
        listed = sorted({fact.sub_uri for fact in part.facts})
        (root / "sub_uri_list" / f"{name}_sub_uri_list.json").write_text(json.dumps(listed))
    return root


def in_parts(folder: Path, root: Path) -> Path:
    """Parquet in several files, whose rows are mixed: `lineid` has the order."""
    rows = list(reversed(m_lama(folder)))
    write_parquet(root / "all/test-00000-of-00002.parquet", rows[::2])
    write_parquet(root / "all/test-00001-of-00002.parquet", rows[1::2])
    return root


FORMS: dict[str, Callable[[Path, Path], Path]] = {
    "zip": lambda folder, to: write_zip(to / "task.zip", folder),
    "zip-without-a-folder": lambda folder, to: write_zip(to / "task.zip", folder, ""),
    "folder-with-a-zip": lambda folder, to: write_zip(to / "task.zip", folder).parent,
    "m_lama-parquet": lambda folder, to: write_parquet(to / "m_lama.parquet", m_lama(folder)),
    "m_lama-parquet-in-parts": lambda folder, to: in_parts(folder, to / "hub"),
    "m_lama-jsonl": lambda folder, to: write_lines(to / "m_lama.jsonl", m_lama(folder)),
    "m_lama-csv": lambda folder, to: write_table(to / "m_lama.csv", m_lama(folder)),
    "upload": lambda folder, to: upload(folder, to / "upload"),
    "own-jsonl": lambda folder, to: write_lines(to / "own.jsonl", own_facts(folder)),
    "own-csv": lambda folder, to: write_table(to / "own.csv", own_facts(folder)),
    "own-tsv": lambda folder, to: write_table(to / "own.tsv", own_facts(folder)),
    "own-parquet": lambda folder, to: write_parquet(to / "own.parquet", own_facts(folder)),
}


@pytest.fixture(scope="module")
def expected() -> Facts:
    return read(FIXTURE)


@pytest.mark.parametrize("form", FORMS)
def test_the_fixture_is_the_same_corpus_in_every_form(form: str, expected: Facts, tmp_path: Path) -> None:
    got = read(FORMS[form](FIXTURE, tmp_path))
    assert fingerprint(got) == fingerprint(expected)
    assert task.counts(got) == task.counts(expected)
    assert got.languages == expected.languages


@pytest.mark.parametrize("form", FORMS)
def test_languages_are_chosen_in_every_form(form: str, facts: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    source = FORMS[form](facts, to)
    chosen = read(source, ["fr", "en"])
    assert fingerprint(chosen) == fingerprint(read(facts, ["en", "fr"]))
    with pytest.raises(LanguageError, match=r"unknown language 'xx'.*: de, en, fr"):
        read(source, ["en", "xx"])


def test_a_place_names_the_entry_of_an_archive(facts: Path, tmp_path: Path) -> None:
    source = write_zip(tmp_path / "task.zip", facts)
    assert read(source).facts[0].source == f"{source}/mlama1.1/de/P1.jsonl:1"


def test_without_subject_id_the_fact_is_what_is_parallel(facts: Path, tmp_path: Path) -> None:
    rows = [
        {**{k: v for k, v in row.items() if k not in ("subject_id", "object_id")}, "fact": f"f{row['subject_id']}"}
        for row in own_facts(facts)
    ]
    got = read(write_lines(tmp_path / "own.jsonl", rows))
    assert {fact.sub_uri for fact in got.facts} == {f"fQ{i}" for i in range(12)}
    assert {fact.obj_uri for fact in got.facts} == {fact.obj_label for fact in got.facts}


def test_lists_of_subjects_are_compared_with_the_splits(facts: Path, tmp_path: Path) -> None:
    source = upload(facts, tmp_path / "upload")
    said = read(source)
    assert disagreements(source, said) == []
    (source / "sub_uri_list/test_sub_uri_list.json").write_text('["Q10", "Q77"]')
    assert disagreements(source, said) == [
        "test: 1 subjects are not in test_sub_uri_list.json (Q11), and 2 of it are not in the split (Q10, Q77)"
    ]


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A folder in all of mLAMA's languages, which makes it the real one."""
    for language in LANGUAGES:
        folder = tmp_path / "real" / language
        folder.mkdir(parents=True)
        templates = [{"relation": r, "template": f"[X] {r} [Y] ."} for r in ("P1", "P2", "place_of_birth")]
        write_lines(folder / "templates.jsonl", templates[language == "fr" :])
        for relation in ("P1", "place_of_birth"):
            rows = [
                {"sub_uri": f"Q{i}", "obj_uri": "Q0", "sub_label": f"s{i}", "obj_label": "o", "lineid": i}
                for i in range(10)
            ]
            write_lines(folder / f"{relation}.jsonl", rows)
    return tmp_path / "real"


def test_the_real_data_are_held_against_the_published_counts(real: Path) -> None:
    assert disagreements(real, read(real)) == [
        "train has 8 subjects and 416 facts; the paper has 27,225 and 628,612",
        "validation has 1 subjects and 52 facts; the paper has 1,820 and 23,718",
        "test has 1 subjects and 52 facts; the paper has 3,916 and 53,993",
    ]


def test_of_the_real_data_what_the_paper_lacks_is_left_out_and_counted(real: Path, tmp_path: Path) -> None:
    said = read(real)
    assert {fact.relation for fact in said.facts} == {"P1"}
    assert said.left_out == {
        "relation place_of_birth: GoogleRE's, which the paper's corpus leaves out": 530,
        "relation P1: no template in language 'fr'": 10,
    }
    rows = [
        row | {"template": ""} if (row["language"], row["predicate_id"]) == ("fr", "P1") else row
        for row in m_lama_of(real)
    ]
    again = read(write_parquet(tmp_path / "real.parquet", rows))
    assert again.left_out == said.left_out
    assert fingerprint(again) == fingerprint(said)


def m_lama_of(folder: Path) -> Rows:
    """As the hub's script wrote them: a relation without template has an empty one."""
    rows = []
    for templates in sorted(folder.glob("*/templates.jsonl")):
        told = {row["relation"]: row["template"] for row in lines(templates)}
        for path in sorted(templates.parent.glob("P*.jsonl")) + sorted(templates.parent.glob("place*.jsonl")):
            beside = {"language": path.parent.name, "predicate_id": path.stem, "template": told.get(path.stem, "")}
            rows += [row | beside for row in lines(path)]
    return rows


def test_other_data_keep_every_relation(facts: Path) -> None:
    for language in ("de", "en", "fr"):
        (facts / language / "P1.jsonl").rename(facts / language / "place_of_birth.jsonl")
        path = facts / language / "templates.jsonl"
        path.write_text(path.read_text().replace('"relation": "P1"', '"relation": "place_of_birth"'))
    assert {fact.relation for fact in read(facts).facts} == {"P2", "place_of_birth"}


def test_a_part_of_the_languages_has_nothing_to_agree_with(real: Path) -> None:
    said = read(real, ["en", "fr"])
    assert disagreements(real, said) == []
    assert {fact.relation for fact in said.facts} == {"P1"}


UNUSUAL = {
    "right-to-left": "مدينة \u200fالقدس\u200e",
    "combining": "Ame\u0301lie Z\u0310\u0323",
    "not-normalised": "\u1100\u1161\u11a8",
    "outside-the-bmp": "𠮷野家 👩‍👩‍👧",
    "separators": "a\u2028b\x85c\x0cd",
    "quotes": 'a "b", c\td',
    "spaces": " a ",
}


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("form", [form for form in FORMS if form != "upload"])
def test_no_form_changes_a_character(form: str, name: str, facts: Path, tmp_path: Path) -> None:
    path = facts / "fr" / "P1.jsonl"
    rows = list(lines(path))
    rows[2]["sub_label"] = rows[3]["obj_label"] = UNUSUAL[name]
    write_lines(path, rows)
    to = tmp_path / "to"
    to.mkdir()
    got = [fact for fact in read(FORMS[form](facts, to)).facts if (fact.language, fact.relation) == ("fr", "P1")]
    assert (got[2].sub_label, got[3].obj_label) == (UNUSUAL[name], UNUSUAL[name])


def test_mixed_line_endings_and_marks_lose_nothing(facts: Path, tmp_path: Path) -> None:
    before = fingerprint(read(facts))
    for i, path in enumerate(sorted(facts.rglob("*.jsonl"))):
        parts = path.read_bytes().split(b"\n")
        ends = [b"\r\n" if (i + j) % 2 else b"\n\n" for j in range(len(parts))]
        mark = b"\xef\xbb\xbf" if i % 2 else b""
        path.write_bytes(mark + b"".join(part + end for part, end in zip(parts, ends, strict=True)))
    assert fingerprint(read(facts)) == before
    assert fingerprint(read(write_zip(tmp_path / "a.zip", facts))) == before


def test_the_order_of_a_table_of_ones_own_is_its_files(facts: Path, tmp_path: Path) -> None:
    rows = own_facts(facts)
    before = [fact.sub_uri for fact in read(write_lines(tmp_path / "a.jsonl", rows)).facts]
    after = [fact.sub_uri for fact in read(write_lines(tmp_path / "b.jsonl", rows[::-1])).facts]
    assert after != before
    assert sorted(after) == sorted(before)


def test_files_beside_the_facts_are_no_facts(facts: Path, tmp_path: Path) -> None:
    before = fingerprint(read(facts))
    (facts / "fr" / "._P1.jsonl").write_bytes(b"\x00\x05\x16\x07")
    (facts / "README.md").write_text("read me")
    assert fingerprint(read(facts)) == before
    source = write_zip(tmp_path / "a.zip", facts)
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("__MACOSX/mlama1.1/fr/._P1.jsonl", b"\x00\x05\x16\x07")
        archive.writestr("mlama1.1/README.md", "read me")
    assert fingerprint(read(source)) == before


def test_one_table_cannot_be_both(facts: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    write_lines(to / "a.jsonl", m_lama(facts))
    write_lines(to / "b.jsonl", own_facts(facts))
    with pytest.raises(DataError, match=r"some of its tables have m_lama's fields"):
        read(to)


def test_ones_own_corpus_in_as_many_languages_keeps_every_relation(tmp_path: Path) -> None:
    rows = [
        {
            "language": language,
            "relation": "place_of_birth",
            "template": "[X] : [Y]",
            "subject_id": "q",
            "subject": "s",
            "object": "o",
        }
        for language in LANGUAGES
    ]
    assert len(read(write_lines(tmp_path / "own.jsonl", rows)).facts) == len(LANGUAGES)
