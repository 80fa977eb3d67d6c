"""Reports in HTML: what they hold, and how they behave in a browser."""

import functools
import json
import os
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from PIL import Image
from report_data import RUN, make, predictions, rewrite, summarised, write_stamp

from speecheq import seqm
from speecheq.common.files import read_json, write_json
from speecheq.common.stages import STAMP
from speecheq.evaluation import score, score_files
from speecheq.reporting import html_report, lineage, report
from speecheq.reporting.html_report import PageSection
from speecheq.reporting.tables import Column, Section, Table

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<b>&\"'</script><script>alert(1)</script>"
FILE = "a #1 100%?<b>&\"'.wav"  # no / in a file's name
FOLDS, SEEDS = (2, 10), (1, 2)  # as text, 10 comes before 2
SECONDS = 8.0
PART = (0.25, 0.75)
ROWS = 50
# The WCAG's level AA for text of usual size.
LEAST_CONTRAST = 4.5


# ---- an experiment with its data, and one without


def hostile_predictions(fold, seed):
    """Clips with names that end elements, some without intensity or gender."""
    made = predictions(fold, seed, 0.7, 8)
    for number, clip in enumerate(made):
        clip.id += f" {HOSTILE}"
        clip.speaker += " <i>"
        clip.predicted_eis = float(np.random.default_rng([fold, seed, number]).uniform(0, 4))
        if number % 4 == 0:
            clip.gold_eis = seqm.UNSPECIFIED
        if number % 5 == 0:
            clip.gold_gender = None
    return made


def make_data(folder, clips):
    """What stage 3 writes of a fold, as far as a report reads it: of the first clip the file is gone, of the second a
    part is used. Returns the folder, and the key of its stamp."""
    cuts = []
    for number, clip in enumerate(clips):
        path = folder / "corpus" / f"{number} {FILE}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.sin(np.arange(SECONDS * 16000) / 8), 16000)
        start, end = PART if number == 1 else (0, SECONDS)
        cuts.append(
            MonoCut(
                clip.id,
                start,
                end - start,
                0,
                recording=Recording.from_file(path, clip.id),
                supervisions=[SupervisionSegment(clip.id, clip.id, start, end - start)],
            )
        )
    CutSet.from_cuts(cuts).to_file(folder / "test.jsonl.gz")
    Path(cuts[0].recording.sources[0].source).unlink()
    write_json(folder / "msud.json", {"tests": ["test"]})
    sizes = {name: (folder / name).stat().st_size for name in ("msud.json", "test.jsonl.gz")}
    dropped = {f"no label {HOSTILE}": ["a", "b", "c", "d", HOSTILE, "f"]}
    title = f"toy, {folder.name}"
    write_stamp(folder, "unify", sizes, title=title, key=folder.name, inputs={"gone": "k"}, dropped=dropped)
    return folder, folder.name


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    """Two systems: speecheq with its data, hostile names and four trainings; and <i>& without any data."""
    root = tmp_path_factory.mktemp("a page")
    experiment = make(root / "exp", folds=FOLDS, seeds=SEEDS, set=[f"name={HOSTILE}"])
    for fold in FOLDS:
        data, key = make_data(root / "data" / f"fold{fold}", hostile_predictions(fold, 1))
        for seed in SEEDS:
            folder = experiment / f"fold{fold}" / f"seed{seed}"
            run = read_json(folder / "metrics.json")["run"]
            rewrite(folder, hostile_predictions(fold, seed), **run)
            stamp = folder / score.STAMP_FOLDER / STAMP
            write_json(stamp, {**read_json(stamp), "inputs": {str(data): key}})
            write_json(
                folder / "run.json",
                {
                    "machine": HOSTILE,
                    "msud": {
                        "sets": {
                            "test": {
                                "clips": 24,
                                "corpus": {"toy": 24},
                                "class": {HOSTILE: 8},
                                "eis": {},
                                "gender": {"F": 24},
                            }
                        }
                    },
                },
            )
    other = make(root / "exp", system="<i>&", folds=FOLDS, seeds=SEEDS, set=[f"name={HOSTILE}"])
    for folder in other.glob("fold*/seed*"):
        rewrite(
            folder,
            hostile_predictions(int(folder.parent.name[4:]), int(folder.name[4:])),
            **read_json(folder / "metrics.json")["run"],
        )
    report.report(root / "exp", "a <test>", root / "RESULTS.md")
    return root / "exp"


