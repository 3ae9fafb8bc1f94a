"""The settings of an app: what they are and where they come from.

A value comes from the first of: code, the environment (``MOGNET_LEASE=30``), the nearest ``mognet.toml`` or ``[tool.mognet]`` in a
``pyproject.toml``, the default. Flags of the command line stand above them all: they are assigned to the resolved config.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from mognet.config_files import app_setting, default_url, find_file, project_root, read_table
from mognet.config_legacy import PLACES, broker_urls, check_places, check_state_backend, drop_beaten, spread, store_url
from mognet.exceptions import ImproperlyConfigured
from mognet.paths import check_path
from mognet.redaction import redact_url
from mognet.times import LONGEST

__all__ = ["AppConfig", "Queues", "Resolved", "app_setting", "default_url", "project_root", "redact_url", "resolve"]

logger: logging.Logger = logging.getLogger(__name__)

_ENV = "MOGNET_"
_RESERVED = re.compile(r"MOGNET_(APP|LOG_LEVEL|LOG_FORMAT|TEST_.*|REQUIRE_.*)", re.DOTALL)
_DURATION = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d|)\s*", re.ASCII | re.IGNORECASE)
_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: TypeAdapter[ByteSize] = TypeAdapter(ByteSize)
_warned: set[str] = set()


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # pydantic would read `true` as 1
        raise ValueError("should be a number, not true or false")
    return value


def _duration(value: Any) -> Any:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) * _UNITS[match[2].lower()] if match else _number(value)


def _size(value: Any) -> Any:
    return int(_BYTES.validate_python(value)) if isinstance(value, str) else _number(value)


Count = Annotated[int, BeforeValidator(_number)]
Duration = Annotated[timedelta, BeforeValidator(_duration), Field(ge=timedelta(0), le=LONGEST)]
Period = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0), le=LONGEST)]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
MetadataPath = Annotated[str, AfterValidator(check_path)]
Broker = Annotated[str | list[str] | None, BeforeValidator(broker_urls)]
Store = Annotated[str | None, BeforeValidator(store_url)]


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {close[0]!r}?" if close else ""


class _Settings(BaseModel):
    # Values may hold passwords, so errors do not repeat them.
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", validate_assignment=True, hide_input_in_errors=True)

    @classmethod
    def _read_old(cls, data: Mapping[Any, Any]) -> Mapping[Any, Any]:
        return data

    @model_validator(mode="before")
    @classmethod
    def _suggest(cls, data: Any) -> Any:
        data = cls._read_old(data) if isinstance(data, Mapping) else data
        unknown = [str(key) for key in data if key not in cls.model_fields] if isinstance(data, Mapping) else []
        if unknown:
            raise ValueError("; ".join(f"unknown setting {key!r}{_hint(key, cls.model_fields)}" for key in unknown))
        return data

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            """Assign and check; a refused value leaves the old one in place (pydantic alone would keep the refused one)."""
            values, given = dict(self.__dict__), set(self.model_fields_set)
            try:
                super().__setattr__(name, value)
            except ValidationError:
                self.__dict__.update(values)
                self.model_fields_set.intersection_update(given)
                raise


class Queues(_Settings):
    """The queues a worker listens to: those included, or all but those excluded, or (neither given) all that its tasks use."""

    include: set[str] = Field(default_factory=set, description="Listen to these queues only. Cannot be combined with `exclude`.")
    exclude: set[str] = Field(default_factory=set, description="Listen to all queues but these. Cannot be combined with `include`.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.ensure_valid()
        return self

    def ensure_valid(self) -> None:
        """Raise ``ValueError`` if queues are both included and excluded (sets changed in place are not seen before)."""
        if self.include and self.exclude:
            raise ValueError("queues can be included or excluded, not both: empty `include` or `exclude`")


def _node_id() -> str:
    return f"{os.getpid()}@{socket.gethostname()}"


class AppConfig(_Settings):
    """All settings of an app, with defaults that suit a first day and a production day.

    Durations are ``timedelta``; numbers count as seconds, text may carry a unit (``500ms``, ``15s``, ``5m``, ``12h``, ``7d``).
    Sizes are bytes; text may carry a unit (``16MiB``).

    ``minimum_concurrency`` is 100 because an asyncio task mostly waits: one process can hold hundreds, and with few slots the event loop
    would stand idle while they wait. Lower it for tasks that compute.
    """

    url: str | None = Field(
        default=None, min_length=1, description="Engine URL, e.g. `redis://host`. Unset: a SQLite file at the project root."
    )
    broker: Broker = Field(
        default=None,
        description="URL of a broker, e.g. `amqp://host`, or of its nodes; `result_backend` then keeps the jobs. Not with `url`.",
    )
    result_backend: Store = Field(
        default=None, description="Engine URL of the store beside `broker`; without one, the same as `url`. Mognet 2.0's form counts, too."
    )
    state_backend: Store = Field(default=None, description="Accepted from Mognet 2.0 if it is the `result_backend`, which keeps the state.")
    node_id: str = Field(default_factory=_node_id, min_length=1, description="Name of this process among the workers; `pid@host` if unset.")
    imports: list[str] = Field(default_factory=list, description="Modules to import before work starts, so that their tasks are known.")
    max_recursion: Count = Field(default=64, ge=1, description="Deepest chain of jobs that start jobs, in levels; a deeper one fails.")
    max_retries: Count = Field(default=3, ge=0, description="Further starts of a job whose worker crashed; a task's `retries` count apart.")
    max_tasks: Count | None = Field(default=None, ge=1, description="The worker exits after this many jobs; unset: never.")
    default_task_route: str = Field(default="tasks", min_length=1, description="Queue of tasks that name none and match no route.")
    task_routes: dict[str, str] = Field(default_factory=dict, description="Queue by task name; goes before the queue a task itself names.")
    task_queues: Queues = Field(default_factory=Queues, description="Queues that a worker listens to: `include` or `exclude`.")
    minimum_concurrency: Count = Field(
        default=100, ge=1, description="Slots of a worker: jobs running at once. As a default it shrinks to a lower `maximum_concurrency`."
    )
    maximum_concurrency: Count | None = Field(
        default=None,
        ge=1,
        description="Jobs a worker holds at most, running and waiting for children; at least the minimum; unset: no cap.",
    )
    services_settings: dict[str, Any] = Field(default_factory=dict, repr=False, description="Settings for your services, passed on as is.")
    lease: Period = Field(
        default=timedelta(seconds=15),
        description="Seconds a worker owns a job without renewing; it renews three times as often. Crash recovery takes this plus a sweep.",
    )
    shutdown_grace: Duration = Field(
        default=timedelta(seconds=25), description="Seconds running tasks get to finish at shutdown before they are handed back."
    )
    max_block: Period = Field(
        default=timedelta(seconds=60),
        description="Seconds the event loop may stand still before the worker stops renewing leases, so that others take its jobs.",
    )
    result_ttl: Period = Field(default=timedelta(days=21), description="How long a finished job's record is kept (21 days).")
    result_value_ttl: Period = Field(default=timedelta(days=7), description="How long a finished job's value is kept (7 days).")
    state_ttl: Period = Field(default=timedelta(days=21), description="How long a task's state is kept unchanged (21 days).")
    max_message_size: Size = Field(
        default=1024**2, description="Largest request, in bytes; a larger one is refused when submitted (1 MiB)."
    )
    max_result_size: Size = Field(
        default=16 * 1024**2, description="Largest value of a task, in bytes; a larger one fails the job (16 MiB)."
    )
    max_metadata_size: Size = Field(default=16 * 1024, description="Largest metadata of one job, in bytes of JSON (16 KiB).")
    searchable_metadata: set[MetadataPath] = Field(
        default_factory=set,
        description="Keys of metadata that are indexed, so that jobs are found by them quickly; dots reach into objects (`user.id`).",
    )
    inherited_metadata: set[str] = Field(
        default_factory=set, description="Keys of metadata that a job hands down to its children, unless they have them themselves."
    )
    keep_logs: Count = Field(
        default=0, ge=0, le=10_000, description="Log records of each job that are kept with it, the last ones; 0: none."
    )
    keep_prints: bool = Field(default=False, description="With `keep_logs`: keep lines that a job prints, too.")
    show_arguments: bool = Field(
        default=False, description="Store a printable form of the arguments with each job. Off: they may hold secrets."
    )
    sweep_interval: Period = Field(
        default=timedelta(seconds=5), description="Seconds between sweeps for crashed, overdue and expired jobs."
    )

    # What `resolve` put into fields that code left alone, to tell it from changes in place (`config.imports.append(…)`).
    _filled: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.task_queues.ensure_valid()
        check_state_backend(self.result_backend, self.state_backend)
        most = self.maximum_concurrency
        if most is not None and self.minimum_concurrency > most:
            if "minimum_concurrency" in self.model_fields_set:
                raise ValueError(f"maximum_concurrency ({most}) must be at least minimum_concurrency ({self.minimum_concurrency})")
            self.__dict__["minimum_concurrency"] = most
        return self

    @classmethod
    def _read_old(cls, data: Mapping[Any, Any]) -> Mapping[Any, Any]:
        return spread(data)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            if name in PLACES and value is not None:
                value = redact_url(value) if isinstance(value, str) else [redact_url(url) for url in value]  # noqa: PLW2901
            yield name, value

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """The settings in a JSON or TOML file; ``ImproperlyConfigured`` names the file, the key and the remedy.

        A ``pyproject.toml`` keeps them in ``[tool.mognet]``. The key ``app`` is for the command line and is skipped here.
        """
        path = Path(path)
        table = read_table(path)
        if table is None:
            raise ImproperlyConfigured(f"{path}: has no [tool.mognet] table; add it, or name another file")
        table.pop("app", None)
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            raise _improper(error, lambda _: str(path), "correct or remove it in the file") from None


@dataclass(frozen=True)
class Resolved:
    """A complete config, and where each of its values came from: ``code``, a variable, a file's path or ``default``."""

    config: AppConfig
    origins: dict[str, str]


