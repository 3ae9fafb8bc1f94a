"""Tasks: functions with a name, the shape of their call and how they want to be run."""

from __future__ import annotations

import functools
import inspect
import logging
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ForwardRef,
    NamedTuple,
    NotRequired,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from pydantic import PydanticUserError, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from mognet.backoff import Backoff
from mognet.codec import JSON_CONFIG, MAX_NESTING, dumps, loads
from mognet.exceptions import ImproperlyConfigured, InvalidErrorInfo, InvalidTaskArguments, NotStorable, UnknownTask
from mognet.times import in_seconds

F = TypeVar("F", bound=Callable[..., Any])

_log = logging.getLogger(__name__)

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
DEFAULT_BACKOFF = Backoff()
_UNTYPED = (Any, inspect.Parameter.empty)
_NAME = r"\s*['\"]?(?:\w+\.)*Context['\"]?\s*"
_CONTEXT_TEXT = re.compile(rf"{_NAME}(?:\|\s*None\s*)?|\s*None\s*\|{_NAME}|\s*(?:\w+\.)?Optional\[{_NAME}\]\s*")


class _Simple(NamedTuple):
    """Names of parameters."""

    by_position: tuple[str, ...]
    all: frozenset[str]
    required: frozenset[str]


@dataclass(frozen=True, eq=False)
class Task:
    """A registered function. Its annotations are read when it is first called or run, not when it is registered."""

    name: str
    function: Callable[..., Any]
    queue: str | None = None
    priority: int | None = None
    timeout: float | None = None
    """Seconds an attempt may take."""
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    backoff: Backoff = DEFAULT_BACKOFF
    namespace: Mapping[str, Any] | None = None
    """Names that the annotations may use beside the module's: the locals around a nested function."""

    @functools.cached_property
    def is_async(self) -> bool:
        """Whether it runs on the event loop rather than in a thread."""
        return inspect.iscoroutinefunction(inspect.unwrap(self.function))

    @functools.cached_property
    def _parameters(self) -> list[inspect.Parameter]:
        return [
            p.replace(annotation=_as_written(p.annotation)) for p in inspect.signature(self.function, **_UNRESOLVED).parameters.values()
        ]

    @functools.cached_property
    def takes_context(self) -> bool:
        """Whether the first parameter is the context: annotated ``Context``, or called ``context``."""
        if not self._parameters or self._parameters[0].kind in _VARIADIC:
            return False
        first = self._parameters[0]
        if first.name == "context" or first.annotation is inspect.Parameter.empty:
            return first.name == "context"
        try:
            return _is_context(self._resolved("it", first.annotation)["it"])
        except Exception:  # what it names may be imported for type checkers only; then its text has to do
            return isinstance(first.annotation, str) and _CONTEXT_TEXT.fullmatch(first.annotation) is not None

    def _resolved(self, name: str, annotation: Any) -> dict[str, Any]:
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        function = inspect.unwrap(self.function)
        return get_type_hints(holder, function.__globals__, dict(self.namespace or {}), include_extras=True)

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """How it is called: without the context."""
        return inspect.Signature(self._parameters[1:] if self.takes_context else self._parameters)

    @functools.cached_property
    def _takes_arguments(self) -> bool:
        return bool(self.signature.parameters)

    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        function = inspect.unwrap(self.function)
        hints: dict[str, Any] = {}
        for name, annotation in _annotations(function).items():
            if name not in self.signature.parameters and name != "return":
                continue  # the context's type is nobody's business here, and may be imported for type checkers only
            try:
                hints |= self._resolved(name, annotation)
            except NameError as error:
                raise ImproperlyConfigured(
                    f"task {self.name!r}: the annotation {annotation!r} of {name!r} cannot be resolved ({error}); "
                    "import what it names where the task is defined, not only under TYPE_CHECKING"
                ) from error
        return hints

    @functools.cached_property
    def _arguments(self) -> TypeAdapter[dict[str, Any]] | None:
        """Reads a JSON object of arguments by name; None if nothing is annotated, so that there is nothing to convert."""
        hints = {name: self._hints.get(name, Any) for name in self.signature.parameters}
        if all(hint in _UNTYPED for hint in hints.values()):
            return None
        fields: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            hint = hints[name]
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                hint = list[hint]  # type: ignore[valid-type]
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                hint = dict[str, hint]  # type: ignore[valid-type]
            fields[name] = NotRequired[hint]
        shape = with_config(JSON_CONFIG)(TypedDict("Arguments", fields))  # type: ignore[operator]
        try:
            return TypeAdapter(shape)
        except PydanticUserError as error:
            raise ImproperlyConfigured(f"task {self.name!r}: pydantic cannot read its annotations: {error}") from error

    @functools.cached_property
    def _value(self) -> TypeAdapter[list[Any]] | None:
        """Reads the value as the only item of a list: in one, dataclasses and typed dicts follow our config, or else they refuse it."""
        hint = self._hints.get("return", Any)
        if hint in _UNTYPED:
            return None
        try:
            return TypeAdapter(list[hint], config=JSON_CONFIG)  # type: ignore[valid-type]
        except PydanticUserError as error:
            raise ImproperlyConfigured(f"task {self.name!r}: pydantic cannot read its return annotation: {error}") from error

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise :class:`InvalidTaskArguments` if the task would not accept this call after it has been stored."""
        if args or kwargs or self._takes_arguments:
            self.arguments(args, kwargs)

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What to call the function with, validated and converted by its annotations, as they are after being stored.

        Raises :class:`InvalidTaskArguments`.
        """
        if not (args or kwargs or self._takes_arguments):
            return (), {}
        given = self._bind(args, kwargs)
        try:
            data = dumps(given, nesting=MAX_NESTING + 1)  # they stand in one more object
        except NotStorable:
            raise InvalidTaskArguments(_not_storable(given), self.name) from None
        if self._arguments is None:
            converted = loads(data)
        else:
            try:
                converted = self._arguments.validate_json(data)
            except ValidationError as error:
                details = error.errors(include_url=False, include_context=False, include_input=False)
                raise InvalidTaskArguments([InvalidErrorInfo(e["loc"], e["msg"], e["type"]) for e in details], self.name) from error
        if self._simple is None:
            bound = inspect.BoundArguments(self.signature, converted)
            return bound.args, bound.kwargs
        first = []
        for name in self._simple.by_position:
            if name not in converted:
                break
            first.append(converted.pop(name))
        return tuple(first), converted

    @functools.cached_property
    def _simple(self) -> _Simple | None:
        """What is needed to bind arguments, unless some are variadic or must not be given by name."""
        kinds, parameters = inspect.Parameter, self.signature.parameters.values()
        if any(p.kind not in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY) for p in parameters):
            return None
        return _Simple(
            by_position=tuple(p.name for p in parameters if p.kind is kinds.POSITIONAL_OR_KEYWORD),
            all=frozenset(p.name for p in parameters),
            required=frozenset(p.name for p in parameters if p.default is kinds.empty),
        )

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        simple = self._simple
        if simple is not None and len(args) <= len(simple.by_position):
            given: dict[str, Any] = dict(zip(simple.by_position, args, strict=False))
            given.update(kwargs)
            names = given.keys()
            if len(given) == len(args) + len(kwargs) and simple.required <= names <= simple.all:
                return given
        try:  # also what says best what does not fit
            return self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise InvalidTaskArguments(_misfits(self.signature, args, kwargs, str(error)), self.name) from None

    def read_value(self, data: bytes) -> Any:
        """A stored value as the annotated return type; as plain JSON if there is none, or if it does not fit."""
        if self._value is not None:
            try:
                return self._value.validate_json(b"[%b]" % data)[0]
            except ValidationError as error:
                _log.warning("a value of task %s does not fit its return annotation, so it is given as plain JSON: %s", self.name, error)
        return loads(data)


