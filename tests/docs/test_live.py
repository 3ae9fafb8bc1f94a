"""The web example: a real server, a worker, and pages that lose their connection."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import uvicorn

from docs.engines import PLACES, placed
from mognet import App

ROOT = Path(__file__).resolve().parents[2]
ADA, EVE = "?tenant=acme&user=ada", "?tenant=acme&user=eve"
HOSTILE = "<img src=x onerror=alert(1)>\u2028</script>\r\nid: forged\n\ndata: {}"
FINAL = {"SUCCESS", "FAILURE", "REVOKED"}


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("examples.live")


@pytest.fixture(params=["sqlite"])
async def client(live: Any, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The example behind a real server, its jobs on SQLite unless the test says otherwise, and a worker."""
    with placed(live.app, request.param, tmp_path):
        # In memory, the worker runs in the server; elsewhere it is another app, as it would be in another process.
        async with serving(live.web) as client, worker(live) if request.param != "memory" else nothing():
            yield client


on_every_engine = pytest.mark.parametrize("client", PLACES, indirect=True)


@asynccontextmanager
async def serving(web: Any) -> AsyncIterator[httpx.AsyncClient]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(web, log_level="warning", lifespan="on", ws="none", timeout_graceful_shutdown=1))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            while not server.started and not task.done():  # noqa: ASYNC110 - a moment, once
                await asyncio.sleep(0.01)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def worker(live: Any) -> AsyncIterator[None]:
    other = App(live.app.name, live.app.config)
    for task in live.app.registry.tasks():
        other.task(name=task.name)(task.function)
    async with other:
        start = asyncio.create_task(other.start())
        yield
        await other.close()
        await start


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


class Told(NamedTuple):
    name: str
    id: str
    data: Any


@asynccontextmanager
async def events(client: httpx.AsyncClient, visitor: str, since: str | None = None) -> AsyncIterator[AsyncIterator[Told]]:
    """A page's connection; leaving it drops it."""
    headers = {} if since is None else {"Last-Event-ID": since}
    async with client.stream("GET", f"/events{visitor}", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        yield read(response)


async def read(response: httpx.Response) -> AsyncIterator[Told]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif fields.keys() >= {"event", "id", "data"}:
            yield Told(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}


async def submit(client: httpx.AsyncClient, title: str = "a report", pages: int = 2, visitor: str = ADA) -> str:
    response = await client.post(f"/jobs{visitor}", json={"title": title, "pages": pages})
    assert response.status_code == 202, response.text
    id: str = response.json()["id"]
    return id


async def until(told: AsyncIterator[Told], id: str, *states: str) -> Told:
    async for each in told:
        if each.name == "job" and each.data["id"] == id and each.data["state"] in states:
            return each
    raise AssertionError("the stream has ended")


@on_every_engine
async def test_a_page_that_loses_its_connection_misses_no_final_state(client: httpx.AsyncClient, live: Any) -> None:
    async with events(client, ADA) as told:
        first = await anext(told)
        assert (first.name, first.data) == ("list", [])
        ids = [await submit(client, pages=3) for _ in range(6)]
        seen = await until(told, ids[0], "RUNNING", "SUCCESS")
    for id in ids:  # all of it happens while nobody listens
        await (await live.app.result_backend.get(id)).wait(timeout=30)
    ended: dict[str, str] = {}
    since: str | None = seen.id
    while len(ended) < len(ids):  # and the line is cut after each event
        async with asyncio.timeout(30), events(client, ADA, since) as told:
            each = await anext(told)
        assert each.name == "job"
        since = each.id
        if each.data["state"] in FINAL:
            ended[each.data["id"]] = each.data["state"]
    assert ended == dict.fromkeys(ids, "SUCCESS")


@on_every_engine
async def test_how_far_it_is_a_failure_and_another_try(client: httpx.AsyncClient, live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.report, "__defaults__", (0.1,))  # the printer is twice as fast
    async with asyncio.timeout(60), events(client, ADA) as told:
        await anext(told)
        id = await submit(client, "thirteen", pages=14)
        begun = await until(told, id, "RUNNING")
        assert begun.data["metadata"] == {"tenant_id": "acme", "user_id": "ada", "title": "thirteen"}
        failed = await until(told, id, "FAILURE")
        assert failed.data["error"] == "paper jam on page 13"
        assert (failed.data["progress"]["done"], failed.data["progress"]["total"]) == (12, 14)
        assert (await client.post(f"/jobs/{id}/retry{ADA}")).status_code == 200
        done = await until(told, id, "SUCCESS")
        assert (done.data["progress"]["done"], done.data["progress"]["total"]) == (14, 14)
        assert (await client.post(f"/jobs/{id}/retry{ADA}")).status_code == 409


async def test_stopped_from_the_page(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60), events(client, ADA) as told:
        await anext(told)
        id = await submit(client, pages=1000)
        await until(told, id, "RUNNING")
        assert (await client.post(f"/jobs/{id}/revoke{ADA}")).json() == {"state": "REVOKED"}
        await until(told, id, "REVOKED")


async def test_the_page_begins_with_the_jobs_there_are_oldest_first(client: httpx.AsyncClient, live: Any) -> None:
    ids = [await submit(client, str(n)) for n in range(3)]
    async with events(client, ADA) as told:
        first = await anext(told)
    assert [job["id"] for job in first.data] == ids


async def test_others_are_neither_told_nor_obeyed(client: httpx.AsyncClient) -> None:
    id = await submit(client, pages=1000)
    for action in ("revoke", "retry"):
        assert (await client.post(f"/jobs/{id}/{action}{EVE}")).status_code == 404
        assert (await client.post(f"/jobs/{id}/{action}?tenant=zoo&user=ada")).status_code == 404
        assert (await client.post(f"/jobs/00000000-0000-0000-0000-000000000001/{action}{EVE}")).status_code == 404
    async with asyncio.timeout(30), events(client, EVE) as told:
        assert (await anext(told)).data == []
        own = await submit(client, visitor=EVE)
        async for each in told:
            assert each.data["id"] == own
            if each.data["state"] in FINAL:
                break
    assert (await client.post(f"/jobs/{id}/revoke{ADA}")).json() == {"state": "REVOKED"}


@pytest.mark.parametrize(
    "visitor", ["", "?tenant=acme", "?user=ada", "?tenant=&user=ada", "?tenant=a%0Ab&user=ada", f"?tenant=acme&user={'x' * 257}"]
)
async def test_nobody_gets_nothing(client: httpx.AsyncClient, visitor: str) -> None:
    forged = {"X-Tenant-Id": "acme", "X-User-Id": "ada"}
    assert (await client.get(f"/events{visitor}", headers=forged)).status_code == 401
    assert (await client.post(f"/jobs{visitor}", json={"title": "a", "pages": 1}, headers=forged)).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "[1]",
        "7",
        "{}",
        '{"title": "a"}',
        '{"title": "", "pages": 1}',
        '{"title": "a\\u0000", "pages": 1}',
        '{"title": "a", "pages": 1e9}',
        "\xff",
    ],
)
async def test_what_makes_no_sense_is_refused(client: httpx.AsyncClient, live: Any, body: str) -> None:
    response = await client.post(f"/jobs{ADA}", content=body.encode("latin-1"))
    assert response.status_code == 422
    assert response.text
    assert await live.app.result_backend.count() == {}


