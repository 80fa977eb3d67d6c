"""The phoneme cuts of an ASR corpus: their phones or pieces, their parts, and what cannot be read."""

import weakref
from collections import Counter

import pytest
from lhotse import CutSet
from toy_corpora import ToyCorpora

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import STAMP
from speecheq.corpora import Corpus, Utterance
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.corpora.prepared_corpus import corpus_cuts
from speecheq.dataset.phoneme_cuts import hold_out, phonemes
from speecheq.dataset.phones import english, mandarin
from speecheq.dataset.phones.phone_table import PhoneTable
from speecheq.dataset.phones.units import MODEL, PREDICTED_WORDS, Pieces, spelling
from speecheq.features.storage import load_cuts

PARTS = ("train", "dev", "test")
READ = Corpus("read", "read speech", "Mandarin", "DIR/*.wav", splits=PARTS, test_split="test", has_transcripts=True)
BOOKS = Corpus("books", "read books", "English", "DIR/*.wav", splits=PARTS, test_split="test", has_transcripts=True)
ACTED = Corpus("acted", "acted speech", "Mandarin", "DIR/*.wav", labels={"mad": "anger"})
TEXTS = {
    "read": ["你好", "今天天气", "卡拉OK", "第3天", "（笑）好", "我们走吧"],
    "books": ["HELLO WORLD", "HELSTONE'S WORKHOUSE", "CHAPTER 1", "THE WORKHOUSE", "[MUSIC]", "A WORLD OF CATS"],
}
READABLE = (0, 1, 3, 5)  # of the English texts


class Data(ToyCorpora):
    """Toy corpora and the phoneme part of stage 3."""

    def read_speech(self, corpus, parts, each):
        texts = TEXTS[corpus]
        return [
            Utterance(f"{part}-{s}-{n:02d}", self.clip, s, text=texts[n % len(texts)], split=part)
            for part in parts
            for s in ("s1", "s2")
            for n in range(each)
        ]

    def phonemes(self, corpus="read", **more):
        folder = self.folder(corpus)
        phonemes(corpus, self.root / "manifests", self.root / "fbank", folder, **more)
        return {p.name.split(".")[0]: list(CutSet.from_jsonl_lazy(p)) for p in folder.glob("*.jsonl.gz")}

    def folder(self, corpus):
        return self.root / "phonemes" / corpus

    def note(self, corpus="read"):
        return read_json(self.folder(corpus) / "phonemes.json"), read_json(self.folder(corpus) / STAMP)


@pytest.fixture
def data(toys, tmp_path):
    return Data(tmp_path, toys)


def ids(cuts):
    return {cut.id for cut in cuts}


def phones_of(cut):
    return cut.supervisions[0].custom["phones"]


def test_phonemes_of_a_whole_corpus(data):
    data.add(READ, data.read_speech("read", PARTS, 6))
    sets = data.phonemes()
    assert {name: len(cuts) for name, cuts in sets.items()} == {"train": 6, "dev": 6, "test": 6}
    for name, cuts in sets.items():
        for cut in cuts:
            assert cut.id.startswith(name)
            assert mandarin.TABLE.decode(phones_of(cut)) == mandarin.text_to_phones(cut.supervisions[0].text)
            assert cut.load_features().shape == (5, 80)
    assert len((data.folder("read") / "phones.txt").read_text(encoding="utf-8").splitlines()) == 202
    note, stamp = data.note()
    assert note["test"] == "test" and note["clips"] == {"train": 6, "dev": 6, "test": 6}
    assert note["units"] == "phone" and note["symbols"] == 202 and not note["partial"] and not note["pooled"]
    reasons = ("brackets", "digits", "letters that are not Han")
    assert note["dropped"] == {f"no phones: {reason}": 6 for reason in reasons}
    assert (stamp["in"], stamp["out"]) == (36, 18)
    assert "train-s1-02 'OK'" in stamp["dropped"]["no phones: letters that are not Han"]
    assert not (data.folder("read") / PREDICTED_WORDS).exists()