if sys.version_info >= (3, 14):  # annotations are evaluated when somebody asks, and may name what is not there
    import annotationlib

    _UNRESOLVED: dict[str, Any] = {"annotation_format": annotationlib.Format.FORWARDREF}

    def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
        found = annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
        return {name: _as_written(annotation) for name, annotation in found.items()}

else:
    _UNRESOLVED: dict[str, Any] = {}

    def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
        return function.__annotations__


def _as_written(annotation: Any) -> Any:
    """An annotation; one that could not be evaluated is its text, as if it had been written as a string."""
    return annotation.__forward_arg__ if isinstance(annotation, ForwardRef) else annotation


def _is_context(annotation: Any) -> bool:
    """Whether that is :class:`mognet.Context`, or one of its subclasses, or either of them ``| None``."""
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        return any(map(_is_context, get_args(annotation)))
    return any((c.__module__, c.__qualname__) == ("mognet.context", "Context") for c in getattr(annotation, "__mro__", ()))


def _not_storable(given: Mapping[str, Any]) -> list[InvalidErrorInfo]:
    errors = []
    for name, value in given.items():
        try:
            dumps(value)
        except NotStorable as error:
            errors.append(InvalidErrorInfo((name,), str(error), "not_storable"))
    return errors


def _misfits(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any], text: str) -> list[InvalidErrorInfo]:
    """All that keeps a call from fitting a signature; Python itself stops at the first."""
    kinds = inspect.Parameter
    parameters = list(signature.parameters.values())
    by_position = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    by_name = {p.name for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)}
    takes = {p.kind for p in parameters}
    filled = {p.name for p in by_position[: len(args)]}
    errors = [
        InvalidErrorInfo((p.name,), "missing a required argument", "missing_argument")
        for p in parameters
        if p.default is kinds.empty and p.kind not in _VARIADIC and p.name not in filled and (p.name not in kwargs or p.name not in by_name)
    ]
    if kinds.VAR_POSITIONAL not in takes:
        errors += [
            InvalidErrorInfo((i,), "more positional arguments than it takes", "unexpected_positional_argument")
            for i in range(len(by_position), len(args))
        ]
    for name in kwargs:
        if name in filled and name in by_name:
            errors.append(InvalidErrorInfo((name,), "given by position and by name", "multiple_argument_values"))
        elif name not in by_name and kinds.VAR_KEYWORD not in takes:
            errors.append(InvalidErrorInfo((name,), "no such argument", "unexpected_keyword_argument"))
    return errors or [InvalidErrorInfo((), text, "arguments_type")]


