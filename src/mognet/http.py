"""Metadata and trace context from HTTP requests, and on to others: an ASGI middleware, and the headers of outgoing calls.

Baggage is that of W3C Baggage, trace context that of W3C Trace Context (https://www.w3.org/TR/baggage/, https://www.w3.org/TR/trace-context/).
Headers come from anybody: only keys that are named are taken, only strings of a bounded length without control characters, and what is
malformed is left out, never refused.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from mognet.codec import dump_metadata, loads
from mognet.exceptions import ImproperlyConfigured, InvalidMetadata
from mognet.paths import is_plain
from mognet.scope import job_metadata, metadata, scope_metadata, scope_trace, trace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_VALUE = 256
"""Characters of a value that is taken from a header; a longer one is left out."""

MAX_BAGGAGE = 8192
"""Bytes of baggage that are looked at, by the specification's limit; more is left out whole."""

MAX_MEMBERS = 180
"""Members of it."""

_SPOILT = "surrogateescape"
"""How bytes are read that are no text: so that they still differ from others, and are refused, since halves of pairs are not printable."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_TRACEPARENT = re.compile(r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{1,200})?")
"""Of the versions after 00, more may follow."""
_TRACESTATE = re.compile(r"[ -~\t]{1,512}")


class MetadataMiddleware:
    """An ASGI middleware: what is submitted while a request is handled gets metadata and trace context from its headers.

    ::

        app = MetadataMiddleware(app, headers={"X-Tenant-Id": "tenant_id"}, baggage={"user_id"})

    :param headers: names of headers, and the metadata key that each fills.
    :param baggage: keys of the ``baggage`` header that are taken; a key of ``headers`` goes before one of baggage.
    :param max_value: characters of a value; a longer one is left out.

    ``traceparent`` and ``tracestate`` are taken as they are. Works with any framework that speaks ASGI, and needs none.
    """

    def __init__(
        self, app: ASGIApp, *, headers: Mapping[str, str] | None = None, baggage: Collection[str] = (), max_value: int = MAX_VALUE
    ) -> None:
        self.app = app
        self._headers = {_header(name): _key(key) for name, key in _named(headers).items()}
        self._baggage = _keys(baggage)
        self._max_value = max_value

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; what is neither HTTP nor a WebSocket passes untouched."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        found = _gather(scope.get("headers", ()))
        with metadata(self._labels(found)), trace(_read_trace(found)):
            await self.app(scope, receive, send)

    def _labels(self, found: Mapping[str, list[str]]) -> dict[str, str]:
        labels = read_baggage(",".join(found.get("baggage", ())), self._baggage, max_value=self._max_value) if self._baggage else {}
        for name, key in self._headers.items():
            if name not in found:
                continue
            labels.pop(key, None)  # also if the header is malformed: who can spoil it must not choose the key by baggage
            values = {value.strip() for value in found[name]}
            if len(values) == 1 and _is_plain(value := values.pop(), self._max_value):  # of two that differ, neither
                labels[key] = value
        return labels


def outgoing_headers(*, headers: Mapping[str, str] | None = None, baggage: Collection[str] = ()) -> dict[str, str]:
    """The headers that hand metadata and trace context on to another service: the counterpart of :class:`MetadataMiddleware`.

    Inside a task, the metadata is what its job hands down (``AppConfig.inherited_metadata``), with that of the scope over it; elsewhere
    that of the scope (:func:`mognet.metadata`). Only keys that are named go out, as text.

    :param headers: names of headers, and the metadata key that each gets.
    :param baggage: keys that go into the ``baggage`` header.
    """
    labels = {**job_metadata(), **scope_metadata()}
    out = _read_trace({name: [value] for name, value in scope_trace().items()})  # in a task it comes from the store
    for name, key in _named(headers).items():
        _header(name)
        text = _text(labels.get(key))
        if text is not None and text.isascii() and _is_plain(text, MAX_VALUE):
            out[name] = text
    members = [f"{key}={quote(text, safe='')}" for key in sorted(_keys(baggage)) if (text := _text(labels.get(key))) is not None]
    line = ",".join(members)
    if members and len(line) <= MAX_BAGGAGE:
        out["baggage"] = line
    return out


def read_baggage(line: str, keys: Collection[str], *, max_value: int = MAX_VALUE) -> dict[str, str]:
    """The members of a ``baggage`` header that are asked for; properties are left out, and so are members that come twice and differ."""
    found: dict[str, set[str]] = {}
    if len(line.encode(errors="replace")) > MAX_BAGGAGE:
        return {}
    for member in line.split(",")[:MAX_MEMBERS]:
        key, equals, value = member.partition(";")[0].partition("=")
        if equals and key.strip() in keys:
            text = unquote_to_bytes(value.strip().encode(errors="surrogatepass")).decode(errors=_SPOILT)
            found.setdefault(key.strip(), set()).add(text)
    return {key: text for key, texts in found.items() if len(texts) == 1 and _is_plain(text := texts.pop(), max_value)}


def _read_trace(found: Mapping[str, list[str]]) -> dict[str, str]:
    parents = found.get("traceparent", ())
    if len(parents) != 1 or _TRACEPARENT.fullmatch(parents[0].strip()) is None:
        return {}
    fields = {"traceparent": parents[0].strip()}
    state = ",".join(each.strip() for each in found.get("tracestate", ()))
    if _TRACESTATE.fullmatch(state):
        fields["tracestate"] = state
    return fields


def _gather(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        try:
            found.setdefault(name.decode("ascii").lower(), []).append(value.decode(errors=_SPOILT))
        except UnicodeError:
            continue
    return found


def _is_plain(text: str, longest: int) -> bool:
    return 0 < len(text) <= longest and text.isprintable()


def _text(value: Any) -> str | None:
    """A value as it would be stored, as text."""
    try:
        stored = loads(dump_metadata({"value": value}))["value"]
    except InvalidMetadata:
        return None
    if isinstance(stored, bool):
        return str(stored).lower()
    return str(stored) if isinstance(stored, str | int | float) else None


def _named(headers: Mapping[str, str] | None) -> Mapping[str, str]:
    if headers is not None and not isinstance(headers, Mapping):
        raise ImproperlyConfigured(
            f"headers takes names of headers with keys of metadata, such as {{'X-Tenant-Id': 'tenant_id'}}, not {headers!r}"
        )
    return headers or {}


def _key(key: str) -> str:
    if not isinstance(key, str) or not is_plain(key):
        raise ImproperlyConfigured(f"{key!r} is no key of metadata")
    return key


def _header(name: str) -> str:
    if not isinstance(name, str) or _TOKEN.fullmatch(name) is None:
        raise ImproperlyConfigured(f"{name!r} is no name of a header")
    return name.lower()


def _keys(baggage: Collection[str]) -> frozenset[str]:
    if isinstance(baggage, str):
        raise ImproperlyConfigured(f"baggage takes a set of keys, not the text {baggage!r}")
    for key in baggage:
        if not isinstance(key, str) or _TOKEN.fullmatch(key) is None:
            raise ImproperlyConfigured(f"{key!r} is no key for baggage: letters, digits and !#$%&'*+-.^_`|~ only")
    return frozenset(baggage)
