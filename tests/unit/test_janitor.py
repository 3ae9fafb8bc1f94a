from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from uuid import uuid4

import pytest

from mognet.engines.memory import MemoryEngine
from mognet.exceptions import ConnectionError
from mognet.janitor import keep_tidy
from mognet.records import Job, Swept, Token


async def test_recovers_and_goes_on_after_errors(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [ConnectionError("away"), RuntimeError("a bug")]

    class Engine(MemoryEngine):
        async def sweep(self, *, grace: float = 30.0, limit: int = 1000) -> Swept:
            if errors:
                raise errors.pop(0)
            return await super().sweep(grace=grace, limit=limit)

    engine, swept = Engine(), asyncio.Event()
    await engine.submit([Job(uuid4(), "task", "queue", b"")])
    await engine.claim("node", ["queue"], 1, lease=0.0)
    tidying = asyncio.create_task(keep_tidy(engine, interval=0.01, swept=swept.set))
    await swept.wait()
    tidying.cancel()
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR, logging.WARNING]
    assert "1 job of a lost worker is in line again" in caplog.text


async def test_does_not_take_jobs_from_the_living_right_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mognet.janitor.IN_TIME", 0.05)
    locked = asyncio.Lock()

    class Engine(MemoryEngine):
        async def extend(self, tokens: Collection[Token], lease: float) -> set[Token]:
            async with locked:
                return await super().extend(tokens, lease)

    engine, looked = Engine(), asyncio.Event()
    await engine.submit([Job(uuid4(), "task", "queue", b"")])
    (claim,) = await engine.claim("node", ["queue"], 1, lease=0.02)
    async with locked:
        tidying = asyncio.create_task(keep_tidy(engine, interval=0.01, swept=looked.set))
        await asyncio.sleep(0.1)
        renewing = asyncio.create_task(engine.extend([claim.token], 60.0))
        await asyncio.sleep(0)
    await looked.wait()
    assert await renewing == {claim.token}
    looked.clear()
    await looked.wait()
    assert await engine.extend([claim.token], 60.0) == {claim.token}
    tidying.cancel()