class TaskRegistry:
    """Tasks by name and by function. One made on top of another also finds what that one holds."""

    def __init__(self, below: TaskRegistry | None = None) -> None:
        self._below = below
        self._by_name: dict[str, Task] = {}
        self._by_function: dict[Callable[..., Any], Task] = {}
        self._above: weakref.WeakSet[TaskRegistry] = weakref.WeakSet()
        if below is not None:
            below._above.add(self)

    def add(self, task: Task) -> None:
        """Register a task. The same function may be registered again; another one under its name is refused."""
        for known in (self.find(task.name), *(above._by_name.get(task.name) for above in self._above)):
            if known is not None and _origin(known.function) != _origin(task.function):
                raise ImproperlyConfigured(
                    f"two tasks are called {task.name!r}: {_describe(known.function)} and {_describe(task.function)}; give one another name"
                )
        self._by_name[task.name] = task
        self._by_function[task.function] = task

    def find(self, name: str) -> Task | None:
        """The task of this name, if there is one."""
        return self._by_name.get(name) or (self._below.find(name) if self._below is not None else None)

    def get(self, name: str) -> Task:
        """The task of this name. Raises :class:`UnknownTask`."""
        task = self.find(name)
        if task is None:
            raise UnknownTask(name)
        return task

    def of(self, function: Callable[..., Any]) -> Task:
        """The task of this function. Raises :class:`UnknownTask`."""
        task = self._by_function.get(function)
        if task is None and self._below is not None:
            return self._below.of(function)
        if task is None:
            raise UnknownTask(_default_name(function) if callable(function) else repr(function))
        return task

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*self._by_name, *(self._below.names() if self._below is not None else ())})

    def tasks(self) -> list[Task]:
        """All tasks, by name."""
        return [self.get(name) for name in self.names()]


