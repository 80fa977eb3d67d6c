"""Pages of HTML, each one file that needs no other: of an experiment, with its clips, and of a recipe.

Nothing is loaded from elsewhere: styles, scripts and pictures lie in the page, and a content security policy forbids
all else but the recordings of clips, which are linked and never copied (their licences forbid it).
"""

import base64
import hashlib
import html
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import quote

from speecheq import seqm
from speecheq.config.layers import load
from speecheq.reporting import lineage
from speecheq.reporting.experiment import Experiment
from speecheq.reporting.figures import Picture
from speecheq.reporting.tables import Section, table_html

REPORT = "report.html"
TEMPLATES = Path(__file__).with_name("templates")
# The digits of what is counted, of an EIS and of a posterior in the list of clips.
COUNT, EIS, POSTERIOR = 0, 2, 3


class Score(NamedTuple):
    """A main score, as it is shown at the top: its value, and what qualifies it."""

    name: str
    value: str
    more: str = ""


class Link(NamedTuple):
    """To another page of ours, relative to the page, and what is said beside it."""

    text: str
    address: str
    beside: str


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """How a content security policy names a style or a script that lies in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _document(title: str, parts: Mapping[str, str], script: str = "", data: str = "") -> str:
    """A page: ``parts`` is heading -> HTML; ``data`` is JSON that ``script`` reads from #clip-data."""
    style = _template("page.css")
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            "media-src 'self' file:",
            "base-uri 'none'",
            "form-action 'none'",
            f"style-src {_hash(style)}",
            f"script-src {_hash(script)}",
        ]
    )
    contents = "".join(
        f'<li><a href="#section-{number}">{html.escape(name)}</a></li>' for number, name in enumerate(parts)
    )
    body = "".join(
        f'<section aria-labelledby="section-{number}">\n<h2 id="section-{number}">{html.escape(name)}</h2>\n'
        f"{part}</section>\n"
        for number, (name, part) in enumerate(parts.items())
    )
    data = data.replace("<", r"\u003c")  # the same in JSON, and no file's name can end the element
    scripts = (
        f'<script type="application/json" id="clip-data">{data}</script>\n<script>{script}</script>' if script else ""
    )
    return Template(_template("page.html")).substitute(
        title=html.escape(title), policy=html.escape(policy), style=style, contents=contents, body=body, scripts=scripts
    )


def _list(sentences: Iterable[str]) -> str:
    return "<ul>\n" + "".join(f"<li>{html.escape(sentence)}</li>\n" for sentence in sentences) + "</ul>\n"


def _section(section: Section) -> str:
    tables = "".join(map(table_html, section.tables))
    return tables + (_list(section.sentences) if section.sentences else "")


def _scores(scores: Sequence[Score]) -> str:
    return (
        '<dl class="scores">\n'
        + "".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)} <small>{html.escape(more)}</small></dd></div>\n"
            for name, value, more in scores
        )
        + "</dl>\n"
    )


def _pictures(pictures: Sequence[Picture]) -> str:
    """As images, not as parts of the page: pictures of one maker share ids, and their styles are the page's not."""
    return (
        '<div class="pictures">\n'
        + "".join(
            f"<figure><h3>{html.escape(picture.title)}</h3>"
            f'<img alt="{html.escape(picture.title)}: {html.escape(picture.caption)}" '
            f'src="data:image/svg+xml;base64,{base64.b64encode(picture.svg.encode()).decode()}">'
            f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>\n"
            for picture in pictures
        )
        + "</div>\n"
    )


def _address(place: lineage.Place, page: Path) -> str:
    """The URL of a recording relative to the page: also right where a server shows both."""
    path = quote(os.path.relpath(os.path.abspath(place.path), os.path.abspath(page.parent)))
    return path + (f"#t={place.part[0]:.3f},{place.part[1]:.3f}" if place.part else "")


def clip_data(experiment: Experiment, recordings: Mapping[str, lineage.Place], page: Path) -> dict[str, Any]:
    """What the list of clips is drawn from: an answer a row, for every test clip of every fold and seed.

    ``columns`` say what the values of a row are: text, or a number with so many ``digits``; None is not known.
    ``truth`` and ``answer`` are the columns of the true and of the predicted class; ``audio`` is clip -> URL.
    """
    classes = experiment.classes
    knows_gender = "gender" in load(experiment.scored[0].folder / "config.yaml").tasks()
    text = ["clip", "true class", "predicted class"]
    columns: list[dict[str, Any]] = [{"heading": name} for name in text]
    columns += [{"heading": name, "digits": EIS} for name in ("true EIS", "predicted EIS")]
    columns += [{"heading": name} for name in ("SEQM name", "gender", "predicted gender", "speaker", "corpus", "set")]
    columns += [{"heading": name, "digits": COUNT} for name in ("fold", "seed")]
    columns += [{"heading": f"p({name})", "digits": POSTERIOR, "posterior": True} for name in classes.names]
    rows = [
        [
            p.id,
            classes.names[p.gold_esc],
            classes.names[p.predicted_esc],
            p.gold_eis if seqm.is_specified(p.gold_eis) else None,
            round(p.predicted_eis, EIS + 1),
            seqm.emotion_name(classes.categories[p.predicted_esc], p.predicted_eis),
            p.gold_gender,
            p.predicted_gender if knows_gender else None,
            p.speaker,
            p.corpus,
            name,
            fold.run["fold"],
            fold.run["seed"],
            *(round(value, POSTERIOR + 1) for value in p.posterior),
        ]
        for fold in experiment.scored
        for name, predictions in fold.sets.items()
        for p in predictions
    ]
    audio = {row[0]: _address(recordings[row[0]], page) for row in rows if row[0] in recordings}
    return {
        "columns": columns,
        "truth": text.index("true class"),
        "answer": text.index("predicted class"),
        "classes": list(classes.names),
        "rows": rows,
        "audio": audio,
    }


