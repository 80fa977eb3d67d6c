"""A file server on the loopback interface that can fail in every way that a server can."""

import hashlib
import socket
import struct
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from speecheq.common import http_transfer
from speecheq.common.errors import InputError
from speecheq.common.http_transfer import PublishedFile

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


def serving(monkeypatch):
    """A running Server of BODY as NAME; transfers from it wait for nothing."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(http_transfer, "WAIT", 0.0)
    monkeypatch.setattr(http_transfer, "TIMEOUT", 300.0)
    made = Server()
    made.files[f"/{NAME}"] = BODY
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def known(body=BODY, **changes):
    """What is known of a file with this content."""
    return replace(PublishedFile(bytes=len(body), md5=hashlib.md5(body).hexdigest()), **changes)


def refusal(action):
    with pytest.raises(InputError) as caught:
        action()
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    return str(caught.value)