def test_phonemes_of_english(data):
    data.add(BOOKS, data.read_speech("books", PARTS, 6))
    sets = data.phonemes("books")
    assert {name: len(cuts) for name, cuts in sets.items()} == {"train": 8, "dev": 8, "test": 8}
    for cut in sets["train"]:
        assert english.TABLE.decode(phones_of(cut)) == english.Reader()(cut.supervisions[0].text)
    note, _ = data.note("books")
    assert PhoneTable.load(data.folder("books") / "phones.txt").symbols == english.TABLE.symbols
    assert note["symbols"] == 85 and note["dropped"] == {"no phones: brackets": 6, "no phones: digits": 6}
    # HELSTONE and twice WORKHOUSE, of each speaker in each part
    assert (note["predicted_words"], note["predicted_occurrences"], note["unresolved_words"]) == (2, 18, 0)
    rows = [line.split("\t") for line in (data.folder("books") / PREDICTED_WORDS).read_text().splitlines()]
    assert rows == [["word", "phones", "times"]] + [
        [word, " ".join(english.predict(word)), times] for word, times in (("helstone", "6"), ("workhouse", "12"))
    ]


def words_of(cut):
    return cut.supervisions[0].custom["words"]


def test_all_pronunciations_and_silence(data):
    """我们走吧 has one reading, 今天天气 too; of the English texts THE has three."""
    data.add(BOOKS, data.read_speech("books", PARTS, 6))
    first = {cut.id: phones_of(cut) for cut in data.phonemes("books")["train"]}
    note, stamp = data.note("books")
    assert not {"pronunciations", "silence", "several_pronunciations"} & set(note)
    several = {cut.id: cut for cut in data.phonemes("books", pronunciations="all", silence="optional")["train"]}
    for name, cut in several.items():
        assert phones_of(cut) == first[name] == [label for word in words_of(cut) for label in word[0]]
    decode = english.TABLE.decode
    the = words_of(several["train-s1-03"])[0]
    assert [" ".join(decode(phones)) for phones in the] == ["DH AH0", "DH AH1", "DH IY0"]
    note, other = data.note("books")
    # HELLO, THE and A, each of two speakers in three parts
    assert note["several_pronunciations"] == 18 and note["pronunciations"] == "all" and note["silence"] == "optional"
    assert PhoneTable.load(data.folder("books") / "phones.txt").symbols == [*english.TABLE.symbols, "<sil>"]
    assert stamp["key"] != other["key"] and "silence" not in stamp["options"]
    pauses = data.phonemes("books", silence="optional")["train"]
    assert all(len(word) == 1 for cut in pauses for word in words_of(cut))


def test_pieces_have_one_spelling_a_word(data):
    data.add(BOOKS, data.read_speech("books", PARTS, 6))
    for cut in data.phonemes("books", units="bpe", bpe_size=30, pronunciations="all", silence="optional")["train"]:
        assert len(words_of(cut)) == len(cut.supervisions[0].text.split())
        assert [label for (word,) in words_of(cut) for label in word] == phones_of(cut)
    pieces = Pieces.load("English", data.folder("books"))
    assert pieces.decode([*phones_of(cut), 30]) == spelling(cut.supervisions[0].text, "English")
    assert PhoneTable.load(data.folder("books") / "phones.txt").symbols[30:] == ["<sil>"]


@pytest.mark.parametrize("option", ["pronunciations", "silence"])
def test_an_unknown_choice_is_refused(data, option):
    data.add(READ, data.read_speech("read", PARTS, 6))
    with pytest.raises(InputError, match=f"--{option} is .* or .*, not 'some'"):
        data.phonemes(**{option: "some"})


def test_without_a_test_part_the_last_tenth_of_each_speaker_is_held_out(data, caplog):
    texts = [u for u in data.read_speech("read", ("train",), 20) if u.text in ("你好", "今天天气", "我们走吧")]
    data.add(READ, texts + [Utterance("train-s3-00", data.clip, "s3", text="你好", split="train")], partial=True)
    sets = data.phonemes()
    assert "read: the copy has no test part: the last 10 % of each training speaker, 2 utterances" in caplog.text
    assert set(sets) == {"train", "heldout"}
    assert ids(sets["heldout"]) == {"train-s1-19", "train-s2-19"}  # of 11 usable utterances each
    assert ids(sets["train"]) | ids(sets["heldout"]) == {u.id for u in texts} | {"train-s3-00"}
    assert not ids(sets["train"]) & ids(sets["heldout"])
    note, _ = data.note()
    assert note["test"] == "heldout" and note["partial"] and not note["pooled"]
    assert note["clips"] == {"heldout": 2, "train": 21}


def test_the_dev_part_stays_where_the_test_part_is_missing(data):
    data.add(READ, data.read_speech("read", ("train", "dev"), 2), partial=True)
    sets = data.phonemes()
    assert ids(sets["heldout"]) == {"train-s1-01", "train-s2-01"} and ids(sets["train"]) == {
        "train-s1-00",
        "train-s2-00",
    }
    assert ids(sets["dev"]) == {f"dev-{s}-0{n}" for s in ("s1", "s2") for n in range(2)}


