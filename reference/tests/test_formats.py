"""The formats of the field, built here in their exact layout: the same corpus is read, or what it is is said."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import datasets
import pandas as pd
import pyarrow.parquet as pq
import pytest

from lime_editing.data import pairs as pairs_set
from lime_editing.data.facts import remarks
from lime_editing.data.facts.read import read as read_facts
from lime_editing.data.facts.task import fingerprint as of_facts
from lime_editing.data.pairs.read import Pairs, fingerprint as of_pairs, read
from lime_editing.errors import DataError
from reference.tests.corpora import (
    CLASSES,
    LANGUAGES,
    Rows,
    lines,
    m_lama,
    own_facts,
    own_pairs,
    write_lines,
    write_parquet,
    write_table,
)

pytestmark = pytest.mark.usefixtures("cache")

#: XNLI-1.0 calls the validation split dev, and has no train split.
DEV = {"validation": "dev", "test": "test"}
#: The columns of XNLI-1.0, in its order.
XNLI_COLUMNS = (
    *("language", "gold_label", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse"),
    *("sentence2_parse", "sentence1", "sentence2", "promptID", "pairID", "genre", "label1", "label2", "label3"),
    *("label4", "label5", "sentence1_tokenized", "sentence2_tokenized", "match"),
)
SPELLED = {"contradiction": "contradictory"}


def raw_tsv(path: Path, rows: Rows) -> Path:
    """Tab-separated without any quoting, as files of this field are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = ["\t".join(map(str, row.values())) for row in rows]
    path.write_text("\n".join(["\t".join(rows[0]), *body]) + "\n", encoding="utf-8")
    return path


def xnli_rows(pairs: Rows, split: str) -> Rows:
    """Language by language, with the fields of XNLI-1.0; parse trees and annotators are left empty or made up."""
    found = []
    for language in LANGUAGES:
        for row in (row for row in pairs if row["split"] == split and row["language"] == language):
            number = str(int(str(row["id"]).rpartition("-")[2]) + 1)
            told = dict.fromkeys(XNLI_COLUMNS, "x") | {
                "language": language,
                "gold_label": row["label"],
                "sentence1": row["premise"],
                "sentence2": row["hypothesis"],
                "promptID": number,
                "pairID": number,
                "genre": "facetoface",
                "match": "True",
            }
            found.append(told)
    return found


