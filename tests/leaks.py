"""The leak checker: what a test leaves behind fails it. Always on, for every test."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from servers import KEPT

PATIENCE = 2.0
"""Seconds that what is already on its way out gets to be gone."""

_FDS = Path("/proc/self/fd")
_before: pytest.StashKey[tuple[set[threading.Thread], dict[str, str]]] = pytest.StashKey()


def open_files() -> dict[str, str]:
    """Descriptors and what they stand for; none where the system does not tell."""
    found = {}
    if _FDS.is_dir():
        for number in os.listdir(_FDS):
            with suppress(OSError):  # the one that listed them
                found[number] = os.readlink(_FDS / number)
    return found


def _gone(left: Callable[[], list[Any]]) -> list[Any]:
    until = time.monotonic() + PATIENCE
    while found := left():
        if time.monotonic() > until:
            return found
        gc.collect()
        time.sleep(0.01)
    return []


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    item.stash[_before] = (set(threading.enumerate()), open_files())
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """After all fixtures of the test have gone (those of its module, class or session may have come: they are not looked at)."""
    value = yield
    threads, files = item.stash[_before]
    left = _gone(lambda: [thread for thread in threading.enumerate() if thread not in threads])
    left += _gone(lambda: [f"{fd}: {what}" for fd, what in open_files().items() if files.get(fd) != what and what not in KEPT])
    if left:
        pytest.fail(f"the test left behind: {left}", pytrace=False)
    return value


@pytest.fixture(autouse=True)
def _leak_checker(request: pytest.FixtureRequest) -> Iterator[None]:
    function = getattr(request, "function", None)
    if asyncio.iscoroutinefunction(function):
        request.getfixturevalue("_task_leak_checker")
    yield


@pytest.fixture
async def _task_leak_checker() -> AsyncIterator[None]:
    """Set up first, so gone last: after all that the test and its fixtures have closed."""
    before = asyncio.all_tasks()
    yield
    here = {*before, asyncio.current_task()}
    until = time.monotonic() + PATIENCE
    while left := [task for task in asyncio.all_tasks() if task not in here]:
        if time.monotonic() > until:
            pytest.fail(f"the test left asyncio tasks behind: {left}", pytrace=False)
        await asyncio.sleep(0.005)
