"""Telling other processes on this machine: datagrams between Unix sockets in a folder beside the file.

Each channel has a folder, and each process that listens on it a socket there. So a sender finds its listeners by one look at a
folder, and nothing at all if nobody listens. Signals are hints: what a receiver does not take in time is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
import socket
import struct
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context
from pathlib import Path

LONGEST_PATH = 100
"""Bytes of a socket's path that every system accepts."""

LARGEST = 16 * 1024
"""Bytes of a datagram that carries several signals. Listeners queue about ten, and the kernel some 200 kB for each sender."""

LARGEST_ALONE = 160 * 1024
"""Bytes of the largest signal that is sent at all."""

KEPT = 1024 * 1024
"""Bytes kept for a listener whose queue is full."""

TRY_AGAIN = 0.003
"""Seconds until what was kept is sent again."""

GIVE_UP = 2.0
"""Seconds after which what a listener does not take is dropped."""

SETTLED = 50_000_000
"""Nanoseconds after which a folder's time of change is sure to differ from that of a later change."""

MOST_ROOMS = 500
"""Channels whose listeners are remembered."""

_LENGTH = struct.Struct("!I")

_GONE = {errno.ECONNREFUSED, errno.ENOENT, errno.ENOTCONN, errno.ECONNRESET}

Deliver = Callable[[bytes], None]


def folder_beside(path: Path) -> Path:
    """Where the sockets of a database are: beside it, or under the temporary folder where paths are too short."""
    beside = path.with_name(path.name + "-bells")
    if os.path.isdir("/proc/self/fd") or len(os.fsencode(beside)) + 50 < LONGEST_PATH:
        return beside
    digest = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"mognet-{digest}"


class Room:
    """The folder of one channel, and what leads to those who listen there."""

    def __init__(self, path: Path, own: str) -> None:
        self.path, self._own = path, own
        self._path = str(path)
        self.mouths: dict[str, Mouth] = {}
        self._changed = -1
        self._names: list[str] = []

    def listeners(self) -> list[str]:
        """The sockets of others."""
        if self._changed == -1 and not os.access(self._path, os.F_OK):  # quicker than the error it would be
            self._names = []
        else:
            self._look()
        if len(self.mouths) > len(self._names):
            for name in self.mouths.keys() - set(self._names):
                self.forget(name)
        return self._names

    def _look(self) -> None:
        try:
            changed = os.stat(self.path).st_mtime_ns
            if changed != self._changed:
                looked = time.time_ns()
                self._names = [name for name in os.listdir(self.path) if name != self._own]
                # Folders keep time in ticks: another change in this tick would go unseen.
                self._changed = changed if looked - changed > SETTLED else -1
        except OSError:
            self._names, self._changed = [], -1

    def send(self, datagrams: Sequence[bytes], *, keep: bool) -> bool:
        """Send to all listeners; answer whether something was kept for later."""
        kept = False
        for name in list(self.listeners()):
            try:
                mouth = self.mouths.get(name)
                if mouth is None:
                    mouth = self.mouths[name] = Mouth(self, name)
                mouth.send(datagrams, keep=keep)
                kept |= bool(mouth.kept)
            except OSError as error:
                self.forget(name)
                if error.errno == errno.ECONNREFUSED:  # its process was killed
                    with contextlib.suppress(OSError):
                        os.unlink(self.path / name)
        return kept

    def flush(self) -> bool:
        """Send what was kept; answer whether something still is."""
        for name, mouth in list(self.mouths.items()):
            try:
                mouth.flush()
            except OSError:
                self.forget(name)
        return any(mouth.kept for mouth in self.mouths.values())

    def tidy(self) -> None:
        """Remove the sockets of processes that were killed."""
        for name in list(self.listeners()):
            try:
                Mouth(self, name).socket.close()
            except ConnectionRefusedError:
                with contextlib.suppress(OSError):
                    os.unlink(self.path / name)
            except OSError:
                continue
        with contextlib.suppress(OSError):
            os.rmdir(self.path)

    def forget(self, name: str) -> None:
        """Close the way to a listener."""
        mouth = self.mouths.pop(name, None)
        if mouth is not None:
            mouth.socket.close()

    def close(self) -> None:
        """Forget all listeners."""
        for name in list(self.mouths):
            self.forget(name)

    @contextlib.contextmanager
    def address(self, name: str) -> Iterator[str]:
        """Inside the context, a path to a socket that is short enough."""
        whole = str(self.path / name)
        if len(os.fsencode(whole)) < LONGEST_PATH:
            yield whole
            return
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/{name}"
        finally:
            os.close(folder)


