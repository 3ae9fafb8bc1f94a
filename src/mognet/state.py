"""What a task notes down for its next start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from mognet.codec import dumps, loads
from mognet.engine import Engine
from mognet.exceptions import AttemptLost, NotStorable
from mognet.records import Token


class State:
    """A task's own notes: JSON values by key, kept over crashes, pauses and retries, and gone when the job ends.

    Writing raises :class:`AttemptLost` when this attempt no longer owns its job, and :class:`NotStorable` for values that
    JSON cannot hold, or that are larger than ``max_result_size``.
    """

    def __init__(self, engine: Engine, token: Token, *, ttl: float | None, limit: int | None = None) -> None:
        self._engine = engine
        self._token = token
        self._ttl = ttl
        self._limit = limit

    @property
    def request_id(self) -> UUID:
        """The job's id."""
        return self._token.id

    async def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or ``default``."""
        value = (await self._engine.load(self._token)).get(key)
        return default if value is None else loads(value)

    async def set(self, key: str | None = None, value: Any = None, /, **values: Any) -> None:
        """Set a key, or several by name, in one step."""
        changes = values if key is None else {key: value, **values}
        await self._save({key: self._dump(key, value) for key, value in changes.items()})

    def _dump(self, key: str, value: Any) -> bytes:
        data = dumps(value)
        if self._limit is not None and len(data) > self._limit:
            raise NotStorable(f"the {len(data)} bytes of {key!r} are more than max_result_size={self._limit}; store them elsewhere")
        return data

    async def pop(self, key: str, default: Any = None) -> Any:
        """Take a key out, and return its value or ``default``."""
        value = (await self._save({key: None})).get(key)
        return default if value is None else loads(value)

    async def clear(self) -> None:
        """Take all keys out."""
        await self._save(dict.fromkeys(await self._engine.load(self._token)))

    async def _save(self, changes: Mapping[str, bytes | None]) -> dict[str, bytes]:
        replaced = await self._engine.save(self._token, changes, ttl=self._ttl)
        if replaced is None:
            raise AttemptLost(f"the state of job {self._token.id} cannot be written: this attempt no longer owns the job")
        return replaced
