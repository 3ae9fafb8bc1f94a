"""Events and errors are values: they may be pickled, to other processes say, and copied."""

from __future__ import annotations

import copy
import pickle
from inspect import isfunction
from typing import Any
from uuid import UUID, uuid4

import pytest

from mognet import exceptions
from mognet.engines.memory import MemoryEngine
from mognet.events import Event
from mognet.exceptions import MognetError, NotConnected, ResultFailed
from mognet.outcomes import failed
from mognet.progress import Progress
from mognet.records import Record
from mognet.states import ResultState
from mognet.times import from_seconds
from watches import job, opened, take


class Failed:
    id = UUID(int=5)
    name = "work"
    state = ResultState.FAILURE


ERRORS: list[Any] = [
    exceptions.ResultFailed(Failed()),
    exceptions.Revoked(Failed()),
    exceptions.ResultLost(Failed.id),
    exceptions.ResultValueLost(Failed.id),
    exceptions.NotRetryable(Failed.id, "it runs"),
    exceptions.QueueNotFound("q"),
    exceptions.TooManyRetries(Failed.id, 5, 3),
    exceptions.InvalidTaskArguments([{"loc": ("a", 0), "msg": "no", "type": "t"}], "work"),
    exceptions.UnknownTask("work"),
    exceptions.TaskError("a:b", "c", "d"),
    exceptions.NotStorable("no"),
    exceptions.Pause(5),
    exceptions.Retry(5),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deep"])
def test_errors(error: BaseException, way: Any) -> None:
    error.add_note("seen")
    other = way(error)
    assert type(other) is type(error)
    assert (other.args, str(other), other.__notes__) == (error.args, str(error), error.__notes__)
    if isinstance(error, ResultFailed):
        assert error.result is not None
        assert other.result is None


def test_all_errors_are_shown() -> None:
    """Those that have a constructor of their own."""
    errors = [each for each in vars(exceptions).values() if isinstance(each, type) and issubclass(each, MognetError)]
    assert {each for each in errors if isfunction(each.__init__) and not each.__name__.startswith("_")} <= set(map(type, ERRORS))


async def test_events() -> None:
    engine = MemoryEngine()
    async with engine, opened(engine) as hub:
        await engine.submit([new := job(metadata=b'{"tenant":{"id":5}}')])
        [claim] = await engine.claim("n", ["q"], 1, lease=60)
        await engine.settle([failed(claim.token, b"{}")])
        event = await take(hub.watch(new.id, None, None, None))
        for other in (pickle.loads(pickle.dumps(event)), copy.copy(event), copy.deepcopy(event)):
            assert other == event
        copy.deepcopy(event).metadata["tenant"]["id"] = 6
        assert event.metadata == {"tenant": {"id": 5}}
        assert await copy.copy(event).error() == await copy.deepcopy(event).error() is None
        with pytest.raises(NotConnected, match="pickled"):
            await pickle.loads(pickle.dumps(event)).error()


def test_an_event_with_all_there_is() -> None:
    record = Record(uuid4(), "work", "q", ResultState.RUNNING, 5, 1.0, 2.0)

    async def read(_: UUID) -> None: ...

    progress = Progress(1, None, "so far", from_seconds(5.0))
    event = Event("c", record.id, "work", record.state, progress, {"a": [1]}, frozenset("a"), "q", "n", None, record.id, record, read)
    assert pickle.loads(pickle.dumps(event)) == event
