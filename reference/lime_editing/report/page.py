"""The page that a person reads: one self-contained HTML file, without scripts and without a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean

from ..names import ALL, APPROACHES, EN
from ..results import read_json
from .bootstrap import RESAMPLES
from .counts import Section
from .findings import CLAIMS, PIPELINE_CHECK, Finding, Judgement, points
from .tables import LAYOUT, METRICS, NOT_COMPARABLE, caption, differences, grid, reference

MARKS: Mapping[str, str] = {"holds": "holds", "does not hold": "fails", "not shown here: interval includes 0": "open"}

#: A run that chooses no languages has these many.
FIXTURE_LANGUAGES = 15
EDITED_LAYERS = 3  # of every scale

STYLE = """
:root { color-scheme: light dark; --ink: #1d2328; --soft: #59636b; --line: #d5dadd; --paper: #fff; --panel: #f5f7f8;
  --holds: #00664a; --fails: #a33c00; --open: #59636b; --link: #005a92; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ea; --soft: #a3adb4; --line: #3a444b; --paper: #14191d;
  --panel: #1d2429; --holds: #4fd0a5; --fails: #ffa36b; --open: #a3adb4; --link: #7cc4f2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .75rem; padding-top: .75rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--link); }
code { font: .85em ui-monospace, "DejaVu Sans Mono", monospace; background: var(--panel); padding: .1em .3em;
  border-radius: 3px; overflow-wrap: anywhere; }
.warning { border-left: 4px solid var(--fails); background: var(--panel); padding: .75rem 1rem; max-width: 46rem; }
.note, .how { color: var(--soft); font-size: .9rem; }
.box { overflow-x: auto; margin: .5rem 0; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { background: var(--panel); font-weight: 600; }
th[scope=row] { font-weight: 500; }
td.n, th.n { text-align: right; }
th[scope=colgroup] { text-align: center; }
td.printed, th.printed { background: var(--panel); }
.grey td.printed, .grey th.printed { color: var(--soft); font-style: italic; }
th.claim { white-space: normal; min-width: 9rem; max-width: 14rem; vertical-align: top; }
td.wide { white-space: normal; min-width: 20rem; max-width: 40rem; }
figure { margin: .5rem 0; }
figure .box { background: #fff; padding: .5rem; }
figure svg { display: block; height: auto; margin: 0 auto; }
.mark { display: inline-block; border: 1px solid currentColor; border-radius: 1em; padding: 0 .6em; font-size: .8rem;
  font-weight: 600; white-space: nowrap; }
.holds { color: var(--holds); } .fails { color: var(--fails); } .open { color: var(--open); }
.findings { list-style: none; padding: 0; }
.findings > li { margin: .75rem 0; }
nav ul { padding-left: 1.2rem; }
@media (max-width: 40rem) { main { padding: 1rem .8rem 3rem; } h1 { font-size: 1.4rem; }
  th, td { padding: .3rem .5rem; } }
"""

FIGURES: Mapping[str, tuple[str, str]] = {
    "figure3": (
        f"Figure 3: from English to each language ({EN.replace('all', 'l')})",
        "Each point is one language of the inputs, for edits in English; a box that sits higher is a better editor, "
        "and a shorter one treats languages more alike.",
    ),
    "figure4": (
        f"Figure 4: from each language to all ({ALL.replace('all', 'l', 1)})",
        "Each point is one editing language, judged on inputs in all languages.",
    ),
    "figure5": (
        "Figure 5: how alike the languages' masks are",
        "Each row takes the 1% of mask parameters that are highest for its language, and compares all languages on "
        "them: a bright diagonal in a darker row says that this language prefers dimensions of its own.",
    ),
}


def page(
    sections: Sequence[Section], judgements: Sequence[Judgement], figures: Mapping[str, Mapping[str, Path]], root: Path
) -> str:
    """The whole page; `figures`: section → figure → its SVG, for those that could be drawn."""
    names = sorted({str(section.scope["scale"]["name"]) for section in sections})
    abouts = sorted({str(section.scope["scale"]["about"]) for section in sections})
    title = "Cross-lingual model editing, reproduced " + " and ".join(abouts)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="warning"><strong>Not the paper\'s numbers.</strong> {escape(_warning(sections))}</p>',
        _contents(sections),
        '<h2 id="findings">Which of the paper\'s findings hold here</h2>',
        "<p>Computed from the stored cells by fixed rules: a finding <em>holds</em> where its whole 95% interval is "
        "above 0, it <em>does not hold</em> where the interval is below 0, and else nothing is shown. Each interval "
        "stands for itself; with so many, about one in forty without a real difference ends up above 0. Where a "
        "finding rests on two intervals, the weaker is shown. In points; each section has its findings in words.</p>",
        *map(_check, sections, judgements),
        _overview(sections, judgements),
        '<h2 id="run">What was run</h2>',
        _what_was_run(sections),
        *(
            _section(section, judgement, figures.get(section.slug, {}), root)
            for section, judgement in zip(sections, judgements, strict=True)
        ),
        _CLOSING,
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Cross-lingual model editing: {escape(', '.join(names))}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def commands(section: Section, root: Path) -> tuple[str, str]:
    """What trains and judges a section's cells again, and what only writes the report again."""
    scope = section.scope
    options = [f"--task {section.task}"]
    if scope["scale"]["name"] != "tiny":
        options.append(f"--scale {scope['scale']['name']}")
    if scope["split"] != "test":
        options.append(f"--split {scope['split']}")
    if scope["precision"] != "float32":
        options.append(f"--precision {scope['precision']}")
    if section.protocol == "custom":
        options += [f"--{name.replace('_', '-')} {value}" for name, value in scope["rulings"].items()]
    elif section.protocol != "paper":
        options.append(f"--protocol {section.protocol}")
    options.append(f"--seeds {section.seeds}")
    if any(training == "shared" for _, training in section.runs):
        options.append("--control")
    edited = scope["scale"].get("edited_layers")
    if edited not in (None, EDITED_LAYERS):
        options.append(f"--edited-layers {edited if isinstance(edited, int) else ','.join(edited)}")
    if len(scope["languages"]) < FIXTURE_LANGUAGES:
        options.append(f"--languages {','.join(scope['languages'])}")
    # A page may travel: it names no folder outside of the repository.
    results = Path("results", root.name) if root.is_absolute() else root
    return f"nox -s reproduce -- {' '.join(options)}", f"python -m lime_editing report --results {results.as_posix()}"


def _warning(sections: Sequence[Section]) -> str:
    sizes = sorted({f"{section.scope['parameters'] / 1e6:.1f}" for section in sections})
    return (
        f"The raw models here have {' or '.join(sizes)} million parameters; the paper edits mBERT on mLAMA and XNLI. "
        "Where printed numbers stand beside ours, they come from "
        f"{NOT_COMPARABLE}: compare directions, not sizes."
    )


def _contents(sections: Sequence[Section]) -> str:
    links = [("findings", "Which of the paper's findings hold here"), ("run", "What was run")]
    links += [(section.slug, section.title) for section in sections]
    items = "".join(f'<li><a href="#{escape(at)}">{escape(text)}</a></li>' for at, text in links)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _check(section: Section, judgement: Judgement) -> str:
    """What has to be known before a section's findings are read."""
    if not judgement.pipeline_check:
        return ""
    return (
        f'<p class="warning"><strong>{escape(section.title)}: at this scale a pipeline check.</strong> From English, '
        f"MEND does not gain {100 * PIPELINE_CHECK:.0f} points of succ by training on all languages with an interval "
        "that excludes 0. So these cells show that the pipeline runs, and nothing about the paper's claims.</p>"
    )


def _overview(sections: Sequence[Section], judgements: Sequence[Judgement]) -> str:
    """One line for each claim and approach, one column for each section."""
    found = [{(f.claim, f.approach): f for f in judgement.findings} for judgement in judgements]
    # A claim's place is that among all of them, wherever it could be judged.
    claims = sorted({key for by in found for key in by}, key=lambda key: (CLAIMS.index(key[0]), _place(key[1])))
    if not claims:
        return "<p>Too few cells to judge any of them.</p>"
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in ("", "", *(s.title for s in sections)))
    lines, last = [], ""
    for claim, approach in claims:
        cells = "".join(f"<td>{_short(by.get((claim, approach)))}</td>" for by in found)
        span = sum(other == claim for other, _ in claims)
        first = f'<th scope="rowgroup" rowspan="{span}" class="claim">{escape(claim)}</th>' if claim != last else ""
        lines.append(f'<tr>{first}<th scope="row">{escape(APPROACHES[approach])}</th>{cells}</tr>')
        last = claim
    body = "".join(lines)
    return f'<div class="box"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _place(approach: str) -> int:
    return list(APPROACHES).index(approach)


def _short(finding: Finding | None) -> str:
    if finding is None:
        return ""
    weakest = min(finding.intervals, key=lambda i: i.low)
    numbers = points(weakest).replace(" points", "")
    verdict = finding.verdict.split(":")[0]
    return f'<span class="mark {MARKS[finding.verdict]}">{escape(verdict)}</span><br>{escape(numbers)}'


def _findings(section: Section, judgement: Judgement) -> str:
    """The findings of a section in words."""
    items = []
    for claim in dict.fromkeys(finding.claim for finding in judgement.findings):
        found = [finding for finding in judgement.findings if finding.claim == claim]
        items.append(f"<li><strong>{escape(claim)}.</strong><ul>{''.join(map(_finding, found))}</ul></li>")
    if section.seeds == 1:
        seeds = "One seed: the intervals are over edits alone and know nothing of how training varies."
    else:
        seeds = f"{section.seeds} seeds: resampling so few says only roughly how much training varies."
    body = f'<ul class="findings">{"".join(items)}</ul>' if items else "<p>Too few cells to judge any of them.</p>"
    return f'<h3>Findings in words</h3><p class="note">{seeds}</p>{body}'


def _finding(finding: Finding) -> str:
    mark = f'<span class="mark {MARKS[finding.verdict]}">{escape(finding.verdict)}</span>'
    sentence = finding.sentence.replace(" → ", "\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}")
    return f"<li>{mark} {escape(APPROACHES[finding.approach])}: {escape(sentence)}</li>"


def _what_was_run(sections: Sequence[Section]) -> str:
    head = ["", *(section.title for section in sections)]
    records = [[run.record for runs in section.runs.values() for run in runs.values()] for section in sections]

    def distinct(values: Iterable[object]) -> str:
        return ", ".join(sorted({str(value) for value in values}))

    body = [
        ["Cells", *(str(len(r)) for r in records)],
        ["Seeds", *(str(s.seeds) for s in sections)],
        ["Items", *(f"{s.scope['items']:,}" for s in sections)],
        ["Languages", *(f"{len(s.scope['languages'])}: {' '.join(s.scope['languages'])}" for s in sections)],
        ["Raw model", *(f"{s.scope['parameters']:,} parameters, {s.scope['model']}" for s in sections)],
        ["Data", *(str(s.scope["data"]) for s in sections)],
        *(
            [f"Ruling: {name.replace('_', ' ')}", *(str(s.scope["rulings"].get(name, "")) for s in sections)]
            for name in dict.fromkeys(name for s in sections for name in s.scope["rulings"])
        ),
        ["Machine", *(distinct(f"{x['machine']} ({x['device']})" for x in r) for r in records)],
        ["Precision", *(str(s.scope["precision"]) for s in sections)],
        ["Code", *(distinct(f"{x['code'].get('lime_editing')} {x['code'].get('digest')}" for x in r) for r in records)],
        ["Specification", *(distinct(x.get("specification", "before 2.0") for x in r) for r in records)],
        ["torch", *(distinct(x["code"].get("torch", "") for x in r) for r in records)],
    ]
    return (
        _table(head, body, text=len(head), wrap=True)
        + '<p class="note">Model and data are named by fingerprints. Every number below is computed from the rows of '
        "stored cells; <code>tables.json</code> names the cells of each.</p>"
    )


def _section(section: Section, judgement: Judgement, figures: Mapping[str, Path], root: Path) -> str:
    parts = [f'<h2 id="{escape(section.slug)}">{escape(section.title)}</h2>']
    meanings = (
        "Edits are made in English, inputs are in all languages: what training on parallel sentences brings.",
        "Edits are made in each language in turn: what masks bring. “One shared mask” is our control: as many "
        "parameters per matrix as one language's mask, without being specific to a language.",
    )
    for i, ((_, evaluation, trainings), meaning) in enumerate(zip(LAYOUT, meanings, strict=True)):
        _, lines = grid(section, evaluation, trainings)
        if not lines:
            parts.append(f'<p class="note">Table {i + 1} is left out: no cell was judged on {escape(evaluation)}.</p>')
            continue
        parts += [
            f"<h3>Table {i + 1}: {escape(evaluation)}</h3><p>{escape(meaning)}</p>",
            _scores(lines, grey=section.protocol != "released"),
            f'<p class="note">{escape(caption(section))} {escape(reference(section))}</p>',
        ]
    head, body = differences(judgement)
    if body:
        parts += [
            "<h3>Differences of succ, with 95% intervals</h3>"
            "<p>Paired bootstrap over edits, within each editing language, and over seeds, "
            f"{RESAMPLES:,} resamples: the same resampled edits and seeds on both sides. An interval without 0 says "
            "that the difference is not the luck of these edits and seeds.</p>",
            _table(head, body, text=2),
        ]
    parts.append(_findings(section, judgement))
    for name, (title, meaning) in FIGURES.items():
        if name in figures:
            svg = inline(figures[name].read_text(encoding="utf-8"), f"{section.slug}-{name}-")
            more = _likeness(figures[name]) if name == "figure5" else ""
            about = (
                f"<figcaption>{escape(meaning + more)} Also as PNG, and its numbers as JSON, in <code>figures/</code>."
            )
            parts.append(f'<h3>{escape(title)}</h3><figure>{about}</figcaption><div class="box">{svg}</div></figure>')
        else:
            parts.append(f'<p class="note">{escape(title)} is left out: {_why(name)}.</p>')
    run, again = commands(section, root)
    parts.append(
        f'<p class="how">All of this section again, from nothing: <code>{escape(run)}</code>. Its tables and figures '
        f"from the stored cells: <code>{escape(again)}</code>.</p>"
    )
    return "\n".join(parts)


def _likeness(svg: Path) -> str:
    """What Figure 5 shows, in two numbers: the mean cosine of two languages, everywhere and where one prefers."""
    data = read_json(svg.with_suffix(".json"))
    apart = [(i, j) for i in range(len(data["languages"])) for j in range(len(data["languages"])) if i != j]
    if not apart:
        return ""
    over_all, preferred = (fmean(data[name][i][j] for i, j in apart) for name in ("cosine_over_all", "cosine"))
    return (
        f" Here two languages' masks have a mean cosine of {over_all:.2f} over all dimensions, and of {preferred:.2f} "
        f"over the {data['preferred']} that the row's language prefers (seed {data['seed']})."
    )


def _why(figure: str) -> str:
    if figure == "figure5":
        return "there is no MEND with LiME, or neither its checkpoint nor the numbers computed from it before"
    return "no cell that it shows was run"


_CLOSING = (
    '<p class="how">Beside this page: <code>tables.md</code>, <code>table1.tex</code> and <code>table2.tex</code> '
    "(booktabs), <code>tables.json</code>, and <code>figures/</code>.</p>"
)


def _scores(lines: Sequence[Sequence[str]], grey: bool) -> str:
    """A table of scores under a two-storeyed head; printed numbers in a colour of their own, grey for a reference."""
    head = (
        '<tr><th rowspan="2" scope="col">Approach</th><th rowspan="2" scope="col">Trained on</th>'
        '<th colspan="3" scope="colgroup">here, %</th>'
        '<th colspan="3" scope="colgroup" class="printed">the paper prints, %</th></tr><tr>'
        + "".join(f'<th scope="col" class="n">{name}</th>' for name in METRICS)
        + "".join(f'<th scope="col" class="n printed">{name}</th>' for name in METRICS)
        + "</tr>"
    )
    body = "".join(
        f'<tr><th scope="row">{escape(line[0])}</th><td>{escape(line[1])}</td>'
        + "".join(f'<td class="n">{escape(v)}</td>' for v in line[2:5])
        + "".join(f'<td class="n printed">{escape(v)}</td>' for v in line[5:])
        + "</tr>"
        for line in lines
    )
    style = ' class="grey"' if grey else ""
    return f'<div class="box"><table{style}><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _table(head: Sequence[str], body: Sequence[Sequence[str]], text: int, wrap: bool = False) -> str:
    """A table that scrolls within its own box; its first `text` columns are words, the others numbers."""

    def cell(tag: str, i: int, value: str) -> str:
        kind = ' class="n"' if i >= text else ' class="wide"' if wrap and i else ""
        return f"<{tag}{kind}>{escape(value)}</{tag[:2]}>"

    top = "".join(cell('th scope="col"', i, value) for i, value in enumerate(head))
    lines = (
        "<tr>" + "".join(cell("td" if i else 'th scope="row"', i, value) for i, value in enumerate(line)) + "</tr>"
        for line in body
    )
    return f'<div class="box"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def inline(svg: str, prefix: str) -> str:
    """An SVG file as an element of a page, its ids made unique."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'( id="|xlink:href="#|url\(#)', lambda match: match[1] + prefix, svg).strip()
