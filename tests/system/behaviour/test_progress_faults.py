"""What a task said last, while the engine cannot be reached."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mognet import Context, progress
from mognet.exceptions import ConnectionError

from .conftest import Lab, soon, until


class Outage:
    """Keeps an app from its engine while it lasts."""

    def __init__(self, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lasts = False
        self.asked = {"update": 0, "settle": 0}
        for name in self.asked:
            monkeypatch.setattr(engine, name, self._kept_from(name, getattr(engine, name)))

    def _kept_from(self, name: str, operation: Any) -> Any:
        async def kept(*given: Any, **options: Any) -> Any:
            if self.lasts:
                self.asked[name] += 1
                await asyncio.sleep(0.01)
                raise ConnectionError("away")
            return await operation(*given, **options)

        return kept


async def test_it_is_there_when_the_engine_is_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes, the job's end waits as well."""
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    app = await lab.working()
    outage = Outage(app.engine, monkeypatch)

    @app.task
    async def work(context: Context) -> None:
        await context.progress(1, 3)
        outage.lasts = True
        await context.progress(3, 3, "all of it")

    result = await app.submit(work)
    await until(lambda: outage.asked["update"] > 20)
    outage.lasts = False
    await soon(result)
    await result.refresh()
    assert result.progress is not None
    assert (result.progress.done, result.progress.message) == (3, "all of it")
