"""Transfers of one file, resumed, retried and checked."""

import hashlib
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest
from file_server import BODY, NAME, known, refusal, serving

from speecheq.common import http_transfer
from speecheq.common.http_transfer import fetch


@pytest.fixture
def server(monkeypatch):
    yield from serving(monkeypatch)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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
    server.faults = [{"cut": 5000}] * (3 * http_transfer.TRIES)
    fetch(f"{server.url}/{NAME}", tmp_path / NAME, known())
    assert (tmp_path / NAME).read_bytes() == BODY


def test_what_an_earlier_run_left_is_resumed(server, tmp_path):
    server.faults = [{"cut": 7000}] + [{"reset": True}] * http_transfer.TRIES
    message = refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME, known()))
    assert "resumes the download" in message and message.startswith(f"{server.url}/{NAME}: could not be downloaded")
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
    assert len(server.requests) == 1 + http_transfer.TRIES


def test_a_server_that_goes_on_elsewhere_starts_again(server, tmp_path):
    server.faults = [{"cut": 1000}, {"shift": 5}]
    fetch(f"{server.url}/{NAME}", tmp_path / NAME, known())
    assert (tmp_path / NAME).read_bytes() == BODY and [asked for _, asked, _ in server.requests][2] is None


@pytest.mark.parametrize("etag, modified", [('"1"', None), (None, "Mon, 01 Jan 2024 00:00:00 GMT"), ('W/"1"', None)])
def test_two_versions_of_a_file_are_never_joined(server, tmp_path, etag, modified):
    """Nothing is known of the file, as of EMODB's: the server's name of the version decides."""
    server.etag, server.modified = etag, modified
    server.faults = [{"cut": 1000}] + [{"reset": True}] * http_transfer.TRIES
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
    assert f"has {len(BODY)} bytes, but the published file has 5; check whether" in message
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
    assert "free some space" in refusal(lambda: fetch(f"{server.url}/{NAME}", tmp_path / NAME, known()))


def test_a_fault_of_the_disk_is_no_broken_connection(server, tmp_path):
    (tmp_path / f"{NAME}.part.tag").mkdir()
    with pytest.raises(IsADirectoryError):
        fetch(f"{server.url}/{NAME}", tmp_path / NAME, known())
    assert len(server.requests) <= 1
