"""``speecheq embed``: vectors of recordings, windows and frames, of the model or a layer, as three kinds of files."""

import gzip

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from speech_like import speech_like

from speecheq.cli import main
from speecheq.common.errors import InputError
from speecheq.evaluation.score_files import EMBEDDINGS, read_embeddings, read_scores
from speecheq.features.encoders import EncoderSettings, load_encoder
from speecheq.inference import embedding_files
from speecheq.inference.embedder import Embedder
from speecheq.inference.windows import Windows


@pytest.fixture
def embed(experiment, capsys):
    """``embed(out, arguments...)``: the exit status and standard error of ``speecheq embed``."""

    def run(out, *arguments, model=experiment / "best.pt"):
        capsys.readouterr()
        status = main.main(["embed", "--out", str(out), "--model", str(model), *map(str, arguments)])
        return status, capsys.readouterr().err

    return run


@pytest.fixture
def clips(tmp_path, write_noise):
    return [
        write_noise(tmp_path / f"{name}.wav", seconds, seed=n) for n, (name, seconds) in enumerate([("a", 1), ("b", 2)])
    ]


def test_the_embeddings_are_those_that_scoring_wrote(experiment, embed, tmp_path):
    tested = read_scores(experiment / "scores.tsv")["test"]
    stored = read_embeddings(experiment / EMBEDDINGS, [clip.id for clip in tested]).astype(np.float32)
    cuts = experiment.parents[4] / "msud" / "casia.speaker" / "fold1" / "test.jsonl.gz"
    status, _ = embed(tmp_path / "made.npz", cuts)
    made = np.load(tmp_path / "made.npz")
    assert status == 0 and made["ids"].tolist() == [cut.id for cut in CutSet.from_file(cuts)]
    order = [made["ids"].tolist().index(clip.id) for clip in tested]
    assert made["embeddings"][order] == pytest.approx(stored, abs=2e-3)


def test_levels(experiment, clips, tmp_path, write_noise):
    def made(level, windows=None, paths=clips):
        segments = list(embedding_segments(paths))
        return list(
            Embedder(experiment / "best.pt", level, windows=windows, speech_activity="none").embed(segments, fail)
        )

    whole = made("utterance")
    assert [each.values.shape for each in whole] == [(16,), (16,)]
    windows = made("segment", Windows(1, 0.5))
    assert [(each.start, each.end) for each in windows] == [(0, 1), (0, 1), (0.5, 1.5), (1, 2)]
    assert windows[0].values == pytest.approx(whole[0].values, abs=1e-5)
    frames = made("frame")
    assert [each.values.shape for each in frames] == [(100, 32), (200, 32)] and frames[0].frame_shift == 0.01
    (long,) = made("utterance", paths=[write_noise(tmp_path / "long.wav", 33)])
    parts = made("segment", Windows(6, 6), [tmp_path / "long.wav"])
    weights = [part.end - part.start for part in parts]
    assert len(parts) > 4 and (long.start, long.end) == (0, 33)
    assert long.values == pytest.approx(np.average([part.values for part in parts], axis=0, weights=weights), abs=1e-4)


def embedding_segments(paths):
    from contextlib import ExitStack

    from speecheq.inference.manifest_clips import find_clips

    with ExitStack() as stack:
        yield from find_clips(paths, stack)


def fail(error):
    raise error