def test_what_is_held_out_could_be_read(data):
    """The last utterances of each speaker have no phones; those before them are held out."""
    data.add(BOOKS, list(data.read_speech("books", ("train",), 5)), partial=True)
    sets = data.phonemes("books")
    assert ids(sets["heldout"]) == {"train-s1-03", "train-s2-03"} and len(sets["train"]) == 4
    note, _ = data.note("books")
    assert note["predicted_occurrences"] == 6, "each word is counted once, though such texts are read twice"


def test_a_corpus_of_one_utterance_a_speaker_has_an_empty_part_for_scoring(data):
    data.add(READ, [Utterance(s, data.clip, s, text="你好", split="train") for s in ("s1", "s2")], partial=True)
    sets = data.phonemes()
    assert {name: len(cuts) for name, cuts in sets.items()} == {"train": 2, "heldout": 0}
    assert data.note()[0]["clips"] == {"heldout": 0, "train": 2}


@pytest.mark.parametrize("units", [{}, {"units": "bpe", "bpe_size": 35}])
def test_a_partial_copy_without_a_training_part_is_pooled(data, caplog, units):
    utterances = data.read_speech("books", ("dev", "test"), 6)
    data.add(BOOKS, utterances, partial=True)
    sets = data.phonemes("books", **units)
    (warning,) = (r.getMessage() for r in caplog.records if "no training part" in r.getMessage())
    assert warning.startswith("books: the copy has no training part: all there is (dev, test) is taken for it")
    assert set(sets) == {"train", "heldout"}
    assert ids(sets["heldout"]) == {"test-s1-05", "test-s2-05"}  # of eight utterances each
    assert len(sets["train"]) == 14
    note, stamp = data.note("books")
    assert note["pooled"] and note["partial"] and note["test"] == "heldout"
    assert (stamp["in"], stamp["out"]) == (24, 16)


def test_a_corpus_without_official_parts_is_one_for_training(data):
    plain = Corpus("plain", "plain speech", "English", "DIR/*.wav", has_transcripts=True)
    data.add(plain, [Utterance(f"{n}", data.clip, "s", text="A CAT") for n in range(10)])
    sets = data.phonemes("plain")
    assert ids(sets["heldout"]) == {"9"} and len(sets["train"]) == 9
    note, _ = data.note("plain")
    assert not note["pooled"] and not note["partial"]


def test_a_tenth_is_held_out_of_every_speaker():
    utterances = [
        (f"{speaker}-{n:03d}", speaker)
        for speaker, count in (("a", 300), ("b", 20), ("c", 2), ("d", 1))
        for n in reversed(range(count))
    ]
    held = hold_out(utterances)
    assert Counter(name[0] for name in held) == {"a": 30, "b": 2, "c": 1}
    assert {name for name in held if name[0] == "a"} == {f"a-{n:03d}" for n in range(270, 300)}
    assert hold_out([]) == set()


def test_pieces_of_the_training_transcripts(data):
    utterances = data.read_speech("books", PARTS, 6)
    utterances.append(Utterance("test-s1-99", data.clip, "s1", text="A ZOO", split="test"))  # Z is not trained on
    data.add(BOOKS, utterances)
    sets = data.phonemes("books", units="bpe", bpe_size=35)
    assert {name: len(cuts) for name, cuts in sets.items()} == {"train": 8, "dev": 8, "test": 9}
    pieces = Pieces.load("English", data.folder("books"))
    assert pieces.table.symbols == PhoneTable.load(data.folder("books") / "phones.txt").symbols
    assert len(pieces.table) == 35 and "Z" not in "".join(pieces.table.symbols)
    for cut in sets["train"] + sets["test"]:
        text = spelling(cut.supervisions[0].text, "English")
        assert pieces.decode(phones_of(cut)) == text.replace("Z", " ⁇ ")
        assert 0 not in phones_of(cut)
    note, _ = data.note("books")
    assert (note["units"], note["symbols"], note["unknown_pieces"]) == ("bpe", 35, 1)
    assert note["dropped"] == {"no phones: brackets": 6, "no phones: digits": 6}

    model = (data.folder("books") / MODEL).read_bytes()
    (data.folder("books") / MODEL).unlink()
    data.phonemes("books", units="bpe", bpe_size=35)
    assert (data.folder("books") / MODEL).read_bytes() == model


