"""A crew of worker processes on a file, and an app that submits to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mognet import App
from system.processes.crew import Crew, Ledger


@pytest.fixture
def crew(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Crew]:
    crew = Crew(tmp_path)
    yield crew
    crew.close()
    print(crew.logs())  # which pytest shows when the test has failed


@pytest.fixture
def ledger(crew: Crew) -> Ledger:
    return crew.ledger


@pytest.fixture
async def app(crew: Crew) -> AsyncIterator[App]:
    app = App("processes", url=crew.url)
    async with app:
        yield app
