"""The archives of stage 2: precise, resumable, whole; and the audio that is read for them."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile
import torch

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.log import set_up_logging
from speecheq.common.stages import STAMP
from speecheq.corpora import Corpus, Utterance
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.features import storage
from speecheq.features.audio import load_waveform, resampler
from speecheq.features.fbank import Fbank
from speecheq.features.storage import compute_features, load_cuts, missing_parts

TOY = Corpus("toy", "the toy", "Mandarin", "DIR/*.wav", labels={"mad": "anger"})


@pytest.fixture
def toy(toys, tmp_path, monkeypatch, capsys):
    """A prepared corpus of 7 clips; features are computed in parts of 3."""
    monkeypatch.setattr(storage, "CUTS_A_PART", 3)
    set_up_logging()
    for number in range(7):
        toys.write_wav(tmp_path / "toy" / f"{number}.wav", 0.2 + 0.05 * number)
    prepare_toy(tmp_path)
    return tmp_path


def prepare_toy(folder):
    def find(folder, *_):
        return [Utterance(p.stem, p, "s", "F", label="mad") for p in sorted(folder.glob("*.wav"))]

    prepare_corpus(TOY, find, PrepareRequest(folder / "toy"), folder / "manifests")


def compute(folder, out="fbank", nj=1):
    compute_features("toy", folder / "manifests", folder / out, nj)
    return list(load_cuts(folder / out))


def archives(folder, out="fbank"):
    return {path.name: path for path in sorted((folder / out).glob("parts-*/*.lca"))}


def test_what_is_stored_is_what_the_extractor_gave(toy):
    cuts = compute(toy)
    assert [cut.id for cut in cuts] == [str(number) for number in range(7)]
    for cut in cuts:
        samples, _ = soundfile.read(toy / "toy" / f"{cut.id}.wav", dtype="float32")
        expected = Fbank().extract(samples, 16000)
        stored = cut.load_features()
        assert stored.shape == expected.shape == (cut.num_frames, 80)
        assert np.abs(stored - expected).max() < 1e-3
        assert cut.supervisions[0].custom["esc"] == "anger"
    assert len(archives(toy)) == 3


def test_one_job_and_two_give_equal_archives(toy):
    one, two = compute(toy, "one", 1), compute(toy, "two", 2)
    first, second = archives(toy, "one"), archives(toy, "two")
    assert {n: p.read_bytes() for n, p in first.items()} == {n: p.read_bytes() for n, p in second.items()}
    assert all(np.array_equal(a.load_features(), b.load_features()) for a, b in zip(one, two))


def test_the_first_job_of_all_holds_the_folder_that_it_writes_to(toy):
    compute_features("toy", toy / "manifests", toy / "first" / "fbank", parts=[0])
    assert (toy / "first" / ".fbank.lock").is_file()


def test_jobs_that_share_the_parts_leave_what_one_run_leaves(toy):
    compute(toy, "alone")
    where = ("toy", toy / "manifests", toy / "fbank")
    assert missing_parts(*where) == [0, 1, 2]
    for parts in ([2], [0, 1]):
        compute_features(*where, parts=parts)
        assert not (toy / "fbank" / "stage.json").exists()
    assert missing_parts(*where) == []
    before = {path: path.stat().st_mtime_ns for path in archives(toy).values()}
    joined = compute(toy)
    assert before == {path: path.stat().st_mtime_ns for path in archives(toy).values()}, "only joined"
    assert missing_parts(*where) is None
    alone = list(load_cuts(toy / "alone"))
    assert [cut.id for cut in joined] == [cut.id for cut in alone]
    assert all(np.array_equal(a.load_features(), b.load_features()) for a, b in zip(joined, alone))


@pytest.mark.parametrize("nj", [1, 2])
def test_a_run_that_was_broken_off_goes_on_where_it_stood(toy, monkeypatch, nj):
    real = Fbank.extract
    calls = []

    def breaks_off(self, samples, sampling_rate):
        calls.append(len(samples))
        if len(samples) == round(16000 * (0.2 + 0.05 * 4)):  # clip 4 is in the second part
            raise KeyboardInterrupt if nj == 1 else InputError("broken off.")
        return real(self, samples, sampling_rate)

    monkeypatch.setattr(Fbank, "extract", breaks_off)
    with pytest.raises((KeyboardInterrupt, InputError)):
        compute(toy, nj=nj)
    assert not (toy / "fbank" / STAMP).exists() and "00001.lca" not in archives(toy)
    assert not list((toy / "fbank").rglob(".tmp*"))
    with pytest.raises(InputError, match=r"stage 2 \(features\) has not been run or did not finish"):
        load_cuts(toy / "fbank")
    kept = {name: path.stat().st_mtime_ns for name, path in archives(toy).items()}
    assert "00000.lca" in kept
    monkeypatch.setattr(Fbank, "extract", real)
    assert len(compute(toy)) == 7
    after = {name: path.stat().st_mtime_ns for name, path in archives(toy).items()}
    assert len(after) == 3 and {name: after[name] for name in kept} == kept


def test_a_truncated_archive_is_noticed_and_its_part_alone_is_made_anew(toy, capsys):
    compute(toy)
    before = {name: path.stat().st_mtime_ns for name, path in archives(toy).items()}
    path = archives(toy)["00001.lca"]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"00001.lca: is missing or has changed since stage 2 \(features\)"):
        load_cuts(toy / "fbank")
    assert len(compute(toy)) == 7 and "is missing or has changed" in capsys.readouterr().err
    after = {name: path.stat().st_mtime_ns for name, path in archives(toy).items()}
    assert {name for name in after if after[name] != before[name]} == {"00001.lca"}


def test_it_runs_once_and_again_when_the_corpus_changes(toy, toys, capsys):
    compute(toy)
    stamp = (toy / "fbank" / STAMP).stat().st_mtime_ns
    compute(toy, nj=2)
    assert "skipped" in capsys.readouterr().err and (toy / "fbank" / STAMP).stat().st_mtime_ns == stamp
    toys.write_wav(toy / "toy" / "7.wav", 0.3)
    prepare_toy(toy)
    with pytest.raises(InputError, match="is out of date"):
        load_cuts(toy / "fbank")
    assert len(compute(toy)) == 8
    assert len(list((toy / "fbank").glob("parts-*"))) == 1, "the earlier parts are cleared away"


def test_stage_1_must_have_run(tmp_path):
    with pytest.raises(InputError, match=r"stage 1 \(manifests\) has not been run"):
        compute_features("toy", tmp_path / "manifests", tmp_path / "fbank")
    assert not (tmp_path / "fbank").exists()


@pytest.mark.parametrize("nj", [1, 2])
def test_clips_that_changed_since_stage_1(toy, nj):
    path = toy / "toy" / "5.wav"
    soundfile.write(path, soundfile.read(path)[0][:-100], 16000)
    with pytest.raises(InputError, match="5.wav: holds 7100 samples .* its manifest gives 7200 .* run stage 1 again"):
        compute(toy, nj=nj)
    path.unlink()
    with pytest.raises(InputError, match="5.wav: does not exist any more"):
        compute(toy, nj=nj)


def test_a_killed_process_is_one_sentence(toy, monkeypatch):
    monkeypatch.setattr(Fbank, "extract", lambda *_: os._exit(9))
    with pytest.raises(InputError, match="one of 2 processes was killed"):
        compute(toy, nj=2)


def test_a_full_disk_and_the_same_command_again(toy, toys):
    """The limit on file sizes stands for the end of the disk: the archive's write itself fails."""
    program = textwrap.dedent("""
        import resource, sys
        limit = int(sys.argv.pop(1))
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        import speecheq.features.storage
        speecheq.features.storage.CUTS_A_PART = 3
        from speecheq.cli.main import main
        sys.exit(main())
    """)
    (toy / "data" / "manifests").mkdir(parents=True)
    (toy / "manifests").rename(toy / "data" / "manifests" / "toy")

    def run(limit):
        options = ["features", "--data", toy / "data", "--corpora", "toy", "--nj", "2"]
        return subprocess.run(
            [sys.executable, "-c", program, str(limit), *options],
            capture_output=True,
            text=True,
            cwd=toys.root,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=120,
        )

    full = run(6000)
    errors = [line for line in full.stderr.splitlines() if " ERROR " in line]
    assert full.returncode == 1 and "Traceback" not in full.stderr and len(errors) == 1, full.stderr
    assert ".lca: could not be written, " in errors[0] and "free some space and run the same command again" in errors[0]
    fbank = toy / "data" / "fbank" / "toy"
    assert not (fbank / STAMP).exists() and not list(fbank.rglob("*.lca"))
    with pytest.raises(InputError, match="has not been run or did not finish"):
        load_cuts(fbank)
    again = run(0)
    assert again.returncode == 0, again.stderr
    assert [cut.load_features().shape[1] for cut in load_cuts(fbank)] == [80] * 7


