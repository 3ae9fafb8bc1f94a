"""A crew of worker processes, and an app that submits to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mognet import App
from servers.places import Place, place
from system.processes.crew import Crew, Ledger

__all__ = ["place"]


@pytest.fixture
def crew(tmp_path: Path, place: Place) -> Iterator[Crew]:
    crew = Crew(tmp_path, place)
    yield crew
    crew.close()
    print(crew.logs())  # which pytest shows when the test has failed


@pytest.fixture
def ledger(crew: Crew) -> Ledger:
    return crew.ledger


@pytest.fixture
async def app(crew: Crew) -> AsyncIterator[App]:
    async with crew.place.app() as app:
        yield app
