"""Watching jobs: ``app.watch``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from contextvars import Context
from typing import Any, Self
from uuid import UUID

from mognet.engine import CHANGED, Engine
from mognet.events import Audience, Box, Entry, Event, Memory, Phase, Spot, Walk, Want, make_want, read_spot
from mognet.exceptions import ConnectionError, InvalidCursor, InvalidQuery, NotConnected, ResultLost
from mognet.records import Query, Record, Signal
from mognet.states import FINAL, ResultState

LOOK_EVERY = 1.0
"""Seconds between readings when no ring comes: rings are hints, and may be lost."""

NOT_WITHIN = 0.02
"""Seconds from one reading to the next."""

TREES_NOT_WITHIN = 0.2
"""Seconds from one look whether a tree is over to the next."""

MISSING_EVERY = 5.0
"""Seconds between looks whether the jobs that are watched are still there."""

LINGER = 5.0
"""Seconds that the subscription is kept when nobody watches any more."""

PAGE = 500
"""Jobs in one reading."""

AGAIN = 1.0
"""Seconds after which an engine that could not be reached is asked again."""

SAY_EVERY = 5.0
"""Seconds from one line in the log that it cannot be reached to the next, however many watch."""

_UNFINISHED = frozenset(ResultState) - FINAL

_log = logging.getLogger(__name__)


class Watch(AsyncIterator[Event]):
    """Events, as they come; made by :meth:`mognet.App.watch`.

    Waiting for the next one may be cancelled, by a timeout say, and nothing is lost: ask again. Whoever does not want more just leaves.
    """

    def __init__(self, hub: Hub, want: Want, since: str | None) -> None:
        self._hub = hub
        self._box = Box(want, since)
        self._memory = Memory(hub.read_value)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        box = self._box
        while True:
            while (entry := box.take()) is not None:
                event = self._memory.event(entry, self._hub.identity)
                if event is not None:
                    box.told = True
                    return event
            if box.phase is Phase.OVER:
                await self.aclose()
                if box.error is not None:
                    error, box.error = box.error, None
                    raise error
                raise StopAsyncIteration
            await self.more()

    async def more(self) -> None:
        """Wait until there may be something to tell. May be cancelled."""
        await self._hub.more(self._box)

    async def aclose(self) -> None:
        """Leave. Dropping the watch does the same."""
        self._box.clear()
        self._hub.drop(self._box)

    def __del__(self) -> None:
        self._hub.drop_soon(self._box)


class Hub:
    """Serves all watches of a process by one reader of the engine's changes.

    Readings of changes are done one at a time: so what one of them tells is never older than what was told before. A watch that falls
    behind, or comes with a cursor, is served page by page as it asks, until it has caught up; then it is sent what the reader reads.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.identity: str = ""
        self._at: Spot | None = None
        """Up to where the reader has read; None: nobody is sent anything."""
        self._boxes: set[Box] = set()
        """Of all watches that have begun."""
        self._joining: dict[Box, None] = {}
        self._live = Audience()
        self._trees: dict[UUID, float] = {}
        """When to look next whether a tree is over whose root is."""
        self._look_at_top = 0.0
        self._rung = asyncio.Event()
        self._reading = asyncio.Lock()
        self._turns = asyncio.Lock()
        """Of those that catch up: one of them at a time stands in line for reading, so that the reader is never behind them all."""
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = asyncio._get_running_loop()
        self._closed = False
        self._say_again = 0.0

    def watch(self, id: UUID | None, root: UUID | None, metadata: Mapping[str, Any] | None, since: str | None, **filters: Any) -> Watch:
        """See :meth:`mognet.App.watch`."""
        return Watch(self, make_want(id, root, {"metadata": metadata, **filters}), since)

    async def cursor(self) -> str:
        """The cursor of now."""
        identity = self.identity = await self._engine.identity()
        changes = await self._engine.changes(None)
        return Spot(changes.at).cursor(identity)

    async def read_value(self, id: UUID) -> bytes | None:
        """What a job has left: its value, or its error."""
        return await self._engine.value(id)

    async def close(self) -> None:
        """End all watches."""
        self._closed = True
        for box in list(self._boxes):
            self.drop(box)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    # one watch

    async def more(self, box: Box) -> None:
        """Wait until there is something in the box, or at least less to wait for. May be cancelled, and called again."""
        if self._closed:
            box.end()
            return
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise NotConnected("jobs cannot be watched in this event loop: their app is connected in another one")
        self._boxes.add(box)
        if self._task is None:
            self._loop = loop
            # With a context of its own: it belongs to none of those who watch, nor do the log records made on the way.
            self._task = self._loop.create_task(self._run(), name="mognet watching", context=Context())
        box.arrived.clear()
        try:
            if box.phase is Phase.NEW:
                await self._begin(box)
            elif box.phase is Phase.WALKING:
                await self._walk(box)
            elif box.phase is Phase.CATCHING_UP:
                await self._catch_up(box)
            elif box.empty and box.phase is not Phase.OVER:  # or else it has come while the caller did something else
                await box.arrived.wait()
        except ConnectionError as error:
            if not self._closed:
                await self._outlast(error)
        except Exception as error:
            if not self._closed and box.phase is not Phase.OVER:
                box.end(error)

    async def _outlast(self, error: Exception) -> None:
        """Wait before the engine that cannot be reached is asked again."""
        now = asyncio.get_running_loop().time()
        if now >= self._say_again:
            self._say_again = now + SAY_EVERY
            _log.warning("watching goes on while the engine cannot be reached: %s", error)
        await asyncio.sleep(AGAIN)

    async def _begin(self, box: Box) -> None:
        if box.since is None:
            box.phase = Phase.JOINING
            self._joining[box] = None
            self._rung.set()
            return
        self.identity = await self._engine.identity()
        spot = read_spot(self.identity, box.since)
        top = box.want.top
        records = await self._get([top])
        if box.phase is not Phase.NEW or (top is not None and not self._found(box, top, records[top])):
            return
        box.spot = spot
        box.phase = Phase.CATCHING_UP if spot.walk is None else Phase.WALKING

    def _found(self, box: Box, top: UUID, record: Record | None) -> bool:
        """Whether there is a job to watch; if not, the watch ends."""
        if record is None:
            box.end(ResultLost(top))
        elif box.want.root is not None and record.root not in (None, record.id):
            box.end(InvalidQuery(f"job {record.id} is no root: it belongs to the tree of {record.root}"))
        else:
            box.top_done = record.done
            return True
        return False

    async def _walk(self, box: Box) -> None:
        """A page of the jobs as they are."""
        spot = box.spot
        walk = spot.walk or Walk()
        query = box.want.query._replace(limit=PAGE, after=walk.place)
        records = [record async for record in self._engine.search(query)]
        if box.phase is not Phase.WALKING:
            return
        for record in records:
            walk = Walk(record.stand)
            box.put(Entry(spot._replace(walk=walk), record))
        box.spot = spot._replace(walk=walk)
        if len(records) < PAGE and box.phase is Phase.WALKING:
            box.phase = Phase.CATCHING_UP

    async def _catch_up(self, box: Box) -> None:
        """A page of changes, read by the watch itself; behind the last one, it goes live."""
        async with self._turns, self._reading:
            await asyncio.sleep(0)  # not every engine lets others have their turn
            start, top = box.spot._replace(walk=None), box.want.top
            try:
                changes = await self._engine.changes(start.at, box.want.query, limit=PAGE)
            except ValueError as error:
                raise InvalidCursor(f"the cursor leads nowhere: {error}") from None
            if changes.lost:
                self.identity = await self._engine.identity()
            last = not changes.more and not changes.lost
            records = await self._get([top]) if last else {}
            if box.phase is not Phase.CATCHING_UP:
                return
            box.spot = Spot(changes.at)
            if changes.lost:
                box.start_over(box.spot._replace(walk=Walk()))
                return
            for changed in changes.changed:
                box.put(Entry(Spot(changed.at), changed.record))
            if last:
                self._go_live(box, start, records)

    def _go_live(self, box: Box, start: Spot, records: dict[UUID, Record | None]) -> None:
        """``start``: up to where all has been told."""
        now = box.spot
        for id, record in records.items():
            owed = box.want.id is not None or (box.empty and not box.told)
            if box.phase is not Phase.OVER and self._found(box, id, record) and record is not None and record.done and owed:
                box.put(Entry(now, record))  # which ended before the cursor was given
        if box.phase is not Phase.OVER:
            box.spot = now if box.empty else start
            self._join(box)
            self._at = self._at or now

    def _join(self, box: Box) -> None:
        box.phase = Phase.LIVE
        self._live.add(box)
        if box.want.root is not None:
            self._trees[box.want.root] = 0.0
        self._rung.set()

    def leave(self, box: Box) -> None:
        """The watch is sent nothing more."""
        self._joining.pop(box, None)
        self._live.discard(box)
        if box.want.root is not None and not self._live.of_top(box.want.root):
            self._trees.pop(box.want.root, None)

    def drop(self, box: Box) -> None:
        """The watch is over."""
        box.end()
        self.leave(box)
        self._boxes.discard(box)

    def drop_soon(self, box: Box) -> None:
        """The same, from wherever a watch is dropped."""
        if box in self._boxes and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self.drop, box)

    # the reader

    async def _run(self) -> None:
        while True:
            try:
                async with self._engine.subscribe(CHANGED) as signals, asyncio.TaskGroup() as group:
                    listener = group.create_task(self._listen(signals), name="mognet watching's ears")
                    await self._read_on()
                    listener.cancel()
            except* ConnectionError as errors:
                await self._outlast(errors.exceptions[0])
            except* Exception as errors:  # an engine's bug must not leave anybody waiting for ever
                _log.exception("watching goes on after an error", exc_info=errors.exceptions[0])
                await asyncio.sleep(AGAIN)
            else:
                if not self._boxes:
                    self._task = None
                    return

    async def _listen(self, signals: AsyncIterator[Signal]) -> None:
        async for _ in signals:
            self._rung.set()

    async def _read_on(self) -> None:
        """Read, again and again, until nobody has watched for a while."""
        loop = asyncio.get_running_loop()
        leave = loop.time() + LINGER
        while self._boxes or loop.time() < leave:
            began = loop.time()
            if self._boxes:
                leave = began + LINGER
            self._rung.clear()
            async with self._reading:
                more = await self._read()
                if not more:
                    await self._settle_down(loop.time())
                await self._let_in()  # also when there is always more
            if more:
                await asyncio.sleep(0)
                continue
            over = any(box.top_done for _, boxes in self._live.of_trees() for box in boxes)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(began + (TREES_NOT_WITHIN if over else LOOK_EVERY)):
                    await self._rung.wait()
            await asyncio.sleep(began + NOT_WITHIN - loop.time())

    async def _read(self) -> bool:
        """Read on, and send; whether there is more."""
        if not self._live.boxes:
            self._at = None
        before = self._at
        if before is None:
            if self._joining:
                changes = await self._engine.changes(None)
                self.identity = await self._engine.identity()  # the store may have been emptied while nobody watched
                self._at = Spot(changes.at)
            return False
        changes = await self._engine.changes(before.at, self._live.query(), limit=PAGE)
        if changes.lost:
            self.identity = await self._engine.identity()
            for box in list(self._live.boxes):
                self.leave(box)
                box.start_over(Spot(changes.at, Walk()))
        else:
            for changed in changes.changed:
                self._send(Entry(Spot(changed.at), changed.record), before)
        self._at = Spot(changes.at)
        return changes.more

    def _send(self, entry: Entry, before: Spot) -> None:
        root = entry.record.root or entry.record.id
        if root in self._trees:
            self._trees[root] = min(self._trees[root], asyncio.get_running_loop().time() + TREES_NOT_WITHIN)
        for box in self._live.of(entry.record):
            self._put(box, entry, before)

    def _put(self, box: Box, entry: Entry, before: Spot | None = None) -> None:
        box.put(entry, before)
        if box.phase is not Phase.LIVE:
            self.leave(box)

    # what is done when all has been read

    async def _settle_down(self, now: float) -> None:
        for _, boxes in self._live.of_trees():
            for box in [box for box in boxes if box.all_done and box.top_done]:
                box.end()
                self.leave(box)
        if now >= self._look_at_top:
            self._look_at_top = now + MISSING_EVERY
            await self._look_for_missing()
        await self._look_at_trees(now)

    async def _let_in(self) -> None:
        """From here on, those who asked are sent what changes."""
        if not self._joining or self._at is None:
            return
        spot, joining = self._at, list(self._joining)
        records = await self._get(box.want.top for box in joining)
        for box in [box for box in joining if box in self._joining]:
            self.leave(box)
            top = box.want.top
            record = None if top is None else records[top]
            if top is not None and not self._found(box, top, record):
                continue
            if box.want.root is not None:
                box.start_over(spot._replace(walk=Walk()))
                continue
            box.spot = spot
            self._join(box)
            if record is not None:
                self._put(box, Entry(spot, record))
            box.arrived.set()

    async def _get(self, ids: Iterable[UUID | None]) -> dict[UUID, Record | None]:
        wanted = list({id for id in ids if id is not None})
        found: dict[UUID, Record | None] = {}
        for start in range(0, len(wanted), PAGE):
            chunk = wanted[start : start + PAGE]
            found.update(zip(chunk, await self._engine.get(chunk), strict=True))
        return found

    async def _look_for_missing(self) -> None:
        """A job that is deleted, or expires, is not told as a change."""
        for id, record in (await self._get(self._live.tops())).items():
            for box in self._live.of_top(id) if record is None else ():
                box.end(ResultLost(id))
                self.leave(box)

    async def _look_at_trees(self, now: float) -> None:
        """A tree whose root has ended is over when nothing of it is unfinished: what has ended until then is read once more."""
        for root, boxes in self._live.of_trees():
            if self._trees.get(root, now) > now or not any(box.top_done for box in boxes):
                continue
            self._trees[root] = now + LOOK_EVERY
            unfinished = self._engine.search(Query(states=_UNFINISHED, root=root, limit=1))
            if not [record async for record in unfinished]:
                for box in self._live.of_top(root):
                    box.all_done = True
                self._rung.set()
