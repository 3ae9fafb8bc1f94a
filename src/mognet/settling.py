"""Bringing the ends of attempts into the records."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from mognet.backoff import Backoff, worth_saying
from mognet.coalesce import Coalescer
from mognet.codec import dump_error
from mognet.config import AppConfig
from mognet.control import CONTROL, RevokeMessage, write
from mognet.engine import Engine
from mognet.exceptions import ConnectionError, MognetError, NotStorable
from mognet.outcomes import Outcome, failed, revoke
from mognet.records import Record, Token
from mognet.states import ResultState

_log = logging.getLogger(__name__)

_AGAIN = Backoff(base=0.1, cap=1.0)  # of this process's engine, which spares its server by itself

R = TypeVar("R")


class Settler:
    """Stores outcomes, many at once, and goes on trying until the engine can be reached: what a task has done is not thrown away."""

    def __init__(self, engine: Engine, config: AppConfig) -> None:
        self._engine = engine
        self._config = config
        self._settles: Coalescer[Outcome, Record | None] = Coalescer(self._settle_batch, limit=500)
        self._giving_up = asyncio.Event()

    def give_up(self) -> None:
        """What cannot be stored now is not to be stored here: whoever waits gets the error, or may be cancelled."""
        self._giving_up.set()

    async def settle(self, outcome: Outcome) -> Record | None:
        """Store an outcome. None: the claim is lost. Raises :class:`MognetError` only after :meth:`give_up`."""
        if outcome.state is ResultState.REVOKED:
            return await self._end_by_deadline(outcome)
        try:
            return await self._settles.add(outcome)
        except asyncio.CancelledError:  # by the task's own code, or by the end of the loop: the task has ended all the same
            return await self._settle_again(outcome)

    async def _settle_again(self, outcome: Outcome) -> Record | None:
        """The outcome may be on its way; so once more, and what was stored then is recognised."""
        while True:
            try:
                record = await self._settles.add(outcome)
                return (await self._recognise([outcome], [record]))[0]
            except asyncio.CancelledError:
                if self._giving_up.is_set():
                    raise

    def failure(self, token: Token, error: Exception) -> Outcome:
        """The outcome of an attempt that ended with this error."""
        life, value_life = self._config.result_ttl, self._config.result_value_ttl
        return failed(token, dump_error(error), ttl=life.total_seconds(), value_ttl=value_life.total_seconds())

    async def _end_by_deadline(self, outcome: Outcome) -> Record | None:
        """Past its deadline a job takes its descendants along, like any revoked job."""
        change = revoke(ttl=outcome.ttl)._replace(token=outcome.token, tombstone=False)
        record = await self._insist(lambda: self._engine.update(outcome.token.id, change))
        if record is not None:
            with suppress(MognetError):  # a hint: those who run its descendants also learn it from their leases
                await self._engine.publish(CONTROL, write(RevokeMessage(id=outcome.token.id)))
        return record

    async def _settle_batch(self, outcomes: list[Outcome]) -> Sequence[Record | None]:
        calls = 0

        async def settle() -> Sequence[Record | None]:
            nonlocal calls
            calls += 1
            records = await self._engine.settle(outcomes)
            return records if calls == 1 else await self._recognise(outcomes, records)

        try:
            return await self._insist(settle)
        except ConnectionError:
            raise
        except Exception as error:
            if len(outcomes) > 1:
                return [(await self._settle_batch([outcome]))[0] for outcome in outcomes]
            token = outcomes[0].token
            _log.exception("the outcome of job %s cannot be stored", token.id)
            failure = self.failure(token, NotStorable(f"the job's outcome cannot be stored: {error}"))
            return await self._insist(lambda: self._engine.settle([failure]))

    async def _recognise(self, outcomes: list[Outcome], records: list[Record | None]) -> list[Record | None]:
        """An earlier call may have settled some before its answer was lost: they have ended as they should, on this node."""
        found = await self._engine.get([outcome.token.id for outcome in outcomes])
        return [
            now if record is None and now is not None and (now.state, now.node) == (outcome.state, self._config.node_id) else record
            for outcome, record, now in zip(outcomes, records, found, strict=True)
        ]

    async def _insist(self, operation: Callable[[], Awaitable[R]]) -> R:
        failures = 0
        while True:
            try:
                return await operation()
            except ConnectionError as error:
                if self._giving_up.is_set():
                    raise
                failures += 1
                if worth_saying(failures):
                    _log.warning("an outcome cannot be stored, trying again (failure %d in a row): %s", failures, error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN.delay(failures)):
                        await self._giving_up.wait()
