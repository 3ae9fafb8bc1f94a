"""URLs and DSNs as they may be shown: without their secrets."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_plus

_MASK = "***"
_SCHEME = r"(?:jdbc:)?[A-Za-z][\w+.-]*://"
_SECRET = re.compile(r"pass|pwd|secret|token|key|credential|signature", re.IGNORECASE)
_COLON = re.compile(r":|%3A", re.IGNORECASE)
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::\d*)?")
_KEY = re.compile(r"(?<![\w.%-])([\w.%-]+)\s*=\s*")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|['\"].*", re.DOTALL)
_NEXT_KEY = re.compile(r"[\s;&,]+(?=[\w.%-]+\s*=)")


def redact_url(url: str) -> str:
    """The URL (a list of URLs, a ``key=value`` DSN) fit for a log: no password, secret, token or key is left in it.

    Where raw special characters make it unclear what belongs to a password, more is hidden rather than less.
    """
    return _redact(url.strip(), 0)


def _redact(text: str, depth: int) -> str:
    if not re.match(_SCHEME, text):
        return _redact_pairs(text)
    pieces = re.split(rf"([,;\s]+)(?={_SCHEME})", text)
    shown = ""
    while pieces:
        piece = pieces.pop(0)
        # A piece without "@" may be the front of a password that looks like a list.
        while not _local(piece) and "@" not in piece and _COLON.search(piece.partition("://")[2]) and any("@" in other for other in pieces):
            piece += pieces.pop(0) + pieces.pop(0)
        shown += _redact_one(piece, depth) + (pieces.pop(0) if pieces else "")
    return shown


def _local(piece: str) -> bool:
    return re.match(r"(sqlite|file)[\w+.-]*:///", piece, re.IGNORECASE) is not None


def _redact_one(piece: str, depth: int) -> str:
    scheme, _, rest = piece.partition("://")
    scheme += "://"
    if _local(piece):
        return scheme + _redact_query(rest, depth)
    scheme, rest = scheme + rest[: len(rest) - len(rest.lstrip("/"))], rest.lstrip("/")
    authority = re.split(r"[/?#;\s]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    colon = _COLON.search(rest)
    if colon and "@" in tail and colon.start() < rest.rfind("@"):
        # "/" or "?" inside a password, or "@" inside a path
        return _end_masked(scheme + _redact_query(rest[: colon.start()], depth))
    user, at, hosts = authority.rpartition("@")
    if colon := _COLON.search(user):
        user = f"{user[: colon.start()]}:{_MASK}"
    if not all(_HOST.fullmatch(host) for host in hosts.split(",")):
        hosts, tail = f"{hosts.partition(':')[0]}:{_MASK}", ""  # a password whose "@host" is missing
    return f"{scheme}{user}{at}{hosts}{_redact_query(tail, depth)}"


def _redact_query(tail: str, depth: int) -> str:
    first, *parts = re.split(r"([?&;#\s])", tail)
    shown, secret = first, False
    for mark, part in zip(parts[::2], parts[1::2], strict=True):
        key, equals, value = part.partition("=")
        if secret and (mark != "&" or not equals):
            continue  # still the value of a secret
        secret = bool(equals and _SECRET.search(unquote_plus(key)))
        shown += f"{mark}{key}{equals}{_MASK if secret else _redact_value(value, depth)}"
    return shown


def _redact_value(value: str, depth: int) -> str:
    """A query parameter may itself hold a URL, encoded once or more."""
    inner = value
    for _ in range(4):
        inner = unquote_plus(inner)
    if depth > 3 or inner != unquote_plus(inner):
        return _MASK
    shown = _redact(inner, depth + 1)
    return value if shown == inner else quote(shown, safe="/*,")


def _redact_pairs(text: str) -> str:
    colon = _COLON.search(text)
    unclear = colon is not None and colon.start() < text.rfind("@")  # user:password@host
    source = text[: colon.start()] if colon and unclear else text
    shown, done = "", 0
    while match := _KEY.search(source, done):
        shown += source[done : match.end()]
        done = match.end()
        if _SECRET.search(unquote_plus(match[1])):
            quoted = _QUOTED.match(source, done)
            following = _NEXT_KEY.search(source, quoted.end() if quoted else done)
            shown, done = shown + _MASK, following.start() if following else len(source)
    shown += source[done:]
    if not unclear:
        return shown
    return _end_masked(shown) + ("" if _KEY.search(text) else text[text.rfind("@") :])


def _end_masked(shown: str) -> str:
    return shown if shown.endswith(_MASK) else f"{shown}:{_MASK}"
