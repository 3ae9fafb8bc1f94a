"""What every request submitted in some place gets: metadata, and the trace that it belongs to.

Kept in context variables: it follows the code into the asyncio tasks that it starts and into ``asyncio.to_thread``, and no further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Any

NOTHING: Mapping[str, Any] = MappingProxyType({})

_labels: ContextVar[Mapping[str, Any]] = ContextVar("mognet_metadata", default=NOTHING)
_trace: ContextVar[Mapping[str, str]] = ContextVar("mognet_trace", default=NOTHING)
_job: ContextVar[Mapping[str, Any]] = ContextVar("mognet_job_metadata", default=NOTHING)


def metadata(labels: Mapping[str, Any] | None = None, /, **more: Any) -> AbstractContextManager[None]:
    """Inside the context, every request that is submitted gets these keys, unless it has them itself.

    ::

        with mognet.metadata(tenant_id="acme"):
            await app.submit(report)

    Contexts may stand in each other; the inner one goes before the outer one, and both before what a child inherits from its parent
    (``AppConfig.inherited_metadata``). A mapping takes keys that are no names. What cannot be stored is refused when it is submitted, by
    :class:`mognet.exceptions.InvalidMetadata`. A task that runs begins without any.
    """
    if labels is not None and not isinstance(labels, Mapping):
        raise TypeError(f"metadata takes values by key, such as metadata(tenant_id='acme'), not {labels!r}")
    return _Scope({**(labels or {}), **more})


class _Scope(AbstractContextManager[None]):
    """Unlike what ``contextlib.contextmanager`` makes, no decorator: over an ``async def`` it would be left before anything has run."""

    def __init__(self, labels: Mapping[str, Any]) -> None:
        self._mine = labels
        self._tokens: list[Token[Mapping[str, Any]]] = []

    def __enter__(self) -> None:
        self._tokens.append(_labels.set({**_labels.get(), **self._mine}))

    def __exit__(self, *_: object) -> None:
        _labels.reset(self._tokens.pop())


@contextmanager
def trace(fields: Mapping[str, str]) -> Iterator[None]:
    """Inside the context, every request that is submitted carries this trace context (``traceparent``, ``tracestate``)."""
    token = _trace.set(dict(fields))
    try:
        yield
    finally:
        _trace.reset(token)


scope_metadata: Callable[[], Mapping[str, Any]] = _labels.get
"""The metadata that a request submitted here gets."""

scope_trace: Callable[[], Mapping[str, str]] = _trace.get
"""The trace context that a request submitted here carries; in a task, that of its job."""


def job_metadata() -> Mapping[str, Any]:
    """In a task, the metadata of its job that children inherit; elsewhere nothing."""
    return _job.get()


def enter_job(labels: Mapping[str, Any], trace: Mapping[str, str]) -> None:
    """From here on, this asyncio task runs a job with this metadata to be inherited and this trace; whoever started it is forgotten."""
    # To look is cheaper than to set, and most jobs have neither.
    if _labels.get():
        _labels.set(NOTHING)
    if labels is not _job.get():
        _job.set(labels)
    if trace or _trace.get():
        _trace.set(trace)