@pytest.mark.parametrize("level", ["utterance", "frame"])
def test_the_files_hold_the_same(embed, clips, tmp_path, level, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    monkeypatch.setattr(embedding_files, "ROW_GROUP_BYTES", 1)  # each row is a group of its own
    for suffix in embedding_files.SUFFIXES:
        assert embed(tmp_path / f"made{suffix}", *clips, "--level", level, "--speech-activity", "none")[0] == 0
    npz = np.load(tmp_path / "made.npz")
    rows = pyarrow.read_table(tmp_path / "made.parquet").to_pylist()
    cuts = list(CutSet.from_file(tmp_path / "made.jsonl.gz"))
    assert npz["ids"].tolist() == [row["id"] for row in rows] == [cut.id for cut in cuts] == list(map(str, clips))
    assert npz["ends"].tolist() == [row["end"] for row in rows] == [cut.end for cut in cuts] == [1, 2]
    values = npz["embeddings"]
    if level == "frame":
        first, last = npz["offsets"][:-1], npz["offsets"][1:]
        values = [values[a:b] for a, b in zip(first, last)]
        assert {row["frame_shift"] for row in rows} == {float(npz["frame_shift"])} == {0.01}
    for expected, row, cut in zip(values, rows, cuts):
        assert np.array_equal(np.array(row["embedding"], dtype=np.float32), expected)
        assert np.array_equal(cut.load_embedding(), expected)
    assert not list(tmp_path.glob(".tmp*"))


@pytest.fixture
def manifests(clips, tmp_path):
    """Recordings, and supervisions of parts of them, beside each other as stage 1 names them."""
    recordings = [Recording.from_file(path, recording_id=path.stem) for path in clips]
    parts = [("one", "a", 0.0, 1.0), ("two", "b", 0.5, 1.0), ("three", "b", 0.0, 2.0)]
    supervisions = [
        SupervisionSegment(name, source, start, length, speaker="s") for name, source, start, length in parts
    ]
    paths = [tmp_path / f"own_{kind}_all.jsonl.gz" for kind in ("recordings", "supervisions")]
    for path, items, kind in zip(paths, (recordings, supervisions), (RecordingSet, SupervisionSet)):
        (kind.from_recordings if kind is RecordingSet else kind.from_segments)(items).to_file(path)
    return paths


def test_manifests_in_and_out(embed, manifests, tmp_path):
    recordings, supervisions = manifests
    assert embed(tmp_path / "made.jsonl.gz", supervisions)[0] == 0
    made = list(CutSet.from_file(tmp_path / "made.jsonl.gz"))
    assert [cut.id for cut in made] == ["one", "two", "three"]
    assert [(cut.start, cut.duration) for cut in made] == [(0, 1), (0.5, 1), (0, 2)]
    assert [cut.supervisions[0].speaker for cut in made] == ["s"] * 3 and made[0].load_embedding().shape == (16,)
    assert embed(tmp_path / "again.npz", tmp_path / "made.jsonl.gz")[0] == 0, "what it writes can be read again"
    again = np.load(tmp_path / "again.npz")
    assert again["embeddings"][0] == pytest.approx(made[0].load_embedding(), abs=1e-5)
    assert embed(tmp_path / "both.npz", supervisions, recordings)[0] == 0
    assert np.load(tmp_path / "both.npz")["ids"].tolist() == ["one", "two", "three"]
    assert embed(tmp_path / "whole.npz", recordings)[0] == 0
    assert np.load(tmp_path / "whole.npz")["ids"].tolist() == ["a", "b"]
    assert embed(tmp_path / "w.jsonl.gz", supervisions, "--level", "segment", "--window", "1", "--hop", "1")[0] == 0
    windows = list(CutSet.from_file(tmp_path / "w.jsonl.gz"))
    assert [cut.id for cut in windows] == ["one", "two", "three-0.00", "three-1.00"]
    assert windows[3].supervisions[0].id == "three"


def test_supervisions_without_their_recordings(embed, manifests, tmp_path):
    manifests[0].unlink()
    status, err = embed(tmp_path / "made.npz", manifests[1])
    assert status == 1 and "holds supervisions, which name recordings" in err and "give the recordings too" in err
    assert not (tmp_path / "made.npz").exists()


@pytest.mark.parametrize("place", [0, 1])
def test_a_broken_line_of_a_manifest_is_named_and_those_before_it_are_embedded(embed, manifests, tmp_path, place):
    content = gzip.decompress(manifests[place].read_bytes()).splitlines(keepends=True)
    manifests[place].write_bytes(gzip.compress(content[0] + b"{no json\n" + b"".join(content[1:])))
    status, err = embed(tmp_path / "made.npz", manifests[place])
    sentence = f"{manifests[place]}, line 2: is not a line of a manifest that lhotse can read"
    assert status == 1 and err.count(sentence) == 1 and "1 recordings could not be used" in err
    assert np.load(tmp_path / "made.npz")["ids"].tolist() == [("a", "one")[place]]


def test_leftovers_of_macos_in_manifests_are_skipped(embed, clips, tmp_path, caplog):
    recordings = [Recording.from_file(path, recording_id=path.stem) for path in clips]
    recordings[0].sources[0].source = str(tmp_path / "._a.wav")
    RecordingSet.from_recordings(recordings).to_file(tmp_path / "recordings.jsonl")
    parts = [SupervisionSegment(f"{name}-part", name, 0, 1) for name in "ab"]
    SupervisionSet.from_segments(parts).to_file(tmp_path / "supervisions.jsonl")
    CutSet.from_cuts(recording.to_cut() for recording in recordings).to_file(tmp_path / "cuts.jsonl")
    for kind, expected in (("supervisions", ["b-part"]), ("cuts", [recordings[1].to_cut().id])):
        assert embed(tmp_path / "made.npz", tmp_path / f"{kind}.jsonl")[0] == 0
        assert np.load(tmp_path / "made.npz")["ids"].tolist() == expected
        assert f"{kind}.jsonl: 1 leftovers of macOS are skipped" in caplog.text


def test_a_recording_without_a_speaker_is_named_and_the_rest_is_embedded(embed, clips, tmp_path):
    (tmp_path / "speakers.csv").write_text("file,speaker\na.wav,one\n")
    status, err = embed(tmp_path / "made.npz", *clips, "--speaker-from", tmp_path / "speakers.csv")
    assert status == 1 and err.count(f"names no speaker of {clips[1]}; add a line for it") == 1
    assert "1 recordings could not be used" in err
    assert np.load(tmp_path / "made.npz")["ids"].tolist() == [str(clips[0])]


def test_what_cannot_be_read_is_named_and_the_rest_is_embedded(embed, clips, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    status, err = embed(tmp_path / "made.npz", clips[0], tmp_path / "broken.wav", tmp_path / "silent.wav")
    assert status == 1 and "broken.wav" in err and "1 recordings could not be used" in err
    assert "1 without an embedding: " in err and "silent.wav for one" in err
    assert np.load(tmp_path / "made.npz")["ids"].tolist() == [str(clips[0])]


def test_outputs_that_would_destroy_something(embed, clips, manifests, tmp_path):
    recordings, _ = manifests
    before = recordings.read_bytes()
    for out, sentence in (
        (recordings, "one of the inputs"),
        (tmp_path, "is named neither"),
        (tmp_path / "x.csv", "neither"),
    ):
        status, err = embed(out, recordings)
        assert status == 1 and sentence in err
    status, err = embed(recordings, clips[0])
    assert status == 1 and "speecheq embed did not write it" in err and recordings.read_bytes() == before


def test_options_that_do_not_fit(embed, clips, tmp_path):
    assert "--window and --hop are for --level segment" in embed(tmp_path / "a.npz", clips[0], "--window", 2)[1]
    assert "has no encoder; leave --layer out" in embed(tmp_path / "a.npz", clips[0], "--layer", 2)[1]


def test_without_pyarrow_one_sentence(embed, clips, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    status, err = embed(tmp_path / "a.parquet", clips[0])
    assert status == 1 and "a Parquet file needs pyarrow" in err and "pip install pyarrow" in err


def test_layers_of_the_starters_encoder(tmp_path):
    soundfile.write(tmp_path / "a.wav", speech_like(1.0), 16000)
    segments = list(embedding_segments([tmp_path / "a.wav"]))
    (frames,) = Embedder(None, "frame", layer=2, device="cpu", speech_activity="none").embed(segments, fail)
    assert frames.values.shape == (50, 512) and frames.frame_shift == 0.02
    settings = EncoderSettings(str(embedding_files.Path(Embedder().config.encoder.model)), (2,), "none", "level")
    samples = torch.from_numpy(soundfile.read(tmp_path / "a.wav", dtype="float32")[0])[None]
    with torch.inference_mode():
        states, _ = load_encoder(settings)(samples, torch.tensor([16000]))
    assert frames.values == pytest.approx(states[0].numpy(), abs=1e-3)
    (mean,) = Embedder(None, layer=2, device="cpu", speech_activity="none").embed(segments, fail)
    assert mean.values == pytest.approx(frames.values.mean(0), abs=1e-4)
    with pytest.raises(InputError, match="holds its encoder up to layer 3"):
        Embedder(None, layer=4)