def test_stereo_at_48_khz_is_mixed_down_and_resampled(toys, tmp_path):
    try:
        import torchaudio
    except Exception as error:
        pytest.skip(f"torchaudio does not import: {error}")
    set_up_logging()
    time = np.arange(48000 + 241) / 48000
    left, right = 0.4 * np.sin(2 * np.pi * 440 * time), 0.2 * np.sin(2 * np.pi * 440 * time)
    (tmp_path / "toy").mkdir()
    soundfile.write(tmp_path / "toy" / "a.wav", np.stack([left, right], 1), 48000, subtype="FLOAT")
    prepare_toy(tmp_path)
    (cut,) = compute(tmp_path)
    samples = load_waveform(cut)
    assert samples.ndim == 1 and len(samples) == -(-len(time) // 3)
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / 16000)
    assert np.abs(samples - expected)[200:-200].max() < 0.01
    direct = torchaudio.functional.resample(torch.from_numpy((left + right) / 2).float(), 48000, 16000).numpy()
    stored = cut.load_features()
    assert np.abs(stored - Fbank().extract(direct, 16000)[: len(stored)]).max() < 2e-3
    assert stored.shape == (cut.num_frames, 80)


def test_without_torchaudio_soxr_resamples(toys, tmp_path, monkeypatch):
    pytest.importorskip("soxr")
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    resampler.cache_clear()
    time = np.arange(48000) / 48000
    (tmp_path / "toy").mkdir()
    soundfile.write(tmp_path / "toy" / "a.wav", 0.3 * np.sin(2 * np.pi * 440 * time), 48000, subtype="FLOAT")
    prepare_toy(tmp_path)
    (cut,) = compute(tmp_path)
    samples = load_waveform(cut)
    resampler.cache_clear()
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert len(samples) == 16000 and np.abs(samples - expected)[200:-200].max() < 0.01
    assert read_json(tmp_path / "fbank" / STAMP)["options"]["resampler"] == "soxr"