def resolve(
    config: AppConfig | None = None,
    *,
    url: str | None = None,
    environ: Mapping[str, str] = os.environ,
    start: Path | None = None,
) -> Resolved:
    """Fill what code left alone from the environment and the nearest file, on the same config object; may be done again.

    A ``url`` counts as code and goes before the one in ``config``. An error leaves the config as it was.
    """
    config = AppConfig() if config is None else config
    model = type(config)
    code = {name: getattr(config, name) for name in model.model_fields if _set_in_code(config, name)}
    if url is not None:
        code["url"] = url
    path, from_file = find_file(start), {}
    if path is not None:
        loaded = model.from_file(path)
        from_file = {name: getattr(loaded, name) for name in loaded.model_fields_set}
    from_env, variables = _read_environ(model, environ, from_file)
    drop_beaten([code, from_env, from_file])
    origins = dict.fromkeys(model.model_fields, "default") | dict.fromkeys(from_file, str(path)) | variables | dict.fromkeys(code, "code")
    try:
        # All at once: one by one, values that only fit together would be refused.
        fresh = model.model_validate({**from_file, **from_env, **code})
    except ValidationError as error:
        raise _improper(error, lambda name: origins.get(name, ""), "correct or remove it") from None
    check_places({name: getattr(fresh, name) for name in PLACES}, origins)
    for name in origins:
        if name not in code or name == "url":
            value = getattr(fresh, name)
            if value != getattr(config, name):
                config.__dict__[name] = value
    config._filled = {name: deepcopy(getattr(config, name)) for name in (from_file.keys() | from_env.keys()) - code.keys()}
    if url is not None:
        config.model_fields_set.add("url")
    return Resolved(config, origins)


