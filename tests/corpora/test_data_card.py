"""Data cards say what a corpus is and how it is had."""

import importlib.util
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speecheq.common.errors import InputError
from speecheq.corpora import data_card
from speecheq.corpora.data_card import find_card, read_card, read_cards, table, where_from

ROOT = Path(__file__).resolve().parents[2]
CORPORA = [
    "aishell", "casia", "crema_d", "emodb", "emov_db", "esd", "iemocap", "librispeech", "mead", "meld", "msp_improv",
    "msp_podcast", "ravdess", "savee", "seqd",
]  # fmt: skip
CARD = {
    "name": "tiny",
    "title": "Tiny",
    "language": "English",
    "source": "https://example.org/tiny",
    "licence": "CC0",
    "access": "open",
    "clips": 12,
    "hours": 0.5,
    "speakers": 2,
    "labels": ["glad", "sad"],
    "intensity": "unspecified",
    "sampling_rate": 16000,
    "used_for": "tests",
    "known_faults": ["It is tiny."],
    "prep": "local/prepare_tiny.py",
    "folder": "Tiny",
    "downloads": [{"url": "https://example.org/tiny/tiny%201.zip?download=1", "bytes": 3, "md5": "0" * 32}],
}


def written(folder, /, **changes):
    """A card with some keys changed; a key that becomes ``...`` is left out."""
    values = {key: value for key, value in {**CARD, **changes}.items() if value is not ...}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return path


def refusal(action):
    with pytest.raises(InputError) as caught:
        action()
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_card_is_read_with_its_types(tmp_path):
    card = read_card(written(tmp_path, hours=1, sampling_rate=None))
    assert card.hours == 1.0 and isinstance(card.hours, float) and card.sampling_rate is None
    assert card.labels == ("glad", "sad") and card.obtain == ""
    assert card.downloads[0].file == "tiny 1.zip" and card.downloads[0].bytes == 3 and not card.downloads[0].optional


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"colour": "red"}, "'colour' is not a key"),
        ({"licence": ...}, "lacks the key licence"),
        ({"clips": "many"}, "clips is 'many', but it must be a whole number"),
        ({"clips": True}, "clips is True, but it must be a whole number"),
        ({"clips": 0}, "clips is 0, but it must be above 0"),
        ({"hours": -1.0}, "hours is -1.0, but it must be above 0"),
        ({"hours": float("nan")}, "hours is nan, but it must be above 0"),
        ({"title": 7}, "title is 7, but it must be text"),
        ({"labels": "glad"}, "labels is 'glad', but it must be a list"),
        ({"labels": ["glad", 3]}, "labels, item 2 is 3, but it must be text"),
        ({"access": "free"}, "access is 'free', but it must be one of open, request, never_released"),
        ({"name": "huge"}, "name the file huge.yaml"),
        ({"downloads": [{"file": "x.zip"}]}, "downloads, item 1: 'file' is not a key"),
        ({"downloads": [{"bytes": 3}]}, "downloads, item 1: lacks the key url"),
        ({"downloads": ["https://example.org/x.zip"]}, "downloads, item 1: must be 'key: value' lines"),
        ({"downloads": [{"url": "ftp://example.org/x.zip"}]}, "downloads, item 1: url is"),
        ({"downloads": [{"url": "https://example.org/"}]}, "downloads, item 1: url is"),
        ({"downloads": [{"url": "https://a.org/x", "md5": "A" * 32}]}, "which is not 32 digits"),
        ({"downloads": [{"url": "https://a.org/x", "sha256": "0" * 32}]}, "which is not 64 digits"),
        ({"downloads": [{"url": "https://a.org/x", "optional": "yes"}]}, "optional is 'yes', but it must be true or"),
        ({"downloads": [{"url": "https://a.org/x", "into": "../x"}]}, "into is '../x'"),
        ({"folder": "/tmp"}, "folder is '/tmp'"),
        ({"folder": ...}, "needs 'access: open' and the folder"),
        ({"access": "request"}, "needs 'access: open' and the folder"),
        ({"downloads": ...}, "has neither downloads nor obtain"),
    ],
)
def test_a_wrong_card_is_refused_by_its_file(tmp_path, changes, says):
    path = written(tmp_path, **changes)
    message = refusal(lambda: read_card(path))
    assert message.startswith(str(path)) and says in message


