"""Manifests of folders of noises and room impulse responses, and what is left out."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from lhotse import RecordingSet
from prepared_manifests import PARTIAL

from speecheq.common.files import read_json
from speecheq.corpora import audio_folder
from speecheq.corpora.prep_script import audio_folder_main


@pytest.fixture
def noise(toys, tmp_path):
    """Four files of other formats, rates and channels at other depths, and what lies beside them."""
    folder = tmp_path / "sounds"
    toys.write_wav(folder / "hum.wav", seconds=1.0)
    toys.write_wav(folder / "rain" / "far" / "1-1-A.WAV", seconds=0.5, rate=44100, channels=2)
    rng = np.random.default_rng(0)
    for name, rate, channels in (("rain/1-1-A.ogg", 44100, 1), ("music/1.flac", 16000, 4)):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, 0.1 * rng.standard_normal((rate, channels)), rate)
    (folder / "LICENSE").write_text("free")
    (folder / "rain" / "._1-1-A.ogg").write_bytes(b"what macOS leaves")
    return folder


@pytest.fixture
def prepare(tmp_path, capsys):
    """``prepare(folder, *options)``: the exit status and the log of the command line, writing to ``out``."""

    def run(folder, *options, out=tmp_path / "out", name="noise"):
        capsys.readouterr()
        status = audio_folder_main(name, "noises", [str(folder), str(out), *options])
        shown = capsys.readouterr().err
        assert "Traceback" not in shown
        return status, shown

    return run


def recordings(folder, name="noise"):
    return {r.id: r for r in RecordingSet.from_file(folder / f"{name}_recordings_all.jsonl.gz")}


@pytest.mark.parametrize("nj", ["1", "3"])
def test_every_file_keeps_its_rate_and_channels(prepare, noise, tmp_path, nj):
    status, shown = prepare(noise, "--nj", nj)
    assert status == 0 and "1 files are not audio by their names" in shown
    found = recordings(tmp_path / "out")
    assert {name: (r.sampling_rate, r.num_channels, r.num_samples) for name, r in found.items()} == {
        "noise-hum.wav": (16000, 1, 16000),
        "noise-music/1.flac": (16000, 4, 16000),
        "noise-rain/1-1-A.ogg": (44100, 1, 44100),
        "noise-rain/far/1-1-A.WAV": (44100, 2, 22050),
    }
    assert found["noise-music/1.flac"].load_audio().shape == (4, 16000)
    assert all(os.path.isabs(r.sources[0].source) for r in found.values())
    assert read_json(tmp_path / "out" / "noise_card.json") == {
        "name": "noise",
        "files": 4,
        "hours": round(3.5 / 3600, 4),
        "sampling_rate": {"16000": 2, "44100": 2},
        "channels": {"1": 2, "2": 1, "4": 1},
    }
    stamp = read_json(tmp_path / "out" / "stage.json")
    assert (stamp["stage"], stamp["in"], stamp["out"], stamp["dropped"]) == ("manifests", 4, 4, {})


def test_it_runs_once_and_again_when_a_file_or_an_option_changes(prepare, noise, toys):
    assert prepare(noise)[0] == 0
    assert "skipped" in prepare(noise)[1] and "skipped" in prepare(noise, "--nj", "2")[1]
    toys.write_wav(noise / "new.wav")
    assert "its inputs changed" in prepare(noise)[1]
    assert "its options changed (partial)" in prepare(noise, *PARTIAL)[1]


def test_only_checking_writes_nothing(prepare, noise, tmp_path):
    status, shown = prepare(noise, "--check-only")
    assert status == 0 and "holds 4 audio files" in shown and not (tmp_path / "out").exists()


def empty(path):
    path.write_bytes(b"")


def no_audio(path):
    path.write_text("no audio at all " * 50)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def without_samples(path):
    soundfile.write(path, [], 16000)


@pytest.mark.parametrize(
    "name, spoil, words",
    [
        ("hum.wav", empty, "the file is empty"),
        ("hum.wav", no_audio, "is not audio that can be read"),
        ("hum.wav", truncated, "is truncated"),
        ("hum.wav", without_samples, "less than one frame"),
        ("music/1.flac", truncated, "to its end"),
        ("rain/1-1-A.ogg", no_audio, "is not audio that can be read"),
    ],
)
def test_files_that_cannot_be_read(prepare, noise, tmp_path, name, spoil, words):
    assert prepare(noise)[0] == 0
    spoil(noise / name)
    status, shown = prepare(noise)
    assert status == 1 and f" ERROR {noise / name}: " in shown and words in shown.splitlines()[-1]
    assert len(recordings(tmp_path / "out")) == 4, "the earlier result stays"
    status, shown = prepare(noise, *PARTIAL)
    assert status == 0 and f"1 dropped: unreadable or too short ({name})" in shown
    assert f"noise-{name}" not in recordings(tmp_path / "out") and len(recordings(tmp_path / "out")) == 3
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {"unreadable or too short": [name]}


def silence(path):
    soundfile.write(path, np.zeros((200000, 2)), 16000)


def no_numbers(path):
    soundfile.write(path, np.array([0.1, np.nan] * 1000), 16000, subtype="FLOAT")


@pytest.mark.parametrize("spoil, words", [(silence, "is silent"), (no_numbers, "not finite")])
@pytest.mark.parametrize("options", [(), PARTIAL])
def test_files_that_would_do_harm_are_refused_in_any_case(prepare, noise, tmp_path, spoil, words, options):
    spoil(noise / "hum.wav")
    status, shown = prepare(noise, *options)
    assert status == 1 and f" ERROR {noise / 'hum.wav'}: " in shown and words in shown
    assert not (tmp_path / "out").exists()


def test_sound_after_a_long_silence_is_sound(prepare, noise, tmp_path):
    samples = np.zeros(3 * audio_folder.BLOCK)
    samples[0] = 0.5  # as an impulse response may be
    soundfile.write(noise / "first.wav", samples, 16000)
    soundfile.write(noise / "last.wav", samples[::-1], 16000)
    assert prepare(noise, name="rir")[0] == 0
    assert len(recordings(tmp_path / "out", "rir")) == 6


def test_folders_that_cannot_be_used(prepare, noise, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    for folder, words in (
        (tmp_path / "missing", "there is no such folder"),
        (tmp_path / "empty", "holds no audio file"),
        (tmp_path / "texts", "holds no audio file"),
        (noise / "hum.wav", "is a file, not a folder"),
    ):
        for options in ((), PARTIAL, ("--check-only",)):
            status, shown = prepare(folder, *options)
            assert status == 1 and f" ERROR {folder}: {words}" in shown and shown.endswith(".\n")


def test_a_folder_of_which_nothing_can_be_used(prepare, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.wav").write_text("no audio")
    status, shown = prepare(tmp_path / "broken", *PARTIAL)
    assert status == 1 and "none of its 1 audio files can be used (1 unreadable or too short)" in shown


def dead_link(folder):
    (folder / "rain" / "dead.wav").symlink_to(folder / "nowhere.wav")


def link_to_no_folder(folder):
    (folder / "rain" / "more").symlink_to(folder / "nowhere")


def m4a(folder):
    (folder / "rain" / "phone.M4A").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(2000))


@pytest.mark.parametrize(
    "spoil, name, reason",
    [
        (dead_link, "rain/dead.wav", "a dead link or without access"),
        (link_to_no_folder, "rain/more", "a dead link or without access"),
        (m4a, "rain/phone.M4A", "in a format that cannot be read"),
    ],
)
def test_what_cannot_be_reached_or_decoded_is_named(prepare, noise, tmp_path, monkeypatch, spoil, name, reason):
    monkeypatch.setattr(audio_folder, "can_decode", lambda: False)
    spoil(noise)
    status, shown = prepare(noise)
    assert status == 1 and f" ERROR {noise / name}: is {reason}; " in shown
    status, shown = prepare(noise, *PARTIAL)
    assert status == 0 and f"1 dropped: {reason} ({name})" in shown
    assert "1 files are not audio by their names" in shown and len(recordings(tmp_path / "out")) == 4
    stamp = read_json(tmp_path / "out" / "stage.json")
    assert (stamp["in"], stamp["out"], stamp["dropped"]) == (5, 4, {reason: [name]})


def test_a_folder_that_cannot_be_listed_is_named(prepare, noise, tmp_path, monkeypatch):
    listed = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("rain"):
            raise PermissionError(13, "Permission denied", path)  # as chmod 000 does, but for root
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    status, shown = prepare(noise)
    assert status == 1 and f" ERROR {noise / 'rain'}: is a folder that cannot be listed; make it readable" in shown
    status, shown = prepare(noise, *PARTIAL)
    assert status == 0 and "1 dropped: a folder that cannot be listed (rain)" in shown
    assert set(recordings(tmp_path / "out")) == {"noise-hum.wav", "noise-music/1.flac"}


def test_nothing_else_is_ever_replaced(prepare, noise, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert prepare(noise, out=mine)[0] == 1
    assert (mine / "thesis.txt").read_text() == "years of work"
    for out in (noise, noise / "manifests"):
        status, shown = prepare(noise, out=out)
        assert status == 1 and f"{out}: lies inside" in shown
    assert (noise / "hum.wav").is_file()


@pytest.mark.parametrize(
    "options, words", [(("--partial", "yes"), "neither true nor false"), (("--nj", "0"), "above 0")]
)
def test_options_that_are_wrong(prepare, noise, options, words):
    status, shown = prepare(noise, *options)
    assert status == 1 and words in shown


@pytest.mark.parametrize("name", ["noise", "rir"])
def test_as_a_program(noise, toys, tmp_path, name):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, toys.root / "local" / f"prepare_{name}.py", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(toys.root)},
            timeout=120,
        )

    assert run(noise, tmp_path / "out").returncode == 0
    assert len(recordings(tmp_path / "out", name)) == 4
    ended = run(tmp_path / "missing", tmp_path / "out")
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and "Traceback" not in ended.stderr


def test_the_real_noises(samples, prepare, tmp_path):
    assert prepare(samples("noise"))[0] == 0
    card = read_json(tmp_path / "out" / "noise_card.json")
    assert card["files"] == 35 and card["sampling_rate"] == {"16000": 5, "44100": 30} and card["channels"] == {"1": 35}


def test_the_real_impulse_responses(samples, prepare, tmp_path):
    assert prepare(samples("rir"), name="rir")[0] == 0
    card = read_json(tmp_path / "out" / "rir_card.json")
    assert card["files"] == 11 and card["channels"] == {"1": 5, "2": 3, "4": 2, "8": 1}
