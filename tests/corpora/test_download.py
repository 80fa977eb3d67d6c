"""Downloads against a file server on the loopback interface that can fail in every way that a server can."""

import hashlib
import io
import shutil
import socket
import struct
import tarfile
import threading
import wave
import zipfile
from collections import namedtuple
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from speecheq.common.errors import InputError
from speecheq.corpora import download as module
from speecheq.corpora.data_card import Download, find_card, read_cards
from speecheq.corpora.download import download, fetch, unpack_zip

BODY = bytes(range(256)) * 400
NAME = "data.bin"


class Server(ThreadingHTTPServer):
    """Serves ``files`` (path -> bytes). ``faults`` are used up one a request, first one first.

    ``cut``: after how many bytes of an answer the connection is closed; ``status``: an answer without a file.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests = {}, [], []
        self.ranges, self.lengths, self.etag, self.modified = True, True, '"1"', None
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is part of the tests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        fault = server.faults.pop(0) if server.faults else {}
        if "reset" in fault:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        body = server.files.get(self.path)
        if "status" in fault or body is None:
            self.send_response(fault.get("status", 404))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, asked, version = 0, self.headers.get("Range"), self.headers.get("If-Range")
        resumes = asked and server.ranges and version in (None, server.etag, server.modified)
        if resumes:
            start = int(asked[len("bytes=") : -1])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start += fault.get("shift", 0)
        self.send_response(206 if resumes else 200)
        if resumes:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        for name, value in (("ETag", server.etag), ("Last-Modified", server.modified)):
            if value:
                self.send_header(name, value)
        if server.lengths:
            self.send_header("Content-Length", str(len(body) - start))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body[start : start + fault["cut"]] if "cut" in fault else body[start:])
        self.close_connection = self.close_connection or "cut" in fault or not server.lengths


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "WAIT", 0.0)
    monkeypatch.setattr(module, "TIMEOUT", 300.0)
    made = Server()
    made.files[f"/{NAME}"] = BODY
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def known(body=BODY, **changes):
    """What a card says of an archive with this content."""
    return replace(Download("", bytes=len(body), md5=hashlib.md5(body).hexdigest()), **changes)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refusal(action):
    with pytest.raises(InputError) as caught:
        action()
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    return str(caught.value)


# ---- one file


def test_a_file_is_fetched_once(server, tmp_path):
    path = tmp_path / "deep" / NAME
    sha256 = hashlib.sha256(BODY).hexdigest()
    for _ in range(2):
        fetch(f"{server.url}/{NAME}", path, known(sha256=sha256))
        assert path.read_bytes() == BODY and names(path.parent) == [NAME]
    assert server.requests == [(f"/{NAME}", None, None)]


def test_an_empty_file_is_fetched(server, tmp_path):
    server.files[f"/{NAME}"] = b""
    fetch(f"{server.url}/{NAME}", tmp_path / NAME, known(b""))
    assert (tmp_path / NAME).read_bytes() == b""


@pytest.mark.parametrize("fault", [{"cut": 1000}, {"cut": 0}, {"reset": True}, {"status": 503}, {"status": 429}])
def test_a_broken_transfer_goes_on(server, tmp_path, fault):
    server.faults = [fault, fault]
    fetch(f"{server.url}/{NAME}", tmp_path / NAME, known())
    assert (tmp_path / NAME).read_bytes() == BODY and len(server.requests) == 3
    if fault == {"cut": 1000}:
        assert [asked for _, asked, _ in server.requests] == [None, "bytes=1000-", "bytes=2000-"]


def test_a_slow_connection_that_makes_progress_is_never_given_up(server, tmp_path):
    server.faults = [{"cut": 5000}] * (3 * module.TRIES)
    fetch(f"{server.url}/{NAME}", tmp_path / NAME, known())
    assert (tmp_path / NAME).read_bytes() == BODY


def test_what_an_earlier_run_left_is_resumed(server, tmp_path):
    server.faults = [{"cut": 7000}] + [{"reset": True}] * module.TRIES
    message = refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME, known()))
    assert "goes on where it stopped" in message and message.startswith(f"{server.url}/{NAME}: could not be downloaded")
    assert (tmp_path / f"{NAME}.part").read_bytes() == BODY[:7000] and not (tmp_path / NAME).exists()
    fetch(f"{server.url}/{NAME}", tmp_path / NAME, known())
    assert server.requests[-1][1] == "bytes=7000-" and (tmp_path / NAME).read_bytes() == BODY
    assert names(tmp_path) == [NAME]


def test_a_whole_part_needs_no_server(tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(BODY)
    fetch("http://127.0.0.1:9/nobody", tmp_path / NAME, known())
    assert names(tmp_path) == [NAME]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges, server.faults = False, [{"cut": 9000}]
    fetch(f"{server.url}/{NAME}", tmp_path / NAME, known())
    assert (tmp_path / NAME).read_bytes() == BODY


def test_a_server_without_ranges_that_always_breaks_is_given_up(server, tmp_path):
    server.ranges, server.faults = False, [{"cut": 9000}] * 100
    message = refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME, known()))
    assert "ended after 9000 of 102400 bytes" in message
    assert len(server.requests) == 1 + module.TRIES


def test_a_server_that_goes_on_elsewhere_starts_again(server, tmp_path):
    server.faults = [{"cut": 1000}, {"shift": 5}]
    fetch(f"{server.url}/{NAME}", tmp_path / NAME, known())
    assert (tmp_path / NAME).read_bytes() == BODY and [asked for _, asked, _ in server.requests][2] is None


@pytest.mark.parametrize("etag, modified", [('"1"', None), (None, "Mon, 01 Jan 2024 00:00:00 GMT"), ('W/"1"', None)])
def test_two_versions_of_a_file_are_never_joined(server, tmp_path, etag, modified):
    """Nothing is known of the file, as of EMODB's: the server's name of the version decides."""
    server.etag, server.modified = etag, modified
    server.faults = [{"cut": 1000}] + [{"reset": True}] * module.TRIES
    refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME))
    fetched = len(server.requests)
    if etag == '"1"':
        server.etag = '"2"'
    elif modified:
        server.modified = "Tue, 02 Jan 2024 00:00:00 GMT"
    server.files[f"/{NAME}"] = new = BODY[::-1]
    fetch(f"{server.url}/{NAME}", tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == new and names(tmp_path) == [NAME]
    asked = {"bytes=1000-"} if etag == '"1"' or modified else {None}
    assert {request[1] for request in server.requests[fetched:]} == asked


def test_one_version_of_an_unknown_file_is_resumed(server, tmp_path):
    server.faults = [{"cut": 1000}]
    fetch(f"{server.url}/{NAME}", tmp_path / NAME)
    assert server.requests[1] == (f"/{NAME}", "bytes=1000-", '"1"') and (tmp_path / NAME).read_bytes() == BODY


def test_a_whole_part_of_an_unknown_file_is_asked_for_its_end(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(BODY)
    (tmp_path / f"{NAME}.part.tag").write_text('"1"')
    fetch(f"{server.url}/{NAME}", tmp_path / NAME)
    assert server.requests == [(f"/{NAME}", f"bytes={len(BODY)}-", '"1"')] and names(tmp_path) == [NAME]


def test_a_part_that_is_too_long_starts_again(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(BODY + b"more")
    fetch(f"{server.url}/{NAME}", tmp_path / NAME, known())
    assert (tmp_path / NAME).read_bytes() == BODY and len(server.requests) == 2


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_file_that_is_not_there_is_named_at_once(server, tmp_path, status):
    server.faults = [{"status": status}]
    message = refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME, known()))
    assert message.startswith(f"{server.url}/{NAME}: the server answers {status}") and str(tmp_path / NAME) in message
    assert len(server.requests) == 1 and names(tmp_path) == []


def test_a_refused_connection_is_one_sentence(server, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        message = refusal(lambda: fetch(f"http://127.0.0.1:{port}/{NAME}", tmp_path / NAME, known()))
    assert "refused" in message and "connection" in message


@pytest.mark.parametrize("name, wrong", [("md5", "0" * 32), ("sha256", "0" * 64)])
def test_a_wrong_checksum_removes_the_file(server, tmp_path, name, wrong):
    message = refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME, known(**{name: wrong})))
    assert f"instead of {wrong}" in message and "was removed" in message and names(tmp_path) == []


def test_a_damaged_part_is_found_by_the_checksum_and_fetched_anew(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 1000)
    assert "was removed" in refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME, known()))
    fetch(f"{server.url}/{NAME}", tmp_path / NAME, known())
    assert (tmp_path / NAME).read_bytes() == BODY


def test_a_file_of_another_size_is_refused_before_it_is_fetched(server, tmp_path):
    message = refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME, known(bytes=5)))
    assert f"has {len(BODY)} bytes, but the published file has 5; look whether" in message
    assert not list(tmp_path.glob(f"{NAME}*"))


def test_a_truncated_file_without_a_length_is_found_by_its_size(server, tmp_path):
    server.lengths, server.faults = False, [{"cut": 1000}]
    assert "has 1000 bytes" in refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME, known()))
    fetch(f"{server.url}/{NAME}", tmp_path / NAME, known())
    assert (tmp_path / NAME).read_bytes() == BODY


def test_a_file_that_lies_there_and_differs_is_kept(server, tmp_path):
    (tmp_path / NAME).write_bytes(b"mine")
    message = refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME, known()))
    assert "remove it" in message and (tmp_path / NAME).read_bytes() == b"mine" and not server.requests


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_one_sentence(server, tmp_path):
    (tmp_path / f"{NAME}.part").symlink_to("/dev/full")
    message = refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME, known()))
    assert "no space left" in message and "free some space" in message and len(server.requests) == 1


def test_a_disk_without_room_is_named_before_the_transfer(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, 5))
    assert "make room" in refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME, known()))


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
    "name, archive, under", [("ravdess", "Audio_Speech_Actors_01-24.zip", ""), ("aishell", "data_aishell.tgz", "/33")]
)
def test_an_archive_with_another_checksum_is_not_unpacked(server, tmp_path, name, archive, under):
    card = served(server, find_card(name), {archive: zipped(ravdess())}, under)
    item = replace(card.downloads[0], md5="0" * 32)
    card = replace(card, downloads=(item, *card.downloads[1:]))
    assert "instead of" in refusal(lambda: download(card, tmp_path, base_url=server.url))
    assert names(tmp_path / name) == ["download.json"]


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


def test_a_fault_of_the_disk_is_no_broken_connection(server, tmp_path):
    (tmp_path / f"{NAME}.part.tag").mkdir()
    with pytest.raises(IsADirectoryError):
        fetch(f"{server.url}/{NAME}", tmp_path / NAME, known())
    assert len(server.requests) <= 1
