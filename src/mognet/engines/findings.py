"""What a look at a server finds, whatever the server is."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from typing import Literal, NamedTuple, Protocol

Grade = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    """One thing that was looked at: how it is, and what mends it. Holds no secrets."""

    grade: Grade
    subject: str
    text: str
    remedy: str | None = None
    section: str = ""
    """``broker`` or ``store``, where an engine has both."""


class Schema(NamedTuple):
    """How far a database has been brought, and how far this mognet would bring it. ``found`` 0: it has no schema yet."""

    found: int
    known: int


class Checkup(Protocol):
    """Looks at one server (or file) over connections of its own, beside the engine. Only ``migrate`` changes what is kept there.

    Each call raises :class:`mognet.exceptions.ConnectionError` when the server cannot be reached, and
    :class:`mognet.exceptions.ImproperlyConfigured` when it does not let us in.
    """

    @property
    def title(self) -> str:
        """What it looks at: ``PostgreSQL``."""
        ...

    @property
    def shown(self) -> str:
        """Where that is, fit for logs."""
        ...

    async def examine(self, queues: Collection[str]) -> list[Finding]:
        """All there is to say. ``queues``: those that the app uses."""
        ...

    async def schema(self) -> Schema | None:
        """None: nothing here has a schema that changes."""
        ...

    async def size(self) -> int | None:
        """Bytes that all apps' jobs take there; None: that is not known cheaply."""
        ...

    async def migrate(self, version: int | None = None) -> None:
        """Bring the schema to a version, the newest by default; nothing happens if it has it."""
        ...


def ok(subject: str, text: str) -> Finding:
    """As it should be."""
    return Finding("ok", subject, text)


def warning(subject: str, text: str, remedy: str | None = None) -> Finding:
    """Worth knowing."""
    return Finding("warning", subject, text, remedy)


def error(subject: str, text: str, remedy: str | None = None) -> Finding:
    """Has to be mended."""
    return Finding("error", subject, text, remedy)


# --- what is looked at everywhere

MOST_SKEW = 1.0
"""Seconds that two clocks may differ before it is worth a word."""


def numbers(text: str) -> tuple[int, ...]:
    """``(3, 10, 8)`` from ``3.10.8-rc1``."""
    parts: list[int] = []
    for part in text.split("-", maxsplit=1)[0].split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def server_version(subject: str, text: str, version: str, tested: tuple[int, ...]) -> Finding:
    """The server's version, compared with the oldest that the tests run on."""
    if numbers(version)[: len(tested)] < tested:
        oldest = ".".join(map(str, tested))
        return warning(subject, f"{text}: mognet is tested with {oldest} and newer", "upgrade the server")
    return ok(subject, text)


def client_version(package: str, extra: str, tested: tuple[int, ...]) -> Finding:
    """The client library's version, likewise."""
    remedy = f'pip install --upgrade "mognet[{extra}]"'
    try:
        found = version(package)
    except PackageNotFoundError:
        return warning("client", f"{package} of unknown version", remedy)
    if numbers(found)[: len(tested)] < tested:
        oldest = ".".join(map(str, tested))
        text = f"{package} {found}: mognet is tested with {oldest} and newer"
        return warning("client", text, remedy)
    return ok("client", f"{package} {found}")


def encryption(hosts: Collection[str], *, tls: bool, checked: bool, switch_on: str, check: str) -> Finding:
    """Who may listen on the way to these hosts. ``switch_on`` and ``check`` are what the URL has to say for it."""
    if tls and checked:
        return ok("encryption", "TLS, and the server's certificate is checked")
    if tls:
        return warning("encryption", "TLS, but any certificate is accepted: anybody in between can read and change everything", check)
    for host in hosts:
        if not _is_local(host):
            text = f"none on the way to {host}: whoever can listen there reads passwords, arguments and values"
            return warning("encryption", text, switch_on)
    return ok("encryption", "none, and nothing leaves this machine")


def _is_local(host: str) -> bool:
    if host in ("", "localhost") or host.startswith("/"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def clock(ask: Callable[[], Awaitable[float]]) -> Finding:
    """How far this machine's clock is from the engine's, which decides what is due. ``ask`` answers seconds since 1970."""
    best: tuple[float, float] | None = None
    for _ in range(3):
        before = time.time()
        theirs = await ask()
        after = time.time()
        if best is None or after - before < best[0]:
            best = (after - before, theirs - (before + after) / 2)
    trip, skew = best or (0.0, 0.0)
    if abs(skew) - trip / 2 > MOST_SKEW:
        way = "ahead of" if skew > 0 else "behind"
        text = f"the engine's is {abs(skew):.1f} s {way} this machine's: deadlines and the times shown are off by as much"
        return warning("clock", text, "let both follow a time server: timedatectl set-ntp true")
    return ok("clock", f"{abs(skew) * 1000:.0f} ms from this machine's (± {trip * 500:.0f} ms)")
