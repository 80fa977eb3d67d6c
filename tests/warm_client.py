"""Has a command run by the server in warm_server.py: python -ISE warm_client.py SOCKET COMMAND [ARGUMENT...]"""

import json
import os
import signal
import socket
import struct
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
request = {"arguments": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ)}
text = json.dumps(request).encode()
for each in SIGNALS:
    signal.signal(each, lambda number, _: connection.sendall(bytes([number])))
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the request is sent
socket.send_fds(connection, [b"!"], [0, 1, 2])
connection.sendall(struct.pack("I", len(text)) + text)
signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
answer = connection.recv(4)
if len(answer) < 4:
    sys.exit("the server of warm commands has ended")
(status,) = struct.unpack("i", answer)
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