def test_pieces_are_not_trained_on_what_is_held_out(data):
    texts = ["A CAT", "A HAT", "A ZEBRA"]
    data.add(
        BOOKS,
        [Utterance(f"{n}", data.clip, "s", text=text, split="train") for n, text in enumerate(texts)],
        partial=True,
    )
    sets = data.phonemes("books", units="bpe", bpe_size=9)
    assert ids(sets["heldout"]) == {"2"} and 1 in phones_of(sets["heldout"][0])


def test_pieces_of_mandarin(data):
    data.add(READ, data.read_speech("read", PARTS, 6))
    sets = data.phonemes(units="bpe", bpe_size=20)
    pieces = Pieces.load("Mandarin", data.folder("read"))
    assert {name: len(cuts) for name, cuts in sets.items()} == {"train": 8, "dev": 8, "test": 8}
    assert {pieces.decode(phones_of(cut)) for cut in sets["train"]} == {"你好", "今天天气", "卡拉OK", "我们走吧"}


def test_pieces_of_a_large_corpus_are_trained_on_evenly_spaced_transcripts(data, monkeypatch):
    texts = [f"CAT {chr(ord('A') + n)}" for n in range(20)]
    data.add(
        BOOKS,
        [
            Utterance(f"{n:02d}", data.clip, "s", text=text, split=split)
            for n, text in enumerate(texts)
            for split in (["train"] if n < 18 else ["test"])
        ],
    )
    monkeypatch.setattr("speecheq.dataset.phoneme_cuts.PIECES_FROM", 7)
    taken = []
    monkeypatch.setattr("speecheq.dataset.phones.units._spellings", lambda language, t: taken.extend(t) or iter(taken))
    data.phonemes("books", units="bpe", bpe_size=15)
    assert taken == texts[:18:3]


def test_a_stage_that_is_done_is_skipped_and_redone_when_something_changes(data, caplog):
    def run(**more):
        caplog.clear()
        data.phonemes("books", **more)
        return caplog.text

    data.add(BOOKS, data.read_speech("books", PARTS, 6))
    run()
    assert "skipped" in run()
    assert "its options changed (units, bpe_size, table)" in run(units="bpe", bpe_size=35)
    assert not (data.folder("books") / PREDICTED_WORDS).exists()
    assert "skipped" in run(units="bpe", bpe_size=35)
    assert "its options changed (bpe_size)" in run(units="bpe", bpe_size=40)
    assert "its options changed" in run() and not (data.folder("books") / MODEL).exists()
    data.add(BOOKS, data.read_speech("books", PARTS, 7))
    assert "its inputs changed" in run()


def test_phoneme_corpora_that_are_refused(data):
    data.add(ACTED, [Utterance("x", data.clip, "s", label="mad")])
    with pytest.raises(InputError, match="acted: has no transcripts, so it cannot be the phoneme corpus"):
        data.phonemes("acted")
    data.add(READ, [Utterance("x", data.clip, "s", text="OK", split="train")])
    for units in ({}, {"units": "phone"}):
        with pytest.raises(InputError, match="read: no training utterance could be turned into phones"):
            data.phonemes(**units)
    with pytest.raises(InputError, match="--units is phone or bpe, not 'word'"):
        data.phonemes(units="word")
    with pytest.raises(InputError, match=r"stage 1 \(manifests\) has not been run"):
        data.phonemes("absent")
    data.add(BOOKS, data.read_speech("books", ("test", "dev"), 2))  # whole, in its own right
    with pytest.raises(InputError, match="books: has no training part, only dev, test; .* --partial true"):
        data.phonemes("books")
    german = Corpus("german", "German speech", "German", "DIR/*.wav", has_transcripts=True)
    data.add(german, [Utterance("x", data.clip, "s", text="HALLO")])
    with pytest.raises(InputError, match="german: there are no phones of German"):
        data.phonemes("german")
    assert not list(data.root.glob("phonemes/[!.]*"))


def test_a_test_part_that_cannot_be_read_is_refused_and_the_earlier_result_stays(data):
    data.add(BOOKS, data.read_speech("books", PARTS, 6))
    data.phonemes("books")
    before = {p.name: p.read_bytes() for p in data.folder("books").iterdir()}
    utterances = data.read_speech("books", ("train",), 6)
    data.add(BOOKS, utterances + [Utterance("t", data.clip, "s1", text="CHAPTER 1", split="test")])
    with pytest.raises(InputError, match="books: no test utterance could be turned into phones"):
        data.phonemes("books")
    with pytest.raises(InputError, match="books: --bpe-size 5000: .* at most .* are possible"):
        data.phonemes("books", units="bpe", bpe_size=5000)
    assert {p.name: p.read_bytes() for p in data.folder("books").iterdir()} == before
    assert {p.name for p in data.folder("books").parent.iterdir()} == {"books", ".books.lock"}, "nothing temporary"


