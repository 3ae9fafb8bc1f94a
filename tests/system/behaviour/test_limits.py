"""What is too deep, too long, too large or too far away is refused where it is written, so that all that is stored can be read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from mognet import App, Backoff, Context, Pause, Request, ResultState, Retry
from mognet.exceptions import CouldNotSubmit, InvalidTaskArguments, NotStorable, Revoked
from mognet.records import Job

from .conftest import Lab, soon


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


UNREADABLE = {"deep": nested(230), "digits": 10**5000}
LARGEST = {"deep": nested(190), "digits": 10**4299}


class Odd(Exception):
    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_values_that_could_not_be_read(app: App, kind: str) -> None:
    @app.task
    async def give(kind: str) -> Any:
        return UNREADABLE[kind]

    result = await app.submit(give, kind)
    with pytest.raises(NotStorable, match=r"nested deeper than 190 levels|number out of range"):
        await soon(result)
    assert result.state is ResultState.FAILURE


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_arguments_that_could_not_be_read(idle: App, kind: str) -> None:
    @idle.task(name="take")
    async def take(value: Any = None, *many: Any, **more: Any) -> None: ...

    value = UNREADABLE[kind]
    for args, kwargs, loc in (((value,), {}, "value"), ((0, value), {}, "many"), ((), {"other": value}, "more")):
        with pytest.raises(InvalidTaskArguments) as caught:
            idle.create_request(take, *args, **kwargs)
        assert [(error.loc, error.type) for error in caught.value.errors] == [((loc,), "not_storable")]
        with pytest.raises(CouldNotSubmit, match="take cannot be stored"):
            await idle.submit(Request(name="take", args=args, kwargs=kwargs))


@pytest.mark.parametrize("kind", LARGEST)
async def test_the_largest_come_back(app: App, kind: str) -> None:
    @app.task
    async def echo(value: Any) -> Any:
        return value

    @app.task
    async def echo_list(value: list[Any] | int) -> list[Any] | int:
        return value

    value = LARGEST[kind]
    for function in (echo, echo_list):
        assert await soon(app.run(function, value)) == value
        assert await soon(app.run(Request(name=app.registry.of(function).name, kwargs={"value": value}))) == value


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_what_an_error_holds_that_could_not_be_read(app: App, kind: str) -> None:
    @app.task
    async def fail(kind: str) -> None:
        raise Odd(UNREADABLE[kind] if kind == "digits" else nested(191))

    with pytest.raises(Odd) as caught:
        await soon(app.run(fail, kind))
    assert isinstance(caught.value.args[0], str)


async def test_state_that_could_not_be_read(app: App) -> None:
    @app.task
    async def work(context: Context) -> int:
        refused = 0
        for value in UNREADABLE.values():
            try:
                await context.state.set("a", value)
            except NotStorable:
                refused += 1
        await context.state.set(**LARGEST)
        assert [await context.state.get(key) for key in LARGEST] == list(LARGEST.values())
        assert await context.state.get("a") is None
        return refused

    assert await soon(app.run(work)) == 2


# times

CENTURY = timedelta(days=36_525)
TOO_LONG = CENTURY + timedelta(seconds=1)


@pytest.mark.parametrize(
    "give",
    [
        lambda: Request(name="a", delay=TOO_LONG),
        lambda: Request(name="a", deadline=timedelta.max),
        lambda: Request(name="a", deadline=datetime.max),
        lambda: Request(name="a", run_at=datetime.now(UTC) + TOO_LONG),
        lambda: Request(name="a", run_at=datetime.max.replace(tzinfo=UTC)),
        lambda: Pause(resume_after=TOO_LONG),
        lambda: Retry(after=1e300),
        lambda: App("a", url="memory://").task(timeout=TOO_LONG)(nested),
        lambda: App("a", url="memory://").task(timeout=float("nan"))(nested),
    ],
)
def test_times_longer_than_a_century(give: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="100 years"):
        give()


def test_times_within_a_century() -> None:
    Request(name="a", delay=CENTURY, deadline=CENTURY)
    Request(name="a", run_at=datetime.now(UTC) + CENTURY - timedelta(minutes=1), deadline=timedelta(seconds=-1))
    assert Pause(resume_after=CENTURY).resume_after == Retry(after=CENTURY).after == CENTURY.total_seconds()
    assert Backoff(base=1e300, cap=float("inf"), jitter=False).delay(9) == CENTURY.total_seconds()


async def test_a_ttl_longer_than_a_century(idle: App) -> None:
    result = await idle.submit(Request(name="a"))
    for ttl in (TOO_LONG, timedelta(seconds=-1)):
        with pytest.raises(ValueError, match="100 years"):
            await result.set_ttl(ttl)
    await result.set_ttl(CENTURY)


async def test_a_due_time_beyond_the_calendar_can_be_shown(idle: App) -> None:
    await idle.engine.submit([Job(id=uuid4(), name="far", queue="tasks", body=b"{}", delay=3e11)])
    [result] = [result async for result in idle.result_backend.find(name="far")]
    assert result.due.year == 9999
    assert result.due.astimezone() and result.to_dict()["due"].startswith("9999")


# requests


@pytest.mark.parametrize("field", ["delay", "run_at", "deadline", "priority"])
def test_a_refused_assignment_changes_nothing(field: str) -> None:
    request = Request[None](
        name="a", deadline=timedelta(1), **({"delay": timedelta(1)} if field != "delay" else {"run_at": datetime.now(UTC)})
    )
    before = request.model_copy()
    with pytest.raises(ValueError, match=r"not both|100 years|10"):
        setattr(request, field, {"delay": timedelta(1), "run_at": datetime.now(UTC), "deadline": timedelta.max, "priority": 11}[field])
    assert request == before
    assert request.model_fields_set == before.model_fields_set
    request.metadata = {"a": 1}


async def test_a_long_label_is_cut(lab: Lab) -> None:
    app = await lab.connected(show_arguments=True)
    for request in (Request[None](name="a", kwargs_repr="x" * 1001), Request[None](name="a", args=("y" * 99,) * 99)):
        label = (await app.submit(request)).request_kwargs_repr
        assert label is not None and len(label) == 1000 and label.endswith("…")
        found = await app.result_backend.get(request.id)
        assert found is not None and found.request_kwargs_repr == label
    assert (await app.submit(Request(name="a", kwargs_repr="x" * 1000))).request_kwargs_repr == "x" * 1000


async def test_state_above_the_limit(lab: Lab) -> None:
    app = await lab.working(max_result_size=1000)

    @app.task
    async def work(context: Context) -> Any:
        await context.state.set(a="x" * 998)
        with pytest.raises(NotStorable, match=r"1001 bytes of 'b' are more than max_result_size=1000"):
            await context.state.set(a=1, b="x" * 999)
        return len(await context.state.get("a"))

    assert await soon(app.run(work)) == 998


@pytest.mark.parametrize("how", ["pause", "retry", "delay"])
async def test_a_job_that_waits_past_its_latest_moment_ends_by_then(lab: Lab, how: str) -> None:
    app = await lab.working(sweep_interval=timedelta(seconds=0.1))

    @app.task(name="wait")
    async def wait() -> None:
        raise Pause(resume_after=60) if how == "pause" else Retry(after=60)

    delay = timedelta(seconds=60) if how == "delay" else None
    result = await app.submit(Request(name="wait", delay=delay, deadline=datetime.now(UTC) + timedelta(seconds=0.5)))
    with pytest.raises(Revoked):
        await soon(result)
    assert result.state is ResultState.REVOKED
    assert result.number_of_starts == (0 if how == "delay" else 1)
