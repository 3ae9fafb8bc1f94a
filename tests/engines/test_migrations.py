"""Schemas go up and back, with what is in them: shown with steps that are not there yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mognet.engines import engine_factory, migrations
from mognet.engines.checkups import checkups
from mognet.engines.findings import Checkup, Schema
from mognet.exceptions import ImproperlyConfigured
from mognet.outcomes import succeeded
from mognet.records import Query
from mognet.testing.conformance.bench import make_job
from servers.postgres import empty_postgres, query

NEXT = {
    "sqlite": ("CREATE TABLE colour (seq INTEGER PRIMARY KEY);\nINSERT INTO colour SELECT seq FROM job", "DROP TABLE colour"),
    "postgres": (
        "CREATE TABLE mognet.colour (seq bigint PRIMARY KEY); INSERT INTO mognet.colour SELECT seq FROM mognet.job",
        "DROP TABLE mognet.colour",
    ),
}


@pytest.fixture(params=NEXT)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{tmp_path}/jobs.db"
        return
    server = empty_postgres()
    yield f"{server}?schema=stepping"
    query(server, "DROP SCHEMA IF EXISTS stepping CASCADE")


class Release:
    """Which mognet this is: how many steps it has more than this one."""

    more = 0


@pytest.fixture
def release(kind: str, monkeypatch: pytest.MonkeyPatch) -> Release:
    """The first step that it may have more has a way back, the second has none."""
    release, scripts, (up, back) = Release(), migrations._scripts, NEXT[kind]

    def with_more(package: str, *, down: bool) -> dict[int, str]:
        last = max(scripts(package, down=False))
        new = {last + 1: back} if down else {last + 1: up, last + 2: "SELECT 1"}
        return scripts(package, down=down) | {number: script for number, script in new.items() if number <= last + release.more}

    monkeypatch.setattr(migrations, "_scripts", with_more)
    return release


@pytest.fixture
def first(kind: str) -> int:
    return migrations.newest({"sqlite": "mognet.engines.sql", "postgres": "mognet.engines.postgres"}[kind])


def checkup(url: str) -> Checkup:
    return checkups(url, "app")[""]


async def work(url: str) -> int:
    """Open the engine, submit one more job, run it; how many there are then."""
    async with engine_factory(url, "app")() as engine:
        await engine.submit([make_job()])
        [claim] = await engine.claim("node", ["q"], 1, lease=10)
        await engine.settle([succeeded(claim.token, b"1")])
        return sum((await engine.count(Query())).values())


async def test_up_and_back_with_what_is_in_it(url: str, release: Release, first: int) -> None:
    assert await checkup(url).schema() == Schema(0, first)
    assert await work(url) == 1
    release.more = 1
    assert await checkup(url).schema() == Schema(first, first + 1)
    assert await work(url) == 2  # whoever opens it brings it up
    assert await checkup(url).schema() == Schema(first + 1, first + 1)
    release.more = 0
    for use in (work(url), checkup(url).migrate()):  # the older mognet says what to do
        with pytest.raises(ImproperlyConfigured, match=f"version {first + 1}.*--to {first}"):
            await use
    release.more = 1
    await checkup(url).migrate(first)
    release.more = 0
    assert await checkup(url).schema() == Schema(first, first)
    assert await work(url) == 3
    release.more = 1
    await checkup(url).migrate()
    await checkup(url).migrate()
    assert await work(url) == 4


async def test_what_cannot_be(url: str, release: Release, first: int) -> None:
    release.more = 2
    await checkup(url).migrate()
    for version, says in ((first, f"no way back from version {first + 2}"), (first + 3, "there is no version"), (0, "there is no version")):
        with pytest.raises(ImproperlyConfigured, match=says):
            await checkup(url).migrate(version)
    assert await checkup(url).schema() == Schema(first + 2, first + 2)


async def test_a_step_that_fails_leaves_all_as_it_was(url: str, release: Release, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await work(url) == 1
    release.more = 2
    scripts = migrations._scripts
    broken = {first + 2: "SELECT nonsense FROM nowhere"}
    monkeypatch.setattr(migrations, "_scripts", lambda package, *, down: scripts(package, down=down) | ({} if down else broken))
    with pytest.raises(Exception, match="nowhere"):
        await checkup(url).migrate()
    monkeypatch.setattr(migrations, "_scripts", scripts)
    release.more = 0
    assert await checkup(url).schema() == Schema(first, first)
    assert await work(url) == 2
