"""Alignment: the best path against enumeration and k2, phones without gaps, and the files of ``speecheq align``."""

import csv
import importlib.util
import itertools
import random
import re
import shutil

import lhotse
import pytest
import torch

from speecheq.cli.main import main
from speecheq.common.errors import InputError
from speecheq.corpora.exchange.kaldi import KaldiFile
from speecheq.dataset.phones import english, mandarin
from speecheq.dataset.phones.lattice import as_words, build_lattice, ctc_graph
from speecheq.inference.align_command import align
from speecheq.inference.alignment import best_path, without_gaps, words_of_text
from speecheq.inference.label_formats import textgrid

PAUSE = 3


def log_probabilities(frames, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(torch.randn(frames, classes, generator=generator, dtype=torch.float64) * 2, 1).numpy()


def sequences(lattice, state=0, labels=()):
    if state in lattice.finals:
        yield labels
    for label, following in lattice.arcs[state].items():
        yield from sequences(lattice, following, (*labels, label))


@pytest.mark.parametrize("pause", [None, PAUSE])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_path_is_that_of_enumeration(seed, pause):
    draw = random.Random(seed)
    words = as_words([[[draw.randint(1, 2) for _ in range(draw.randint(1, 2))] for _ in range(2)] for _ in range(2)])
    wanted = set(sequences(build_lattice(words, pause)))
    log_probs = log_probabilities(6, 4, seed)
    scores = {
        path: sum(log_probs[frame, label] for frame, label in enumerate(path))
        for path in itertools.product(range(3 if pause is None else 4), repeat=6)
        if tuple(label for label, _ in itertools.groupby(path) if label) in wanted
    }
    best = max(scores, key=scores.__getitem__)
    spans, total = best_path(log_probs, ctc_graph(words, pause))
    assert total == pytest.approx(scores[best])
    found = [0] * 6
    for label, start, end in spans:
        found[start:end] = [label] * (end - start)
    assert tuple(found) == best


def test_too_few_frames_are_refused():
    with pytest.raises(ValueError, match="needs 3 frames, and there are 2"):
        best_path(log_probabilities(2, 3, 0), ctc_graph(as_words([[[1, 1]]])))


def test_the_best_path_is_k2s():
    k2 = pytest.importorskip("k2", reason="needs the k2 stack")
    words = as_words([[[1, 2], [2]], [[2, 3], [1]], [[3]]])
    graph, log_probs = ctc_graph(words), log_probabilities(40, 4, 0)
    fsas = k2.create_fsa_vec([k2.Fsa(torch.from_numpy(graph.arcs))])
    dense = k2.DenseFsaVec(torch.from_numpy(log_probs).float()[None], torch.tensor([[0, 0, 40]], dtype=torch.int32))
    path = k2.shortest_path(k2.intersect_dense(fsas, dense, output_beam=20), use_double_scores=True)
    found = [0] * 40
    for label, start, end in best_path(log_probs, graph)[0]:
        found[start:end] = [label] * (end - start)
    assert path.labels[path.labels >= 0].tolist() == found


def test_one_pronunciation_is_torchaudios():
    try:
        from torchaudio.functional import forced_align
    except Exception:
        pytest.skip("needs a torchaudio with forced_align that imports")
    log_probs = log_probabilities(40, 4, 1)
    found = [0] * 40
    for label, start, end in best_path(log_probs, ctc_graph(as_words([[[1, 1, 2, 3]]])))[0]:
        found[start:end] = [label] * (end - start)
    expected, _ = forced_align(torch.from_numpy(log_probs).float()[None], torch.tensor([[1, 1, 2, 3]]))
    assert expected[0].tolist() == found


def test_phones_touch_and_long_gaps_are_silence():
    labels, words = ["a", "b", "c", "<sil>", "d"], [0, 0, 1, None, 2]
    times = [(0.3, 0.32), (0.5, 0.52), (0.56, 0.58), (0.9, 0.92), (1.0, 1.02)]
    found = without_gaps(labels, times, words, 1.5, "sil")
    assert [(phone.phone, round(phone.start, 3), round(phone.end, 3)) for phone in found] == [
        ("sil", 0.0, 0.3),
        ("a", 0.3, 0.41),  # within a word a gap of any length is divided
        ("b", 0.41, 0.54),  # and a short one between words
        ("c", 0.54, 0.58),
        ("sil", 0.58, 1.0),
        ("d", 1.0, 1.02),
        ("sil", 1.02, 1.5),
    ]
    assert all(a.end == b.start for a, b in zip(found, found[1:]))
    alone = without_gaps(["a"], [(0.05, 0.1)], [0], 0.15, "sil")
    assert [(phone.phone, phone.start, phone.end) for phone in alone] == [("a", 0.0, 0.15)]


def test_texts_are_read_by_the_models_own_phones():
    assert words_of_text("银行", mandarin.TABLE.with_pause())[0].text == "银行"
    assert words_of_text("the project", english.TABLE)[1].text == "project"
    with pytest.raises(InputError, match="cannot be turned into phones: digits"):
        words_of_text("第3天", mandarin.TABLE)
    with pytest.raises(InputError, match="no phones of Mandarin or English"):
        words_of_text("a", type(english.TABLE)(["sil", "▁A"]))


@pytest.mark.parametrize(
    "content, fault",
    [
        ("a one\nb\n", "line 2: holds one field, 'b', where two are expected"),
        ("a one\n\na two\n", "line 3: a occurs a second time"),
    ],
)
def test_a_faulty_line_is_named(content, fault, tmp_path):
    (tmp_path / "text").write_text(content)
    with pytest.raises(InputError, match=re.escape(fault)):
        align(["a.wav"], None, tmp_path / "out", tmp_path / "text", False)


def test_texts_by_name(tmp_path):
    (tmp_path / "text").write_text("\ufeffa  one two\n\nb three\n", encoding="utf-8")
    assert KaldiFile(tmp_path / "text", needed=True) == {"a": "one two", "b": "three"}


def test_a_textgrid_can_be_read_again(tmp_path):
    textgrids = pytest.importorskip("praatio.textgrid", reason="needs praatio")
    tiers = [("words", [(0.1, 0.5, "你好")]), ("phones", [(0.1, 0.2004, "n"), (0.2004, 0.5, "i3")])]
    (tmp_path / "one.TextGrid").write_text(textgrid(tiers, 0.75), encoding="utf-8")
    read = textgrids.openTextgrid(str(tmp_path / "one.TextGrid"), includeEmptyIntervals=False)
    assert [(e.label, e.start, e.end) for e in read.getTier("phones").entries] == [("n", 0.1, 0.2), ("i3", 0.2, 0.5)]
    assert read.maxTimestamp == 0.75 and read.tierNames == ("words", "phones")


def test_the_command_writes_what_it_found_and_names_what_it_cannot(experiment, tmp_path, caplog):
    wavs = sorted((experiment.parents[4] / "aishell").rglob("*.wav"))
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for name, wav in zip(("a", "b", "c", "d"), wavs):
        shutil.copy(wav, recordings / f"{name}.wav")
    (recordings / "a.txt").write_text("你\n", encoding="utf-8")
    (recordings / "c.lab").write_text("你好 ABC", encoding="utf-8")
    (tmp_path / "text").write_text("b 的\n", encoding="utf-8")
    out = tmp_path / "aligned"
    command = ["align", "--model", experiment / "best.pt", "--out", out, "--text", tmp_path / "text", recordings]
    assert main([str(word) for word in command]) == 1
    assert "d.wav: has no text" in caplog.text and "letters that are not Han" in caplog.text
    rows = list(csv.DictReader(open(out / "phones.tsv", encoding="utf-8"), delimiter="\t"))
    for name, readings in (("a", {"n i3"}), ("b", {"d e5", "d i1", "d i2", "d i4"})):
        own = [row for row in rows if row["recording"] == name]
        assert own[0]["start"] == "0.000" and all(a["end"] == b["start"] for a, b in zip(own, own[1:]))
        assert " ".join(row["phone"] for row in own if row["word"]) in readings
        assert all(0 <= float(row["eis"]) <= 4 for row in own)
    phones = [line.split() for line in (out / "phones.ctm").read_text(encoding="utf-8").splitlines()]
    assert [row[4] for row in phones] == [row["phone"] for row in rows if row["word"]]
    words = [line.split() for line in (out / "words.ctm").read_text(encoding="utf-8").splitlines()]
    assert [(row[0], row[4]) for row in words] == [("a", "你"), ("b", "的")]
    durations = list(csv.DictReader(open(out / "durations.tsv", encoding="utf-8"), delimiter="\t"))
    assert sum(int(row["count"]) for row in durations) == len(phones)
    assert (out / "a.TextGrid").exists() == (importlib.util.find_spec("praatio") is not None)
    page = (out / "align.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 2 and "<h2>a</h2>" in page and "d.wav: has no text" in page
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="did not write"):
        align([str(recordings)], str(experiment / "best.pt"), tmp_path / "mine", None, False)


def test_a_cut_has_its_own_text(experiment, tmp_path):
    wavs = sorted((experiment.parents[4] / "aishell").rglob("*.wav"))
    cuts = [lhotse.Recording.from_file(wav).to_cut() for wav in wavs[:2]]
    for cut, text in zip(cuts, ("你", "的")):
        cut.supervisions = [lhotse.SupervisionSegment(cut.id, cut.recording_id, 0, cut.duration, text=text)]
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl")
    (tmp_path / "text").write_text(f"{cuts[1].id} 在\n", encoding="utf-8")  # takes the place of what the cut says
    arguments = [str(tmp_path / "cuts.jsonl")], str(experiment / "best.pt"), tmp_path / "out", tmp_path / "text", False
    align(*arguments)
    words = [line.split() for line in (tmp_path / "out" / "words.ctm").read_text(encoding="utf-8").splitlines()]
    assert sorted((row[0], row[4]) for row in words) == sorted([(cuts[0].id, "你"), (cuts[1].id, "在")])


def test_where_nothing_can_be_aligned_nothing_is_written(experiment, tmp_path, toys):
    toys.write_wav(tmp_path / "a.wav", 0.5)
    with pytest.raises(InputError, match="1 of 1 recordings could not be aligned"):
        align([str(tmp_path / "a.wav")], str(experiment / "best.pt"), tmp_path / "out", None, False)
    assert not (tmp_path / "out").exists()


def test_a_recording_that_is_too_short_for_its_text_is_named(experiment, tmp_path, toys, caplog):
    toys.write_wav(tmp_path / "a.wav", 0.2)
    (tmp_path / "a.txt").write_text("你好" * 30, encoding="utf-8")
    command = ["align", "--model", experiment / "best.pt", "--out", tmp_path / "out", tmp_path / "a.wav"]
    assert main([str(word) for word in command]) == 1
    assert re.search(r"needs \d+ frames, and there are \d+: the recording of 0.20 s is too short", caplog.text)
