"""A hub for tests of watching, and what is done with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from mognet import events, watching
from mognet.events import Event
from mognet.records import Job
from mognet.watching import Hub, Watch

LEASE = 60.0


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and boxes so small that every way through them is taken."""
    monkeypatch.setattr(watching, "PAGE", 3)
    monkeypatch.setattr(events, "MOST_WAITING", 4)
    monkeypatch.setattr(events, "MOST_SEEN", 3)
    hasten(monkeypatch)


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waits."""
    for name, seconds in {"NOT_WITHIN": 0.0, "TREES_NOT_WITHIN": 0.0, "LOOK_EVERY": 0.01, "LINGER": 0.0, "AGAIN": 0.0}.items():
        monkeypatch.setattr(watching, name, seconds)


@asynccontextmanager
async def opened(engine: Any) -> AsyncIterator[Hub]:
    hub = Hub(engine)
    try:
        yield hub
    finally:
        await hub.close()


def job(**fields: Any) -> Job:
    return Job(**{"id": uuid4(), "name": "task", "queue": "q", "body": b"{}", **fields})


async def take(watch: Watch, seconds: float = 5.0) -> Event:
    async with asyncio.timeout(seconds):
        return await anext(watch)


async def rest(watch: Watch) -> list[Event]:
    async with asyncio.timeout(20):
        return [event async for event in watch]
