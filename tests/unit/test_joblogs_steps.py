"""Keeping the lines of jobs, while it is stopped at any step and the way to the engine breaks at any other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import product

import pytest

from mognet import joblogs
from mognet.engines.memory import MemoryEngine
from mognet.exceptions import ConnectionError
from mognet.joblogs import JobLogs
from mognet.records import LogLine, Token
from watches import job


class Breaking(MemoryEngine):
    """Takes a few steps for each answer; some questions and some answers are lost."""

    def __init__(self, questions: set[int], answers: set[int]) -> None:
        super().__init__()
        self.questions, self.answers, self.asked = questions, answers, 0

    async def log(self, lines: Mapping[Token, Sequence[bytes]], *, keep: int) -> set[Token]:
        self.asked += 1
        asked = self.asked
        await asyncio.sleep(0)
        if asked in self.questions:
            raise ConnectionError("the question was lost")
        told = await super().log(lines, keep=keep)
        await asyncio.sleep(0)
        if asked in self.answers:
            raise ConnectionError("the answer was lost")
        return told

    async def logs(self, id: object, *, after: int = 0) -> list[LogLine]:
        await asyncio.sleep(0)
        return await super().logs(id, after=after)  # type: ignore[arg-type]


@pytest.mark.parametrize(("questions", "answers"), [({1}, set()), (set(), {1}), ({1}, {2}), ({2}, {1, 3}), (set(), {1, 2})])
async def test_each_line_once_and_in_order(questions: set[int], answers: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblogs, "FLUSH_EVERY", 0.0)
    monkeypatch.setattr(joblogs, "AGAIN", 0.0)
    for stop, pause in product(range(12), (0, 2)):
        engine = Breaking(questions, answers)
        await engine.submit([job()])
        [claim] = await engine.claim("n", ["q"], 1, lease=60)
        logs = JobLogs(engine, keep=100, prints=False)
        logs.open(claim.token)
        book = joblogs._book.get()
        assert book is not None
        running = asyncio.create_task(logs.run())
        for number in range(6):
            book.add(b"%d" % number)
            for _ in range(pause):
                await asyncio.sleep(0)
            if number == 3:
                for _ in range(stop):
                    await asyncio.sleep(0)
                if stop % 2:
                    running.cancel()
                    await asyncio.wait([running])
        await logs.close()
        running.cancel()
        await asyncio.wait([running])
        assert [line.text for line in await engine.logs(claim.token.id)] == [b"%d" % number for number in range(6)], (stop, pause)