global_registry: TaskRegistry = TaskRegistry()
"""What ``@task`` registers, for every app of the process."""


def _origin(function: Callable[..., Any]) -> tuple[object, ...]:
    """What tells two functions apart, but not a module loaded twice."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return (function.__module__, function.__qualname__, getattr(code, "co_firstlineno", None) if code else function)


def _describe(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    place = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
    return f"{function.__module__}.{function.__qualname__}{place}"


def _default_name(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", "")
    if module == "__main__":
        # A worker imports the same file under its real name.
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        module = spec.name if spec is not None else Path(getattr(main, "__file__", None) or "__main__").stem
    return f"{module}.{getattr(function, '__qualname__', repr(function))}"


def make_task(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    timeout: float | timedelta | None = None,
    retries: int = 0,
    retry_on: Iterable[type[BaseException]] | type[BaseException] = (Exception,),
    backoff: Backoff | None = None,
) -> Task:
    """Check a function and the options it is to be registered with."""
    if not inspect.isroutine(function) or not hasattr(function, "__qualname__"):
        raise ImproperlyConfigured(f"@task goes on functions, not on {function!r}")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ImproperlyConfigured(f"{_describe(function)} is a generator: a task returns one value; return a list instead")
    if priority is not None and not 0 <= priority <= 10:
        raise ValueError(f"a priority is a number from 0 to 10, not {priority}")
    if retries < 0:
        raise ValueError(f"retries must be 0 or more, not {retries}")
    seconds = None if timeout is None else in_seconds(timeout, "a timeout")
    if seconds == 0:
        raise ValueError(f"a timeout must be more than 0 seconds, not {timeout}")
    return Task(
        name=name or _default_name(function),
        function=function,
        queue=queue,
        priority=priority,
        timeout=seconds,
        retries=retries,
        retry_on=_exceptions(retry_on),
        backoff=backoff or DEFAULT_BACKOFF,
        namespace=_locals_around(function),
    )


def _exceptions(retry_on: object) -> tuple[type[BaseException], ...]:
    classes = tuple(retry_on) if isinstance(retry_on, Iterable) else (retry_on,)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise ValueError(f"retry_on takes exception classes, not {each!r}")
    return classes


def _locals_around(function: Callable[..., Any]) -> Mapping[str, Any] | None:
    """A nested function's string annotations may name what only its surroundings know."""
    if "<locals>" not in function.__qualname__:
        return None
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return dict(frame.f_locals)


class TaskDecorator(Protocol):
    """``@task`` with options: gives the function back unchanged."""

    def __call__(self, function: F, /) -> F:
        """Register it."""
        ...


class TaskMaker:
    """The ``@task`` decorator of a registry."""

    def __init__(self, registry: TaskRegistry) -> None:
        self._registry = registry

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(
        self,
        *,
        name: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        timeout: float | timedelta | None = None,
        retries: int = 0,
        retry_on: Iterable[type[BaseException]] | type[BaseException] = (Exception,),
        backoff: Backoff | None = None,
    ) -> TaskDecorator: ...
    def __call__(self, *functions: Callable[..., Any], **options: Any) -> Any:
        """Register a function as a task, and give it back unchanged.

        ``async def`` functions run on the worker's event loop, ``def`` functions in a thread. The first parameter is the
        :class:`mognet.Context` if it is annotated so, or called ``context``; the caller does not pass it.

        :param name: what requests call it; by default ``module.function``.
        :param queue: where its jobs wait, unless the request or ``AppConfig.task_routes`` says otherwise.
        :param priority: 0 to 10, higher first; of requests that name none.
        :param timeout: seconds (or a timedelta) that an attempt may take; past them the job ends REVOKED.
        :param retries: how many more attempts follow one that raised one of ``retry_on``.
        :param backoff: how long to wait before each of them.
        """

        def register(function: F) -> F:
            self._registry.add(make_task(function, **options))
            return function

        return register(*functions) if functions else register


task: TaskMaker = TaskMaker(global_registry)
"""Register a function as a task for every app of this process: ``@task``, or ``@task(name=…, retries=…)``."""
