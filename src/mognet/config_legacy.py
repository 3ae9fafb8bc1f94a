"""Where jobs are kept, in all its spellings: one URL, a broker beside a result backend, and the forms of Mognet 2.0."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mognet.exceptions import ImproperlyConfigured
from mognet.redaction import redact_url

LOCAL_BROKER = "amqp://localhost:5672/"
LOCAL_REDIS = "redis://localhost:6379/"

FOR_EVER = 36_525 * 86_400
"""Seconds of the longest lifetime that a setting may have; what 2.0 called None."""

PAIR = ("broker", "result_backend", "state_backend")
PLACES = ("url", *PAIR)

_NOTED = ("max_reconnect_retries", "reconnect_interval")
_IGNORED = {
    "broker": ("retry_connect_attempts", "retry_connect_timeout"),
    "result_backend": ("retry_connect_attempts", "retry_connect_timeout", "result_value_encoding", "max_connections"),
    "state_backend": ("max_connections",),
}
_LIFETIMES = {"result_backend": ("result_ttl", "result_value_ttl"), "state_backend": ("state_ttl",)}
_REMEDY = "set result_backend to the URL of a store, e.g. redis://host:6379/0 or postgresql://host/db"

_log = logging.getLogger(__name__)
_noted: set[str] = set()


class Place(NamedTuple):
    """Where an app's jobs are kept."""

    store: str
    broker: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """Fit for logs."""
        return " + ".join([*([", ".join(map(redact_url, self.broker))] if self.broker else []), redact_url(self.store)])


# --- one form for all


def split_urls(text: str) -> list[str]:
    """The URLs of a cluster's nodes, which stand behind each other with commas between."""
    return [url.strip() for url in re.split(r",(?=\s*amqps?://)", text) if url.strip()]


def broker_urls(value: Any) -> Any:
    """A broker's URL, those of its nodes, or 2.0's ``{"amqp": {"url": …}}``: as one URL, or as a list of several."""
    value = _plain(value)
    if isinstance(value, Mapping):
        value = _section("broker", value, "amqp").get("url") or LOCAL_BROKER
    urls = split_urls(value) if isinstance(value, str) else value
    return urls[0] if isinstance(urls, list) and len(urls) == 1 else urls or None


def store_url(value: Any) -> Any:
    """A store's URL, or 2.0's ``{"redis": {"url": …}}``."""
    value = _plain(value)
    if isinstance(value, Mapping):
        return _section("backend", value, "redis").get("url") or LOCAL_REDIS
    return value or None


def spread(data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the lifetimes that 2.0 kept inside of its backends, and without what no longer means anything."""
    settings = dict(data)
    for name in _NOTED:
        if settings.pop(name, None) is not None:
            _note(name)
    for name, ignored in _IGNORED.items():
        try:
            section = _plain(settings.get(name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if not isinstance(section, Mapping):
            continue
        section = _section(name, section, "amqp" if name == "broker" else "redis")
        for key in ignored:
            if key in section:
                _note(f"{name}.{key}")
        for key in {*map(str, section)} - {"url", *ignored, *_LIFETIMES.get(name, ())}:
            _log.warning("unknown setting %s.%s is ignored, as Mognet 2.0 did", name, key)
        for key in _LIFETIMES.get(name, ()):
            if key in section:
                settings.setdefault(key, FOR_EVER if section[key] is None else section[key])
    return settings


def _plain(value: Any) -> Any:
    """A variable of the environment holds JSON as text."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("is neither a URL nor valid JSON") from None
    return value


def _section(name: str, value: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    unknown = [str(key) for key in value if key != kind]
    section = value.get(kind) or {}
    if unknown or not isinstance(section, Mapping):
        raise ValueError(f'{name}: should be a URL, or {{"{kind}": {{"url": …}}}} as in Mognet 2.0')
    return section


def _note(name: str) -> None:
    if name not in _noted:
        _noted.add(name)
        _log.info("setting %s of Mognet 2.0 is accepted and ignored: connections are made again for ever, and pools size themselves", name)


# --- which of them counts


def check_state_backend(result_backend: object, state_backend: object) -> None:
    """Raise ``ValueError`` if a task's state is to be kept elsewhere than its record."""
    if isinstance(state_backend, str) and isinstance(result_backend, str) and _same(result_backend) != _same(state_backend):
        raise ValueError(
            "state_backend differs from result_backend: a task's state is kept with its record, so that a stale attempt can "
            "change neither; leave state_backend out, or set it to the same URL"
        )


def _same(url: str) -> tuple[object, ...]:
    """What two URLs of one Redis have in common; another engine's are compared as they are."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("redis", "rediss", "valkey", "valkeys"):
            database = parts.path.strip("/") or "0"
            return (parts.scheme, parts.username or "", parts.password, parts.hostname, parts.port or 6379, database, parts.query)
    except ValueError:
        pass
    return (url,)


def drop_beaten(levels: Sequence[MutableMapping[str, Any]]) -> None:
    """The first of code, environment and file that says where jobs are kept, says it: drop what the others say otherwise."""
    said: set[str] = set()
    for level in levels:
        for name in PLACES if said else ():
            if ("url" in said) != (name == "url"):
                level.pop(name, None)
        said |= {name for name in PLACES if level.get(name) is not None}


def check_places(settings: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Raise :class:`ImproperlyConfigured` if it is said twice, or by half, where jobs are kept."""
    given = [name for name in PLACES if settings.get(name) is not None]
    shown = {name: f"{name} (from {origins.get(name, 'code')})" for name in given}
    if "url" in given and len(given) > 1:
        others = " and ".join(shown[name] for name in given[1:])
        raise ImproperlyConfigured(f"{shown['url']} and {others} both say where jobs are kept: remove one")
    if "broker" in given and "result_backend" not in given:
        raise ImproperlyConfigured(f"{shown['broker']} carries only tickets, and needs a store beside it: {_REMEDY}")
    if given == ["state_backend"]:
        raise ImproperlyConfigured(f"{shown['state_backend']} is given without a result_backend: {_REMEDY}")


def place_of(url: str | None, broker: str | Sequence[str] | None, result_backend: str | None, default: str) -> Place:
    """Where jobs are kept. A ``url`` that was set by hand afterwards (a flag, a test's fixture) goes before all else."""
    if url is not None or result_backend is None:
        return Place(url or default)
    return Place(result_backend, tuple([broker] if isinstance(broker, str) else broker or ()))
