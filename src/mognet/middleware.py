"""Hooks around apps and tasks."""

from __future__ import annotations

import logging
from typing import Any

from mognet.context import Context
from mognet.exceptions import Pause, Retry
from mognet.requests import Request
from mognet.results import Result

_log = logging.getLogger(__name__)


class Middleware:
    """Override what you need. Hooks run in the order in which their middleware was added.

    An error in a hook is logged and harms nothing: the job, the app and the other hooks go on. ``app`` is the
    :class:`mognet.App`.
    """

    async def on_app_starting(self, app: Any) -> None:
        """Before a worker's app connects."""

    async def on_app_started(self, app: Any) -> None:
        """After its worker has begun."""

    async def on_app_stopping(self, app: Any) -> None:
        """Before the app closes."""

    async def on_app_stopped(self, app: Any) -> None:
        """After it has closed."""

    async def on_request_submitting(self, request: Request[Any], context: Context | None = None) -> None:
        """Before a request is submitted, by the context if there is one. It may be changed: what is put in metadata is stored."""

    async def on_task_starting(self, context: Context) -> None:
        """Before a task's function is called."""

    async def on_task_completed(self, result: Result[Any], context: Context | None = None) -> None:
        """After a job's end has been stored; without a context if it never started."""

    async def on_running_task_count_changed(self, running_task_count: int) -> None:
        """After a job of this worker has started or ended."""


class MiddlewareStack:
    """Calls the hooks."""

    def __init__(self) -> None:
        self._all: list[Any] = []

    def add(self, middleware: Any) -> None:
        """Add one at the end, unless it is in already."""
        if middleware not in self._all:
            self._all.append(middleware)

    async def call(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Call a hook of each middleware that has it."""
        for middleware in self._all:
            function = getattr(middleware, hook, None)
            if function is None:
                continue
            try:
                await function(*args, **kwargs)
            except (Exception, Pause, Retry):  # which only a task can mean
                _log.exception("%s of %s failed", hook, type(middleware).__qualname__)

    def __bool__(self) -> bool:
        return bool(self._all)
