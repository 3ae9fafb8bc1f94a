"""Random faults, and then the proof, from what the tasks wrote down and from the store itself, by its own client.

``MOGNET_CHAOS_SECONDS=600 MOGNET_CHAOS_SEED=7 pytest tests/system/processes/test_chaos.py`` runs longer, or again; ``-k postgres`` on
one engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from mognet import App, Request, Result, ResultState
from mognet.exceptions import Revoked
from mognet.records import Query, Record
from processor import Processor
from servers.places import on_every_engine
from system.processes import jobs, raw
from system.processes.crew import Crew, Ledger, Member
from system.processes.jobs import insist
from system.processes.onlookers import Onlookers

SECONDS = float(os.environ.get("MOGNET_CHAOS_SECONDS", "12"))
SEED = int(os.environ.get("MOGNET_CHAOS_SEED", random.randrange(10**6)))
LEASE = 0.8
WORKERS = 3
SLOTS = 10
BACK = 5.0
"""Seconds after the return of a server, or of the way to it, in which a new job has to be begun; more if the processors have more to do."""

SILENCE = {"store": 5.0, "broker": 10.0}
"""Seconds more that it may take to notice a connection that is dead and does not say so."""

RECOVERED = LEASE + 0.24 + 2.0
"""Seconds after a fault in which its victims' leases end, and a sweep finds them."""

BUSY = 3.0
"""How many times longer the processors take when leases of this length may end by themselves: what explains as much as a fault does."""

ON_WORKERS = ["KILL", "KILL", "STOP", "TERM"]
ON_THE_WAY = ["CUT", "HALF-OPEN", "REFUSE", "HANG"]


