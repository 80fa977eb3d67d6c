"""The result pages and tables of a recipe, written from the score files of its trained folders."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from speecheq.common.errors import InputError
from speecheq.common.files import locked_folder, remove_leftovers, write_text
from speecheq.common.log import log
from speecheq.dataset.msud_recipe import TEST
from speecheq.evaluation.robustness import conditions
from speecheq.reporting.as_published import as_published_sections
from speecheq.reporting.comparison import Comparison, compare
from speecheq.reporting.ensemble import ensembles, is_ensemble
from speecheq.reporting.experiment import Experiment, scored_folders, summarise
from speecheq.reporting.figures import compare_conditions, draw_pictures, write_pictures
from speecheq.reporting.html_report import REPORT, Link, Score, experiment_report, recipe_report
from speecheq.reporting.published_results import PaperTable, paper_tables, published_sections, read_table
from speecheq.reporting.report_tables import HEADINGS, Group, experiment_sections, recipe_sections, score_cell
from speecheq.reporting.report_text import (
    NOT_COMPARABLE,
    NOTES,
    PICTURES,
    describe_main_scores,
    experiment_facts,
    experiment_page,
    experiment_title,
    group_heading,
    recipe_page,
)
from speecheq.reporting.tables import NOT_AVAILABLE, Section, Table, format_score, write_tables

MAIN_SCORES = ("ua", "wa", "uai", "eis_ccc", "gender", "per")  # at the top of an HTML report
TABLES = "tables"  # the folder of LaTeX and CSV below that of the experiments
NOTHING_SCORED = "{}: no experiment has been scored; run stages 4 and 5 first."
NO_TABLE = PaperTable("", (), (), (), (), ())


def report(exp: Path, title: str, results: Path, table: Path | None = None) -> str:
    """Summarise all experiments below ``exp`` from their score files. Returns the recipe's page in Markdown.

    Writes for each experiment metrics.json, scores.tsv, RESULTS.md, report.html, its pictures and, if it was tested
    under other conditions, conditions.json; for the recipe its page ``results``, ``exp/report.html``, its tables as
    LaTeX and CSV to ``exp/tables``, and figures of systems under other conditions to ``exp/pictures``. ``table``: the
    recipe's table.yaml with the paper's results. Experiments that cannot be read are left out and listed on the page.
    Raises InputError if none is left.
    """
    paper = read_table(table) if table is not None else NO_TABLE
    folders = sorted({path.parent.parent for path in Path(exp).glob("*/*/fold*/seed*") if path.is_dir()})
    if not folders:
        raise InputError(NOTHING_SCORED.format(exp))
    with locked_folder(Path(exp) / TABLES, wait=True):  # one lock for all outputs
        for written in (exp, results, *folders):
            remove_leftovers(written)
        return _write_report(Path(exp), folders, title, results, paper)


def _write_report(exp: Path, folders: Sequence[Path], title: str, results: Path, paper: PaperTable) -> str:
    experiments, left_out = _summarise_all(exp, folders)
    systems = [*experiments.values(), *ensembles(list(experiments.values()))]
    groups = _group(systems)
    targets = [group for group in groups if group.test_set == TEST]
    # without ensembles: each further test weakens all others
    comparisons = {
        heading: compare([member for member in members if not is_ensemble(member)]) for heading, _, members in targets
    }
    for folder, experiment in experiments.items():
        _write_experiment(folder, experiment, comparisons[group_heading(experiment.run)])

    sections = recipe_sections(groups, comparisons, paper.parts)
    appendix = _paper_sections(paper, systems)
    write_tables(exp / TABLES, [table for section in [*sections, *appendix] for table in _with_headings(section)])
    if left_out:
        appendix.append(Section("Left out", (), left_out))
    text = recipe_page(title, systems, sections, paper.notes, appendix)
    write_text(results, text)
    pictures = [picture for heading, _, members in targets for picture in compare_conditions(heading, members)]
    if pictures or (exp / PICTURES).is_dir():
        write_pictures(exp / PICTURES, pictures)
    links = [
        Link(
            f"{experiment.name}, {experiment.run['name']}",
            (folder / REPORT).relative_to(exp).as_posix(),
            describe_main_scores(experiment.summary),
        )
        for folder, experiment in experiments.items()
    ]
    notes = [*NOTES, *paper.notes, NOT_COMPARABLE]
    write_text(exp / REPORT, recipe_report(f"Results of {title}", links, [*sections, *appendix], notes, pictures))
    return text


def _summarise_all(exp: Path, folders: Sequence[Path]) -> tuple[dict[Path, Experiment], list[str]]:
    """The experiment in each folder, and why folds or experiments are left out. Raises InputError if none is left."""
    experiments: dict[Path, Experiment] = {}
    left_out: list[str] = []
    for folder in folders:
        scored, reasons = scored_folders(folder)
        left_out += reasons
        if scored:
            try:
                found, reasons = conditions.read(folder)
                left_out += reasons
                experiments[folder] = replace(summarise(folder, scored), conditions=found)
            except InputError as fault:
                left_out.append(str(fault))
    if not experiments:
        raise InputError(left_out[0] if left_out else NOTHING_SCORED.format(exp))
    for reason in left_out:
        log.warning("left out of the tables: %s", reason)
    return experiments, left_out


def _group(experiments: Sequence[Experiment]) -> list[Group]:
    """The experiments of each table, in the order of headings and test sets."""
    groups: dict[tuple[str, str], list[Experiment]] = defaultdict(list)
    for experiment in sorted(experiments, key=lambda experiment: experiment.name):
        for set_name in experiment.test_sets:
            groups[group_heading(experiment.run), set_name].append(experiment)
    return [Group(heading, set_name, groups[heading, set_name]) for heading, set_name in sorted(groups)]


def _paper_sections(paper: PaperTable, systems: Sequence[Experiment]) -> list[Section]:
    """Our results beside the paper's, and among published ones."""
    summaries = [system.summary for system in systems]
    beside = [Section(table.caption, [table], notes) for table, notes in paper_tables(paper, summaries)]
    return [*beside, *as_published_sections(systems), *published_sections(paper.published, summaries)]


