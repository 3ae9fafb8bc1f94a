"""Python values to bytes and back: the only place that knows how things are written.

Everything is JSON, by pydantic's rules. Nothing here imports, unpickles or calls what the bytes name.
"""

from __future__ import annotations

import traceback
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import ConfigDict
from pydantic_core import from_json, to_json

from mognet.exceptions import InvalidMetadata, NotStorable, TaskError
from mognet.records import Record
from mognet.states import ResultState

JSON_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", arbitrary_types_allowed=True)
"""For every TypeAdapter that reads what :func:`dumps` wrote: ``bytes`` are base64, so that any of them can be stored."""

MAX_TRACEBACK = 16 * 1024
"""Characters of a traceback that are kept, from its end."""

MAX_MESSAGE = 1024
"""Characters that are kept of the text of an exception that is too large to be stored whole."""

MAX_ERROR = 1024 * 1024
"""Bytes of an exception that is stored whole."""

MAX_DEPTH = 64
"""How deep objects and lists may stand in each other in metadata."""

MAX_NESTING = 190
"""How deep they may stand in each other in a value: the parser takes 200, and values are stored inside of other things."""

LONGEST_REMEMBERED = 100
"""Characters of a key and its text whose JSON is remembered."""

MAX_REMEMBERED = 1000
"""How many of them."""

MAX_DIGITS = 4300
"""Digits of an integer that the parser takes."""


def dumps(value: Any, *, nesting: int = MAX_NESTING) -> bytes:
    """JSON of anything that JSON or pydantic knows, and that :func:`loads` can read. Raises :class:`NotStorable`."""
    try:
        data = to_json(value, bytes_mode="base64")
        if len(data) > nesting:  # else it can be neither too deep nor too long
            _check_readable(data, nesting)
    except Exception as error:  # by what it meets: serialisation, recursion, Unicode errors, or those of a user's serializer
        raise NotStorable(f"{type(value).__qualname__} cannot be written as JSON: {error}") from error
    return data


def loads(data: bytes) -> Any:
    """The value of a JSON text."""
    return from_json(data)


_STEP = 43
_DIGITS_TO_0 = bytes(ord("0") if byte in b"0123456789" else ord(".") for byte in range(256))
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))


