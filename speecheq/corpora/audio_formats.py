"""What a file that libsndfile cannot read seems to be, and what to do about it."""

import shlex
from pathlib import Path

from speecheq.common.errors import InputError

# Suffixes of audio that libsndfile reads, and of audio and video that it does not read.
AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf", ".sph", ".w64", ".rf64")
OTHER_AUDIO = (
    *(".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".aac", ".webm", ".mkv", ".mka", ".amr", ".awb", ".wma"),
    *(".wmv", ".asf", ".avi", ".flv", ".mpg", ".mpeg", ".ac3", ".ape", ".wv", ".tta", ".dts", ".spx", ".rm", ".ra"),
)
RAW_SAMPLES = (".raw", ".pcm")
# (place, bytes there, format).
SIGNATURES = (
    (4, b"ftyp", "MPEG-4 (m4a, mp4, 3gp)"),
    (4, b"moov", "QuickTime"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (0, b"#!AMR", "AMR"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (wma, wmv)"),
    (8, b"AVI ", "AVI"),
    (0, b"FLV", "Flash video"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvpk", "WavPack"),
    (8, b"WAVE", "WAV with a rare codec"),
)
MACOS_ATTRIBUTES = b"\0\5\x16\7"  # of ._name files (AppleDouble)
ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")
LOOKED_AT = 4096
WAV_HEADER = 44  # bytes, at least


class OtherFormatError(InputError):
    """The file is audio or video in a format that libsndfile does not read."""


def unreadable(path: Path, reason: object) -> InputError:
    """The error to raise for a file that libsndfile cannot read; ``reason`` is what libsndfile says."""
    with open(path, "rb") as stream:
        start = stream.read(LOOKED_AT)
    suffix = path.suffix.lower()
    kind = _other_format(start)
    if start.startswith(MACOS_ATTRIBUTES):
        return InputError(f"{path}: is a leftover of macOS, which has the name of a recording but no sound; remove it.")
    if kind is None and _is_text(start):
        seems = "a web page" if start.lstrip()[:1] == b"<" else "text"
        return InputError(f"{path}: is not audio that can be read, it seems to be {seems}; copy it again.")
    if start.startswith(ARCHIVES):
        return InputError(f"{path}: is not audio that can be read, it seems to be an archive; unpack it.")
    if kind is None and suffix in OTHER_AUDIO:
        kind = f"a {suffix[1:]} file"
    if kind is not None:
        wav = shlex.quote(str(path.with_name(f"{path.stem}.converted.wav" if suffix == ".wav" else f"{path.stem}.wav")))
        return OtherFormatError(
            f"{path}: is {kind}, which libsndfile does not read; convert it with ffmpeg -i {shlex.quote(str(path))} "
            f"{wav}, or install the extra av (pip install av), with which it is read as it is."
        )
    if suffix in RAW_SAMPLES:
        return InputError(
            f"{path}: seems to be samples without a header; add one, for 16 bits at 16 kHz with ffmpeg -f s16le -ar "
            f"16000 -ac 1 -i {shlex.quote(str(path))} {shlex.quote(str(path.with_suffix('.wav')))}."
        )
    return InputError(f"{path}: is not audio that can be read ({reason}); copy it again.")


def _other_format(start: bytes) -> str | None:
    if start[8:12] == b"WAVE" and len(start) < WAV_HEADER:
        return None  # cut off
    for place, signature, name in SIGNATURES:
        if start[place : place + len(signature)] == signature:
            return name
    # 12 bits of ones, then the layer, which is 0 for AAC
    if len(start) > 1 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0:
        return "AAC"
    return None


def _is_text(start: bytes) -> bool:
    """Whether the first bytes of a file are UTF-8 without control characters."""
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if len(start) < LOOKED_AT or error.start < len(start) - 3:  # else a character is cut off
            return False
        text = start[: error.start].decode()
    return bool(text) and all(char.isprintable() or char.isspace() for char in text)