def xnli_10(pairs: Rows, root: Path, suffixes: tuple[str, ...] = (".jsonl", ".tsv")) -> Path:
    """XNLI-1.0: both splits, each as .jsonl and as .tsv, and what lies beside them."""
    root.mkdir(parents=True)
    for split, name in DEV.items():
        for suffix in suffixes:
            write = write_lines if suffix == ".jsonl" else raw_tsv
            write(root / f"xnli.{name}{suffix}", xnli_rows(pairs, split))
    (root / "README.md").write_text("# XNLI 1.0")
    (root / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    return root


def xnli_mt(pairs: Rows, root: Path) -> Path:
    """XNLI-MT-1.0: the training pairs in a file for each language, parallel by line, with the label `contradictory`."""
    for language in LANGUAGES:
        rows = [row for row in pairs if row["split"] == "train" and row["language"] == language]
        told = [
            {"premise": r["premise"], "hypo": r["hypothesis"], "label": SPELLED.get(str(r["label"]), r["label"])}
            for r in rows
        ]
        raw_tsv(root / "multinli" / f"multinli.train.{language}.tsv", told)
    return root


def packed(folder: Path, path: Path) -> Path:
    """An archive as the download is, with what a Mac adds to it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
        archive.writestr(f"__MACOSX/{folder.name}/._xnli.dev.jsonl", b"\0\5\x16\7")
    return path


def both_archives(folder: Path, to: Path) -> Path:
    rows = own_pairs(folder)
    (to / "both").mkdir()
    packed(xnli_10(rows, to / "XNLI-1.0"), to / "both" / "XNLI-1.0.zip")
    packed(xnli_mt(rows, to / "XNLI-MT-1.0"), to / "both" / "XNLI-MT-1.0.zip")
    return to / "both"


def both_folders(folder: Path, to: Path) -> Path:
    """With a translation of the test pairs and a table of something else among them, which are no pairs."""
    rows = own_pairs(folder)
    xnli_10(rows, to / "both" / "XNLI-1.0")
    root = xnli_mt(rows, to / "both" / "XNLI-MT-1.0")
    shutil.copy(root / "multinli" / "multinli.train.fr.tsv", root / "xnli.test.fr.en.tsv")
    write_table(root / "statistics.csv", [{"language": "fr", "words": 7}])
    return to / "both"


def hub_snapshot(folder: Path, to: Path) -> Path:
    """facebook/xnli as it lies in the hub's cache: a folder for each configuration, and no card."""
    per_language(folder, to)
    shutil.copytree(folder / "all_languages", to / "hub" / "all_languages")
    return to / "hub"


def per_language(folder: Path, to: Path, names: tuple[str, ...] = CLASSES) -> Path:
    """The hub's configurations of one language each: strings, and the label's names in the file's metadata."""
    features = datasets.Features(
        premise=datasets.Value("string"),
        hypothesis=datasets.Value("string"),
        label=datasets.ClassLabel(names=list(names)),
    )
    for language in LANGUAGES:
        for split in ("train", "validation", "test"):
            rows = [r for r in own_pairs(folder) if r["split"] == split and r["language"] == language]
            told = [{"premise": r["premise"], "hypothesis": r["hypothesis"], "label": r["label"]} for r in rows]
            path = to / "hub" / language / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_list(told, features=features).to_parquet(str(path))
    return to / "hub"


def saved(folder: Path, to: Path) -> Path:
    """What `load_dataset(...).save_to_disk(...)` leaves."""
    parts = {
        path.name.partition("-")[0]: datasets.Dataset.from_parquet(str(path)) for path in folder.rglob("*.parquet")
    }
    datasets.DatasetDict(parts).save_to_disk(str(to / "saved"))
    return to / "saved"


@pytest.mark.parametrize("more", ["train_2", "train-00000-of-00001.parquet"])
def test_two_saved_datasets_of_one_split_are_refused(pairs: Path, tmp_path: Path, more: str) -> None:
    """Of these only the first would be read."""
    source = saved(pairs, tmp_path)
    if more.endswith(".parquet"):
        shutil.copy(next(pairs.rglob("train-*.parquet")), source)
    else:
        shutil.copytree(source / "train", source / more)
    with pytest.raises(DataError, match=r"both hold split 'train', and a saved dataset is read alone; save them as"):
        read(source)


def through_pandas(folder: Path, to: Path) -> Path:
    """Parquet that went through pandas: dictionaries in columns, labels as plain numbers."""
    for path in folder.rglob("*.parquet"):
        (to / "pandas").mkdir(exist_ok=True)
        pq.read_table(path).to_pandas().to_parquet(to / "pandas" / path.name)
    return to / "pandas"


def named_labels(folder: Path, to: Path) -> Path:
    """The same, its labels as names in another spelling."""
    for path in through_pandas(folder, to).glob("*.parquet"):
        table = pd.read_parquet(path)
        table["label"] = [CLASSES[i].upper() for i in table["label"]]
        table.to_parquet(path)
    return to / "pandas"


def without_card(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to / "bare")
    (to / "bare" / "README.md").unlink()
    return to / "bare"


def zipped_jsonl(folder: Path, to: Path) -> Path:
    path = to / "own.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in own_pairs(folder))
    return path


FORMS: dict[str, Callable[[Path, Path], Path]] = {
    "xnli-archives": both_archives,
    "xnli-folders": both_folders,
    "hub-snapshot": hub_snapshot,
    "hub-without-a-card": without_card,
    "hub-per-language": per_language,
    "hub-per-language-in-mnlis-order": lambda folder, to: per_language(folder, to, CLASSES[::-1]),
    "save-to-disk": saved,
    "pandas": through_pandas,
    "pandas-names": named_labels,
    "gz": zipped_jsonl,
    "semicolons": lambda folder, to: semicolons(own_pairs(folder), to / "own.csv"),
    "quoted-tsv": lambda folder, to: write_table(to / "own.tsv", own_pairs(folder)),
    "unquoted-tsv": lambda folder, to: raw_tsv(to / "own.tsv", own_pairs(folder)),
}


def semicolons(rows: Rows, path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_pairs_are_the_same_corpus_in_every_form(form: str, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    source = FORMS[form](pairs, tmp_path / "to")
    got, expected = read(source), read(pairs)
    assert of_pairs(got) == of_pairs(expected)
    assert (got.languages, got.classes) == (expected.languages, CLASSES)
    assert of_pairs(read(source, ["de", "en"])) == of_pairs(read(pairs, ["de", "en"]))


def test_of_two_formats_of_one_table_one_is_read_and_the_other_is_named(pairs: Path, tmp_path: Path) -> None:
    source = both_folders(pairs, tmp_path)
    assert any("xnli.dev.tsv, which is XNLI-1.0/xnli.dev.jsonl again" in note for note in read(source).notes)


def test_xnli_alone_has_no_training_pairs_which_is_said(pairs: Path, tmp_path: Path) -> None:
    for source in (
        xnli_10(own_pairs(pairs), tmp_path / "XNLI-1.0"),
        packed(tmp_path / "XNLI-1.0", tmp_path / "XNLI-1.0.zip"),
        xnli_10(own_pairs(pairs), tmp_path / "tsv", (".tsv",)),
    ):
        got = read(source)
        assert [len(got.rows[split]) for split in ("train", "validation", "test")] == [0, 12, 12]
        assert any("no train pairs" in note and "XNLI-MT-1.0" in note for note in got.notes)


def test_rows_without_a_gold_label_are_left_out_and_counted(pairs: Path, tmp_path: Path) -> None:
    """As in MultiNLI, where annotators did not agree; and a text that a translation lost."""
    root = xnli_10(own_pairs(pairs), tmp_path / "XNLI-1.0", (".jsonl",))
    path = root / "xnli.test.jsonl"
    rows = list(lines(path))
    rows[0]["gold_label"], rows[5]["sentence2"] = "-", ""
    write_lines(path, [row if row["sentence2"] else {k: v for k, v in row.items() if k != "sentence2"} for row in rows])
    got = read(root)
    assert "1 rows with no gold label are left out" in got.notes
    assert "1 rows with a blank text are left out" in got.notes
    assert len(got.lacking["test"]) == 2


def test_a_cell_that_begins_with_a_quote_swallows_nothing(pairs: Path, tmp_path: Path) -> None:
    """In the last column, in the first and between two others; and a whole cell in quotes keeps them."""
    rows = own_pairs(pairs)
    rows[0]["premise"], rows[1]["premise"], rows[2]["premise"] = '"Aton, he said', '" de', '"Bema"'
    rows[3]["hypothesis"], rows[4]["hypothesis"] = '"', 'x"y'
    expected = of_pairs(read(write_parquet(tmp_path / "own.parquet", rows)))
    assert of_pairs(read(raw_tsv(tmp_path / "own.tsv", rows))) == expected
    assert of_pairs(read(write_table(tmp_path / "quoted.tsv", rows))) == expected


def test_rows_of_an_unquoted_table_that_would_swallow_each_other(tmp_path: Path) -> None:
    """A csv reader takes these two rows for one of the right width."""
    text = "id\tlanguage\tpremise\thypothesis\tlabel\tsplit\n"
    for split in ("train", "validation", "test"):
        text += f'{split}1\ten\t"a\tb\tneutral\t{split}\n{split}2\ten\tc"\td\tneutral\t{split}\n'
    (tmp_path / "own.tsv").write_text(text)
    assert [len(rows) for rows in read(tmp_path / "own.tsv").rows.values()] == [2, 2, 2]


def test_a_row_of_another_width_is_named_in_an_unquoted_table(pairs: Path, tmp_path: Path) -> None:
    path = raw_tsv(tmp_path / "own.tsv", own_pairs(pairs))
    told = path.read_text().split("\n")
    told[4] = told[4].replace("\t", " ", 1)
    told[7] = '"' + told[7]
    path.write_text("\n".join(told))
    with pytest.raises(DataError, match=r"own\.tsv:5: has 5 cells, and the header 6 columns"):
        read(path)


def test_a_column_split_that_contradicts_the_name_of_its_file_is_refused(pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        write_lines(folder / f"{split}.jsonl", [r | {"split": "test"} for r in own_pairs(pairs) if r["split"] == split])
    with pytest.raises(DataError, match=r"train\.jsonl:1: field 'split' must be train, .* got 'test'"):
        read(folder)


def test_labels_in_other_spellings_are_xnlis_classes(pairs: Path, tmp_path: Path) -> None:
    """Upper case, and the name that XNLI-MT gives to a contradiction, in any mixture."""
    other = {"contradiction": "Contradictory", "entailment": "ENTAILMENT", "neutral": "neutral"}
    rows = [row | {"label": other[str(row["label"])]} for row in own_pairs(pairs)]
    assert of_pairs(read(write_lines(tmp_path / "own.jsonl", rows))) == of_pairs(read(pairs))


def test_labels_that_differ_in_case_only_are_refused(pairs: Path, tmp_path: Path) -> None:
    rows = [row | {"label": ("yes", "Yes", "no")[i % 3]} for i, row in enumerate(own_pairs(pairs)[::3])]
    with pytest.raises(DataError, match="labels Yes, no, yes differ in case only"):
        read(write_lines(tmp_path / "own.jsonl", rows))


def relabelled(path: Path, names: list[str]) -> None:
    """The same rows, their classes numbered in another order."""
    rows = datasets.Dataset.from_parquet(str(path))
    told = [names.index(rows.features["label"].names[number]) for number in rows["label"]]
    features = rows.features | {"label": datasets.ClassLabel(names=names)}
    rows.remove_columns("label").add_column("label", told).cast(datasets.Features(features)).to_parquet(str(path))


@pytest.mark.parametrize("form", ["parquet", "saved"])
def test_splits_that_number_the_classes_in_another_order_are_refused(form: str, pairs: Path, tmp_path: Path) -> None:
    relabelled(pairs / "all_languages" / "test-00000-of-00001.parquet", [*CLASSES[::-1]])
    source = pairs if form == "parquet" else saved(pairs, tmp_path)
    both = (
        r"'train'\) has the classes in the order entailment, .*'test'\) in the order contradiction, neutral, entailment"
    )
    with pytest.raises(DataError, match=both):
        read(source)


def test_parts_of_a_split_that_number_the_classes_in_another_order_are_refused(pairs: Path) -> None:
    path = pairs / "all_languages" / "train-00000-of-00001.parquet"
    one, two = (path.with_name(f"train-0000{i}-of-00002.parquet") for i in (0, 1))
    shutil.copy(path.rename(one), two)
    relabelled(two, [*CLASSES[::-1]])
    with pytest.raises(DataError, match=r"00001-of-00002.* has the classes in the order contradiction"):
        read(pairs)


def test_numbers_and_names_of_classes_are_not_mixed(pairs: Path) -> None:
    """Numbers alone are in XNLI's order, as the names of the other splits are."""
    path = pairs / "all_languages" / "test-00000-of-00001.parquet"
    table = pq.read_table(path)
    expected = of_pairs(read(pairs))
    pq.write_table(table.replace_schema_metadata(None), path)
    assert of_pairs(read(pairs)) == expected
    frame = table.to_pandas()
    frame["label"] = [CLASSES[i] for i in frame["label"]]
    frame.to_parquet(path)
    with pytest.raises(DataError, match="names in place of numbers"):
        read(pairs)


def test_a_table_of_pairs_without_rows_is_refused(pairs: Path) -> None:
    path = pairs / "all_languages" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path)[:0], path)
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet: has no rows; remove it"):
        read(pairs)


@pytest.mark.parametrize("form", ["rows", "nested"])
def test_labels_with_spaces_around_are_refused(form: str, pairs: Path, tmp_path: Path) -> None:
    if form == "rows":
        rows = own_pairs(pairs)
        source = write_table(tmp_path / "own.csv", [{**row, "label": f" {row['label']}".upper()} for row in rows])
    else:
        source = named_labels(pairs, tmp_path)
        for path in source.glob("*.parquet"):
            table = pd.read_parquet(path)
            table["label"] = [f"{label} " for label in table["label"]]
            table.to_parquet(path)
    with pytest.raises(DataError, match="have spaces around them; remove the spaces"):
        read(source)


def test_a_saved_dataset_is_unpacked_or_copied_again(facts: Path, tmp_path: Path) -> None:
    folder = facts_saved(facts, tmp_path)
    packed(folder, tmp_path / "packed.zip")
    with pytest.raises(DataError, match=r"state\.json: a saved dataset is only read from a folder; unpack"):
        read_facts(tmp_path / "packed.zip")
    (folder / "test" / "state.json").write_text("{}")
    with pytest.raises(DataError, match=r"as a saved dataset \('_data_files'\); copy it again"):
        read_facts(folder)


def test_numbers_for_labels_are_said_to_be_in_xnlis_order(pairs: Path, tmp_path: Path) -> None:
    rows = [row | {"label": CLASSES.index(str(row["label"]))} for row in own_pairs(pairs)]
    assert any(
        "taken for entailment, neutral, contradiction" in n for n in read(write_lines(tmp_path / "a.jsonl", rows)).notes
    )
    assert read(pairs).notes == ()


def test_brackets_and_other_signs_in_a_path_are_no_pattern(pairs: Path, tmp_path: Path) -> None:
    """`datasets` would read a star's siblings, too, and not find brackets at all."""
    expected = of_pairs(read(pairs))
    shutil.copytree(pairs, tmp_path / "aXb")
    for name in ("a[1]", "a*b", "a?b", "{x}", "100%", "q'uo\"te", "a b", "ü 文", "[bold]x[/bold]"):
        shutil.copytree(pairs, tmp_path / name)
        got = read(tmp_path / name)
        assert (of_pairs(got), len(got)) == (expected, 36), name


# facts


def facts_saved(folder: Path, to: Path) -> Path:
    datasets.DatasetDict({"test": datasets.Dataset.from_list(m_lama(folder))}).save_to_disk(str(to / "saved"))
    return to / "saved"


def facts_gz(folder: Path, to: Path) -> Path:
    path = to / "m_lama.csv.gz"
    plain = write_table(to / "m_lama.csv", m_lama(folder))
    path.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    return path


def facts_zip(folder: Path, to: Path) -> Path:
    with zipfile.ZipFile(to / "own.zip", "w") as archive:
        archive.write(write_lines(to / "own.jsonl", own_facts(folder)), "data/own.jsonl")
        archive.write(write_parquet(to / "own.parquet", own_facts(folder)), "data/own.parquet")
    return to / "own.zip"


def facts_of_integers(folder: Path, to: Path, write: Callable[[Path, Rows], Path], name: str) -> Path:
    rows = [row | {"subject_id": int(str(row["subject_id"])[1:])} for row in own_facts(folder)]
    return write(to / name, rows)


FACT_FORMS: dict[str, Callable[[Path, Path], Path]] = {
    "save-to-disk": facts_saved,
    "gz": facts_gz,
    "zip-of-a-table-in-two-formats": facts_zip,
    "pandas-csv": lambda folder, to: (pd.DataFrame(m_lama(folder)).to_csv(to / "m.csv"), to / "m.csv")[1],
    "pandas-parquet": lambda folder, to: (pd.DataFrame(m_lama(folder)).to_parquet(to / "m.parquet"), to / "m.parquet")[
        1
    ],
    "unquoted-tsv": lambda folder, to: raw_tsv(to / "m.tsv", m_lama(folder)),
    "float-lineids": lambda folder, to: write_lines(
        to / "m.jsonl", [row | {"lineid": float(str(row["lineid"]))} for row in m_lama(folder)]
    ),
}


@pytest.mark.parametrize("form", FACT_FORMS)
def test_facts_are_the_same_corpus_in_every_form(form: str, facts: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    got = read_facts(FACT_FORMS[form](facts, tmp_path / "to"))
    assert of_facts(got) == of_facts(read_facts(facts))


def test_whole_numbers_are_ids_in_every_format(facts: Path, tmp_path: Path) -> None:
    found = set()
    for name, write in {"a.jsonl": write_lines, "b.csv": write_table, "c.parquet": write_parquet}.items():
        source = facts_of_integers(facts, tmp_path, write, name)
        found.add(of_facts(read_facts(source)))
    rows = [row | {"subject_id": str(row["subject_id"])[1:]} for row in own_facts(facts)]
    found.add(of_facts(read_facts(write_lines(tmp_path / "text.jsonl", rows))))
    assert len(found) == 1
    folder = tmp_path / "tree"
    shutil.copytree(facts, folder)
    for path in folder.glob("*/P*.jsonl"):
        write_lines(path, [row | {"sub_uri": int(row["sub_uri"][1:])} for row in lines(path)])
    with pytest.raises(DataError, match=r"P1\.jsonl:1: field 'sub_uri' must be non-empty text"):
        read_facts(folder)  # mLAMA's own fields are text (clause D9)


STRAYS: dict[str, Callable[[Path], object]] = {
    ".ipynb_checkpoints": lambda path: _copy(path, path.parent / ".ipynb_checkpoints" / "own-checkpoint.csv"),
    "hidden": lambda path: _copy(path, path.parent / ".own.csv"),
    "backup": lambda path: _copy(path, path.parent / "own.csv~"),
    "bak": lambda path: _copy(path, path.parent / "own.csv.bak"),
    "lock": lambda path: _copy(path, path.parent / "~$own.csv"),
    "a-copy": lambda path: _copy(path, path.parent / "own copy.csv"),
    "another-format": lambda path: write_lines(
        path.with_suffix(".jsonl"), list(csv.DictReader(path.read_text().splitlines()))
    ),
}


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    shutil.copy(path, to)


@pytest.mark.parametrize("stray", STRAYS)
def test_files_that_nobody_meant_are_not_read_and_are_named(stray: str, facts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    path = write_table(folder / "own.csv", own_facts(facts))
    expected = of_facts(read_facts(path))
    STRAYS[stray](path)
    got = read_facts(folder)
    assert of_facts(got) == expected
    assert any(note.startswith("left out") for note in got.notes)
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "Icon\r").write_bytes(b"")
    assert of_facts(read_facts(folder)) == expected


def test_a_split_of_ones_own_is_not_used_which_is_said(facts: Path, tmp_path: Path) -> None:
    rows = own_facts(facts)
    with_column = write_lines(tmp_path / "own.jsonl", [row | {"split": "train"} for row in rows])
    (tmp_path / "parts").mkdir()
    write_lines(tmp_path / "parts" / "train.jsonl", rows[:40])
    write_lines(tmp_path / "parts" / "test.jsonl", rows[40:])
    for source in (with_column, tmp_path / "parts"):
        assert any("their own splits are not used" in note for note in read_facts(source).notes)
    assert read_facts(write_lines(tmp_path / "plain.jsonl", rows)).notes == ()


def test_languages_that_differ_in_case_only_are_named(facts: Path, tmp_path: Path) -> None:
    rows = own_facts(facts)
    rows += [row | {"language": "EN", "template": "[X] EN [Y] ."} for row in rows if row["language"] == "en"]
    said = read_facts(write_lines(tmp_path / "own.jsonl", rows))
    assert "languages 'EN' and 'en' differ in case only: are they one?" in remarks("", said)


def test_a_template_that_is_told_twice_in_two_ways_is_refused(facts: Path) -> None:
    path = facts / "fr" / "templates.jsonl"
    told = list(lines(path))
    write_lines(path, [*told, told[0]])
    read_facts(facts)
    write_lines(path, [*told, told[0] | {"template": "[Y] [X]"}])
    with pytest.raises(DataError, match=r"templates\.jsonl:3: relation 'P1' has another template in 'fr' than at .*:1"):
        read_facts(facts)


def test_templates_that_differ_in_composition_only_are_said_to(facts: Path) -> None:
    path = facts / "fr" / "templates.jsonl"
    told = [row | {"template": f"caf\u00e9 {row['template']}"} for row in lines(path)]
    write_lines(path, [*told, told[0] | {"template": told[0]["template"].replace("\u00e9", "e\u0301")}])
    with pytest.raises(DataError, match="they differ in Unicode composition only: normalise the texts to NFC"):
        read_facts(facts)


# what is where it is not read


def test_a_link_to_a_folder_elsewhere_is_refused(facts: Path, tmp_path: Path) -> None:
    """Its language would be missing, and nothing would say so."""
    expected = of_facts(read_facts(facts))
    (facts / "again").symlink_to(facts / "fr")  # is read where it lies
    (tmp_path / "empty").mkdir()
    (facts / "notes").symlink_to(tmp_path / "empty")
    assert of_facts(read_facts(facts)) == expected
    (facts / "fr").rename(tmp_path / "elsewhere")
    (facts / "again").unlink()
    (facts / "fr").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"/fr: is a link to .*elsewhere, which is not followed; copy that folder"):
        read_facts(facts)


def test_a_link_to_a_folder_of_archives_is_refused_where_archives_are_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "elsewhere/xnli.zip").write_bytes(b"")
    (tmp_path / "own/more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"own/more: is a link to .*elsewhere, which is not followed"):
        read(tmp_path / "own")
    (tmp_path / "own/pairs.csv").write_text("id,language,premise,hypothesis,label,split\n")
    with pytest.raises(DataError, match="no sentence pairs"):  # beside tables no archive is read
        read(tmp_path / "own")


def test_a_second_table_of_a_split_is_refused_beside_its_own(tmp_path: Path) -> None:
    """Its rows would be judged, too: parts with numbers, and of languages, are one split."""
    row = {"language": "en", "premise": "a", "hypothesis": "b", "label": "neutral"}
    for name in ("train-1.csv", "train-2.csv", "dev.csv", "dev.de.csv", "test.csv"):
        (tmp_path / name).write_text(f"id,{','.join(row)}\n{name},{','.join(row.values())}\n")
    assert {split: len(rows) for split, rows in read(tmp_path).rows.items()} == {"train": 2, "validation": 2, "test": 1}
    (tmp_path / "dev_hard.csv").write_text((tmp_path / "dev.csv").read_text().replace("dev.csv", "hard"))
    with pytest.raises(DataError, match=r"dev_hard\.csv and dev\.csv would both be read as split 'validation'; move"):
        read(tmp_path)


def test_a_broken_link_is_no_hub_id(tmp_path: Path) -> None:
    (tmp_path / "own.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"own\.csv: is a link to .*gone\.csv, which is not there"):
        read_facts(tmp_path / "own.csv")


def test_parts_of_two_uploads_are_refused(facts: Path, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    rows = own_facts(facts)
    for name in ("00000-of-00001", "00000-of-00002", "00001-of-00002"):
        write_lines(tmp_path / "both" / f"train-{name}.jsonl", rows)
    with pytest.raises(DataError, match=r"00000-of-00001\.jsonl and train-00001-of-00002\.jsonl are parts of two"):
        read_facts(tmp_path / "both")


@pytest.mark.parametrize("name", ["P1.jsonl.gz", "P1.JSONL", "P1.csv", "templates.jsonl.gz"])
def test_tables_that_mlamas_layout_does_not_have_are_refused(name: str, facts: Path) -> None:
    path = facts / "fr" / name
    plain = facts / "fr" / f"{name.partition('.')[0]}.jsonl"
    path.write_bytes(gzip.compress(plain.read_bytes()) if name.endswith(".gz") else plain.read_bytes())
    expected = of_facts(read_facts(facts))  # a copy
    plain.unlink()
    said = rf"fr/{name} is not read in mLAMA's layout, .*; unpack it, or rename it to {plain.name}"
    with pytest.raises(DataError, match=said):
        read_facts(facts)
    for other in facts.glob("*/templates.jsonl") if "templates" in name else ():
        other.with_name("templates.jsonl.gz").write_bytes(gzip.compress(other.read_bytes()))
        other.unlink()
    with pytest.raises(DataError, match="is not read in mLAMA's layout"):
        read_facts(facts)
    assert expected


@pytest.mark.parametrize(
    ("content", "said"),
    [(gzip.compress(b"x", mtime=0), "gzip; name it own.csv.gz"), (b"PK\3\4", "zip archive")],
    ids=["gzip", "zip"],
)
def test_a_packed_file_under_another_name_is_said_to_be_one(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_facts(tmp_path / "own.csv")


# what is recognised and not read

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
OTHERS: dict[str, tuple[str, str | bytes, str]] = {
    "loading-script": ("xnli.py", "import datasets", "a loading script of the hub, whose code is never run"),
    "arrow-stream": ("data-00000-of-00001.arrow", b"\xff\xff", r"Dataset\.from_file"),
    "feather": ("facts.feather", b"ARROW1", r"with to_parquet\(\)"),
    "spreadsheet": ("facts.xlsx", b"PK", r"save it as \.csv"),
    "xml": ("facts.xml", "<a/>", "write a row for each item"),
    "json": ("facts.json", "[]", r"one object a line \(\.jsonl\)"),
    "tar": ("mlama.tar.gz", b"\x1f\x8b", "unpack it"),
    "pickle": ("facts.pkl", b"\x80", "never loaded"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_recognised_is_named_with_the_way_to_convert_it(name: str, tmp_path: Path) -> None:
    file, content, said = OTHERS[name]
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    for attempt in (read_facts, read):
        with pytest.raises(DataError, match=rf"{file}.*{said}"):
            attempt(tmp_path)


COLUMNS: dict[str, tuple[dict[str, object], str, str]] = {
    "lama": (
        {
            "uuid": "u",
            "obj_uri": "Q1",
            "obj_label": "o",
            "sub_uri": "Q2",
            "sub_label": "s",
            "evidences": [],
            "predicate_id": "P1",
        },
        "facts",
        "LAMA, whose facts are in English alone",
    ),
    "mparerel": ({"pattern": "[X] is [Y]", "lemma": "be"}, "facts", "mParaRel"),
    "x-fact": ({"language": "ar", "claim": "c", "evidence_1": "e", "label": "true"}, "facts", "X-Fact"),
    "pairs-as-facts": ({"id": 1, "language": "en", "premise": "p", "hypothesis": "h", "label": 0}, "facts", "--nli"),
    "facts-as-pairs": (
        {"language": "en", "relation": "r", "subject": "s", "object": "o", "template": "t"},
        "nli",
        "--facts",
    ),
    "xnli-15way": ({"ar": "a", "bg": "b", "en": "c", "zh": "d"}, "nli", "XNLI-15way"),
    "paws-x": ({"id": 1, "sentence1": "a", "sentence2": "b", "label": 0, "split": "test"}, "nli", "PAWS-X"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_other_corpora_are_known_by_their_columns(name: str, tmp_path: Path) -> None:
    row, task, said = COLUMNS[name]
    source = write_lines(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError, match=rf"rows\.jsonl: is .*{said}"):
        (read_facts if task == "facts" else read)(source)


@pytest.mark.parametrize("name", ["own.jsonl", "own.csv", "own.parquet", "own.zip", "own.csv.gz"])
def test_a_pointer_of_git_lfs_is_no_table(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(LFS)
    for attempt in (read_facts, read):
        with pytest.raises(DataError, match=r"own\.\S+ is a git-lfs pointer .*git lfs pull"):
            attempt(tmp_path / name)


def test_a_damaged_gz_is_named(facts: Path, tmp_path: Path) -> None:
    path = facts_gz(facts, tmp_path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"m_lama\.csv\.gz: is damaged"):
        read_facts(path)


def test_pairs_that_were_read_have_what_the_reference_asks_of_them(pairs: Path) -> None:
    assert isinstance(pairs_set.DATASET.read(str(pairs), None), Pairs)