def _set_in_code(config: AppConfig, name: str) -> bool:
    value = getattr(config, name)
    if name in config.model_fields_set or not isinstance(value, (list, set, dict, BaseModel)):
        return name in config.model_fields_set
    default = type(config).model_fields[name].get_default(call_default_factory=True, validated_data={})
    return bool(value != default and value != config._filled.get(name))


def _improper(error: ValidationError, origin: Callable[[str], str], remedy: str) -> ImproperlyConfigured:
    """The same error in words of the file or variable it is about, without the value (which may hold a password)."""
    lines = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        key, text = ".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")
        source = origin(key.partition(".")[0])
        if not source:  # about several settings together
            source = ", ".join(f"{name} from {origin(name)}" for name in AppConfig.model_fields if name in text and origin(name))
        lines.append(": ".join(part for part in (source, key, text) if part))
    return ImproperlyConfigured(f"{'; '.join(lines)} ({remedy})")


# --- the environment


def _plain(annotation: Any) -> Any:
    """The type itself, out of ``Annotated`` and ``… | None``."""
    while True:
        some = [arg for arg in get_args(annotation) if arg is not type(None)]
        if get_origin(annotation) is Annotated or (get_origin(annotation) in (Union, UnionType) and len(some) == 1):
            annotation = some[0]
        else:
            return annotation