def test_without_any_resampler_another_rate_is_one_sentence(toys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    monkeypatch.setitem(sys.modules, "soxr", None)
    toys.write_wav(tmp_path / "toy" / "a.wav", 0.3, 8000)
    prepare_toy(tmp_path)
    with pytest.raises(InputError, match="needs torchaudio or soxr to be resampled"):
        compute(tmp_path)


def test_segments_of_longer_recordings(toys, tmp_path):
    set_up_logging()
    clip = toys.write_wav(tmp_path / "toy" / "long.wav", 1.0)
    found = [
        Utterance(f"s{n}", clip, "s", "F", label="mad", start=0.3 * n, end=0.3 * n + 0.25, recording="long")
        for n in range(3)
    ]
    prepare_corpus(TOY, lambda *_: found, PrepareRequest(tmp_path / "toy"), tmp_path / "manifests")
    samples = soundfile.read(clip, dtype="float32")[0]
    cuts = compute(tmp_path)
    assert [cut.id for cut in cuts] == ["s0", "s1", "s2"]
    for number, cut in enumerate(cuts):
        piece = samples[round(4800 * number) : round(4800 * number) + 4000]
        assert np.array_equal(load_waveform(cut), piece)
        assert cut.supervisions[0].start == 0.0 and cut.supervisions[0].duration == pytest.approx(0.25)
        assert np.abs(cut.load_features() - Fbank().extract(piece, 16000)).max() < 2e-3


def test_no_more_than_some_parts_are_held_at_a_time(toys, tmp_path, monkeypatch):
    """Cuts are read as they are needed: the last part is not read before the first are done."""
    set_up_logging()
    monkeypatch.setattr(storage, "CUTS_A_PART", 2)
    for number in range(40):
        toys.write_wav(tmp_path / "toy" / f"{number:02d}.wav", 0.05)
    prepare_toy(tmp_path)
    read, written = [], []
    whole, extract = storage.corpus_cuts, storage._extract_part
    monkeypatch.setattr(storage, "corpus_cuts", lambda *a: (read.append(len(written)) or c for c in whole(*a)))
    monkeypatch.setattr(storage, "_extract_part", lambda *a: written.append(1) or extract(*a))
    compute(tmp_path)
    assert len(read) == 40 and read[-1] == 19 and read[0] == 0