_CLIPS = """\
<div class="filters" role="search" aria-label="clips">
<label>search (clip, speaker, corpus, ...) <input type="search" id="filter-text" autocomplete="off"></label>
<label>true class <select id="filter-true"><option value="">all</option></select></label>
<label>predicted class <select id="filter-predicted"><option value="">all</option></select></label>
<label class="check"><input type="checkbox" id="filter-errors"> only errors</label>
</div>
<div class="pages">
<button type="button" id="page-first">first</button> <button type="button" id="page-previous">previous</button>
<button type="button" id="page-next">next</button> <button type="button" id="page-last">last</button>
<p role="status" id="clips-status"></p>
</div>
<div class="box" role="region" aria-label="list of clips" tabindex="0">
<table id="clips"><caption class="hidden">Clips; a column's heading sorts by it</caption>
<thead><tr></tr></thead><tbody></tbody></table></div>
<noscript><p>The list of clips needs JavaScript; the same figures lie in scores.tsv beside this page.</p></noscript>
"""


def _clips(data: Mapping[str, Any]) -> str:
    clips = {row[0] for row in data["rows"]}
    heard = (
        f"{len(data['audio'])} of {len(clips)} can be heard here"
        if data["audio"]
        else (
            "None can be heard: the recordings, or the data of stage 3 that name them, are not at hand where this page "
            "was written"
        )
    )
    return (
        f"<p>{len(data['rows'])} answers to {len(clips)} test clips, of all folds and seeds. {heard}. p(...) is "
        "the posterior of a class; the SEQM name is that of the predicted class at the predicted EIS.</p>\n" + _CLIPS
    )


def _data(experiment: Experiment, stamps: lineage.Stamps) -> str:
    sets = lineage.sets_table(experiment)
    parts = ["" if sets is None else table_html(sets), table_html(lineage.stages_table(stamps))]
    if not lineage.has_data(stamps):
        parts.append(
            "<p>The data that this experiment was made from are not at hand where this page was written: what "
            "the stages before the training dropped is not known here.</p>\n"
        )
    return "".join(parts)


def _configuration(experiment: Experiment) -> str:
    first = experiment.scored[0]
    settings = (first.folder / "config.yaml").read_text(encoding="utf-8")
    return (
        f"<p>Resolved settings of fold {first.run['fold']}, seed {first.run['seed']}; the others differ in the "
        "seed, or in what does not change a result.</p>\n"
        f'<pre tabindex="0" role="region" aria-label="settings">{html.escape(settings)}</pre>\n'
    )


def experiment_report(
    title: str,
    scores: Sequence[Score],
    facts: Sequence[str],
    sections: Sequence[Section],
    pictures: Sequence[Picture],
    explained: Sequence[str],
    experiment: Experiment,
    page: Path,
) -> str:
    """The report of one experiment, to be written to ``page``.

    The tables of ``sections``, the ``pictures``, all clips, the data with their counts and drops, and the settings.
    """
    stamps = lineage.stamps_of(experiment)
    clips = clip_data(experiment, lineage.recordings(stamps), page)
    parts = {"Summary": _scores(scores) + _list(facts)}
    if pictures:
        parts["Pictures"] = _pictures(pictures)
    parts.update((section.heading, _section(section)) for section in sections)
    parts.update(
        {
            "Clips": _clips(clips),
            "Data": _data(experiment, stamps),
            "Settings": _configuration(experiment) + table_html(lineage.trainings_table(experiment)),
            "How to read the scores": _list(explained),
        }
    )
    data = json.dumps(clips, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _document(title, parts, _template("clips.js"), data)


def recipe_report(
    title: str,
    links: Sequence[Link],
    sections: Sequence[Section],
    explained: Sequence[str],
    pictures: Sequence[Picture] = (),
) -> str:
    """The report of a recipe: links to those of its experiments, the ``pictures``, and the tables of ``sections``."""
    linked = "".join(
        f'<li><a href="{html.escape(quote(address))}">{html.escape(text)}</a>: {html.escape(beside)}</li>\n'
        for text, address, beside in links
    )
    parts = {"Experiments": f"<ul>\n{linked}</ul>\n"}
    if pictures:
        parts["Pictures"] = _pictures(pictures)
    parts.update((section.heading, _section(section)) for section in sections)
    parts["How to read the scores"] = _list(explained)
    return _document(title, parts)