class Ear:
    """A socket on which signals of one channel arrive."""

    def __init__(self, room: Room, name: str) -> None:
        self._room, self._name = room, name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0))
        self.socket.setblocking(False)
        try:
            self._bind()
        except BaseException:
            self.socket.close()
            raise

    def _bind(self) -> None:
        for _ in range(10):
            self._room.path.parent.mkdir(mode=0o700, exist_ok=True)
            if self._room.path.parent.stat().st_uid != os.getuid():
                raise PermissionError(errno.EPERM, "the folder of the sockets belongs to somebody else", str(self._room.path.parent))
            try:
                self._room.path.mkdir(mode=0o700, exist_ok=True)
                with self._room.address(self._name) as address:
                    self.socket.bind(address)
                return
            except FileNotFoundError:  # the last listener has just left, and taken the folder away
                continue
        raise OSError(errno.EAGAIN, "the folder of a channel comes and goes", str(self._room.path))

    def hear(self) -> Iterator[bytes]:
        """The signals that have arrived."""
        while True:
            try:
                data = self.socket.recv(2 * LARGEST_ALONE)
            except OSError:
                return
            start = 0
            while start + _LENGTH.size <= len(data):
                (length,) = _LENGTH.unpack_from(data, start)
                start += _LENGTH.size
                yield data[start : start + length]
                start += length

    def close(self) -> None:
        """Leave the channel, and take its folder away if nobody else listens."""
        self.socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self._room.path / self._name)
            os.rmdir(self._room.path)
            os.rmdir(self._room.path.parent)


class Mouth:
    """Sends to one listener. Each listener has its own socket here, so that one who does not listen holds up no other."""

    def __init__(self, room: Room, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0))
        self.socket.setblocking(False)
        try:
            with room.address(name) as address:
                self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise
        self.kept: deque[bytes] = deque()
        self._size = 0
        self._since = 0.0

    def send(self, datagrams: Sequence[bytes], *, keep: bool) -> None:
        """Send, or keep for later what does not go through. Raises OSError if the listener is gone."""
        for number, datagram in enumerate(datagrams):
            if self.kept or not self._send(datagram):
                if keep:
                    self._keep(datagrams[number:])
                return

    def flush(self) -> None:
        """Send what was kept, or drop it if that has not gone through for long."""
        while self.kept and self._send(self.kept[0]):
            self._size -= len(self.kept.popleft())
            self._since = time.monotonic()
        if self.kept and time.monotonic() - self._since > GIVE_UP:
            self.kept.clear()
            self._size = 0

    def _keep(self, datagrams: Sequence[bytes]) -> None:
        if not self.kept:
            self._since = time.monotonic()
        for datagram in datagrams:
            if self._size + len(datagram) <= KEPT:
                self.kept.append(datagram)
                self._size += len(datagram)

    def _send(self, datagram: bytes) -> bool:
        try:
            self.socket.send(datagram)
        except OSError as error:
            if error.errno in _GONE:
                raise
            return error.errno == errno.EMSGSIZE  # never fits: as good as sent
        return True


