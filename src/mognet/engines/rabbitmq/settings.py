"""What a URL says of a RabbitMQ, and how its queues are called and made. Knows no client library."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from mognet.engines.tls import INSECURE, Tls
from mognet.exceptions import ImproperlyConfigured
from mognet.redaction import redact_url

QueueType = Literal["classic", "quorum"]

PORTS = {"amqp": 5672, "amqps": 5671}
MAX_PRIORITY = 10
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:@,/+ ")
LONGEST_NAME = 255
"""Bytes of a queue's name that AMQP can write."""

_TLS = ("cafile", "certfile", "keyfile", INSECURE)
_OPTIONS = ("queue_type", "order", "heartbeat", *_TLS)
_YES_NO = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class Address(NamedTuple):
    """One node, and who we are there."""

    host: str
    port: int
    user: str
    password: str
    vhost: str
    tls: bool

    @property
    def shown(self) -> str:
        """For logs."""
        return f"{self.host}:{self.port}{'' if self.vhost == '/' else f' vhost {self.vhost}'}"

    @property
    def url(self) -> str:
        """As the client library reads it; with the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"{'amqps' if self.tls else 'amqp'}://{login}@{host}:{self.port}/{quote(self.vhost, safe='')}"


@dataclass(frozen=True)
class Settings:
    """The nodes of one broker, and how it is used."""

    addresses: tuple[Address, ...]
    queue_type: QueueType = "classic"
    exact_order: bool = False
    heartbeat: int = 10
    tls: Tls = field(default_factory=Tls)


def read_urls(urls: str | Sequence[str]) -> Settings:
    """The settings in a URL, or in those of the nodes of a cluster; options stand in any of them. Raises ImproperlyConfigured."""
    each = [url.strip() for url in ([urls] if isinstance(urls, str) else urls) if url.strip()]
    if not each:
        raise ImproperlyConfigured("the broker needs a URL such as amqp://user:password@host:5672/vhost")
    options: dict[str, str] = {}
    addresses = tuple(_read(url, options) for url in each)
    return Settings(
        addresses,
        queue_type=cast("QueueType", _choice(options, "queue_type", ("classic", "quorum"))),
        exact_order=_choice(options, "order", ("fast", "exact")) == "exact",
        heartbeat=_number(options, "heartbeat", 10, 2, 3600),
        tls=_tls(options),
    )


def _read(url: str, options: dict[str, str]) -> Address:
    shown = repr(redact_url(url))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ImproperlyConfigured(f"{shown} is no valid URL; a broker's is amqp://user:password@host:5672/vhost") from None
    if parts.scheme not in PORTS:
        raise ImproperlyConfigured(f"a broker's URL starts with amqp:// or amqps://, not {shown}")
    if parts.fragment:
        raise ImproperlyConfigured(f"{shown} holds a '#'; write it as %23")
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in _OPTIONS:
            raise ImproperlyConfigured(f"unknown option {key!r} in {shown}; known are {', '.join(_OPTIONS)}")
        if options.setdefault(key, value) != value:
            raise ImproperlyConfigured(f"the broker's URLs do not agree on {key}")
    vhost = unquote(parts.path.removeprefix("/")) or "/"
    user, password = (unquote(part or "guest") for part in (parts.username, parts.password))
    return Address(parts.hostname or "localhost", port or PORTS[parts.scheme], user, password, vhost, parts.scheme == "amqps")


def _choice(options: Mapping[str, str], name: str, values: Sequence[str]) -> str:
    value = options.get(name, values[0])
    if value not in values:
        raise ImproperlyConfigured(f"the broker's {name} is one of {', '.join(values)}, not {value!r}")
    return value


def _number(options: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise ImproperlyConfigured(f"the broker's {name} is a number from {least} to {most}, not {text!r}")
    return int(text)


def _tls(options: Mapping[str, str]) -> Tls:
    insecure = _YES_NO.get(options.get(INSECURE, "0").lower())
    if insecure is None:
        raise ImproperlyConfigured(f"the broker's {INSECURE} is 1 or 0")
    if "keyfile" in options and "certfile" not in options:
        raise ImproperlyConfigured("the broker's keyfile needs a certfile")
    return Tls(options.get("cafile"), options.get("certfile"), options.get("keyfile"), insecure=insecure)


# --- queues


def queue_name(app: str, queue: str) -> str:
    """How a queue is called on the broker: ``{app}.{queue}``.

    Bytes of UTF-8 that AMQP's clients may not write become ``#XX``, and so does a dot in the app's name: two apps never share a queue.
    A name that is too long is cut, and gets a hash.
    """
    named = _plain(app.encode("utf-8", "surrogatepass"), b".")
    if named.lower() == "amq":  # names that begin with "amq." belong to the broker
        named = f"#{ord(named[0]):02X}{named[1:]}"
    name = f"{named}.{_plain(queue.encode('utf-8', 'surrogatepass'))}"
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 34]}##{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _plain(name: bytes, special: bytes = b"") -> str:
    return "".join(chr(byte) if byte in _PLAIN and byte not in special else f"#{byte:02X}" for byte in name)


def read_version(text: object) -> tuple[int, int]:
    """``(3, 10)`` from ``3.10.8``; ``(0, 0)`` from what cannot be read."""
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    numbers = [int(part) if part.isdigit() else 0 for part in text.split(".")[:2]]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def queue_arguments(queue_type: QueueType, version: tuple[int, int]) -> list[dict[str, str | int]]:
    """What a queue is declared with; if there are several, the first that an existing queue agrees with.

    The type is always named: a vhost may have another one by default. From 4.0 on a quorum queue drops a ticket that was delivered 20
    times, unless it is told not to. A queue that an older server made has no such argument, and is taken as it is.
    """
    if queue_type == "classic":
        return [{"x-queue-type": "classic", "x-max-priority": MAX_PRIORITY}]
    plain: dict[str, str | int] = {"x-queue-type": "quorum"}
    return [plain] if (0, 0) < version < (4, 0) else [{**plain, "x-delivery-limit": -1}, plain]


def wire_priority(queue_type: QueueType, version: tuple[int, int], priority: int) -> int | None:
    """The priority that the broker is told.

    Classic queues know 11 levels. Quorum queues know none before 4.0, and 32 from 4.3 on; between, all above 4 are high and the others
    normal, and mognet's default is 5.
    """
    priority = max(0, min(MAX_PRIORITY, priority))
    if queue_type == "classic" or version >= (4, 3):
        return priority
    return None if version < (4, 0) else 9 if priority > 5 else 0
