"""HTML reports of an experiment, with its clips, and of a recipe. Each is a single file.

Styles, scripts and pictures are part of the page. A content security policy forbids loading anything else, except the
recordings of the clips: these are linked and never copied, because their licences forbid it.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from speecheq import seqm
from speecheq.config.layers import load
from speecheq.reporting import lineage
from speecheq.reporting.experiment import Experiment
from speecheq.reporting.figures import Picture
from speecheq.reporting.tables import Section, capitalised

REPORT = "report.html"
TEMPLATES = Path(__file__).with_name("templates")
# Digits of a count, an EIS and a posterior in the list of clips.
COUNT, EIS, POSTERIOR = 0, 2, 3


class Score(NamedTuple):
    """A main score, shown at the top: its value, and its standard deviation or interval."""

    name: str
    value: str
    spread: str = ""


class Link(NamedTuple):
    """A link to another report; ``address`` is its path relative to the page."""

    text: str
    address: str
    description: str


class PageSection(NamedTuple):
    """A section of a page: ``macro`` of sections.html.j2 draws its ``content``."""

    heading: str
    macro: str
    content: Any


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _csp_hash(text: str) -> str:
    """The name of an inline style or script in a content security policy."""
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(base64=lambda text: _base64(text.encode()), capitalised=capitalised)
    return environment


def _read_template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _page(title: str, parts: Sequence[PageSection], script: str = "", data: str = "") -> str:
    """The HTML of a page. ``script`` reads ``data``, a JSON text, from the element #clip-data."""
    style = _read_template("page.css")
    policy = [
        "default-src 'none'",
        "img-src data:",
        "media-src 'self' file:",
        "base-uri 'none'",
        "form-action 'none'",
        f"style-src {_csp_hash(style)}",
        f"script-src {_csp_hash(script)}",
    ]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            policy="; ".join(policy),
            style=Markup(style),
            parts=parts,
            script=Markup(script),
            data=Markup(data.replace("<", r"\u003c")),  # the same in JSON, and no file name can end the element
        )
    )


def _address(recording: lineage.ClipRecording, page: Path) -> str:
    """The URL of a recording relative to the page, which is right on a disk and on a server."""
    path = quote(os.path.relpath(os.path.abspath(recording.path), os.path.abspath(page.parent)))
    return path + (f"#t={recording.span[0]:.3f},{recording.span[1]:.3f}" if recording.span else "")


def clip_data(experiment: Experiment, recordings: Mapping[str, lineage.ClipRecording], page: Path) -> dict[str, Any]:
    """The data of the list of clips: a row for every test clip of every fold and seed.

    Returns:
        ``columns``: for each value of a row its heading and, if it is a number, its ``digits``; an unknown value is
        None. ``truth`` and ``prediction``: the places of the true and the predicted class. ``classes``: their names.
        ``rows``: the values. ``audio``: clip -> URL of its recording.
    """
    classes = experiment.classes
    has_gender = "gender" in load(experiment.scored[0].folder / "config.yaml").tasks()
    text = ["clip", "true class", "predicted class"]
    columns: list[dict[str, Any]] = [{"heading": name} for name in text]
    columns += [{"heading": name, "digits": EIS} for name in ("true EIS", "predicted EIS")]
    columns += [{"heading": name} for name in ("SEQM name", "gender", "predicted gender", "speaker", "corpus", "set")]
    columns += [{"heading": name, "digits": COUNT} for name in ("fold", "seed")]
    columns += [{"heading": f"p({name})", "digits": POSTERIOR, "posterior": True} for name in classes.names]
    rows = [
        [
            clip.id,
            classes.names[clip.gold_esc],
            classes.names[clip.predicted_esc],
            clip.gold_eis if seqm.is_specified(clip.gold_eis) else None,
            round(clip.predicted_eis, EIS + 1),
            seqm.emotion_name(classes.categories[clip.predicted_esc], clip.predicted_eis),
            clip.gold_gender,
            clip.predicted_gender if has_gender else None,
            clip.speaker,
            clip.corpus,
            name,
            fold.run["fold"],
            fold.run["seed"],
            *(round(value, POSTERIOR + 1) for value in clip.posterior),
        ]
        for fold in experiment.scored
        for name, clips in fold.sets.items()
        for clip in clips
    ]
    return {
        "columns": columns,
        "truth": text.index("true class"),
        "prediction": text.index("predicted class"),
        "classes": list(classes.names),
        "rows": rows,
        "audio": {row[0]: _address(recordings[row[0]], page) for row in rows if row[0] in recordings},
    }


def _picture_sections(pictures: Sequence[Picture]) -> list[PageSection]:
    return [PageSection("Pictures", "pictures", pictures)] if pictures else []


def _table_sections(sections: Sequence[Section]) -> list[PageSection]:
    return [PageSection(section.heading, "tables_and_sentences", section) for section in sections]


def experiment_report(
    title: str,
    scores: Sequence[Score],
    facts: Sequence[str],
    sections: Sequence[Section],
    pictures: Sequence[Picture],
    notes: Sequence[str],
    experiment: Experiment,
    page: Path,
) -> str:
    """The report of one experiment as HTML, to be written to ``page``.

    It shows the main ``scores`` and ``facts``, ``pictures``, the tables of ``sections``, all clips, the data with
    counts and dropped utterances, the settings, and ``notes`` on how to read the scores.
    """
    first, stamps = experiment.scored[0], lineage.stage_stamps(experiment)
    clips = clip_data(experiment, lineage.recordings(stamps), page)
    counts = {"predictions": len(clips["rows"]), "clips": len({row[0] for row in clips["rows"]})}
    sets = lineage.sets_table(experiment)
    tables = [*([sets] if sets else []), lineage.stages_table(stamps)]
    settings = {
        "run": first.run,
        "settings": (first.folder / "config.yaml").read_text(encoding="utf-8"),
        "trainings": lineage.trainings_table(experiment),
    }
    parts = [
        PageSection("Summary", "summary", {"scores": scores, "facts": facts}),
        *_picture_sections(pictures),
        *_table_sections(sections),
        PageSection("Clips", "clips", {**counts, "audio": len(clips["audio"])}),
        PageSection("Data", "data", {"tables": tables, "has_data": lineage.has_data(stamps)}),
        PageSection("Settings", "settings", settings),
        PageSection("How to read the scores", "sentences", notes),
    ]
    data = json.dumps(clips, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _page(title, parts, _read_template("clips.js"), data)


def recipe_report(
    title: str,
    links: Sequence[Link],
    sections: Sequence[Section],
    notes: Sequence[str],
    pictures: Sequence[Picture] = (),
) -> str:
    """The report of a recipe as HTML, with ``links`` to the reports of its experiments."""
    quoted = [link._replace(address=quote(link.address)) for link in links]
    parts = [
        PageSection("Experiments", "links", quoted),
        *_picture_sections(pictures),
        *_table_sections(sections),
        PageSection("How to read the scores", "sentences", notes),
    ]
    return _page(title, parts)
