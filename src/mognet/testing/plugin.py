"""The pytest plugin: fixtures for applications that use mognet. Nothing heavy is imported until one is asked for.

``mognet_app`` is an app in memory. Override it to return your own (not connected); its engine is then memory, too, for as long as
the fixture lives. ``mognet_worker`` connects it and runs a worker; ``await mognet_worker.drain()`` waits until all is done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any

import pytest

from mognet.testing.asynchronous import async_fixture

if TYPE_CHECKING:
    from mognet.app import App
    from mognet.testing.fixtures import RunningWorker


@pytest.fixture
def mognet_app() -> App:
    """An app in memory, not connected. Override it to return your own app, whose jobs are then kept in memory."""
    from mognet.app import App
    from mognet.config import AppConfig

    return App("test", AppConfig(url="memory://"))


@async_fixture()
async def mognet_worker(mognet_app: App) -> AsyncIterator[RunningWorker]:
    """A worker of ``mognet_app``: ``app`` is connected, ``drain()`` waits until nothing is due and nothing runs."""
    from mognet.testing.fixtures import running

    async with running(mognet_app) as worker:
        yield worker


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
    """Whatever ``mognet_app`` gives, in whichever conftest it was overridden: its engine is swapped for memory."""
    value = yield
    if fixturedef.argname == "mognet_app":
        from mognet.testing.fixtures import swap_for_memory

        fixturedef.addfinalizer(swap_for_memory(value))
    return value