class Doorbell:
    """All the ears and mouths of one engine. Listening belongs to its event loop, sending to any thread."""

    def __init__(self, folder: Path | None, app: str) -> None:
        """``folder=None``: do without sockets."""
        self._folder, self._app = folder or Path(os.devnull), app
        self._loop = asyncio.get_running_loop()
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._rooms: dict[str, Room] = {}
        self._ears: dict[str, Ear] = {}
        self._flushing = False

    # listening

    def listen(self, channel: str, deliver: Deliver) -> bool:
        """From now on, deliver what others send on this channel. False: sockets do not work here."""
        try:
            ear = Ear(self._room(channel), self._name)
        except (OSError, AttributeError):
            return False

        self._ears[channel] = ear
        try:
            self.attend(channel, deliver)
        except NotImplementedError:  # an event loop that cannot watch sockets
            del self._ears[channel]
            ear.close()
            return False
        return True

    def attend(self, channel: str, deliver: Deliver) -> None:
        """Deliver again on a channel that was disregarded."""
        ear = self._ears[channel]

        def arrived() -> None:
            for body in ear.hear():
                deliver(body)

        self._loop.add_reader(ear.socket, arrived)

    def disregard(self, channel: str) -> None:
        """Let the signals of a channel wait, and its queue fill up: that costs nothing."""
        self._loop.remove_reader(self._ears[channel].socket)

    def drain(self, channel: str) -> None:
        """Drop what has arrived."""
        for _ in self._ears[channel].hear():
            pass

    def stop_listening(self, channel: str) -> None:
        """Leave a channel."""
        ear = self._ears.pop(channel, None)
        if ear is not None:
            self._loop.remove_reader(ear.socket)
            ear.close()

    # sending

    def heard(self, channel: str) -> bool:
        """Whether anybody else listens on this channel."""
        with self._lock:
            return bool(self._room(channel).listeners())

    def send(self, channel: str, bodies: Sequence[bytes], *, keep: bool = True) -> None:
        """Send signals to all others who listen. ``keep``: try again for a while if somebody's queue is full."""
        with self._lock:
            room = self._room(channel)
            kept = bool(room.listeners()) and room.send(list(_pack(bodies)), keep=keep)
        if kept and not self._flushing:
            self._flushing = True
            with contextlib.suppress(RuntimeError):  # the loop was closed before the engine
                self._loop.call_soon_threadsafe(self._flush_later, context=Context())

    def _flush_later(self) -> None:
        self._loop.call_later(TRY_AGAIN, self._flush)

    def _flush(self) -> None:
        with self._lock:
            self._flushing = any([room.flush() for room in self._rooms.values()])
        if self._flushing:
            self._flush_later()

    # upkeep

    def tidy(self) -> None:
        """Remove what killed processes left."""
        with self._lock, contextlib.suppress(OSError):
            for folder in os.scandir(self._folder):
                Room(Path(folder.path), self._name).tidy()
            os.rmdir(self._folder)

    def close(self) -> None:
        """Stop listening and sending."""
        for channel in list(self._ears):
            self.stop_listening(channel)
        with self._lock:
            self._forget_rooms()

    def _forget_rooms(self) -> None:
        for room in self._rooms.values():
            room.close()
        self._rooms.clear()

    def _room(self, channel: str) -> Room:
        room = self._rooms.get(channel)
        if room is None:
            if len(self._rooms) > MOST_ROOMS:
                self._forget_rooms()
            digest = hashlib.blake2b(f"{self._app}\0{channel}".encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
            room = self._rooms[channel] = Room(self._folder / digest, self._name)
        return room


def _pack(bodies: Sequence[bytes]) -> Iterator[bytes]:
    """Put signals together into datagrams."""
    parts: list[bytes] = []
    size = 0
    for body in bodies:
        if len(body) > LARGEST_ALONE:
            continue
        if parts and size + len(body) > LARGEST:
            yield b"".join(parts)
            parts, size = [], 0
        parts += (_LENGTH.pack(len(body)), body)
        size += len(body) + _LENGTH.size
    if parts:
        yield b"".join(parts)
