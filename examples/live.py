"""A web page that tells its user, live: who launched it, for which tenant, how far is it.

    pip install starlette uvicorn                           beside mognet
    MOGNET_URL=memory://live python -m examples.live        the page and a worker in one process: http://127.0.0.1:8000

With any other URL, or none (then the jobs are in a SQLite file), workers run beside it, as many as you like:

    mognet examples.live run
    python -m examples.live

* Each request is somebody's: ``MetadataMiddleware`` labels what it submits with tenant and user, and it gets to see no other jobs.
* The page is told by **server-sent events**, fed by ``app.watch``. An event's id is its cursor: a browser that has lost the connection
  sends the last one it saw, and is told what has become of the jobs meanwhile. Nothing polls.
* What is stored with a job is data for the page, never HTML.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from pydantic import Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mognet import App, AppConfig, Context, Event, Result
from mognet.exceptions import CouldNotSubmit, InvalidCursor, NotRetryable, ResultLost
from mognet.http import MetadataMiddleware
from mognet.scope import scope_metadata

app = App("live", AppConfig(searchable_metadata={"tenant_id", "user_id"}, inherited_metadata={"tenant_id", "user_id"}))

SHOWN = 50
"""How many of a user's jobs the page begins with."""

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, so that nothing in between takes the connection for dead."""


# The task ----------------------------------------------------------------------------------------

Title = Annotated[str, Field(min_length=1, max_length=200)]
Pages = Annotated[int, Field(ge=1, le=1000)]


class PaperJam(Exception):
    """Somebody has to look after the printer."""


@app.task(name="report")
async def report(context: Context, title: Title, pages: Pages, seconds: float = 0.2) -> str:
    """Print a report. On page 13 the paper jams, but only once in each report."""
    async for page in context.track(range(1, pages + 1)):
        await asyncio.sleep(seconds)
        if page == 13 and "jammed" not in context.request.metadata:
            await context.set_metadata(jammed=True)
            raise PaperJam("paper jam on page 13")
    return f"{title}: {pages} pages"


# What the page asks for --------------------------------------------------------------------------


def who() -> dict[str, Any]:
    """Whose request this is: the metadata that all it submits will get, and by which jobs are found."""
    labels = {key: value for key, value in scope_metadata().items() if key in ("tenant_id", "user_id")}
    if len(labels) < 2:
        raise HTTPException(401, "who are you, and of which tenant?")
    return labels


async def submit(request: Request) -> Response:
    """Start a report. The task's annotations check what is asked for; whose it is comes from the scope."""
    who()
    try:
        asked: dict[str, Any] = dict(await request.json())
        job = app.create_request(report, asked["title"], asked["pages"])
        job.metadata = {"title": asked["title"]}
        result = await app.submit(job)
    except (ValueError, TypeError, KeyError, CouldNotSubmit) as error:  # InvalidTaskArguments is a ValueError
        raise HTTPException(422, str(error)) from error
    return JSONResponse({"id": str(result.id)}, 202)


async def revoke(request: Request) -> Response:
    """Stop a job."""
    result = await app.revoke((await mine(request)).id)
    return JSONResponse({"state": result.state})


async def retry(request: Request) -> Response:
    """Run a job again."""
    try:
        result = await app.retry((await mine(request)).id)
    except (NotRetryable, ResultLost) as error:
        raise HTTPException(409, str(error)) from error
    return JSONResponse({"state": result.state})


async def mine(request: Request) -> Result[Any]:
    """The job that the path names, if it is this user's; nobody learns whether others have one of this id."""
    labels = who()
    result = await app.result_backend.get(request.path_params["id"])
    if result is None or not labels.items() <= result.metadata.items():
        raise HTTPException(404, "you have no such job")
    return result


async def stream(request: Request) -> Response:
    """What happens to this user's jobs, as it happens."""
    told = tell(who(), request.headers.get("last-event-id"))
    return StreamingResponse(told, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


# Server-sent events ------------------------------------------------------------------------------


async def tell(labels: dict[str, Any], since: str | None) -> AsyncIterator[str]:
    """The events for a page that has seen ``since``, for ever."""
    while True:
        if since is None:  # the cursor comes first: what changes while the list is read is told once more, and not missed
            since = await app.cursor()
            newest = [result async for result in app.result_backend.find(metadata=labels, limit=SHOWN)]
            yield event("list", [await row(result) for result in reversed(newest)], since)
        events = app.watch(metadata=labels, since=since)
        try:
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        changed = await anext(events, None)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if changed is None:
                    return  # the app is closed
                yield event("job", await row(changed), changed.cursor)
        except InvalidCursor:
            since = None  # of another store, or no cursor at all: begin anew
        finally:
            await events.aclose()


async def row(job: Result[Any] | Event) -> dict[str, Any]:
    """What the page shows of a job."""
    shown = {key: value for key, value in job.to_dict().items() if key in ("id", "state", "progress", "metadata")}
    if (error := await job.error()) is not None:
        shown["error"] = error.message
    return shown


def event(name: str, data: Any, cursor: str) -> str:
    """One event; JSON has no line breaks of its own."""
    return f"event: {name}\nid: {cursor}\ndata: {json.dumps(data)}\n\n"


# The web application -----------------------------------------------------------------------------

CONTENT = Path(__file__).parent


async def page(request: Request) -> Response:
    """The page itself; a visitor without a name gets one."""
    if not request.query_params.get("user"):
        return RedirectResponse("/?tenant=acme&user=ada")
    return FileResponse(CONTENT / "live.html")


async def static(request: Request) -> Response:
    """Script and style: the policy below lets a page have them from a file only."""
    return FileResponse(CONTENT / request.url.path.removeprefix("/"))


class Visitor:
    """Stands where your login stands: puts into headers who the query of the URL says it is. Anybody may say anything here."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set both headers, whatever they were."""
        if scope["type"] == "http":
            query = parse_qs(scope["query_string"].decode("ascii", "replace"))
            said = {b"x-tenant-id": query.get("tenant", [""])[0].encode(), b"x-user-id": query.get("user", [""])[0].encode()}
            scope = {**scope, "headers": [*(pair for pair in scope["headers"] if pair[0] not in said), *said.items()]}
        await self.app(scope, receive, send)


class Policy:
    """Nothing on the page comes from elsewhere, and no script or style from within it."""

    HEADERS = (
        (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to each response."""

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.HEADERS]
            await send(message)

        await self.app(scope, receive, send_more)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Connected while the server runs. Jobs in this process's memory are seen by nobody else, so their worker runs here, too."""
    async with asyncio.TaskGroup() as group, app:
        if app.url.startswith("memory:"):
            group.create_task(app.start())
        yield


web = Starlette(
    lifespan=lifespan,
    middleware=[
        Middleware(Policy),
        Middleware(Visitor),
        Middleware(MetadataMiddleware, headers={"X-Tenant-Id": "tenant_id", "X-User-Id": "user_id"}),
    ],
    routes=[
        Route("/", page),
        Route("/live.js", static),
        Route("/live.css", static),
        Route("/events", stream),
        Route("/jobs", submit, methods=["POST"]),
        Route("/jobs/{id:uuid}/revoke", revoke, methods=["POST"]),
        Route("/jobs/{id:uuid}/retry", retry, methods=["POST"]),
    ],
)

if __name__ == "__main__":
    import uvicorn

    # Streams never end by themselves: at the end they are not waited for.
    uvicorn.run(web, timeout_graceful_shutdown=1)
