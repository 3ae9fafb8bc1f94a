"""Signals as PostgreSQL carries them: short texts without NUL."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterator

from mognet.engines.postgres.text import from_column, to_column
from mognet.records import Signal

LARGEST = 7900
"""Bytes of one notification; the server's limit is just under 8,000."""


def sealed(signal: Signal) -> Iterator[str]:
    """The notifications that carry a signal: one, or several for a large one."""
    channel = to_column(signal.channel)
    try:
        text = signal.body.decode()
        kind = "b" if "\0" in text else "t"
    except UnicodeDecodeError:
        kind, text = "b", ""
    if kind == "b":
        text = base64.b64encode(signal.body).decode()
    letter = f"{kind}{len(channel)}:{channel}{text}"
    if len(letter.encode()) <= LARGEST:
        yield letter
        return
    packed = base64.b64encode(letter.encode()).decode()
    key, size = secrets.token_hex(6), LARGEST - 40
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    for number, piece in enumerate(pieces):
        yield f"p{key}:{number}:{len(pieces)}:{piece}"


class Opener:
    """Signals from notifications; keeps the pieces of one large signal for each sender until it is whole."""

    def __init__(self) -> None:
        self._pieces: dict[int, tuple[str, list[str]]] = {}

    def open(self, letter: str, sender: int) -> Signal | None:
        """The signal that is complete with this notification. What cannot be read is none: it may come from anybody."""
        try:
            if letter.startswith("p"):
                return self._piece(letter, sender)
            return _unpacked(letter)
        except (ValueError, IndexError, binascii.Error):
            return None

    def _piece(self, letter: str, sender: int) -> Signal | None:
        key, number, count, text = letter[1:].split(":", 3)
        pieces = self._pieces.pop(sender, (key, []))[1] if int(number) else []
        if len(pieces) != int(number):
            return None
        pieces.append(text)
        if len(pieces) < int(count):
            self._pieces[sender] = (key, pieces)
            return None
        return _unpacked(base64.b64decode("".join(pieces)).decode())


def _unpacked(letter: str) -> Signal:
    length, _, rest = letter[1:].partition(":")
    channel, text = rest[: int(length)], rest[int(length) :]
    return Signal(from_column(channel), base64.b64decode(text) if letter[0] == "b" else text.encode())
