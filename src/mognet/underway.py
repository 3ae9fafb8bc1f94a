"""Something that one task does while others wait for it."""

from __future__ import annotations

import asyncio
from typing import Any, Self


class Underway:
    """Entered by whoever does it; others wait until it is over, and whoever does it himself does not wait for himself."""

    def __init__(self) -> None:
        self._over: asyncio.Event | None = None
        self._task: asyncio.Task[Any] | None = None

    @property
    def mine(self) -> bool:
        """Whether this task is the one that does it."""
        return self._task is not None and self._task is asyncio.current_task()

    async def over(self) -> None:
        """Wait until no other task does it."""
        while self._over is not None and not self.mine:
            await self._over.wait()

    def __enter__(self) -> Self:
        self._over, self._task = asyncio.Event(), asyncio.current_task()
        return self

    def __exit__(self, *_: object) -> None:
        if self._over is not None:
            self._over.set()
        self._over = self._task = None
