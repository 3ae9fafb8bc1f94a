"""Those who look on while things break: they watch, find, act on many jobs and rebuild indexes, and say what they were told wrongly."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any
from uuid import UUID

from mognet import App, Event, Result, ResultState
from mognet.exceptions import MognetError
from mognet.records import Query
from mognet.watching import Watch
from system.processes import jobs
from system.processes.jobs import insist
from system.processes.raw import Row

WAITING = {ResultState.PENDING, ResultState.SUSPENDED}

INDEXED = ("series", "step1", "label0")
"""Keys that are declared, and sometimes given up, while jobs come and go."""


class Onlookers:
    """They begin when they are entered, and go on until they are told that it is over."""

    def __init__(self, app: App, random: random.Random, submit: Callable[..., Coroutine[Any, Any, Result[Any]]]) -> None:
        self.app = app
        self.random = random
        self.submit = submit
        self.over = False
        self.cursor = ""
        self.told: dict[UUID, Event] = {}
        self.wrong: list[str] = []
        self.trees: dict[UUID, dict[UUID, Event]] = {}
        self.series: dict[int, list[UUID]] = {}

    # watching

    async def watch_all(self) -> None:
        """Come and go, each time with the last cursor."""
        self.cursor = await insist(self.app.cursor)
        while not self.over:
            watch = self.app.watch(since=self.cursor)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.random.uniform(0.02, 2)):
                    async for event in watch:
                        self.hear(event)
                        if self.random.random() < 0.01:
                            await asyncio.sleep(0.2)
            if self.random.random() < 0.5:
                await watch.aclose()
            del watch
            await asyncio.sleep(self.random.uniform(0, 0.5))

    def hear(self, event: Event) -> None:
        before = self.told.get(event.id)
        if before is not None and before.done and event.state != before.state and event.id not in self.mended:
            self.wrong.append(f"{before.state} was followed by {event}")
        # (A claim whose answer nobody got is taken back.)
        if before is not None and before.record.starts > event.record.starts and event.state not in WAITING:
            self.wrong.append(f"{event} is older than {before}")
        self.told[event.id] = event
        self.cursor = event.cursor

    async def catch_up(self, rows: dict[str, Row]) -> None:
        """Hear what is left; then the last that was told of each job is what the store has."""

        def behind() -> list[str]:
            told = {str(id): event.state for id, event in self.told.items()}
            return [id for id, row in rows.items() if told.get(id) != row.state]

        try:
            async with asyncio.timeout(20):
                watch = self.app.watch(since=self.cursor)
                while behind():
                    self.hear(await anext(watch))
                await watch.aclose()
        except TimeoutError:
            left = behind()
            self.wrong.append(f"of {len(left)} jobs the end was not told: {[(id, rows[id], self.told.get(UUID(id))) for id in left[:3]]}")

    async def watch_tree(self, id: UUID) -> None:
        seen = self.trees[id] = {}
        async for event in self.app.watch(root=id):
            seen[event.id] = event
        for event in seen.values():
            if not event.done:
                self.wrong.append(f"the watch of tree {id} ended before {event}")

    def check_trees(self, rows: dict[str, Row]) -> None:
        for id, row in rows.items():
            tree = self.trees.get(UUID(row.parent)) if row.parent is not None else None
            if tree is not None and UUID(id) not in tree:
                self.wrong.append(f"job {id} of tree {row.parent} was not told: {row}")

    async def watch_one(self, watch: Watch) -> None:
        events = [event async for event in watch]
        if not events or not events[-1].done:
            self.wrong.append(f"the watch of one job told {events}")

    # acting on many

    @property
    def mended(self) -> set[UUID]:
        return {id for ids in self.series.values() for id in ids}

    async def act(self) -> None:
        """Jobs that fail run again until all have been mended; others of the same moment are revoked."""
        number = 0
        while not self.over:
            number += 1
            ids = self.series[number] = []
            for _ in range(self.random.randrange(1, 8)):
                request = self.app.create_request(jobs.stumble)
                request.metadata = {"series": number}
                ids.append(request.id)
                await self.submit(request)
            while True:
                ended = await asyncio.gather(*(self.app.result_backend.wait(id) for id in ids))
                if all(result.state == ResultState.SUCCESS for result in ended):
                    break
                for id in ids:
                    if self.random.random() < 0.6:
                        await insist(lambda: self.app.result_backend.set_metadata(id, mended=True))  # noqa: B023 - is awaited here
                await asyncio.gather(*(self.retry(number) for _ in range(self.random.choice([1, 2]))))
            await self.find(number)
            await asyncio.sleep(self.random.uniform(0, 0.3))

    async def retry(self, number: int) -> None:
        await insist(lambda: self.app.retry_many(metadata={"series": number}))

    async def find(self, number: int) -> None:
        found = await insist(lambda: self._find({"series": number}))
        if sorted(found) != sorted(self.series[number]):
            self.wrong.append(f"of series {number} were found: {found}, and not {self.series[number]}")

    async def _find(self, metadata: dict[str, Any]) -> list[UUID]:
        return [result.id async for result in self.app.result_backend.find(metadata=metadata)]

    # indexes

    async def rebuild(self, other: App) -> None:
        """Two processes declare other keys and rebuild, and are stopped in the middle of it."""
        while not self.over:
            await asyncio.gather(self.rebuild_some(self.app), self.rebuild_some(other))

    async def rebuild_some(self, app: App) -> None:
        some = self.random.sample(INDEXED, self.random.randrange(1, 4))
        with suppress(TimeoutError, MognetError):
            async with asyncio.timeout(self.random.uniform(0.005, 0.5)):
                await app.engine.declare(some, only=self.random.random() < 0.2)
                while (await app.engine.reindex(limit=self.random.choice([1, 7, 100]))).left:
                    pass
        await asyncio.sleep(self.random.uniform(0, 0.6))

    async def check_indexes(self, rows: dict[str, Row]) -> None:
        """What is found by an index is what is there."""
        await self.app.engine.declare(INDEXED)
        while (await self.app.engine.reindex()).left:
            pass
        whole = await self.app.engine.declare(INDEXED)
        if whole != set(INDEXED):
            self.wrong.append(f"after a walk only {whole} are whole")
        for key in INDEXED:
            there: dict[str, int] = {}
            for row in rows.values():
                text = row.metadata.get(key)
                there[str(text)] = there.get(str(text), 0) + 1
            counted = await self.app.engine.count(Query(), by=f"metadata:{key}")
            if {group or "None": number for group, number in counted.items()} != there:
                self.wrong.append(f"by {key} there are {counted}, and not {there}")
            for value in {row.metadata[key] for row in rows.values() if key in row.metadata}:
                found = await self._find({key: value})
                wanted = [UUID(id) for id, row in rows.items() if row.metadata.get(key) == value]
                if sorted(found) != sorted(wanted):
                    self.wrong.append(f"{key}={value}: {len(found)} were found, {len(wanted)} are there: {set(found) ^ set(wanted)}")
