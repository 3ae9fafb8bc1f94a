"""How tasks are called: the same three ways from outside (:class:`mognet.App`) and from inside another task (:class:`Context`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from types import FunctionType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from mognet.requests import Request
from mognet.results import Result

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")
"""The context's type."""


class Calling(Generic[C]):
    """Typed ``create_request``, ``submit`` and ``run``: for a request, or for a function and its arguments."""

    @abstractmethod
    def _make_request(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request[Any]: ...

    @abstractmethod
    async def _submit(self, request: Request[Any], context: C | None, connection: Any = None) -> Result[Any]: ...

    def _submit_call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Result[Any]]:
        return self._submit(self._make_request(function, args, kwargs), None)

    @abstractmethod
    async def _submit_many(self, requests: list[Request[Any]], context: C | None) -> list[Result[Any]]: ...

    @abstractmethod
    async def _run(self, request: Request[Any], context: C | None) -> Any: ...

    def _request(self, what: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Request[Any], C | None]:
        if isinstance(what, str):
            raise TypeError(f"to call a task by its name, submit Request(name={what!r}, args=…, kwargs=…)")
        if not isinstance(what, Request):
            context = kwargs.pop("context", None)
            return self._make_request(what, args, kwargs), context
        context = kwargs.pop("context", args[0] if args else None)
        if len(args) > 1 or kwargs:
            raise TypeError("a Request brings its own arguments: submit(request), or submit(function, *args, **kwargs)")
        return what, context

    @overload
    def create_request(self, function: Callable[Concatenate[C, P], Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Request[R]: ...
    @overload
    def create_request(self, function: Callable[Concatenate[C, P], R], /, *args: P.args, **kwargs: P.kwargs) -> Request[R]: ...
    @overload
    def create_request(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Request[R]: ...
    @overload
    def create_request(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Request[R]: ...
    def create_request(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Request[Any]:
        """A request for a task's function and its arguments, without the context.

        Raises :class:`InvalidTaskArguments` if the task would not accept them, :class:`UnknownTask` if the function is no task.
        """
        return self._make_request(function, args, kwargs)

    @overload
    async def submit(self, request: Request[R], /, context: C | None = None, *, connection: Any = None) -> Result[R]: ...
    @overload
    async def submit(
        self, function: Callable[..., Awaitable[R]], /, *args: Any, context: C | None, connection: Any = None, **kwargs: Any
    ) -> Result[R]: ...
    @overload
    async def submit(
        self, function: Callable[..., R], /, *args: Any, context: C | None, connection: Any = None, **kwargs: Any
    ) -> Result[R]: ...
    @overload
    async def submit(self, function: Callable[..., Awaitable[R]], /, *args: Any, connection: Any, **kwargs: Any) -> Result[R]: ...
    @overload
    async def submit(self, function: Callable[..., R], /, *args: Any, connection: Any, **kwargs: Any) -> Result[R]: ...
    @overload
    async def submit(self, function: Callable[Concatenate[C, P], Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Result[R]: ...
    @overload
    async def submit(self, function: Callable[Concatenate[C, P], R], /, *args: P.args, **kwargs: P.kwargs) -> Result[R]: ...
    @overload
    async def submit(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Result[R]: ...
    @overload
    async def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Result[R]: ...
    async def submit(self, request: Any, /, *args: Any, **kwargs: Any) -> Result[Any]:
        """Store a request, or a call of a function, and put it in line. When this returns, it is not lost any more.

        Beside ``context=`` and ``connection=``, type checkers do not compare a function's arguments; they do with a request:
        ``submit(create_request(function, …), context=context)``.

        Submitting an id that is known changes nothing and gives its result. ``context=`` makes the job a child of that
        context's job. ``connection=`` (a psycopg connection to the engine's own database) submits inside its transaction: commit, and
        it runs; roll back, and it never was. Raises :class:`CouldNotSubmit`, and what :meth:`create_request` raises.
        """
        if isinstance(request, FunctionType) and "context" not in kwargs and "connection" not in kwargs:
            return await self._submit_call(request, args, kwargs)
        ours = isinstance(request, Request) or hasattr(kwargs.get("connection"), "cursor")  # a task may have an argument of that name
        connection = kwargs.pop("connection", None) if ours else None
        what, context = self._request(request, args, kwargs)
        return await self._submit(what, context, connection)

    @overload
    async def submit_many(self, requests: Sequence[Request[R]], *, context: C | None = None) -> list[Result[R]]: ...
    @overload
    async def submit_many(self, requests: Sequence[Request[Any]], *, context: C | None = None) -> list[Result[Any]]: ...
    async def submit_many(self, requests: Sequence[Request[Any]], *, context: C | None = None) -> list[Result[Any]]:
        """Submit requests together, all or none, in one round trip; the results come in the same order."""
        return await self._submit_many(list(requests), context)

    @overload
    async def run(self, request: Request[R], /, context: C | None = None) -> R: ...
    @overload
    async def run(self, function: Callable[..., Awaitable[R]], /, *args: Any, context: C | None, **kwargs: Any) -> R: ...
    @overload
    async def run(self, function: Callable[..., R], /, *args: Any, context: C | None, **kwargs: Any) -> R: ...
    @overload
    async def run(self, function: Callable[Concatenate[C, P], Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run(self, function: Callable[Concatenate[C, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def run(self, request: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Submit, and wait for the value. Raises the task's own exception, :class:`Revoked`, :class:`ResultLost`."""
        return await self._run(*self._request(request, args, kwargs))