def _type_at(annotation: Any, path: Sequence[str]) -> Any:
    """The type of the value at a path of names below a model, None if there is no such place."""
    for part in path:
        annotation = _plain(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and part in annotation.model_fields:
            annotation = annotation.model_fields[part].annotation
        elif get_origin(annotation) is dict and part:
            annotation = get_args(annotation)[1]
        elif annotation is not Any or not part:
            return None
    return annotation


def _parse(variable: str, text: str, annotation: Any) -> Any:
    """A variable's text as plain data for a type; single values stay text, for pydantic to convert."""
    text, plain = text.strip(), _plain(annotation)
    kind = get_origin(plain) or plain
    try:
        if plain is Any:
            try:
                return json.loads(text)
            except ValueError:
                return text
        if kind in (list, set) and not text.startswith("["):
            return [item.strip() for item in text.split(",") if item.strip()]
        if kind is dict and not text.startswith("{"):
            pairs = [item.partition("=") for item in text.split(",") if item.strip()]
            if not all(key.strip() and equals for key, equals, _ in pairs):
                raise ImproperlyConfigured(f"{variable}: should be JSON, or pairs such as a=b,c=d")
            return {key.strip(): _parse(variable, value, get_args(plain)[1]) for key, _, value in pairs}
        if kind in (list, set, dict) or (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ImproperlyConfigured(f"{variable}: is not valid JSON{where}; correct it, or unset it") from None
    return None if plain is not annotation and text.lower() in ("none", "null") else text


def _read_environ(model: type[AppConfig], environ: Mapping[str, str], below: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values set by variables and, for each, the names of its variables. An empty variable counts as not set.

    A name with double underscores sets one entry; in a dictionary the file's other entries (``below``) stay.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for variable in sorted(environ):  # so MOGNET_X comes before MOGNET_X__Y
        if not variable.startswith(_ENV) or _RESERVED.fullmatch(variable) or not environ[variable].strip():
            continue
        name, *path = variable.removeprefix(_ENV).lower().split("__")
        annotation = _type_at(model, [name, *path])
        if annotation is None:
            _warn_unknown(model, variable)
            continue
        value = _parse(variable, environ[variable], annotation)
        if path:
            base = below.get(name, {})
            place = values.setdefault(name, deepcopy(base) if isinstance(base, dict) else {})
            for part in path[:-1]:
                place = place.setdefault(part, {}) if isinstance(place, dict) else place
            if not isinstance(place, dict):
                raise ImproperlyConfigured(f"{variable}: sets an entry of what is not a table; unset it or the setting above it")
            place[path[-1]] = value
            origins[name] = f"{origins[name]}, {variable}" if name in origins else variable
        else:
            values[name], origins[name] = value, variable
    return values, origins


def _warn_unknown(model: type[AppConfig], variable: str) -> None:
    if variable in _warned:
        return
    _warned.add(variable)
    known = [_ENV + name.upper() for name in model.model_fields] + [f"{_ENV}TASK_QUEUES__{name.upper()}" for name in Queues.model_fields]
    logger.warning("unknown environment variable %r is ignored%s", variable, _hint(variable, known))