def _check_readable(data: bytes, nesting: int) -> None:
    """Refuse what the parser would refuse, in less time than it would need."""
    if data.count(b"[") + data.count(b"{") > nesting and _is_deeper(data, nesting):
        raise ValueError(f"it is nested deeper than {nesting} levels")
    # An integer that is too long shows when every 43rd character is looked at; a string of digits does so, too.
    if len(data) > MAX_DIGITS and b"0" * (MAX_DIGITS // _STEP) in data[::_STEP].translate(_DIGITS_TO_0):
        from_json(data)


def _is_deeper(data: bytes, nesting: int) -> bool:
    plain = data.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in data else data
    quoted = plain.translate(_BRACES_TO_BRACKETS, _ALL_BUT_STRUCTURE).replace(b'""', b"")
    brackets = b"".join(quoted.split(b'"')[::2])  # without those in strings
    for _ in range(nesting):
        brackets = brackets.replace(b"[]", b"")  # the innermost
        if not brackets:
            return False
    return True


# --- metadata

_PLAIN = frozenset({str, int, bool, type(None)})
_BACKSLASH, _NUL = ord("\\"), rb"\u0000"  # to look for a byte takes a fifth of the time


def dump_metadata(metadata: dict[str, Any], *, limit: int | None = None) -> bytes:
    """A JSON object of metadata. :class:`InvalidMetadata` names the key that cannot be stored."""
    if not metadata:
        return b"{}"
    data = (_dump_label(metadata) if len(metadata) == 1 else _dump_plain(metadata)) or _dump_by_key(metadata)
    if limit is not None and len(data) > limit:
        largest = max(metadata, key=lambda key: len(_dump_item(key, metadata[key])))
        raise InvalidMetadata(
            f"metadata of {len(data)} bytes is more than max_metadata_size={limit}; the largest key is {shown_key(largest)!r}"
        )
    return data


def _dump_label(metadata: dict[str, Any]) -> bytes | None:
    """The same as :func:`_dump_plain` for one key, whose text often is that of many jobs: they share its JSON."""
    [item] = metadata.items()
    key, value = item
    if type(key) is not str or type(value) is not str or len(key) + len(value) > LONGEST_REMEMBERED:
        return _dump_plain(metadata)
    data = _remembered.get(item)
    if data is None:
        data = _dump_plain(metadata)
        if data is not None:
            if len(_remembered) >= MAX_REMEMBERED:
                _remembered.clear()  # texts that never come again cost little, unlike with an order of their use
            _remembered[item] = data
    return data


_remembered: dict[tuple[str, str], bytes] = {}
"""The JSON of single labels; used by any thread."""


def _dump_plain(metadata: dict[str, Any]) -> bytes | None:
    """The JSON of what comes back as it was, as nearly all metadata does, at one go; None: each key has to be looked at."""
    try:
        data = to_json(metadata)  # refuses half surrogates and cycles
        if _BACKSLASH in data and _NUL in data:
            return None
        for key in metadata:  # noqa: PLC0206 - pairs would take longer
            if type(key) is not str or (type(metadata[key]) is not str and type(metadata[key]) not in _PLAIN):
                break
        else:
            if len(data) <= MAX_DIGITS:
                return data
        # NaN, keys that are no strings, and other types come back as something else; an infinity and too many digits are refused.
        flat = data.count(b"{") + data.count(b"[") <= MAX_DEPTH
        return data if flat and from_json(data, allow_inf_nan=False) == metadata else None
    except Exception:  # as in dumps
        return None


def _dump_by_key(metadata: dict[str, Any]) -> bytes:
    return b"{" + b",".join([b"%b:%b" % (_dump_key(key), _dump_item(key, value)) for key, value in metadata.items()]) + b"}"


def shown_key(key: str) -> str:
    """A key of metadata as an error names it."""
    return key if len(key) <= 100 else f"{key[:99]}…"


def merge_metadata(old: bytes, new: bytes, limit: int | None = None) -> bytes:
    """The JSON object ``old`` with the keys of ``new`` put over it. :class:`InvalidMetadata` if it is more than ``limit`` bytes."""
    if new == b"{}":
        return old
    merged = new if old == b"{}" else to_json({**from_json(old), **from_json(new)})
    if limit is not None and len(merged) > limit:
        raise InvalidMetadata(f"the job's metadata would grow to {len(merged)} bytes, more than max_metadata_size={limit}")
    return merged


def _dump_key(key: object) -> bytes:
    if not isinstance(key, str):
        raise InvalidMetadata(f"metadata keys are strings, not {key!r}")
    try:
        _check_plain(key)
        _check_text(key)
        return to_json(key)
    except ValueError as error:
        raise InvalidMetadata(f"metadata key {key!r} cannot be stored: {error}") from error


def _dump_item(key: object, value: object) -> bytes:
    try:
        _check_parts(value, MAX_DEPTH)
        data = to_json(value, bytes_mode="base64")
        _check_plain(_finite(data), MAX_DEPTH)
    except Exception as error:  # as in dumps
        raise InvalidMetadata(f"metadata key {key!r} cannot be stored: {error}") from error
    return data


def _finite(data: bytes) -> object:
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError:
        raise ValueError("it holds NaN or an infinity, which JSON does not know, or a number with too many digits") from None


def _check_text(value: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(
                "it holds half of a surrogate pair, which is no text: value.encode('utf-8', 'replace').decode() replaces it"
            ) from None


def _check_parts(value: object, depth: int) -> None:
    """Refuse, before they are written, keys that are no strings, half surrogates, cycles, and what can be read only once."""
    if depth == 0:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"its key {key!r} is not a string")
            _check_text(key)
            _check_parts(item, depth - 1)
    elif isinstance(value, str):
        _check_text(value)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_parts(item, depth - 1)
    elif isinstance(value, types.GeneratorType):
        raise ValueError("it is a generator, which can be read only once: list(…) makes a list of it")


def _check_plain(value: object, depth: int = MAX_DEPTH) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("it holds a NUL character")
    elif depth == 0:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_plain(key)
            _check_plain(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, depth - 1)


# --- calls


class Call(NamedTuple):
    """A request as it is stored in a job's body; what the record holds (metadata, priority, queue …) is not repeated."""

    args: list[Any]
    kwargs: dict[str, Any]
    stack: list[UUID]
    timeout: float | None
    """Seconds it may run."""
    latest: float | None
    """The latest moment, in seconds since 1970."""
    trace: dict[str, str] = {}  # noqa: RUF012 - never changed
    """The trace context that it belongs to: header fields."""


EMPTY_CALL = Call([], {}, [], None, None)
NO_CALL = b'{"v":1}'
"""The body of a call without arguments, or anything else that would have to be stored."""

_MOMENT = (int, float, type(None))


def dump_call(call: Call) -> bytes:
    """The body of a job. Raises :class:`NotStorable`."""
    if call == EMPTY_CALL:
        return NO_CALL
    body: dict[str, Any] = {"v": 1}
    for field, value in zip(Call._fields, call, strict=True):
        if value is not None and (value or value == 0):
            body[field] = value
    return dumps(body, nesting=MAX_NESTING + 2)


def load_call(body: bytes) -> Call:
    """The call of a body. Raises ValueError if it is not one."""
    if body == NO_CALL:
        return EMPTY_CALL
    data = from_json(body)
    if not isinstance(data, dict) or data.get("v") != 1:
        raise ValueError("this is not a call, or one written by a newer mognet")
    args, kwargs, stack = data.get("args", []), data.get("kwargs", {}), data.get("stack", [])
    timeout, latest = data.get("timeout"), data.get("latest")
    if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(stack, list)):
        raise ValueError("this is not a call: args, kwargs or stack are of another kind")
    if not (isinstance(timeout, _MOMENT) and isinstance(latest, _MOMENT)):
        raise ValueError("this is not a call: timeout or latest is not a number")
    trace = data.get("trace", {})
    if trace != {} and not (isinstance(trace, dict) and all(isinstance(value, str) for value in trace.values())):
        trace = {}  # it is no part of what the job does
    return Call(args, kwargs, [UUID(each) for each in stack] if stack else stack, timeout, latest, trace)