@pytest.mark.parametrize(
    "content, says",
    [
        (b"name: [", "line 1: is not YAML"),
        (b"name: tiny\nname: tiny\n", "line 2: is not YAML (the key 'name' repeats)"),
        (b"- name\n", "must hold settings as 'key: value', not a list"),
        (b"", "lacks the key name"),
        ("name: tiny\ntitle: Größe\n".encode("latin-1"), "is not YAML"),
    ],
)
def test_a_file_that_is_no_card_is_refused(tmp_path, content, says):
    (tmp_path / "tiny.yaml").write_bytes(content)
    message = refusal(lambda: read_card(tmp_path / "tiny.yaml"))
    assert message.startswith(str(tmp_path / "tiny.yaml")) and says in message


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_no_value_makes_reading_fail_otherwise(tmp_path, data):
    key = data.draw(st.sampled_from([*CARD, "obtain", "else"]))
    simple = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    nested = st.lists(simple, max_size=2) | st.dictionaries(st.sampled_from(["url", "bytes", "md5", "x"]), simple)
    path = written(tmp_path, **{key: data.draw(simple | nested | st.lists(nested, max_size=2))})
    try:
        read_card(path)
    except InputError as error:
        assert str(error).startswith(str(path)) and str(error).endswith(".")


def test_every_corpus_has_a_card():
    assert list(read_cards()) == CORPORA
    assert find_card("esd").title == "ESD"


def test_a_corpus_without_a_card_is_named(tmp_path):
    assert "esd" in refusal(lambda: find_card("esdd")) and "holds no data card" in refusal(lambda: read_cards(tmp_path))


@pytest.mark.parametrize("name", CORPORA)
def test_a_card_agrees_with_its_prep_script(name):
    card = find_card(name)
    path = ROOT / card.prep
    assert path.is_file(), f"{card.prep} is missing"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    parts = [part for part, _ in script.PARTS.values()] if hasattr(script, "PARTS") else [getattr(script, name.upper())]
    parts = list({part.name: part for part in parts}.values())
    for corpus in parts:
        assert corpus.title.startswith(card.title) and corpus.language in card.language.split(", ")
    # some clips have no label that is used, and one of CREMA-D is silent
    used = {"crema_d": 7441, "emov_db": 5166, "iemocap": 5531, "msp_improv": 7798}.get(name, card.clips)
    if all(corpus.counts for corpus in parts):
        assert used in {sum(counts) for counts in zip(*(corpus.counts.values() for corpus in parts))}


def test_where_a_corpus_is_had_is_one_sentence():
    cards = read_cards()
    for card in cards.values():
        said = where_from(card)
        assert "\n" not in said and said.endswith(".") and card.title in said and card.source in said
        assert card.licence in said and any(
            option in said for option in (f"--{card.name.replace('_', '-')} ", f"--corpus {card.name}=DIR")
        )
        assert ("speecheq download" in said) == bool(card.downloads)
    assert "on request" in where_from(cards["esd"]) and "never released" in where_from(cards["seqd"])
    assert "15.6 GB" in where_from(cards["aishell"]) and "7.1 GB" in where_from(cards["librispeech"])
    assert "git lfs pull" in where_from(cards["crema_d"])


def test_the_table_has_a_row_a_corpus(tmp_path):
    lines = table(read_cards()).splitlines()
    assert len(lines) == 2 + len(CORPORA) and len({line.count("|") for line in lines}) == 1
    row = next(line for line in lines if "RAVDESS" in line)
    assert "1,440 / 1.48 / 24" in row and "CC BY-NC-SA 4.0" in row and "by stage 0" in row
    assert "1,648 / ? / 20" in next(line for line in lines if "SEQD" in line)
    assert "a \\| b" in table({"tiny": read_card(written(tmp_path, licence="a | b"))})


def test_cards_lie_beside_the_prep_scripts():
    assert data_card.CARDS == ROOT / "local" / "cards"