@pytest.mark.parametrize("units", [{}, {"units": "bpe", "bpe_size": 35}])
def test_cuts_are_streamed(data, monkeypatch, units):
    """At most a few cuts live at any moment, however many the corpus has."""
    data.add(BOOKS, data.read_speech("books", ("train",), 60), partial=True)
    alive, most = [], 0

    def watched(folder):
        nonlocal most
        for cut in load_cuts(folder):
            alive.append(weakref.ref(cut))
            most = max(most, sum(reference() is not None for reference in alive))
            yield cut

    monkeypatch.setattr("speecheq.dataset.phoneme_cuts.load_cuts", watched)
    data.phonemes("books", **units)
    assert len(alive) >= 240 and most <= 5


def of_sample(corpus, folder, toys, tmp_path, monkeypatch, **more):
    """Stages 1 and 3 of a sample; its features are not needed for phones."""
    script = toys.script(corpus)
    manifests = tmp_path / "manifests" / corpus
    prepare_corpus(
        getattr(script, corpus.upper()), script.find_utterances, PrepareRequest(folder, partial=True), manifests
    )
    splits = read_json(manifests / f"{corpus}_card.json")["splits"]
    monkeypatch.setattr("speecheq.dataset.phoneme_cuts.load_cuts", lambda _: corpus_cuts(manifests, corpus, splits))
    (tmp_path / "fbank" / corpus).mkdir(parents=True, exist_ok=True)
    out = tmp_path / "phonemes"
    phonemes(corpus, tmp_path / "manifests", tmp_path / "fbank", out, **more)
    return out, read_json(out / "phonemes.json"), read_json(out / STAMP)


def test_the_real_aishell(samples, toys, tmp_path, monkeypatch):
    out, note, stamp = of_sample("aishell", samples("AISHELL-1"), toys, tmp_path, monkeypatch)
    assert sum(note["dropped"].values()) == 57 and (stamp["in"], stamp["out"]) == (601, 544)
    assert note["test"] == "heldout" and note["clips"]["heldout"] >= 50
    assert sum(note["clips"].values()) == 544
    held = CutSet.from_file(out / "heldout.jsonl.gz")
    assert {cut.supervisions[0].speaker for cut in held} == {"S0150", "S0252"}
    assert all(phones_of(cut) for cut in held)
    with pytest.raises(InputError, match="aishell: --bpe-size 500: is too small .* at least 969 are needed"):
        of_sample("aishell", samples("AISHELL-1"), toys, tmp_path, monkeypatch, units="bpe")


def test_the_real_librispeech(samples, toys, tmp_path, monkeypatch):
    folder = samples("LibriSpeech")
    out, note, stamp = of_sample("librispeech", folder, toys, tmp_path, monkeypatch)
    assert (stamp["in"], stamp["out"]) == (104, 104) and note["pooled"] and note["symbols"] == 85
    assert note["clips"] == {"heldout": 11, "train": 93}
    transcripts = [
        line.split(" ", 1) for path in folder.glob("*/*/*/*.trans.txt") for line in path.read_text().splitlines()
    ]
    words = Counter(word for _, text in transcripts for word in text.lower().split())
    lacking = {word: times for word, times in words.items() if word not in english.dictionary()}
    possessives = {word for word in lacking if word.endswith("'s") and word[:-2] in english.dictionary()}
    assert (len(lacking), sum(lacking.values()), len(possessives)) == (31, 33, 1)
    assert (note["predicted_words"], note["predicted_occurrences"]) == (30, 32)
    cuts = {cut.id: cut for name in ("train", "heldout") for cut in CutSet.from_file(out / f"{name}.jsonl.gz")}
    assert set(cuts) == {name for name, _ in transcripts}
    assert " ".join(english.TABLE.decode(phones_of(cuts["1688-142285-0000"]))).startswith("DH EH1 R Z")

    out, note, _ = of_sample("librispeech", folder, toys, tmp_path, monkeypatch, units="bpe")
    assert note["symbols"] == 500 and note["dropped"] == {}
    pieces = Pieces.load("English", out)
    held = list(CutSet.from_file(out / "heldout.jsonl.gz"))
    assert len(held) == 11 and all(pieces.decode(phones_of(cut)) == cut.supervisions[0].text for cut in held)
