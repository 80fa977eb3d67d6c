"""What ``speecheq predict --output`` may replace: its own earlier output, nothing else."""

import os

import pytest

from speecheq.inference.prediction import ROWS

NAMES = {
    "the name": lambda audio, folder: audio,
    "another path": lambda audio, folder: folder / "sub" / ".." / audio.name,
    "a link": lambda audio, folder: (folder / "link.txt").symlink_to(audio) or folder / "link.txt",
    "a hard link": lambda audio, folder: os.link(audio, folder / "hard.txt") or folder / "hard.txt",
}


@pytest.mark.parametrize("name", NAMES)
def test_an_output_that_is_an_input_is_refused(predict, wav, write_noise, tmp_path, name):
    (tmp_path / "sub").mkdir()
    other, content = write_noise(tmp_path / "other.wav", 1), wav.read_bytes()
    output = NAMES[name](wav, tmp_path)
    for given in ((wav, other), (other, wav), (tmp_path,)):
        status, out, err = predict("--output", output, *given)
        assert status == 1 and out == "" and "which is to be predicted; name another" in err
        assert wav.read_bytes() == content and err.count("\n") == 1


def test_recordings_of_manifests_and_missing_ones_are_inputs(predict, wav, tmp_path):
    (tmp_path / "kaldi").mkdir()
    (tmp_path / "kaldi" / "wav.scp").write_text(f"r {wav}\n")
    content = wav.read_bytes()
    assert predict("--output", wav, tmp_path / "kaldi")[0] == 1 and wav.read_bytes() == content
    status, _, err = predict("--output", tmp_path / "new.wav", tmp_path / "new.wav")
    assert status == 1 and "is to be predicted" in err and not (tmp_path / "new.wav").exists()


@pytest.mark.parametrize("content", ["my notes\n", "1,2,3\n", '{"a": 1}\n', "a.wav: joy\n", "no line end", "\n"])
def test_a_file_that_is_no_output_is_refused(predict, wav, tmp_path, content):
    (tmp_path / "mine.txt").write_text(content)
    status, _, err = predict("--output", tmp_path / "mine.txt", wav)
    assert status == 1 and "mine.txt: holds something that speecheq predict did not write" in err
    assert (tmp_path / "mine.txt").read_text() == content


def test_devices_and_folders_are_refused(predict, wav, tmp_path):
    read, write = os.pipe()
    assert f"/dev/fd/{write}: is a device or a pipe" in predict("--output", f"/dev/fd/{write}", wav)[2]
    os.close(read)
    os.close(write)
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: is a device or a pipe" in predict("--output", tmp_path / "pipe", wav)[2]
    assert f"{tmp_path}: is a folder; name a file in it" in predict("--output", tmp_path, wav)[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.wav", "pipe"]


@pytest.mark.parametrize("format", ROWS)
@pytest.mark.parametrize("content", ["speech", "silence", "nothing", "empty"])
def test_earlier_outputs_and_empty_files_are_replaced(predict, wav, write_noise, tmp_path, format, content):
    output = tmp_path / "out.txt"
    earlier = write_noise(tmp_path / "s.wav", 1, level=0.0 if content == "silence" else 0.1)
    if content == "empty":
        output.touch()
    else:
        names = [tmp_path / "missing.wav"] if content == "nothing" else [earlier, wav]
        predict("--format", format, "--output", output, "--window", 0.5, *names)
    for later in ROWS:
        assert predict("--format", later, "--output", output, wav)[0] == 0
        assert "one.wav" in output.read_text()


def test_an_output_of_silence_alone_is_replaced_and_links_to_outputs_stay(predict, wav, write_noise, tmp_path):
    silent = write_noise(tmp_path / "s.wav", 1, level=0.0)
    (tmp_path / "link.txt").symlink_to("out.txt")
    for given in (silent, silent, wav):
        assert predict("--output", tmp_path / "link.txt", given)[0] == 0
    assert (tmp_path / "link.txt").is_symlink() and "one.wav" in (tmp_path / "out.txt").read_text()


def test_an_output_that_cannot_be_made_is_named_as_given(predict, wav):
    status, _, err = predict("--output", "/proc/x", wav)
    assert status == 1 and "/proc/x: " in err and ".tmp" not in err and err.count("\n") == 1
