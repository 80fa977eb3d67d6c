"""Downloads of whole corpora: archives, parts, folders that are there already."""

import hashlib
import io
import tarfile
import wave
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from file_server import refusal, serving
from tar_filters import needs_tar_filters

from speecheq.corpora.data_card import find_card, read_cards
from speecheq.corpora.download import download, unpack_zip


@pytest.fixture
def server(monkeypatch):
    yield from serving(monkeypatch)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- archives


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "a/../../outside.txt"])
def test_an_archive_that_reaches_outside_is_not_unpacked(tmp_path, name):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({"good.txt": b"1", name: b"2"}))
    assert "outside" in refusal(lambda: unpack_zip([(archive, "")], tmp_path / "corpus"))
    assert names(tmp_path) == ["a.zip"] and not Path("/outside.txt").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_a_damaged_archive_is_removed(tmp_path, damage):
    good = zipped({"one.txt": bytes(range(256)) * 20})
    flipped = good[:60] + bytes([good[60] ^ 255]) + good[61:]
    bad = {"cut": good[:-30], "flipped": flipped, "text": b"<html>", "empty": b""}
    archive = tmp_path / "a.zip"
    archive.write_bytes(bad[damage])
    message = refusal(lambda: unpack_zip([(archive, "")], tmp_path / "corpus"))
    assert message.startswith(f"{archive}: is damaged") and names(tmp_path) == []


# ---- corpora