def _with_headings(section: Section) -> list[Table]:
    """The tables of a section with captions that can be understood without its heading."""
    return [
        table if table.caption == section.heading else replace(table, caption=f"{section.heading}: {table.caption}")
        for table in section.tables
    ]


def _main_scores(experiment: Experiment) -> list[Score]:
    """The pooled UA with its interval, then means over folds and seeds with their standard deviations."""
    summary = experiment.summary
    low, high = (format_score(summary[f"{end}.pooled.test.ua"], "ua") for end in ("low", "high"))
    interval = "" if NOT_AVAILABLE in (low, high) else f"[{low}, {high}]"
    scores = [Score("pooled UA %", format_score(summary["pooled.test.ua"], "ua"), interval)]
    for name in MAIN_SCORES:
        if summary.get(f"test.{name}") is not None:
            value, *deviation = score_cell(summary, TEST, name)
            scores.append(Score(HEADINGS[name], value, f"± {deviation[0]}" if deviation else ""))
    return scores


def _write_experiment(folder: Path, experiment: Experiment, comparison: Comparison) -> None:
    """Write the pictures, RESULTS.md, report.html and conditions.json of one experiment."""
    pictures, sections = draw_pictures(experiment), experiment_sections(experiment)
    write_pictures(folder / PICTURES, pictures)
    if experiment.conditions:
        conditions.write_summary(folder, experiment.conditions)
    write_text(folder / "RESULTS.md", experiment_page(experiment, sections, pictures))
    differences = comparison.section(experiment)
    if differences.sentences:
        sections.append(differences)
    page = experiment_report(
        experiment_title(experiment),
        _main_scores(experiment),
        experiment_facts(experiment.summary),
        sections,
        pictures,
        NOTES,
        experiment,
        folder / REPORT,
    )
    write_text(folder / REPORT, page)
