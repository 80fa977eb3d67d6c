"""Our results beside those of the paper (Tables 3 and 4, section 3.3), and among published results of other systems.

``conf/table.yaml`` of a recipe holds the columns (target, protocol, score) and rows of the paper's table, results of
other systems, and the components of our systems for the ablation. Our own results are computed from score files.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from speecheq.common.errors import InputError
from speecheq.common.yaml_files import from_mapping, read_yaml
from speecheq.dataset.msud_recipe import TEST
from speecheq.reporting.ablation import Component
from speecheq.reporting.experiment import config_name
from speecheq.reporting.tables import NOT_AVAILABLE, Cell, Column, Section, Table, build_table, join_numbers

Summary = Mapping[str, Any]  # metrics.json of an experiment
SCORES = {"wa": 100.0, "ua": 100.0, "uai": 100.0, "eis_mse": 1.0}  # score -> its factor in the paper's table
# How the names of the configurations of cited systems begin (egs/iemocap/conf/cited.yaml, cited_small.yaml).
CITED_CONFIG = "cited"
PUBLISHED = (
    "Published results are means over all folds as reported; their folds, training data and models differ from ours. "
    "Ours are restricted scores over the folds that are named. Parameters are those of the trained model, without a "
    "frozen encoder's; the seconds are of one thread of a CPU where no GPU is named below."
)


@dataclass(frozen=True)
class PaperColumn:
    """A score on a target under a protocol."""

    heading: str
    target: str
    protocol: str
    score: str


@dataclass(frozen=True)
class PaperRow:
    """A system in the paper's table; ``system`` is its name here, None for a cited one."""

    name: str
    system: str | None
    figures: tuple[float | None, ...]


@dataclass(frozen=True)
class PublishedResult:
    """WA and UA of another system in percent (None: not published), over ``classes`` classes; ``how`` it was measured.

    ``protocols``: those of ours in which test speakers are seen or unseen in training as in its own.
    """

    name: str
    target: str
    protocols: tuple[str, ...]
    classes: int
    wa: float | None
    ua: float | None
    how: str


@dataclass(frozen=True)
class PaperTable:
    """``table.yaml``: a table of the paper, published results, components, and notes on all systems."""

    title: str
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]
    published: tuple[PublishedResult, ...]
    parts: tuple[Component, ...]
    notes: tuple[str, ...]


def read_table(path: Path) -> PaperTable:
    """Read ``conf/table.yaml``. Raises InputError, which names the faulty item."""
    paper = from_mapping(PaperTable, read_yaml(path), str(path))
    for number, column in enumerate(paper.columns, 1):
        if column.score not in SCORES:
            raise InputError(f"{path}, column {number}: the score {column.score!r} is not one of {', '.join(SCORES)}.")
    for number, row in enumerate(paper.rows, 1):
        if len(row.figures) != len(paper.columns):
            raise InputError(f"{path}, row {number}: expected {len(paper.columns)} figures, one for each column.")
    for number, result in enumerate(paper.published, 1):
        if result.wa is None and result.ua is None:
            raise InputError(f"{path}, published figure {number}: its wa or its ua must be a number.")
    return paper


# ---- the paper's table


def _belongs_to(summary: Summary, row: PaperRow, column: PaperColumn) -> bool:
    run = summary["run"]
    own = (run["system"], run["target"], run["protocol"], run["classes_of"], run["neutral_eis"])
    if run["by_speaker"] or run["as_published"]:
        return False
    return own == (row.system, column.target, column.protocol, "seqm", "declared")


def _find(summaries: Sequence[Summary], row: PaperRow, column: PaperColumn) -> Summary | None:
    return next((summary for summary in summaries if _belongs_to(summary, row, column)), None)


def _is_shared(summary: Summary) -> bool:
    """Whether a system stands beside those of any configuration: cited and reference systems have one of their own."""
    run = summary["run"]
    return run["probe"] is not None or run["config"].startswith(CITED_CONFIG)


def _folds_and_seeds(run: Mapping[str, Any]) -> str:
    return f"folds {join_numbers(run['folds'])} of {run['of_folds']}, seeds {join_numbers(run['seeds'])}"


def _describe_run(run: Mapping[str, Any]) -> str:
    return (
        f"{run['system']}, {run['target']} {run['protocol']}: {_folds_and_seeds(run)}, emotion data "
        f"{', '.join(run['corpora'])}, git {', '.join(run['trained_at_git'])}"
    )


def _paper_cell(summary: Summary | None, score: str, figure: float | None) -> tuple[str, str]:
    value = None if summary is None else summary.get(f"test.{score}")
    return ("-" if value is None else f"{value * SCORES[score]:.2f}", "-" if figure is None else f"{figure:.2f}")


class ComparedTable(NamedTuple):
    """A table of the paper with our results; ``notes`` name the folds and seeds behind ours."""

    table: Table
    notes: list[str]


