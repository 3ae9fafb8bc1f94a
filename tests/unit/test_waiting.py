"""The one who waits for all."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

import pytest

from mognet.engines.memory import MemoryEngine
from mognet.exceptions import ResultLost
from mognet.waiting import Waiters

job: ContextVar[str] = ContextVar("job", default="none")


async def test_it_belongs_to_none_of_those_who_wait() -> None:
    """Else what it logs, for as long as anybody waits, would be said of the job that waited first."""
    seen: list[str] = []

    class Asked(MemoryEngine):
        def subscribe(self, *channels: str) -> AbstractAsyncContextManager[Any]:
            seen.append(job.get())
            return super().subscribe(*channels)

    waiters = Waiters(Asked())
    token = job.set("first")
    try:
        with waiters.expect(uuid4()) as ended, pytest.raises(ResultLost):
            await ended
    finally:
        job.reset(token)
        await waiters.close()
    assert seen == ["none"]
