"""Random faults, and then the proof, from what the tasks wrote down and from the file itself.

``MOGNET_CHAOS_SECONDS=600 MOGNET_CHAOS_SEED=7 pytest tests/system/processes/test_chaos.py`` runs longer, or again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter, defaultdict
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from mognet import App, Result, ResultState
from mognet.exceptions import Revoked
from mognet.records import Query, Record
from system.processes import jobs
from system.processes.crew import Crew, Ledger

SECONDS = float(os.environ.get("MOGNET_CHAOS_SECONDS", "15"))
SEED = int(os.environ.get("MOGNET_CHAOS_SEED", random.randrange(10**6)))
LEASE = 0.8
WORKERS = 3
SLOTS = 10


class Chaos:
    """Producers, workers and faults; and what the outside knows of them."""

    def __init__(self, crew: Crew, app: App) -> None:
        self.random = random.Random(SEED)
        self.crew = crew
        self.app = app
        self.over = False
        self.submitted: dict[UUID, int] = {}
        self.trees: dict[UUID, int] = {}
        self.answers: dict[UUID, Any] = {}
        self.revoked_unclaimed: set[UUID] = set()
        self.labelled: dict[UUID, dict[str, int]] = defaultdict(dict)
        self.waiters: list[asyncio.Task[None]] = []
        self.seen: dict[UUID, Record] = {}
        self.changed_ends: list[tuple[Record, Record]] = []
        self.faults: list[tuple[str, int, float, float]] = []

    async def produce(self) -> None:
        number = 0
        while not self.over:
            amount = self.random.choice([1, 1, 3, 10])
            numbers = range(number, number + amount)
            number += amount
            seconds = self.random.choice([0.0, 0.03, 0.3])
            for number_, result in zip(
                numbers, await self.app.submit_many([self.app.create_request(jobs.work, each, seconds) for each in numbers]), strict=True
            ):
                self.submitted[result.id] = number_
                self.waiters.append(asyncio.create_task(self.wait(result)))
            if self.random.random() < 0.3:
                children = self.random.randrange(1, 5)
                tree = await self.app.submit(jobs.spawn, children, 0.05)
                self.trees[tree.id] = children
                self.waiters.append(asyncio.create_task(self.wait(tree)))
                if self.random.random() < 0.3:
                    await asyncio.sleep(self.random.uniform(0, 0.15))
                    await self.revoke(tree.id)
            if self.random.random() < 0.3:
                request = self.app.create_request(jobs.work, 0, 0.0)
                request.delay = timedelta(seconds=0.3)
                late = await self.app.submit(request)
                self.submitted[late.id] = 0
                self.waiters.append(asyncio.create_task(self.wait(late)))
                await self.revoke(late.id)
            await asyncio.sleep(self.random.uniform(0, 0.3))

    async def revoke(self, id: UUID) -> None:
        result = await self.app.revoke(id)
        if result.state is ResultState.REVOKED and result.number_of_starts == 0:
            self.revoked_unclaimed.add(id)

    async def wait(self, result: Result[int]) -> None:
        try:
            self.answers[result.id] = await result
        except Revoked as error:
            self.answers[result.id] = error

    async def meddle(self) -> None:
        """Revoke, label, and look whether ends stay as they are."""
        while not self.over:
            await asyncio.sleep(self.random.uniform(0, 0.2))
            known = list(self.submitted)
            if not known:
                continue
            id = self.random.choice(known[-40:])
            if self.random.random() < 0.4:
                key = f"label{self.random.randrange(5)}"
                await self.app.result_backend.set_metadata(id, **{key: len(self.seen)})
                self.labelled[id][key] = len(self.seen)
            elif self.random.random() < 0.4:
                await self.revoke(self.random.choice(known[-5:]))
            await self.look(self.random.sample(known, min(len(known), 50)))

    async def look(self, ids: list[UUID]) -> None:
        for record in await self.app.engine.get(ids):
            assert record is not None
            before = self.seen.get(record.id)
            if before is not None and (before.state, before.finished) != (record.state, record.finished):
                self.changed_ends.append((before, record))
            if record.done:
                self.seen[record.id] = record

    async def break_things(self) -> None:
        until = time.monotonic() + SECONDS
        members = await self.crew.ready(WORKERS)
        while time.monotonic() < until:
            await asyncio.sleep(self.random.uniform(0.1, 1.0))
            victim = self.random.choice(members)
            kind, began = self.random.choice(["KILL", "KILL", "STOP", "TERM"]), time.monotonic()
            if kind == "STOP":
                victim.send(signal.SIGSTOP)
                await asyncio.sleep(self.random.choice([0.2, LEASE + 0.6]))
                victim.send(signal.SIGCONT)
            else:
                victim.send(signal.SIGKILL if kind == "KILL" else signal.SIGTERM)
                code = await victim.ended()
                # A process that has hardly begun has no handlers yet.
                assert kind == "KILL" or code == 0 or "ready in" not in victim.log(), victim.log()[-3000:]
                members[members.index(victim)] = self.crew.start()
            self.faults.append((kind, victim.pid, began, time.monotonic()))
        self.over = True


async def test_chaos(crew: Crew, app: App, ledger: Ledger) -> None:
    print(f"seed {SEED}")
    crew.settings |= {
        "lease": str(LEASE),
        "sweep_interval": "0.2",
        "minimum_concurrency": str(SLOTS),
        "shutdown_grace": "0.1",
        "max_retries": "50",
    }
    chaos = Chaos(crew, app)
    async with asyncio.TaskGroup() as group:
        for part in (chaos.break_things(), chaos.produce(), chaos.meddle()):
            group.create_task(part)
    try:
        async with asyncio.timeout(40):
            await asyncio.gather(*chaos.waiters)  # I12: every waiter has its answer
    except TimeoutError:
        left = [id for id in {**chaos.submitted, **chaos.trees} if id not in chaos.answers]
        pytest.fail(f"{len(left)} jobs do not end: {await app.engine.get(left[:5])}")
    await settled(app)
    await chaos.look(list(chaos.submitted))
    Check(chaos, ledger, crew.folder / "jobs.db").all()


async def settled(app: App) -> None:
    """Children of revoked or repeated parents may still run."""
    async with asyncio.timeout(40):
        while {"PENDING", "RUNNING", "SUSPENDED"} & set(await app.engine.count(Query())):  # noqa: ASYNC110 - a count is no event
            await asyncio.sleep(0.05)


class Check:
    """The invariants."""

    def __init__(self, chaos: Chaos, ledger: Ledger, path: Path) -> None:
        self.chaos = chaos
        self.starts: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.steps: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in ledger.lines():
            if line["kind"] == "start":
                self.starts[line["id"]].append(line)
            elif line["kind"] == "step":
                self.steps[line["id"]].append(line)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
            file.row_factory = sqlite3.Row
            self.rows = {str(UUID(bytes=row["id"])): dict(row) for row in file.execute("SELECT * FROM job")}
            values = "SELECT seq, coalesce(result, (SELECT data FROM content WHERE key = 2 * seq + 1)) FROM job"
            self.values = dict(file.execute(values).fetchall())
            self.notes = file.execute("SELECT count(*) FROM note").fetchone()[0]
            assert file.execute("PRAGMA integrity_check").fetchone()[0] == "ok"

    def all(self) -> None:
        names = list(ResultState)
        ends = Counter(str(names[row["state"]]) for row in self.rows.values())
        faults = Counter(kind for kind, *_ in self.chaos.faults)
        starts = sum(map(len, self.starts.values()))
        print(f"{len(self.rows)} jobs: {dict(ends)}; {starts} starts; faults: {dict(faults)}")
        self.one_end_each(names)
        self.extra_starts_are_explained()
        self.values_and_notes(names)
        self.revoked_never_ran()
        self.trees_are_closed()
        self.nothing_is_left()

    def one_end_each(self, names: list[ResultState]) -> None:
        """I1, I2, I5."""
        for id in {**self.chaos.submitted, **self.chaos.trees}:
            state = names[self.rows[str(id)]["state"]]
            assert state in (ResultState.SUCCESS, ResultState.REVOKED), (id, state)
            assert state is ResultState.REVOKED or self.starts[str(id)]
            assert isinstance(self.chaos.answers[id], Revoked) == (state is ResultState.REVOKED)
        assert self.chaos.changed_ends == []

    def extra_starts_are_explained(self) -> None:
        """I3. A start of an attempt with the same token is never repeated; a crash is counted, and one fault took few jobs along."""
        crashes = 0
        for id, starts in self.starts.items():
            tokens = [line["start"] for line in starts]
            assert len(set(tokens)) == len(tokens), (id, tokens)
            row = self.rows[id]
            assert row["starts"] >= max(tokens)
            lost = row["starts"] - row["stops"]
            assert lost >= 0, (id, row)
            crashes += lost
            killed = {pid: began for kind, pid, began, _ in self.chaos.faults if kind in ("KILL", "STOP")}
            assert lost == 0 or any(line["pid"] in killed for line in starts) or len(starts) < row["starts"], (id, starts)
        hits = sum(kind in ("KILL", "STOP") for kind, *_ in self.chaos.faults)
        assert crashes <= hits * SLOTS * 4, "more crashes than jobs at hand: parents that wait and ends on their way included"

    def values_and_notes(self, names: list[ResultState]) -> None:
        """I4, I7: values, states and labels are those that were acknowledged last."""
        for id, number in self.chaos.submitted.items():
            row = self.rows[str(id)]
            metadata = json.loads(row["metadata"])
            for key, value in self.chaos.labelled[id].items():
                assert metadata[key] == value
            if names[row["state"]] is not ResultState.SUCCESS:
                continue
            assert json.loads(self.values[row["seq"]]) == self.chaos.answers[id] == number
            assert {f"step{step}" for step in range(3)} <= set(metadata)
            # What an attempt had noted, the next one saw.
            noted = 0
            lines = sorted([*self.starts[str(id)], *self.steps[str(id)]], key=lambda line: line["at"])
            tokens = {line["pid"]: line["start"] for line in self.starts[str(id)]}
            newest = 0
            for line in lines:
                if line["kind"] == "start":
                    assert line["done"] >= noted, (id, lines)
                    newest = line["start"]
                elif tokens.get(line["pid"]) == newest:
                    noted = line["step"]

    def revoked_never_ran(self) -> None:
        """I6."""
        for id in self.chaos.revoked_unclaimed:
            assert not self.starts[str(id)]

    def trees_are_closed(self) -> None:
        """I8: every child's parent is there; of a tree that succeeded all children did that the last attempt waited for."""
        ids = {row["id"] for row in self.rows.values()}
        for row in self.rows.values():
            assert row["parent"] is None or row["parent"] in ids
        for id, children in self.chaos.trees.items():
            answer = self.chaos.answers[id]
            assert isinstance(answer, Revoked) or answer == sum(range(children))

    def nothing_is_left(self) -> None:
        assert self.notes == 0
        for row in self.rows.values():
            assert row["lease_end"] is None
            assert row["holder"] is None
            assert not row["lined"]
            assert row["expires"] is not None
