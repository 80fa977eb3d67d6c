"""The network of distributed training: lost connections, and this machine's addresses and interfaces."""

import fcntl
import ipaddress
import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from speecheq.common.errors import InputError

# Seconds without an answer after which a machine counts as lost; one that was switched off cannot report it.
LOST_AFTER = 60
# An address reserved for documentation (RFC 5737). A UDP connect to it sends nothing, but shows our own address.
UNUSED_ADDRESS = "192.0.2.1"
SIOCGIFADDR = 0x8915  # ioctl number on Linux: address of an interface


def split_endpoint(rendezvous: str) -> tuple[str, int]:
    """The host and the port of HOST:PORT."""
    host, _, port = rendezvous.rpartition(":")
    return host, int(port)


def is_own_host(host: str) -> bool:
    """Whether a host's name or address is this machine's. Raises InputError if it is unknown."""
    try:
        found = {(family, address) for family, _, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise InputError(
            f"--rendezvous: {host} cannot be resolved on this machine ({error.strerror}); use an address of a node "
            "that all nodes reach."
        ) from error
    for family, address in found:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            try:
                tried.bind(address)
                return True
            except OSError:
                pass
    return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a host name
        return False


def interface_to(host: str) -> str | None:
    """The network interface through which this machine reaches ``host``; None if unknown.

    If ``host`` is this machine, the interface through which it reaches others. Gloo's default is the interface of the
    machine's host name, which is often the loopback.
    """
    for target in (host, UNUSED_ADDRESS):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((target, 9))
            except OSError:
                continue
            address = probe.getsockname()[0]
            if ipaddress.ip_address(address).is_loopback and target == host and not _is_loopback(host):
                continue  # the machine's own name, which others may resolve differently
            for _, name in socket.if_nameindex():
                try:
                    reply = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
                except OSError:  # the interface has no such address
                    continue
                if socket.inet_ntoa(reply[20:24]) == address:
                    return name
    return None


def end_dead_connections() -> None:
    """Set TCP timeouts: the system closes connections whose other side has not answered for LOST_AFTER seconds.

    Neither gloo nor torch's store sets them, and without them no process notices a cut cable.
    """
    for name in os.listdir("/proc/self/fd"):
        try:
            own = os.dup(int(name))
        except OSError:  # closed meanwhile
            continue
        if not stat.S_ISSOCK(os.fstat(own).st_mode):
            os.close(own)
            continue
        with socket.socket(fileno=own) as connection:
            if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in (
                    (socket.TCP_KEEPIDLE, LOST_AFTER // 4),
                    (socket.TCP_KEEPINTVL, LOST_AFTER // 12),
                    (socket.TCP_USER_TIMEOUT, 1000 * LOST_AFTER),
                ):
                    connection.setsockopt(socket.IPPROTO_TCP, option, value)


@contextmanager
def dead_connections_ended() -> Iterator[None]:
    """Inside this context, call ``end_dead_connections`` repeatedly, for connections that are opened later."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOST_AFTER / 12):
            end_dead_connections()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()
