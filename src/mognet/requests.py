"""What a caller asks for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationInfo, field_validator

from mognet.ids import random_id
from mognet.times import check_moment, in_seconds

T = TypeVar("T")

DEFAULT_PRIORITY = 5

LONGEST_NAME = 255
"""Characters of a task's or a queue's name."""

Priority = Annotated[int, Field(ge=0, le=10)]
"""0 to 10, higher first."""


class Request(BaseModel, Generic[T]):
    """One call of a task, to be submitted. ``T`` is what the task returns.

    A datetime without a time zone is local time, as everywhere in Python.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(validate_assignment=True, arbitrary_types_allowed=True, extra="forbid")

    id: UUID = Field(default_factory=random_id)
    """The job's id. Submitting an id again changes nothing: give your own to make a submit repeatable."""

    name: str = Field(min_length=1, max_length=LONGEST_NAME)
    """The task's name."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)

    stack: list[UUID] = Field(default_factory=list)
    """The ids of the jobs above this one, outermost first. Set by submitting."""

    metadata: dict[StrictStr, Any] = Field(default_factory=dict)
    """Labels that are stored with the job: anyone can read, search and change them. May be changed until it is submitted."""

    deadline: timedelta | datetime | None = None
    """A timedelta is how long it may run, a datetime the latest moment. Past it, the job ends REVOKED."""

    delay: timedelta | None = None
    """Not before so long after the submit."""

    run_at: datetime | None = None
    """Not before this moment."""

    queue_name: str | None = Field(default=None, min_length=1, max_length=LONGEST_NAME)
    """Goes before the configured route and the task's own queue."""

    kwargs_repr: str | None = None
    """A printable form of the arguments, stored with the job and shown to whoever looks; 1,000 characters of it.
    Leave secrets out of it."""

    priority: Priority = DEFAULT_PRIORITY

    @field_validator("delay", "run_at", "deadline")
    @classmethod
    def _reckonable(cls, value: timedelta | datetime | None, info: ValidationInfo) -> timedelta | datetime | None:
        what = info.field_name or "it"
        if isinstance(value, datetime):
            check_moment(value, what)
        elif value is not None and what == "deadline":
            in_seconds(max(value, timedelta(0)), what)  # one that has passed already keeps the job from running
        elif value is not None:
            in_seconds(value, what)
        return value

    # Of each field, not of the whole model: pydantic would keep a refused value that it had assigned already.
    @field_validator("delay", "run_at")
    @classmethod
    def _one_start(cls, value: timedelta | datetime | None, info: ValidationInfo) -> timedelta | datetime | None:
        other = "run_at" if info.field_name == "delay" else "delay"
        if value is not None and info.data.get(other) is not None:
            raise ValueError("give delay or run_at, not both")
        return value

    def due_in(self) -> float:
        """Seconds from now until it may run."""
        if self.delay is not None:
            return self.delay.total_seconds()
        if self.run_at is not None:
            return max(0.0, self.run_at.timestamp() - datetime.now(UTC).timestamp())
        return 0.0

    def __repr__(self) -> str:
        return f"Request({self.name!r}, id={str(self.id)!r})"


def new_request(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request[Any]:
    """``Request(name=name, args=args, kwargs=kwargs)`` in half the time, for a name that it would take."""
    request: Request[Any] = Request.__new__(Request)
    fields = {
        "id": random_id(),
        "name": name,
        "args": args,
        "kwargs": kwargs,
        "stack": [],
        "metadata": {},
        "deadline": None,
        "delay": None,
        "run_at": None,
        "queue_name": None,
        "kwargs_repr": None,
        "priority": DEFAULT_PRIORITY,
    }
    _set(request, "__dict__", fields)
    _set(request, "__pydantic_fields_set__", {"name", "args", "kwargs"})
    _set(request, "__pydantic_extra__", None)
    _set(request, "__pydantic_private__", None)
    return request


_set = object.__setattr__  # past the validation of what is assigned