# --- errors


class ErrorInfo(NamedTuple):
    """An exception as data."""

    type_name: str
    """``module:qualified name``"""
    message: str
    traceback: str
    args: list[Any] | None
    attributes: dict[str, Any] | None
    """None, like ``args``: they are too large."""
    parts: list[Any] = []  # noqa: RUF012 - never changed
    """The exceptions of a group."""


def describe_error(error: BaseException) -> ErrorInfo:
    """Take down an exception: class name, text, traceback, and those arguments and attributes that JSON can hold."""
    cls = type(error)
    args = list(error.args)
    if isinstance(error, OSError) and len(args) == 2 and isinstance(error.filename, str):
        args.append(error.filename)
    parts = [describe_error(each) for each in error.exceptions] if isinstance(error, BaseExceptionGroup) else []
    slots = ((name, slot.__get__(error)) for name, slot in _slots(cls).items() if _has(slot, error))
    attributes = {key: value for key, value in [*slots, *vars(error).items()] if _is_storable(value)}
    text = _clean("".join(traceback.format_exception(error))[-MAX_TRACEBACK:])
    args = args[:1] if parts else [_storable(arg) for arg in args]
    return ErrorInfo(f"{cls.__module__}:{cls.__qualname__}", _text(error), text, args, attributes, parts)


def _slots(cls: type[BaseException]) -> dict[str, Any]:
    """The places for attributes that a class and its bases have beside the dictionary: no code of the class runs to reach them."""
    members = [(name, each) for base in reversed(cls.__mro__) for name, each in vars(base).items()]
    return {name: each for name, each in members if isinstance(each, types.MemberDescriptorType) and not name.startswith("__")}


def _has(slot: Any, error: BaseException) -> bool:
    try:
        return slot.__get__(error) is not None
    except AttributeError:
        return False


def dump_error(error: BaseException, *, limit: int = MAX_ERROR) -> bytes:
    """An exception as bytes. Never fails: what cannot be stored is left out, and if it is more than ``limit`` bytes, all but text."""
    info = describe_error(error)
    data = to_json(info._asdict(), bytes_mode="base64")
    if len(data) > limit:
        # Without its arguments it is no whole exception any more: at the caller it becomes a TaskError.
        short = info._replace(message=info.message[:MAX_MESSAGE], args=None, attributes=None)
        data = to_json(short._asdict())
    return data


def load_error(data: bytes) -> ErrorInfo:
    """The description of an exception. Raises ValueError if it is not one."""
    fields = from_json(data)
    if not isinstance(fields, dict):  # a value: the job has run again meanwhile
        raise ValueError("this is not the description of an error")
    return _error_info(fields)