def paper_tables(paper: PaperTable, summaries: Sequence[Summary]) -> list[ComparedTable]:
    """The paper's table with cells "ours / the paper's", once for each configuration that was run.

    Cited and reference systems, which have configurations of their own, are in each of these tables, with a row for
    each configuration or feature set. The notes matter because our means over some folds are not the paper's means
    over all.
    """
    by_config: dict[str, list[Summary]] = defaultdict(list)
    shared: dict[str, list[Summary]] = defaultdict(list)
    for summary in summaries:
        if any(_belongs_to(summary, row, column) for row in paper.rows for column in paper.columns):
            (shared if _is_shared(summary) else by_config)[config_name(summary["run"])].append(summary)
    if shared and not by_config:
        by_config["cited and reference systems"] = []
    headings = [Column("ours / the paper's", ("system",))]
    headings += [
        Column(column.heading, (f"{column.heading}, ours", f"{column.heading}, the paper's"), " / ")
        for column in paper.columns
    ]
    tables = []
    for config, members in sorted(by_config.items()):
        rows: list[list[Cell]] = []
        notes: list[str] = []
        for row in paper.rows:
            others = {
                name: own for name, own in sorted(shared.items()) if any(_find(own, row, c) for c in paper.columns)
            }
            for name, own in (others or {"": members}).items():
                found = [_find(own, row, column) for column in paper.columns]
                notes += [_describe_run(summary["run"]) for summary in found if summary is not None]
                cells = [
                    _paper_cell(summary, column.score, figure)
                    for summary, column, figure in zip(found, paper.columns, row.figures)
                ]
                system = row.system if not name else f"{row.system}, {name}"
                rows.append([row.name if row.system is None else f"{row.name} ({system})", *cells])
        table = Table(f"paper.{config}", f"{paper.title}, {config}", headings, rows)
        tables.append(ComparedTable(table, list(dict.fromkeys(notes))))
    return tables


# ---- published results


def published_sections(published: Sequence[PublishedResult], summaries: Sequence[Summary]) -> list[Section]:
    """Our restricted scores among published results: a table for each target, protocol and number of classes.

    Both are over the classes that the corpus has. SEQM may merge some of them: where ours are over another number of
    classes than the published results, a sentence says so instead.
    """
    ours: dict[tuple[str, str], list[Summary]] = defaultdict(list)
    for summary in summaries:
        # the published systems hear one clip at a time; the switches of other protocols have tables of their own
        if not summary["run"]["by_speaker"] and not summary["run"]["as_published"]:
            ours[summary["run"]["target"], summary["run"]["protocol"]].append(summary)
    sections = []
    for (target, protocol), members in sorted(ours.items()):
        theirs = [result for result in published if result.target == target and protocol in result.protocols]
        if not theirs:
            continue
        counts = sorted({result.classes for result in theirs})
        by_count: dict[int, list[Summary]] = defaultdict(list)
        for summary in members:
            by_count[len(summary["run"]["label_sets"][TEST])].append(summary)
        tables = [_published_table(count, theirs, by_count[count]) for count in counts if count in by_count]
        sentences = [PUBLISHED] if tables else []
        sentences += [
            f"over {count} classes, and so not comparable with the published results over "
            f"{' or '.join(map(str, counts))} (--classes corpus keeps the classes of a corpus): "
            f"{', '.join(map(_system_name, others))}"
            for count, others in sorted(by_count.items())
            if count not in counts
        ]
        sections.append(Section(f"{target}, {protocol}: our results among published ones", tables, sentences))
    return sections


def _system_name(summary: Summary) -> str:
    return f"{config_name(summary['run'])}-{summary['run']['system']}"


@dataclass(frozen=True)
class _Ranked:
    """A row of a table of published results and ours; scores in percent."""

    name: str
    wa: float | None
    ua: float | None
    parameters: int | None  # of the model, without a frozen encoder
    seconds: float | None  # of training, a fold
    how: str

    @classmethod
    def of_ours(cls, summary: Summary) -> "_Ranked":
        run = summary["run"]
        wa, ua = (100 * summary[f"test.restricted_{score}"] for score in ("wa", "ua"))
        how = f"ours: {_folds_and_seeds(run)}, git {', '.join(run['trained_at_git'])}"
        seconds = run["train_seconds"] / run["trainings"]
        trained = run["probe"] is None
        parameters = run["parameters"]
        return cls(_system_name(summary), wa, ua, parameters if trained else None, seconds if trained else None, how)

    @property
    def rank(self) -> float:
        return -max(round(value, 2) for value in (self.wa, self.ua) if value is not None)


def _published_table(classes: int, published: Sequence[PublishedResult], ours: Sequence[Summary]) -> Table:
    """The best result first."""
    rows = [_Ranked.of_ours(summary) for summary in ours]
    rows += [
        _Ranked(result.name, result.wa, result.ua, None, None, result.how)
        for result in published
        if result.classes == classes
    ]

    def text(value: float | None, digits: int) -> str:
        return NOT_AVAILABLE if value is None else f"{value:.{digits}f}"

    run = ours[0]["run"]
    seen = "test speakers seen in training" if max(run["test_speakers_in_training"]) else "unseen test speakers"
    return build_table(
        f"published.{run['target']}.{run['protocol']}.{classes}",
        f"{classes} classes, {seen}",
        sorted(rows, key=lambda row: row.rank),
        {
            "system": lambda row: row.name,
            "WA %": lambda row: text(row.wa, 2),
            "UA %": lambda row: text(row.ua, 2),
            "parameters, M": lambda row: text(row.parameters and row.parameters / 1e6, 2),
            "training a fold": lambda row: NOT_AVAILABLE if row.seconds is None else f"{row.seconds:.0f} s",
            "how": lambda row: row.how,
        },
    )
