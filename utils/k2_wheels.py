#!/usr/bin/env python3
"""Choose a wheel of k2, and the torch that it was built for, from one of k2's own pages or from a folder.

    utils/k2_wheels.py SOURCE PAIRS BUILD DIR

SOURCE is a page with links to wheels (https://k2-fsa.github.io/k2/cpu.html and cuda.html) or a folder of wheels, PAIRS
is utils/requirements/k2-pairs.tsv, BUILD is cpu or cuda. The newest pair of PAIRS that has a wheel for this Python and
platform is taken; its wheel is brought to DIR and checked to be whole. Prints torch's version, the wheel's path and its
SHA-256, or ends with status 1 and one line that says why there is none.

It runs with the standard library alone, on the Python that the environment is built on.
"""

import hashlib
import platform
import re
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from html.parser import HTMLParser
from pathlib import Path

# Seconds to wait for the page, which may not be reachable, and for each part of a wheel.
PAGE_TIMEOUT, WHEEL_TIMEOUT = 5, 30
# k2-1.24.4.dev20251029+cpu.torch2.9.0-cp312-cp312-manylinux_2_28_x86_64.whl; cuda12.8 in place of cpu
WHEEL = re.compile(
    r"k2-(?P<version>[0-9.]+(?:dev[0-9]+)?)\+(?P<build>cpu|cuda)(?P<cuda>[0-9.]*?)\.?torch(?P<torch>[0-9.]+)"
    r"-(?P<python>cp[0-9]+)-(?P<abi>\w+)-(?P<platform>[\w.]+)\.whl"
)


class NoWheel(Exception):
    """There is no wheel; the text says why."""


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        if tag == "a":
            self.found += [value for name, value in attributes if name == "href" and value]


def list_wheels(source):
    """(file name, path or address) of all that SOURCE holds; addresses keep their fragment, such as #sha256=..."""
    if not re.match(r"https?://", source):
        folder = Path(source)
        if not folder.is_dir():
            raise NoWheel(f"{source} is neither a folder nor an address")
        return [(path.name, str(path)) for path in sorted(folder.glob("*.whl"))]
    try:
        with urllib.request.urlopen(source, timeout=PAGE_TIMEOUT) as answer:
            base, text = answer.geturl(), answer.read().decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise NoWheel(f"{source} cannot be reached ({getattr(error, 'reason', error)})") from error
    links = _Links()
    links.feed(text)
    addresses = [urllib.parse.urljoin(base, link) for link in links.found]
    return [(file_name(address), address) for address in addresses]


def file_name(address):
    return urllib.parse.unquote(urllib.parse.urlsplit(address).path).split("/")[-1]


def read_pairs(path, build):
    """(torch, least k2) of a build, the preferred one first."""
    rows = [line.split() for line in Path(path).read_text().splitlines() if line and not line.startswith("#")]
    return [(torch, least) for name, torch, least in rows if name == build]


def as_numbers(version):
    """A version in a form that can be compared: 1.24.4.dev20251029 is newer than 1.24.4.dev20250807."""
    return [int(number) for number in re.findall(r"\d+", version)]


def fits(match, build, python):
    """Whether a wheel is for this build, this Python and this platform."""
    machine, system = platform.machine(), platform.system()
    tags = {"Linux": ("linux_" + machine, "manylinux"), "Darwin": ("macosx",), "Windows": ("win",)}.get(system, ())
    return (
        match["build"] == build
        and match["python"] == python
        and any(tag in match["platform"] for tag in tags)
        and (machine in match["platform"] or "universal2" in match["platform"])
    )


def choose(wheels, pairs, build, python):
    """(torch, address) of the first pair that has a wheel, and of its wheels the newest."""
    matches = [(match, address) for name, address in wheels for match in [WHEEL.fullmatch(name)] if match]
    if not matches:
        raise NoWheel("it lists no wheel of k2")
    matches = [(match, address) for match, address in matches if fits(match, build, python)]
    if not matches:
        raise NoWheel(f"it has no {build} wheel for Python {python} on {platform.system()} {platform.machine()}")
    for torch, least in pairs:
        own = [
            (as_numbers(match["version"]), as_numbers(match["cuda"]), address)
            for match, address in matches
            if match["torch"] == torch and as_numbers(match["version"]) >= as_numbers(least)
        ]
        if own:
            return torch, max(own)[2]
    built_for = ", ".join(sorted({match["torch"] for match, _ in matches}, key=as_numbers))
    raise NoWheel(
        f"its wheels are for torch {built_for}, and the code supports {', '.join(torch for torch, _ in pairs)}"
    )


def fetch(address, folder):
    """Bring a wheel to ``folder``; returns its path and SHA-256. Raises NoWheel for one that is not whole."""
    parts = urllib.parse.urlsplit(address)
    is_address = parts.scheme in ("http", "https")
    target = Path(folder) / (file_name(address) if is_address else Path(address).name)
    try:
        if is_address:
            with urllib.request.urlopen(address, timeout=WHEEL_TIMEOUT) as answer, open(target, "wb") as file:
                shutil.copyfileobj(answer, file)
                expected = answer.headers.get("Content-Length")
            if expected is not None and target.stat().st_size != int(expected):
                raise NoWheel(f"{target.name} is truncated")
        else:
            shutil.copyfile(address, target)
        with zipfile.ZipFile(target) as wheel:
            if wheel.testzip() is not None:
                raise NoWheel(f"{target.name} is damaged")
    except zipfile.BadZipFile as error:
        raise NoWheel(f"{target.name} is truncated or no wheel") from error
    except (OSError, ValueError) as error:
        raise NoWheel(f"{target.name} cannot be fetched ({getattr(error, 'reason', error)})") from error
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    promised = urllib.parse.parse_qs(parts.fragment).get("sha256")
    if promised and promised != [digest]:
        raise NoWheel(f"{target.name} has another SHA-256 than the page says")
    return target, digest


def main(source, pairs, build, folder):
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    try:
        torch, address = choose(list_wheels(source), read_pairs(pairs, build), build, python)
        path, digest = fetch(address, folder)
    except NoWheel as error:
        print(" ".join(str(error).split()))
        return 1
    print(torch, path, digest, sep="\t")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
