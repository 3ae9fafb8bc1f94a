"""Keeping what jobs log while the way to the engine breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mognet import joblogs
from mognet.exceptions import ConnectionError
from mognet.records import Token

from .conftest import Gate, Lab, soon, until

log = logging.getLogger("mine")


@pytest.mark.parametrize(
    ("written", "last"),
    [(True, False), (False, False), (True, True), (False, True)],
    ids=["answer lost", "question lost", "answer lost at the end", "question lost at the end"],
)
async def test_no_line_twice_and_none_missing(
    lab: Lab, gate: Gate, written: bool, last: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether lines were written is not known if the connection breaks meanwhile."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(joblogs, "FLUSH_EVERY", 60.0 if last else 0.02)
    app = await lab.working(keep_logs=50)
    write, broken = app.engine.log, asyncio.Event()

    async def breaking(lines: Mapping[Token, Sequence[bytes]], *, keep: int) -> set[Token]:
        if broken.is_set():
            return await write(lines, keep=keep)
        if written:
            await write(lines, keep=keep)
        broken.set()
        raise ConnectionError("the connection broke")

    @app.task
    async def work() -> None:
        for number in range(3):
            log.info("line %d", number)
        if not last:
            await broken.wait()
            log.info("line 3")
            await gate.pass_through()
        log.info("end")

    monkeypatch.setattr(app.engine, "log", breaking)
    result = await app.submit(work)
    if not last:
        await gate.arrived()

        async def told() -> Any:
            return any(entry.message == "line 3" for entry in await result.logs())

        await until(told)
        gate.open()
    await soon(result)
    lines = [entry.message for entry in await result.logs()]
    assert lines == ["line 0", "line 1", "line 2", *(["line 3"] if not last else []), "end"]
