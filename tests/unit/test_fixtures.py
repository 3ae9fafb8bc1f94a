"""What the package gives to its users' tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from mognet import App, AppConfig, Context, Pause, Request, task
from mognet.exceptions import NotConnected
from mognet.testing import create_app_fixture, pytest_integration

own = App("own", AppConfig(url="sqlite:////nonexistent/never/opened.db"))
shared = App("shared", AppConfig(url="memory://"))
app_fixture = create_app_fixture(shared)


@task(name="fixtures.add")
async def add(a: int, b: int) -> int:
    return a + b


@task(name="fixtures.nap")
async def nap(context: Context) -> str:
    if not await context.state.get("slept"):
        await context.state.set("slept", True)
        raise Pause(resume_after=3600)
    return "rested"


async def test_an_app_in_memory(mognet_app: App) -> None:
    assert mognet_app.url.startswith("memory://")
    async with mognet_app:
        assert not (await mognet_app.submit(add, 1, 2)).done


async def test_a_worker_that_drains(mognet_worker) -> None:
    results = [await mognet_worker.app.submit(add, i, 1) for i in range(20)]
    await mognet_worker.drain()
    assert [await result.get() for result in results] == list(range(1, 21))
    assert not mognet_worker.app.worker.running_tasks


async def test_draining_does_not_wait_for_later(mognet_worker) -> None:
    paused = await mognet_worker.app.submit(nap)
    later = await mognet_worker.app.submit(Request(name="fixtures.add", args=(1, 2), delay="PT1H"))
    await mognet_worker.drain()
    await paused.refresh()
    await later.refresh()
    assert (paused.state, later.state) == ("SUSPENDED", "PENDING")


async def test_a_drain_that_takes_too_long_says_what_is_left(mognet_worker) -> None:
    @mognet_worker.app.task(name="stuck")
    async def stuck(context: Context) -> None:
        await context.app.result_backend.wait((await context.submit(Request(name="later", delay="PT1H"))).id)

    await mognet_worker.app.submit(stuck)
    with pytest.raises(TimeoutError, match="stuck"):
        await mognet_worker.drain(timeout=0.05)


class TestOverride:
    """A project's own app, kept in memory while it is tested."""

    @pytest.fixture
    def mognet_app(self) -> Iterator[App]:
        yield own
        assert own.url == "sqlite:////nonexistent/never/opened.db"

    async def test_its_engine_is_swapped(self, mognet_worker) -> None:
        assert mognet_worker.app is own
        assert own.url.startswith("memory://")
        result = await own.submit(Request(name="fixtures.add", args=(1, 2), id="00000000-0000-4000-8000-000000000001"))
        await mognet_worker.drain()
        assert await result.get() == 3

    async def test_each_test_begins_with_nothing(self, mognet_worker) -> None:
        assert await own.result_backend.get(UUID("00000000-0000-4000-8000-000000000001")) is None

    def test_without_a_loop(self, mognet_app: App) -> None:
        assert mognet_app.url.startswith("memory://")
        with pytest.raises(NotConnected):
            _ = mognet_app.loop


def test_the_override_is_taken_back() -> None:
    assert own.url == "sqlite:////nonexistent/never/opened.db"


@pytest.mark.parametrize("turn", [1, 2, 3])
async def test_one_app_in_many_event_loops(app_fixture: App, turn: int) -> None:
    assert app_fixture is shared
    assert app_fixture.worker is not None
    assert await app_fixture.run(add, turn, 1) == turn + 1


def test_the_name_of_mognet_2() -> None:
    assert pytest_integration.create_app_fixture is create_app_fixture


def test_a_project_with_pytest_asyncio_in_strict_mode(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from mognet import App, task
        from mognet.testing import create_app_fixture

        app = App("mine", url="memory://")
        app_fixture = create_app_fixture(app)

        @app.task
        def double(n: int) -> int:
            return 2 * n

        @pytest.fixture
        def mognet_app():
            return app

        @pytest.mark.asyncio
        async def test_worker(mognet_worker):
            result = await app.submit(double, 21)
            await mognet_worker.drain()
            assert await result.get() == 42

        @pytest.mark.asyncio
        async def test_app(app_fixture):
            assert await app_fixture.run(double, 21) == 42
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_an_app_that_is_connected_already_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest, pytest_asyncio
        from mognet import App

        @pytest_asyncio.fixture
        async def mognet_app():
            async with App("mine", url="memory://") as app:
                yield app

        @pytest.mark.asyncio
        async def test_worker(mognet_worker):
            pass
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*should return an app that is not connected*"])


def test_the_plugin_loads_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys, mognet.testing.plugin
heavy = {"mognet.engines.memory", "mognet.engines.sql.sqlite", "mognet.testing.fixtures", "mognet.testing.conformance"}
heavy |= {"rich", "typer", "hypothesis", "redis", "psycopg", "aiormq"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