def clip(seconds=0.05):
    stream = io.BytesIO()
    with wave.open(stream, "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(b"\1\0" * int(16000 * seconds))
    return stream.getvalue()


def ravdess():
    return {"Actor_01/03-01-01-01-01-01-01.wav": clip(), "Actor_02/03-01-03-02-01-01-02.wav": clip()}


def emodb():
    return {"wav/03a01Wa.wav": clip(), "wav/08a01Na.wav": clip(), "erkennung.txt": b""}


def aishell():
    train = tarred({"train/S0002/BAC009S0002W0122.wav": clip()})
    dev = tarred({"dev/S0724/BAC009S0724W0121.wav": clip()})
    test = tarred({"test/S0764/BAC009S0764W0121.wav": clip()})
    text = "BAC009S0002W0122 今天\nBAC009S0724W0121 天气\nBAC009S0764W0121 很好\n"
    data = {
        "data_aishell/transcript/aishell_transcript_v0.8.txt": text.encode(),
        "data_aishell/wav/S0002.tar.gz": train,
        "data_aishell/wav/S0724.tar.gz": dev,
        "data_aishell/wav/S0764.tar.gz": test,
    }
    return tarred(data), tarred({"resource_aishell/speaker.info": b"0002 F\n0724 M\n0764 F\n"})


def librispeech(part, speaker):
    folder = f"LibriSpeech/{part}/{speaker}/1"
    return tarred(
        {
            f"{folder}/{speaker}-1-0000.flac": b"audio",
            f"{folder}/{speaker}-1.trans.txt": b"text",
            "LibriSpeech/SPEAKERS.TXT": b"speakers",
        }
    )


def served(server, card, archives, under=""):
    """``card`` with the checksums of these archives, which the server has from now on."""
    items = []
    for item in card.downloads:
        if item.file in archives:
            body = archives[item.file]
            server.files[f"{under}/{item.file}"] = body
            item = replace(item, bytes=len(body), md5=hashlib.md5(body).hexdigest() if item.md5 else None)
        items.append(item)
    return replace(card, downloads=tuple(items))


@contextmanager
def no_more_requests(server):
    before = len(server.requests)
    yield
    assert len(server.requests) == before


@pytest.mark.parametrize("name, files", [("ravdess", ravdess()), ("emodb", emodb())])
def test_a_zipped_corpus_is_what_its_prep_script_takes(server, tmp_path, prepare, name, files):
    card = find_card(name)
    card = served(server, card, {card.downloads[0].file: zipped(files)})
    server.faults = [{"cut": 100}]
    corpus = download(card, tmp_path / "corpora", base_url=server.url)
    assert corpus == tmp_path / "corpora" / name / card.folder
    assert prepare(name, corpus, tmp_path / "manifests", "--partial", "true", "--check-only") == 0
    with no_more_requests(server):
        (corpus.parent / card.downloads[0].file).unlink()  # the archive may be removed
        assert download(card, tmp_path / "corpora", base_url=server.url) == corpus


@needs_tar_filters
def test_aishell_is_what_its_prep_script_takes(server, tmp_path, prepare):
    data, resource = aishell()
    archives = {"data_aishell.tgz": data, "resource_aishell.tgz": resource}
    card = served(server, find_card("aishell"), archives, "/33")
    server.faults = [{"cut": 100}, {"reset": True}]
    corpus = download(card, tmp_path, base_url=f"{server.url}/")
    assert corpus == tmp_path / "aishell" / "aishell"
    paths = [path for path, _, _ in server.requests]
    assert paths == ["/33/data_aishell.tgz"] * 3 + ["/33/resource_aishell.tgz"]
    assert prepare("aishell", corpus, tmp_path / "manifests", "--partial", "true", "--check-only") == 0
    with no_more_requests(server):
        assert download(card, tmp_path, base_url=server.url) == corpus


@needs_tar_filters
def test_librispeech_comes_in_parts(server, tmp_path, capfd):
    card = find_card("librispeech")
    archives = {item.file: librispeech(item.part, 100 + number) for number, item in enumerate(card.downloads)}
    card = served(server, card, archives, "/12")
    corpus = download(card, tmp_path, base_url=server.url)
    assert corpus == tmp_path / "librispeech" / "LibriSpeech"
    assert names(corpus) == ["SPEAKERS.TXT", "dev-clean", "test-clean", "train-clean-100"]
    server.requests.clear()
    download(card, tmp_path, ["dev-clean", "test-other"], server.url)
    assert [path for path, _, _ in server.requests] == ["/12/test-other.tar.gz"]
    assert (corpus / "test-other").is_dir() and (corpus / "train-clean-100" / "100").is_dir()
    assert "Downloading LibriSpeech parts" not in capfd.readouterr().err, "lhotse's bar would spoil a log"


@pytest.mark.parametrize(
    "name, archive, under",
    [
        ("ravdess", "Audio_Speech_Actors_01-24.zip", ""),
        pytest.param("aishell", "data_aishell.tgz", "/33", marks=needs_tar_filters),
    ],
)
def test_an_archive_with_another_checksum_is_not_unpacked(server, tmp_path, name, archive, under):
    card = served(server, find_card(name), {archive: zipped(ravdess())}, under)
    item = replace(card.downloads[0], md5="0" * 32)
    card = replace(card, downloads=(item, *card.downloads[1:]))
    assert "instead of" in refusal(lambda: download(card, tmp_path, base_url=server.url))
    assert names(tmp_path / name) == ["download.json"]


def test_a_python_that_cannot_unpack_tars_safely_unpacks_none(server, tmp_path, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    data, resource = aishell()
    card = served(server, find_card("aishell"), {"data_aishell.tgz": data, "resource_aishell.tgz": resource}, "/33")
    said = refusal(lambda: download(card, tmp_path, base_url=server.url))
    assert "this Python lets an archive write to any place" in said and "unpack the archives by hand" in said
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".wav"]


@needs_tar_filters
def test_a_tar_that_is_none_is_one_sentence(server, tmp_path):
    card = served(server, find_card("aishell"), {"data_aishell.tgz": b"no archive"}, "/33")
    assert "could not be unpacked" in refusal(lambda: download(card, tmp_path, base_url=server.url))


def test_a_corpus_that_somebody_else_put_there_is_kept(server, tmp_path):
    mine = tmp_path / "aishell" / "aishell" / "data_aishell" / "transcript.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    message = refusal(lambda: download(find_card("aishell"), tmp_path, base_url=server.url))
    assert message.startswith(f"{tmp_path / 'aishell'}: is there already") and mine.read_text() == "mine"
    (tmp_path / "emodb").write_text("a file")
    assert "is there already" in refusal(lambda: download(find_card("emodb"), tmp_path, base_url=server.url))
    assert not server.requests


def test_an_empty_folder_is_used(server, tmp_path):
    (tmp_path / "emodb").mkdir()
    card = served(server, find_card("emodb"), {"download.zip": zipped(emodb())})
    assert (download(card, tmp_path, base_url=server.url) / "wav" / "03a01Wa.wav").is_file()


@pytest.mark.parametrize("name", [name for name, card in read_cards().items() if not card.downloads])
def test_a_corpus_that_cannot_be_downloaded_says_how_it_is_had(tmp_path, name):
    card = find_card(name)
    message = refusal(lambda: download(card, tmp_path))
    assert card.title in message and card.licence in message and card.obtain in message and not list(tmp_path.iterdir())


def test_parts_that_are_not_there_are_named(tmp_path):
    message = refusal(lambda: download(find_card("librispeech"), tmp_path, ["dev-clean", "dev-dirty"]))
    assert message.startswith("--parts dev-dirty: is not a part of LibriSpeech") and "train-other-500" in message
    assert "as a whole" in refusal(lambda: download(find_card("ravdess"), tmp_path, ["song"]))


def test_a_server_needs_an_address(tmp_path):
    assert "--base-url" in refusal(lambda: download(find_card("ravdess"), tmp_path, base_url="/corpora"))