@pytest.mark.parametrize("cursor", ["nonsense", "", "a" * 5000])
async def test_a_cursor_that_is_none_begins_anew(client: httpx.AsyncClient, cursor: str) -> None:
    id = await submit(client)
    async with asyncio.timeout(30), events(client, ADA, cursor) as told:
        first = await anext(told)
    assert first.name == "list"
    assert [job["id"] for job in first.data] == [id]


async def test_hostile_text_stays_text(client: httpx.AsyncClient, live: Any) -> None:
    id = await submit(client, HOSTILE)
    result = await live.app.result_backend.get(id)
    await result.wait(timeout=30)
    async with client.stream("GET", f"/events{ADA}") as response:
        lines = [line async for line, _ in numbered(response, 4)]
    assert [line.partition(":")[0] for line in lines] == ["event", "id", "data", ""], "no line of its own"
    assert json.loads(lines[2].removeprefix("data: "))[0]["metadata"]["title"] == HOSTILE


async def numbered(response: httpx.Response, most: int) -> AsyncIterator[tuple[str, int]]:
    number = 0
    async for line in response.aiter_lines():
        yield line, number
        number += 1
        if number == most:
            return


async def test_the_page_keeps_its_policy(client: httpx.AsyncClient) -> None:
    for path, type in {f"/{ADA}": "text/html", "/live.js": "text/javascript", "/live.css": "text/css"}.items():
        response = await client.get(path)
        assert response.headers["content-type"].startswith(type)
        assert response.headers["content-security-policy"].startswith("default-src 'self';")
    assert (await client.get("/")).headers["location"].startswith("/?tenant=")
    assert (await client.get("/live.py")).status_code == 404
    page, script = ((ROOT / "examples" / name).read_text() for name in ("live.html", "live.js"))
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", page), "the policy lets no script or style stand in the page"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script), "what is stored is text, never HTML"


async def test_silence_is_filled(client: httpx.AsyncClient, live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT", 0.05)
    async with asyncio.timeout(30), client.stream("GET", f"/events{ADA}") as response:
        lines = response.aiter_lines()
        while await anext(lines) != ": still here":
            pass
        id = await submit(client)
        async for line in lines:  # a heartbeat does not end the watch
            if line.startswith("data: ") and json.loads(line.removeprefix("data: "))["state"] == "SUCCESS":
                assert id in line
                break


async def test_a_stream_does_not_hold_up_the_end(live: Any, tmp_path: Path) -> None:
    with placed(live.app, "sqlite", tmp_path):
        async with asyncio.timeout(20), serving(live.web) as client:
            connection = client.stream("GET", f"/events{ADA}")
            response = await connection.__aenter__()
            assert await anext(response.aiter_lines()) == "event: list"
        await response.aclose()