@pytest.fixture(scope="module")
def written(exp):
    """The report with data."""
    return exp / "small-speecheq" / RUN["name"] / html_report.REPORT


@pytest.fixture(scope="module")
def rows(written):
    """All clips as scores.tsv has them."""
    sets = score_files.read_scores(written.with_name("scores.tsv"))
    return [(name, clip) for name, clips in sets.items() for clip in clips]


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and the text of each."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in ("meta", "link", "input", "img"):
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, "elements are nested"

    def handle_data(self, data):
        for element in self.open[-1:]:
            element[2].append(data)

    def all(self, *tags):
        return [(tag, attributes, "".join(text)) for tag, attributes, text in self.elements if tag in tags]


def test_the_page_is_one_sound_file(written):
    parsed = Parsed(written.read_text(encoding="utf-8"))
    assert not parsed.open and parsed.all("html")[0][1]["lang"] == "en"
    levels = [int(tag[1]) for tag, _, _ in parsed.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    assert len(parsed.all("img")) >= 3, "the pictures"
    for _, attributes, _ in parsed.all("img"):
        assert attributes["alt"] and attributes["src"].startswith("data:image/svg+xml;base64,")
    names = [attributes["id"] for _, attributes, _ in parsed.elements if "id" in attributes]
    assert len(names) == len(set(names))
    links = [attributes["href"] for _, attributes, _ in parsed.all("a")]
    assert links and all(link[0] == "#" and link[1:] in names for link in links)
    assert not parsed.all("b", "i", "audio", "iframe") and len(parsed.all("script")) == 2


def test_the_page_holds_what_the_experiment_is(written, exp):
    text = written.read_text(encoding="utf-8")
    assert "of all systems. A difference is significant" in text
    assert "of this table. A difference is significant" in (exp.parent / "RESULTS.md").read_text(encoding="utf-8")
    headings = [words for _, _, words in Parsed(text).all("h2")]
    assert headings == [
        "Summary",
        "Pictures",
        "Test clips of toy",
        "Intensity by corpus",
        "Differences to other systems",
        "Clips",
        "Data",
        "Settings",
        "How to read the scores",
    ]
    assert "95 % interval" in text and "learning_rate: " in text
    assert "stage 3 (unify)" in text and "6: no label &lt;b&gt;" in text and "(a, b, c, ...)" in text
    cells = [words for _, _, words in Parsed(text).all("td")]
    assert HOSTILE + " 8" in cells and HOSTILE in cells  # a class of run.json, its machine
    summary = read_json(written.with_name("metrics.json"))
    assert f"{100 * summary['test.ua']:.2f}" in [words.strip() for _, _, words in Parsed(text).all("dd")]


def test_the_list_of_clips_is_that_of_scores_tsv(written, rows):
    data = json.loads(Parsed(written.read_text(encoding="utf-8")).all("script")[0][2])
    place = {column["heading"]: number for number, column in enumerate(data["columns"])}
    assert len(data["rows"]) == len(rows) == 2 * 2 * 24
    names = data["classes"]
    for row, (set_name, clip) in zip(data["rows"], rows):
        assert row[place["clip"]] == clip.id and HOSTILE in clip.id and row[place["speaker"]] == clip.speaker
        assert f"{row[place['set']]}/fold{row[place['fold']]}/seed{row[place['seed']]}" == set_name
        assert row[data["truth"]] == names[clip.gold_esc] and row[data["prediction"]] == names[clip.predicted_esc]
        assert row[place["true EIS"]] == (None if clip.gold_eis < 0 else clip.gold_eis)
        assert row[place["predicted EIS"]] == pytest.approx(clip.predicted_eis, abs=5.1e-4)
        assert row[place["gender"]] == clip.gold_gender and row[place["predicted gender"]] == clip.predicted_gender
        assert row[place["SEQM name"]] == seqm.emotion_name(names[clip.predicted_esc], clip.predicted_eis)
        assert [row[place[f"p({name})"]] for name in names] == pytest.approx(clip.posterior, abs=5.1e-5)
    # of each fold the file of one clip is gone
    assert len(data["audio"]) == 2 * 23
    for clip, address in data["audio"].items():
        path, _, part = address.partition("#")
        assert (written.parent / unquote(path)).is_file()
        assert (part == "t=0.250,0.750") == ("-01 " in clip) and bool(part) == ("-01 " in clip)


HARMFUL = st.sampled_from(["</script>", "<script>", "<!--", "</title>", "<", "&lt;", '"', "\\u003c"])
TEXTS = st.lists(HARMFUL | st.text()).map("".join)


@settings(max_examples=40)
@given(TEXTS, st.dictionaries(TEXTS, st.lists(TEXTS)))
def test_no_text_ends_an_element_of_the_page(title, value):
    parsed = Parsed(
        html_report._page(
            title, [PageSection("A", "sentences", ["x"])], "run();", json.dumps(value, ensure_ascii=False)
        )
    )
    data, script = parsed.all("script")
    assert json.loads(data[2]) == value and script[2] == "run();" and not parsed.open
    assert [text for _, _, text in parsed.all("title", "h1")] == [title] * 2


def test_a_table_is_escaped_and_marks_columns_of_numbers_and_of_long_texts():
    table = Table(
        "a",
        "100 % of CASIA & others",
        [Column("system"), Column("UA %", ("UA %", "UA % deviation"), " ± "), Column("p"), Column("text")],
        [["wo_mtl", ("86.67", "1.20"), "<0.001", "a|b"], ['<b>&"', ("1.00",), "n/a", "x " * 21]],
    )
    text = html_report._page("a", [PageSection("A", "tables_and_sentences", Section("A", [table]))])
    assert "<caption>100 % of CASIA &amp; others</caption>" in text and 'tabindex="0"' in text
    assert '<th scope="col">system</th><th scope="col" class="figure">UA %</th>' in text
    assert '<th scope="row">wo_mtl</th><td class="figure">86.67 ± 1.20</td><td class="figure">&lt;0.001</td>' in text
    assert '<th scope="row">&lt;b&gt;&amp;&#34;</th>' in text and f'<td class="long">{"x " * 21}</td>' in text


def test_recordings_that_are_not_at_hand_are_left_out(exp, tmp_path):
    experiment = summarised(exp / "small-speecheq" / RUN["name"])
    stamps = lineage.stage_stamps(experiment)
    assert len(lineage.recordings(stamps)) == 46 and lineage.has_data(stamps)
    data = next(folder for folder in stamps if (folder / "msud.json").is_file())
    truncated = {data: {**stamps[data], "outputs": {"msud.json": 1, "test.jsonl.gz": 1}}}
    assert lineage.recordings(truncated) == {}
    assert lineage.recordings({data: {**stamps[data], "outputs": {}}}) == {}


def test_a_report_without_data_says_so(exp):
    text = (exp / "small-<i>&" / RUN["name"] / html_report.REPORT).read_text(encoding="utf-8")
    assert "None can be played" in text and '"audio":{}' in text
    assert "were not available where this page was written" in text and "n/a" in text


def test_a_model_without_the_gender_task_guesses_none(exp, monkeypatch):
    experiment = summarised(exp / "small-speecheq" / RUN["name"])
    loaded = html_report.load(experiment.scored[0].folder / "config.yaml")
    loaded.loss.eta = 0.0
    monkeypatch.setattr(html_report, "load", lambda path: loaded)
    data = html_report.clip_data(experiment, {}, exp / html_report.REPORT)
    assert "gender" not in loaded.tasks()
    place = [column["heading"] for column in data["columns"]].index("predicted gender")
    assert {row[place] for row in data["rows"]} == {None}


def test_the_page_of_the_recipe_leads_to_its_experiments(exp, written):
    parsed = Parsed((exp / html_report.REPORT).read_text(encoding="utf-8"))
    found = [
        exp / unquote(attributes["href"])
        for _, attributes, _ in parsed.all("a")
        if not attributes["href"].startswith("#")
    ]
    assert sorted(found) == sorted(exp.glob("*/*/report.html")) and len(found) == 2 and written in found
    assert not parsed.all("i") and "Results of a <test>" in [text for _, _, text in parsed.all("h1")]


# ---- in a browser


def look(browser, path, width=1280, scheme="light"):
    """Open a page anew, at that width, in that colour scheme."""
    browser.get("about:blank")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    return browser


def script(browser, text, *arguments):
    return browser.execute_script(text, *arguments)


def wait(browser, text, *arguments):
    """Until a script says something true; a minute is for a machine that is busy, none is waited for."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60, poll_frequency=0.05).until(lambda _: script(browser, text, *arguments))


def table_of(browser):
    """heading -> the texts of its column, as shown; * is dropped from hidden words."""
    heads, lines = script(
        browser,
        """
        const text = (cell) => { const c = cell.cloneNode(true); c.querySelectorAll('.hidden').forEach(h => h.remove());
                                 return c.textContent; };
        return [[...document.querySelectorAll('#clips thead th')].map(text),
                [...document.querySelectorAll('#clips tbody tr')].map(row => [...row.cells].map(text))]""",
    )
    return dict(zip(heads, zip(*lines))) if lines else dict.fromkeys(heads, ())


def element(browser, name):
    return browser.find_element("id", name)


def heading(browser, name):
    return script(
        browser,
        "return [...document.querySelectorAll('#clips thead button')].find(button => "
        "button.textContent === arguments[0])",
        name,
    )


def status(browser):
    return element(browser, "clips-status").text


def console(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def test_it_renders_and_loads_nothing(browser, written):
    look(browser, written)
    assert browser.title == f"speecheq (small (name={HOSTILE})) on toy, random10"
    assert status(browser) == f"1 to {ROWS} of 96 predictions"
    table = table_of(browser)
    assert len(table["clip"]) == ROWS and all(HOSTILE in name for name in table["clip"])
    assert set(table["gender"]) == {"F", "n/a"} and "n/a" in table["true EIS"]
    assert wait(browser, "return [...document.images].every(image => image.complete && image.naturalWidth > 100)")
    for true, answer in zip(table["true class"], table["predicted class"]):
        assert answer == f"{'✓' if answer[2:] == true else '✗'} {answer[2:]}", "said by a sign, not by colour alone"
    requests = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        urlsplit(request["params"]["request"]["url"]).scheme
        for request in requests
        if request["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {"file", "data"} and "file" in asked
    assert console(browser) == []


def test_nothing_may_be_loaded_from_elsewhere(browser, written):
    look(browser, written)
    blocked = browser.execute_async_script("""
        const done = arguments[arguments.length - 1], found = [];
        document.addEventListener('securitypolicyviolation', (event) => {
          found.push(event.effectiveDirective);
          if (found.length === 4) done(found.sort());
        });
        fetch('http://localhost:9/').catch(() => {});
        new Image().src = 'http://localhost:9/a.png';
        const script = document.createElement('script');
        script.textContent = 'document.title = "taken over"';
        document.body.append(script);
        const style = document.createElement('link');
        style.rel = 'stylesheet'; style.href = 'http://localhost:9/a.css';
        document.head.append(style);""")
    assert [name.removesuffix("-elem") for name in blocked] == ["connect-src", "img-src", "script-src", "style-src"]
    assert browser.title != "taken over"
    console(browser)  # the refusals


@pytest.mark.parametrize(
    "name, of",
    [
        ("predicted EIS", lambda name, clip: clip.predicted_eis),
        ("true EIS", lambda name, clip: clip.gold_eis),
        ("fold", lambda name, clip: int(name.split("/")[1][4:])),
        ("speaker", lambda name, clip: clip.speaker),
        ("gender", lambda name, clip: clip.gold_gender),
        ("p(trust)", lambda name, clip: clip.posterior[1]),
    ],
)
def test_it_sorts(browser, written, rows, name, of):
    """Numbers as numbers; what is not known is last both ways."""
    known = sorted(value for value in (of(*row) for row in rows) if value not in (None, seqm.UNSPECIFIED))
    digits = {"predicted EIS": 2, "true EIS": 2, "fold": 0, "p(trust)": 3}.get(name)
    look(browser, written)
    for order, direction in ((known, "ascending"), (known[::-1], "descending")):
        heading(browser, name).click()
        shown = list(table_of(browser)[name])
        element(browser, "page-next").click()
        shown += table_of(browser)[name]
        assert len(shown) == len(rows)
        assert shown[len(known) :] == ["n/a"] * (len(rows) - len(known))
        if digits is None:
            assert shown[: len(known)] == order
        else:
            assert [float(text) for text in shown[: len(known)]] == pytest.approx(order, abs=10**-digits)
        marks = script(
            browser,
            "return [...document.querySelectorAll('#clips th[aria-sort]')].map(th => "
            "[th.innerText.trim(), th.ariaSort])",
        )
        assert [mark for mark in marks if mark[1] != "none"] == [[name, direction]]


def test_every_column_sorts_by_keyboard(browser, written):
    from selenium.webdriver.common.keys import Keys

    look(browser, written)
    buttons = script(browser, "return document.querySelectorAll('#clips thead button')")
    assert len(buttons) == len(table_of(browser)) - 1, "all but the one to listen"
    buttons[0].send_keys(Keys.ENTER)
    for place, button in enumerate(buttons):
        browser.switch_to.active_element.send_keys(*[Keys.TAB] * bool(place), Keys.NULL)
        browser.switch_to.active_element.send_keys(Keys.SPACE)
        assert browser.switch_to.active_element == button
        assert script(browser, "return arguments[0].closest('th').ariaSort", button) == (
            "ascending" if place else "descending"
        )
    assert console(browser) == []


def test_it_filters(browser, written, rows):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    look(browser, written)
    names = seqm.SEQM_CLASSES.names

    def shows(condition):
        expected = [clip for _, clip in rows if condition(clip)]
        assert status(browser).split(" of ")[1].split()[0] == str(len(expected)) and expected
        shown = table_of(browser)["clip"]
        assert sorted(shown) == sorted(clip.id for clip in expected) or len(expected) > ROWS

    element(browser, "filter-errors").click()
    shows(lambda clip: clip.gold_esc != clip.predicted_esc)
    Select(element(browser, "filter-true")).select_by_visible_text("joy")
    shows(lambda clip: clip.gold_esc != clip.predicted_esc and names[clip.gold_esc] == "joy")
    element(browser, "filter-errors").click()
    shows(lambda clip: names[clip.gold_esc] == "joy")
    Select(element(browser, "filter-predicted")).select_by_visible_text("trust")
    shows(lambda clip: names[clip.gold_esc] == "joy" and names[clip.predicted_esc] == "trust")
    Select(element(browser, "filter-true")).select_by_index(0)
    Select(element(browser, "filter-predicted")).select_by_index(0)
    element(browser, "filter-text").send_keys("TOY-10-07 <B>")
    shows(lambda clip: clip.id.startswith("toy-10-07 <b>"))
    assert "2 of 2 predictions (96 without filters)" in status(browser)
    element(browser, "filter-text").send_keys("no such clip")
    assert status(browser) == "0 to 0 of 0 predictions (96 without filters)" and table_of(browser)["clip"] == ()
    element(browser, "filter-text").send_keys(Keys.CONTROL, "a", Keys.BACKSPACE)
    assert status(browser) == f"1 to {ROWS} of 96 predictions"


def test_it_turns_pages(browser, written):
    look(browser, written)
    first = table_of(browser)["clip"]
    assert not element(browser, "page-previous").is_enabled()
    element(browser, "page-last").click()
    assert status(browser) == "51 to 96 of 96 predictions" and not element(browser, "page-next").is_enabled()
    element(browser, "page-previous").click()
    assert table_of(browser)["clip"] == first


def test_a_clip_can_be_heard(browser, written):
    look(browser, written)
    assert not browser.find_elements("tag name", "audio"), "players are made when they are asked for"
    table = table_of(browser)
    assert [table["listen"][place] for place in (0, 1)] == ["n/a", "▶ play"], "the first clip's file is gone"
    browser.find_elements("css selector", "#clips td button")[0].click()
    audio = "const audio = document.querySelector('#clips audio'); "
    assert wait(browser, audio + "return audio.duration > 0") and script(browser, audio + "return audio.controls")
    assert script(browser, audio + "return audio.duration") == pytest.approx(SECONDS, abs=0.01)
    path = Path(unquote(urlsplit(script(browser, audio + "return audio.src")).path))
    assert path.is_file() and path.name.endswith(FILE)
    assert script(browser, audio + "return audio.src").endswith("#t=0.250,0.750")
    assert wait(browser, audio + "return audio.currentTime > arguments[0]", PART[0] + 0.05), "it plays"
    assert wait(browser, audio + "return audio.paused"), "it ends where the clip ends"
    assert script(browser, audio + "return audio.currentTime") < SECONDS - 0.25
    browser.find_elements("css selector", "#clips td button")[0].click()
    assert wait(browser, "return [...document.querySelectorAll('#clips audio')].some(a => a.currentTime > 0.8)"), (
        "a whole"
    )
    assert console(browser) == []


def test_a_file_that_cannot_be_played_is_said(browser, written, tmp_path):
    text = written.read_text(encoding="utf-8").replace(".wav", ".none")
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    look(browser, tmp_path / "report.html")
    browser.find_elements("css selector", "#clips td button")[0].click()
    assert wait(browser, "return document.querySelector('#clips tbody').innerText.includes('cannot be played here')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["experiment", "recipe"])
def test_it_is_legible(browser, exp, written, name, scheme):
    """At a phone's width the page itself does not scroll sideways; all text has the contrast of WCAG AA."""
    look(browser, written if name == "experiment" else exp / html_report.REPORT, 390, scheme)
    width, inner = script(browser, "return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= inner == 390
    ground = script(browser, "return getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) < 0.1) == (scheme == "dark")
    pairs = script(browser, CONTRASTS)
    assert len(pairs) >= 3
    low = {
        (colour, behind): contrast(colour, behind)
        for colour, behind in pairs
        if contrast(colour, behind) < LEAST_CONTRAST
    }
    assert not low


# Every (colour, background) of an element with text of its own; a cell with a bar has two backgrounds.
CONTRASTS = """
    const seen = new Map();
    const clear = (colour) => colour === 'rgba(0, 0, 0, 0)' || colour === 'transparent';
    for (const element of document.body.querySelectorAll('*')) {
      const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
      if (!own || ['SCRIPT', 'NOSCRIPT', 'OPTION'].includes(element.tagName)) continue;
      let behind = element;
      while (behind && clear(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
      const grounds = [behind ? getComputedStyle(behind).backgroundColor : 'rgb(255, 255, 255)'];
      if (element.classList.contains('share')) {
        const probe = document.createElement('span');
        probe.style.color = 'var(--share)';
        element.append(probe);
        grounds.push(getComputedStyle(probe).color);
        probe.remove();
      }
      for (const ground of grounds) seen.set(getComputedStyle(element).color + ground,
                                             [getComputedStyle(element).color, ground]);
    }
    return [...seen.values()]"""


@functools.cache
def luminance(colour):
    """Relative luminance of an opaque rgb(r, g, b), after the WCAG."""
    shares = [int(value) / 255 for value in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    dark, light = sorted(map(luminance, (a, b)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_wcag():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.005)


def test_the_picture_of_a_report_can_be_made_again(browser, written, tmp_path):
    subprocess.run(
        [ROOT / "docs/screenshot.sh", written, tmp_path / "a picture.png"],
        check=True,
        env={**os.environ, "SPEECHEQ_VENV": sys.prefix},
    )
    picture = Image.open(tmp_path / "a picture.png")
    assert picture.size[0] == 1000 and len(picture.getcolors()) > 20, "it is not blank"


def test_ten_thousand_clips_stay_usable(browser, exp, tmp_path):
    experiment = summarised(exp / "small-speecheq" / RUN["name"])
    many = [replace(clip, id=f"clip {number}") for number, clip in enumerate(predictions(2, 1, 0.7, 8, 10_000))]
    experiment = replace(experiment, scored=[replace(experiment.scored[0], sets={"test": many})])
    path = tmp_path / html_report.REPORT
    path.write_text(html_report.experiment_report("many", [], [], [], [], [], experiment, path), encoding="utf-8")
    look(browser, path)
    assert status(browser) == f"1 to {ROWS} of 10000 predictions"
    assert script(browser, "return document.querySelectorAll('#clips tbody tr').length") == ROWS
    heading(browser, "clip").click()
    heading(browser, "clip").click()
    assert table_of(browser)["clip"][:2] == ("clip 9999", "clip 9998"), "numbers in names count as numbers"
    element(browser, "filter-text").send_keys("clip 777")
    assert status(browser) == "1 to 11 of 11 predictions (10000 without filters)"
    assert console(browser) == []
