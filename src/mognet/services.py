"""What tasks share: database pools, clients, settings."""

from __future__ import annotations

import inspect
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mognet.config import AppConfig

T_co = TypeVar("T_co", covariant=True)

_log = logging.getLogger(__name__)


class ClassService(ABC, Generic[T_co]):
    """A service with a life of its own: made once, with the app's config, when a task first asks for it.

    It is entered then (``__enter__``), called each time a task asks for it, and closed when the app closes: ``close()`` may be
    ``def`` or ``async def``. Services are closed in the reverse order of their making.
    """

    def __init__(self, config: AppConfig) -> None:
        self.config: AppConfig = config

    @abstractmethod
    def __call__(self, context: Any, *args: Any, **kwargs: Any) -> T_co:
        """What ``context.get_service(ThisClass, …)`` gives."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> Any:
        return self.close()

    def close(self) -> Any:
        """Let go of what it holds."""

    async def wait_closed(self) -> None:
        """Called after ``close()``, for what takes its time."""


class Services(dict[Any, Callable[..., Any]]):
    """Services by the function or class that asks for them. Put a replacement under a key to override it, in tests say."""

    def __init__(self, config: AppConfig) -> None:
        super().__init__()
        self._config = config
        self._lock = threading.RLock()
        self._made: dict[type[ClassService[Any]], tuple[ClassService[Any], Any]] = {}

    def find(self, key: Any) -> Callable[..., Any]:
        """The service of a key; a :class:`ClassService` is made the first time, also if it is the replacement of another."""
        wanted = self.get(key, key)
        if inspect.isclass(wanted) and issubclass(wanted, ClassService):
            with self._lock:  # def tasks ask from their threads
                if wanted not in self._made:
                    service = wanted(self._config)
                    self._made[wanted] = (service, service.__enter__())
                function: Callable[..., Any] = self._made[wanted][1]
                return function
        if not callable(wanted):
            raise TypeError(f"{wanted!r} is no service: ask by a function (context, …) -> value, or by a ClassService")
        return wanted  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Close what was made, last first; an error in one is logged and keeps no other open. Replacements stay."""
        while self._made:
            key, (service, _) = self._made.popitem()
            try:
                closing = service.__exit__(None, None, None)
                if inspect.isawaitable(closing):
                    await closing
                await service.wait_closed()
            except Exception:
                _log.exception("service %s could not be closed", key.__qualname__)