class Fault(NamedTuple):
    """What was done, to whom (a worker's process id, or a server's part), and from when to when."""

    kind: str
    target: int | str
    began: float
    ended: float

    def explains(self, starts: list[dict[str, Any]]) -> bool:
        """Whether an attempt among these may have been lost by it."""
        if isinstance(self.target, int):
            return self.kind in ("KILL", "STOP") and any(line["pid"] == self.target for line in starts)
        return any(line["at"] < self.ended + RECOVERED for line in starts) and starts[-1]["at"] > self.began - LEASE


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
        self.faults: list[Fault] = []
        self.processors = asyncio.create_task(self.watch_processors())
        self.back: list[tuple[float, str, str]] = []
        self.onlookers = Onlookers(app, self.random, self.submit)

    def leave(self) -> None:
        """Wait for nothing any more."""
        for waiter in [*self.waiters, self.processors]:
            waiter.cancel()

    async def watch_processors(self) -> None:
        """Others may want them, too."""
        while True:
            began, processor = time.monotonic(), Processor()
            await asyncio.sleep(0.2)
            if processor.slowness() > BUSY:
                self.faults.append(Fault("BUSY", "processors", began, time.monotonic()))

    async def produce(self) -> None:
        number = 0
        while not self.over:
            amount = self.random.choice([1, 1, 3, 10])
            numbers = range(number, number + amount)
            number += amount
            seconds = self.random.choice([0.0, 0.03, 0.3])
            requests = [self.app.create_request(jobs.work, each, seconds) for each in numbers]
            for number_, result in zip(numbers, await insist(lambda these=requests: self.app.submit_many(these)), strict=True):  # type: ignore[misc]
                self.submitted[result.id] = number_
                self.waiters.append(asyncio.create_task(self.wait(result)))
            if self.random.random() < 0.3:
                children = self.random.randrange(1, 5)
                tree = await self.submit(self.app.create_request(jobs.spawn, children, 0.05))
                self.trees[tree.id] = children
                self.waiters.append(asyncio.create_task(self.wait(tree)))
                self.waiters.append(asyncio.create_task(self.onlookers.watch_tree(tree.id)))
                if self.random.random() < 0.3:
                    await asyncio.sleep(self.random.uniform(0, 0.15))
                    await self.revoke(tree.id)
            if self.random.random() < 0.3:
                request = self.app.create_request(jobs.work, 0, 0.0)
                request.delay = timedelta(seconds=0.3)
                late = await self.submit(request)
                self.submitted[late.id] = 0
                self.waiters.append(asyncio.create_task(self.wait(late)))
                self.waiters.append(asyncio.create_task(self.onlookers.watch_one(late.watch())))
                await self.revoke(late.id)
            await asyncio.sleep(self.random.uniform(0, 0.3))

    async def submit(self, request: Request[Any]) -> Result[Any]:
        return await insist(lambda: self.app.submit(request))

    async def revoke(self, id: UUID) -> None:
        result = await insist(lambda: self.app.revoke(id))
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
                value = len(self.seen)
                await insist(lambda: self.app.result_backend.set_metadata(id, **{key: value}))  # noqa: B023 - is awaited here
                self.labelled[id][key] = value
            elif self.random.random() < 0.4:
                await self.revoke(self.random.choice(known[-5:]))
            await self.look(self.random.sample(known, min(len(known), 50)))

    async def look(self, ids: list[UUID]) -> None:
        for record in await insist(lambda: self.app.engine.get(ids)):
            assert record is not None
            before = self.seen.get(record.id)
            if before is not None and (before.state, before.finished) != (record.state, record.finished):
                self.changed_ends.append((before, record))
            if record.done:
                self.seen[record.id] = record

    def deck(self) -> list[tuple[str, str]]:
        """Each kind of fault that there is here, some more often than others. A pair's store has runs of its own, too."""
        deck = [(kind, "") for kind in ON_WORKERS]
        servers = self.crew.place.servers
        for part in servers:
            deck += [(kind, part) for kind in (["CUT", "CRASH"] if (part, len(servers)) == ("store", 2) else [*ON_THE_WAY, "CRASH"])]
        self.random.shuffle(deck)
        return deck

    async def break_things(self) -> None:
        until = time.monotonic() + SECONDS
        self.members = await self.crew.ready(WORKERS)
        deck: list[tuple[str, str]] = []
        while time.monotonic() < until or (deck and SECONDS < 60):  # a short run, too, goes through one deck at least
            await asyncio.sleep(self.random.uniform(0.1, 0.5 if self.crew.place.servers else 1.0))
            deck = deck or self.deck()
            kind, part = deck.pop()
            began = time.monotonic()
            target = await (self.break_way(kind, part) if part else self.break_worker(kind))
            noticed = SILENCE[part] if kind == "HALF-OPEN" else 0.0
            self.faults.append(Fault(kind, target, began, time.monotonic() + noticed))
            if part:
                await self.goes_on(kind, part)
        self.over = self.onlookers.over = True

    async def break_worker(self, kind: str) -> int | str:
        victim: Member = self.random.choice(self.members)
        if kind == "STOP":
            victim.send(signal.SIGSTOP)
            await asyncio.sleep(self.random.choice([0.2, LEASE + 0.6]))
            victim.send(signal.SIGCONT)
            if not self.crew.place.servers:
                return "file"  # it may have stood still while it wrote, and nobody else could write
        else:
            victim.send(signal.SIGKILL if kind == "KILL" else signal.SIGTERM)
            code = await victim.ended()
            # A process that has hardly begun has no handlers yet.
            assert kind == "KILL" or code == 0 or "ready in" not in victim.log(), victim.log()[-3000:]
            self.members[self.members.index(victim)] = self.crew.start()
        return victim.pid

    async def break_way(self, kind: str, part: str) -> str:
        proxy, server = self.crew.place.proxies[part], self.crew.place.servers[part]
        if kind == "CUT":
            self.random.choice([proxy.cut, proxy.reset])()
        elif kind == "HALF-OPEN":
            proxy.half_open()
        elif kind == "HANG":
            with proxy.hanging():
                await asyncio.sleep(self.random.uniform(0.1, 2 * LEASE))
        elif kind == "REFUSE":
            proxy.refuse()
            proxy.reset()
            await asyncio.sleep(self.random.uniform(0.1, 2 * LEASE))
            await proxy.accept()
        else:
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(self.random.uniform(0, LEASE))
            await asyncio.to_thread(server.start)
        return part

    async def goes_on(self, kind: str, part: str) -> None:
        """A new job is begun soon."""
        returned, processor = time.monotonic(), Processor()
        request = self.app.create_request(jobs.quick)
        request.priority = 10
        probe = await self.submit(request)
        began = (await self.crew.ledger.seen("start", probe.id))["at"] - returned
        self.back.append((began, kind, part))
        most = BACK + (SILENCE[part] if kind == "HALF-OPEN" else 0)
        slowness = processor.slowness()
        assert began < most * slowness, f"{began:.1f} s after {kind} of the {part} a new job was begun, at {slowness:.1f} times the time"


@on_every_engine
@pytest.mark.timeout(SECONDS + 180)
async def test_chaos(crew: Crew, ledger: Ledger) -> None:
    print(f"seed {SEED}")
    crew.settings |= {
        "lease": str(LEASE),
        "sweep_interval": "0.2",
        "minimum_concurrency": str(SLOTS),
        "shutdown_grace": "0.1",
        "max_retries": "50",
    }
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(crew.place.behind_proxies())
        app = await stack.enter_async_context(crew.place.app())
        other = await stack.enter_async_context(crew.place.app())
        chaos = Chaos(crew, app)
        looking_on = chaos.onlookers
        stack.callback(chaos.leave)
        await looking_on.begin()
        async with asyncio.TaskGroup() as group:
            for part in (chaos.break_things(), chaos.produce(), chaos.meddle(), looking_on.watch_all(), looking_on.act()):
                group.create_task(part)
            group.create_task(looking_on.rebuild(other))
        try:
            async with asyncio.timeout(40):
                await asyncio.gather(*chaos.waiters)  # I12: every waiter has its answer
        except TimeoutError:
            left = [id for id in {**chaos.submitted, **chaos.trees} if id not in chaos.answers]
            pytest.fail(f"{len(left)} jobs do not end: {await app.engine.get(left[:5])}")
        await settled(app)
        await chaos.look(list(chaos.submitted))
        store = await swept(crew)
        Check(chaos, ledger, store).all()
        await looking_on.catch_up(store.rows)
        looking_on.check_trees(store.rows)
        await looking_on.check_indexes(store.rows)
        assert not looking_on.wrong, "\n".join(looking_on.wrong)


