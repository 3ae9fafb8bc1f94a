"""Bringing the ends of attempts into the records."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import NamedTuple, TypeVar

from mognet.backoff import Backoff, worth_saying
from mognet.coalesce import Coalescer
from mognet.codec import dump_error
from mognet.config import AppConfig
from mognet.control import CONTROL, RevokeMessage, write
from mognet.engine import Engine
from mognet.exceptions import ConnectionError, MognetError, NotStorable
from mognet.outcomes import Outcome, failed, revoke
from mognet.records import Record, Token

_log = logging.getLogger(__name__)

_AGAIN = Backoff(base=0.1, cap=1.0)  # of this process's engine, which spares its server by itself

R = TypeVar("R")


class _End(NamedTuple):
    """An outcome on its way."""

    outcome: Outcome
    then: Callable[[Record | Exception | None], object]
    variables: Context
    """In which it is called."""
    again: bool = False
    """It may be stored already."""


class Settler:
    """Stores outcomes, many at once, and goes on trying until the engine can be reached: what a task has done is not thrown away."""

    def __init__(self, engine: Engine, config: AppConfig) -> None:
        self._engine = engine
        self._config = config
        self._settles: Coalescer[_End, None] = Coalescer(self._settle_batch, limit=500)
        self._giving_up = asyncio.Event()

    def give_up(self) -> None:
        """What cannot be stored now is not to be stored here: whoever waits gets the error, or may be cancelled."""
        self._giving_up.set()

    def settle(self, outcome: Outcome, then: Callable[[Record | Exception | None], object], variables: Context) -> None:
        """Store an outcome, and call ``then`` with the record, in this context. None: the claim is lost.

        With an error only after :meth:`give_up`, or if the engine has a bug.
        """
        self._settles.add(_End(outcome, then, variables))

    def failure(self, token: Token, error: Exception) -> Outcome:
        """The outcome of an attempt that ended with this error."""
        life, value_life = self._config.result_ttl, self._config.result_value_ttl
        return failed(token, dump_error(error), ttl=life.total_seconds(), value_ttl=value_life.total_seconds())

    async def end_by_deadline(self, outcome: Outcome) -> Record | None:
        """Past its deadline a job takes its descendants along, like any revoked job. Otherwise as :meth:`settle`."""
        change = revoke(ttl=outcome.ttl)._replace(token=outcome.token, tombstone=False)
        record = await self._insist(lambda: self._engine.update(outcome.token.id, change))
        if record is not None:
            with suppress(MognetError):  # a hint: those who run its descendants also learn it from their leases
                await self._engine.publish(CONTROL, write(RevokeMessage(id=outcome.token.id)))
        return record

    async def _settle_batch(self, ends: list[_End]) -> Sequence[None]:
        records: Sequence[Record | Exception | None]
        try:
            records = await self._store([end.outcome for end in ends], again=any(end.again for end in ends))
        except asyncio.CancelledError:  # by the end of the loop: the tasks have ended all the same
            if self._giving_up.is_set():
                self._tell(ends, [ConnectionError("the event loop has ended")] * len(ends))
            else:
                for end in ends:
                    self._settles.add(end._replace(again=True))
            raise
        except Exception as error:
            records = [error] * len(ends)
        self._tell(ends, records)
        return [None] * len(ends)

    def _tell(self, ends: list[_End], records: Sequence[Record | Exception | None]) -> None:
        for end, record in zip(ends, records, strict=True):
            try:
                end.variables.run(end.then, record)
            except Exception:  # of a handler or filter of logs
                _log.exception("what follows the end of job %s went wrong", end.outcome.token.id)

    async def _store(self, outcomes: list[Outcome], *, again: bool = False) -> Sequence[Record | None]:
        """``again``: some may be stored already."""

        async def settle() -> Sequence[Record | None]:
            nonlocal again
            known, again = again, True
            records = await self._engine.settle(outcomes)
            return await self._recognise(outcomes, records) if known else records

        try:
            return await self._insist(settle)
        except ConnectionError:
            raise
        except Exception as error:
            if len(outcomes) > 1:
                return [(await self._store([outcome], again=True))[0] for outcome in outcomes]
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