def _error_info(fields: Any) -> ErrorInfo:
    try:
        info = ErrorInfo(**fields) if isinstance(fields, dict) else ErrorInfo(*fields)
    except TypeError as error:
        raise ValueError("this is not the description of an error") from error
    if not (isinstance(info.type_name, str) and isinstance(info.message, str) and isinstance(info.traceback, str)):
        raise ValueError("this is not the description of an error")
    return info


# Set through these, an exception's own __setattr__ and properties are not called.
_ARGS: Any = vars(BaseException)["args"]
_CAUSE: Any = vars(BaseException)["__cause__"]


def rebuild_error(info: ErrorInfo) -> Exception:
    """The exception itself, if its class is loaded in this process, else a :class:`TaskError` with all that is known.

    Of the class's own code only ``__str__`` is run, to see that it works: the constructor called is that of the built-in base, and the
    attributes are put back as they were.
    """
    remote = TaskError(info.type_name, info.message, info.traceback)
    cls = _loaded_exception(info.type_name)
    if cls is None or not isinstance(info.args, list) or not isinstance(info.attributes, dict):
        return remote
    base: Any = next(c for c in cls.__mro__ if c.__module__ == "builtins")
    try:
        args = [*info.args, [rebuild_error(_error_info(part)) for part in info.parts]] if info.parts else info.args
        error = base.__new__(cls, *args)
        base.__init__(error, *args)
        if not isinstance(error, Exception):
            return remote
        if not isinstance(error, OSError):
            _ARGS.__set__(error, tuple(args))
        slots = _slots(cls)
        for name in slots.keys() & info.attributes.keys():
            _set_slot(slots[name], error, info.attributes[name])
        error.__dict__.update({name: value for name, value in info.attributes.items() if name not in slots})
        str(error)
    except Exception:  # a class of another shape, or whose text needs what JSON could not hold
        return remote
    _CAUSE.__set__(error, remote)
    return error


def _set_slot(slot: Any, error: BaseException, value: object) -> None:
    with suppress(AttributeError, TypeError):  # read-only, or of another kind than JSON knows: set by the constructor, if at all
        slot.__set__(error, value)


_known: dict[str, weakref.ref[type[Exception]]] = {}


def _loaded_exception(type_name: str) -> type[Exception] | None:
    """Look among the Exception subclasses that exist; nothing is imported, and no module is asked for an attribute."""
    found = _known.get(type_name, lambda: None)()
    if found is None:
        for cls in _subclasses(Exception):
            if f"{cls.__module__}:{cls.__qualname__}" == type_name:
                found = cls
        if found is not None:
            _known[type_name] = weakref.ref(found)
    return found


def _subclasses(cls: type[Exception]) -> Iterator[type[Exception]]:
    seen, todo = set[type[Exception]](), [cls]
    while todo:
        each = todo.pop()
        if each not in seen:
            seen.add(each)
            yield each
            todo.extend(type.__subclasses__(each))


def _text(value: object, write: Callable[[object], str] = str) -> str:
    try:
        return _clean(write(value))
    except Exception:  # a broken __str__, or too many digits, must not hide that the task failed
        return f"<{type(value).__qualname__} without a printable text>"


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _is_storable(value: object) -> bool:
    try:
        return bool(dumps(value))
    except NotStorable:
        return False


def _storable(value: object) -> object:
    return value if _is_storable(value) else _text(value, repr)


# --- the signal that a job is done


def pack_done(record: Record, value: bytes | None) -> bytes:
    """The body of a DONE signal: the record, and its value if it is small."""
    head = to_json(record)
    return head if value is None else b"%b\n%b" % (head, value)


def unpack_done(body: bytes) -> tuple[Record, bytes | None]:
    """What :func:`pack_done` packed."""
    head, newline, value = body.partition(b"\n")
    return record_from_json(head), value if newline else None


def record_from_json(data: bytes) -> Record:
    """A record written as a JSON list of its fields."""
    record = Record._make(from_json(data))
    return record._replace(
        id=UUID(str(record.id)),
        state=ResultState(record.state),
        metadata=str(record.metadata).encode(),
        progress=None if record.progress is None else str(record.progress).encode(),
        parent=None if record.parent is None else UUID(str(record.parent)),
        root=None if record.root is None else UUID(str(record.root)),
    )