async def swept(crew: Crew) -> raw.Store:
    """The store, when the sweeps have had time for what a connection that broke after a job's end may have left."""
    until = time.monotonic() + 10
    while (store := raw.read(crew.place)).left and time.monotonic() < until:  # noqa: ASYNC110 - rows tell nobody
        await asyncio.sleep(0.2)
    return store


async def settled(app: App) -> None:
    """Children of revoked or repeated parents may still run."""
    async with asyncio.timeout(40):
        while {"PENDING", "RUNNING", "SUSPENDED"} & set(await app.engine.count(Query())):  # noqa: ASYNC110 - a count is no event
            await asyncio.sleep(0.05)


class Check:
    """The invariants."""

    def __init__(self, chaos: Chaos, ledger: Ledger, store: raw.Store) -> None:
        self.chaos = chaos
        self.rows, self.left = store.rows, store.left
        self.starts: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.steps: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in ledger.lines():
            if line["kind"] == "start":
                self.starts[line["id"]].append(line)
            elif line["kind"] == "step":
                self.steps[line["id"]].append(line)

    def all(self) -> None:
        ends = Counter(str(row.state) for row in self.rows.values())
        faults = Counter(fault.kind for fault in self.chaos.faults)
        starts = sum(map(len, self.starts.values()))
        print(f"{len(self.rows)} jobs: {dict(ends)}; {starts} starts; faults: {dict(faults)}")
        if self.chaos.back:
            print("new jobs were begun after", ", ".join(f"{part} {kind}: {took:.1f} s" for took, kind, part in self.chaos.back))
        self.one_end_each()
        self.extra_starts_are_explained()
        self.values_and_notes()
        self.revoked_never_ran()
        self.trees_are_closed()
        self.nothing_is_left()

    def one_end_each(self) -> None:
        """I1, I2, I5."""
        for id in {**self.chaos.submitted, **self.chaos.trees}:
            state = self.rows[str(id)].state
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
            assert row.starts >= max(tokens)
            lost = row.starts - row.stops
            assert lost >= 0, (id, row)
            crashes += lost
            # An attempt that has written nothing down was claimed by somebody who died, or whose claim was never answered.
            assert lost <= row.starts - len(starts) or any(fault.explains(starts) for fault in self.chaos.faults), (
                id,
                row,
                starts,
                [fault for fault in self.chaos.faults if fault.ended > starts[-1]["at"] - 5 and fault.began < starts[-1]["at"] + 5],
            )
        on_workers = sum(fault.kind in ("KILL", "STOP") for fault in self.chaos.faults)
        on_the_way = sum(isinstance(fault.target, str) and fault.kind != "BUSY" for fault in self.chaos.faults)
        most = (on_workers + on_the_way * WORKERS) * SLOTS * 4
        assert crashes <= most, "more crashes than jobs at hand: parents that wait and ends on their way included"

    def values_and_notes(self) -> None:
        """I4, I7: values, states and labels are those that were acknowledged last."""
        for id, number in self.chaos.submitted.items():
            row = self.rows[str(id)]
            for key, value in self.chaos.labelled[id].items():
                assert row.metadata[key] == value
            if row.state is not ResultState.SUCCESS:
                continue
            assert json.loads(row.value or b"") == self.chaos.answers[id] == number
            assert {f"step{step}" for step in range(3)} <= set(row.metadata)
            # What an attempt had noted, the next one saw.
            noted = 0
            lines = sorted([*self.starts[str(id)], *self.steps[str(id)]], key=lambda line: line["at"])
            tokens = {line["pid"]: line["start"] for line in self.starts[str(id)]}
            newest = 0
            for line in lines:
                if line["kind"] == "start":
                    if line["start"] < newest:  # it stood still after it had read them
                        continue
                    assert line["done"] >= noted, (line, lines)
                    newest = line["start"]
                elif tokens.get(line["pid"]) == newest:
                    noted = line["step"]

    def revoked_never_ran(self) -> None:
        """I6."""
        for id in self.chaos.revoked_unclaimed:
            assert not self.starts[str(id)]

    def trees_are_closed(self) -> None:
        """I8: every child's parent is there; of a tree that succeeded all children did that the last attempt waited for."""
        for row in self.rows.values():
            assert row.parent is None or row.parent in self.rows
        for id, children in self.chaos.trees.items():
            answer = self.chaos.answers[id]
            assert isinstance(answer, Revoked) or answer == sum(range(children))

    def nothing_is_left(self) -> None:
        assert self.left == []
        for id, row in self.rows.items():
            assert (row.held, row.lined, row.expires) == (False, False, True), (id, row)
