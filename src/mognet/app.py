"""The house: one object through which everything is reached."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Self, cast
from uuid import UUID, uuid4

from mognet.acting import Acting
from mognet.backend import ResultBackend, job_id
from mognet.backoff import Backoff, pause_after
from mognet.client import Client, create_request
from mognet.config import AppConfig, default_url, resolve
from mognet.config_legacy import Place, place_of
from mognet.context import Context
from mognet.control import CONTROL, NodeStatus, QueueStats, StatusQuery, write
from mognet.engine import Engine, OpenEngine, check_login, until_back
from mognet.engines import engine_factory
from mognet.engines.guarded import GuardedEngine
from mognet.exceptions import ImproperlyConfigured, NotConnected, QueueNotFound
from mognet.finding import Indexes
from mognet.middleware import MiddlewareStack
from mognet.records import Query, Signal
from mognet.registry import TaskMaker, TaskRegistry, global_registry
from mognet.requests import Request
from mognet.results import Result
from mognet.services import Services
from mognet.states import ResultState
from mognet.underway import Underway
from mognet.watching import Watch
from mognet.worker import Worker

_log = logging.getLogger(__name__)

_RECONNECT = Backoff(base=0.1, cap=30.0)

PURGE_BATCH = 500
PURGE_LEASE = 30.0


class App(Acting):
    """An application: its tasks, its jobs and, after :meth:`start`, a worker.

    :param name: keeps its jobs apart from other apps' on the same engine.
    :param config: settings made in code; the environment, ``mognet.toml`` or ``[tool.mognet]`` fill in the rest.
    :param url: where the jobs are kept; by default a SQLite file under ``.mognet`` at the project's root.

    ``async with app`` connects and closes. A closed app may be connected again, in another event loop too.
    """

    def __init__(self, name: str, config: AppConfig | None = None, *, url: str | None = None) -> None:
        if not name or "\0" in name or len(name) > 100:
            raise ImproperlyConfigured(f"an app's name is 1 to 100 characters, not {name!r}")
        self.name: str = name
        self.config: AppConfig = AppConfig() if config is None else config
        self.origins: dict[str, str] = resolve(self.config, url=url).origins
        """Where the value of each setting comes from."""
        self.registry: TaskRegistry = TaskRegistry(global_registry)
        self.task: TaskMaker = TaskMaker(self.registry)
        """``@app.task``: like :data:`mognet.task`, for this app only."""
        self.services: Services = Services(self.config)
        self.worker: Worker | None = None
        """The worker, while :meth:`start` runs one."""
        self._middleware = MiddlewareStack()
        self._started = False
        self._starter: asyncio.Task[Any] | None = None
        self._given_up = False
        self._factory: tuple[Place, OpenEngine] | None = None
        self._connecting = Underway()
        """Others wait for whoever connects, so that one engine is opened."""
        self._preparing = Underway()
        self._closing = Underway()
        self._engine: Engine | None = None
        self._backend: ResultBackend | None = None
        self._client: Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # life

    @property
    def url(self) -> str:
        """Where the jobs are kept: an engine's URL, or a broker's and its store's for display, without passwords."""
        place = self._place
        return place.shown if place.broker else place.store

    @property
    def _place(self) -> Place:
        config = self.config
        return place_of(config.url, config.broker, config.result_backend, default_url(self.name))

    @property
    def ready(self) -> bool:
        """Whether its worker runs, and has been in touch with the engine within the last seconds, so that it would get work."""
        return self.worker is not None and self.worker.ready

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it is connected in. Raises :class:`NotConnected`."""
        if self._loop is None:
            raise self._not_connected()
        return self._loop

    async def connect(self) -> None:
        """Open the engine, and import the modules of ``config.imports``; once connected, nothing happens.

        An app is connected in one event loop at a time: while that runs, another one's gets :class:`ImproperlyConfigured`.
        """
        await self._connecting.over()
        self._outlive_loop()
        if self._engine is None:
            with self._connecting:
                await self._connect()

    def _outlive_loop(self) -> None:
        """What was connected in an event loop that has ended is gone with it. Raises :class:`ImproperlyConfigured` for one that has not."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return
        if not self._loop.is_closed():
            raise ImproperlyConfigured(
                f"app {self.name!r} is connected in another event loop: close it there first, or make another App of this name here"
            )
        self._disconnect()

    async def _connect(self) -> None:
        self._import_modules()
        engine = self._open_engine()
        await engine.__aenter__()
        try:
            indexes = await Indexes.declare(engine, self.config.searchable_metadata)
        except BaseException:
            await engine.__aexit__(None, None, None)
            raise
        self._engine, self._loop = engine, asyncio.get_running_loop()
        self._backend = ResultBackend(engine, self.registry, max_metadata_size=self.config.max_metadata_size, indexes=indexes)
        self._client = Client(engine, self._backend, self.config, self.registry, self._middleware)

    def _open_engine(self) -> Engine:
        place = self._place
        if self._factory is None or self._factory[0] != place:
            self._factory = (place, engine_factory(place.store, self.name, broker=place.broker))
        return GuardedEngine(self._factory[1]())

    def _import_modules(self) -> None:
        for module in self.config.imports:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise ImproperlyConfigured(f"module {module!r} of AppConfig.imports cannot be imported: {error}") from error

    async def start(self, *, burst: bool = False, begin: Callable[[Worker], None] | None = None) -> None:
        """Connect, and run a worker until the app is closed, or ``config.max_tasks`` jobs have run.

        ``burst=True``: until nothing is due and nothing runs. When cancelled, running jobs are handed back at once.
        While somebody closes the app, this does not return before :meth:`close` is through.
        ``begin`` is called with the worker when the app is connected, before it claims its first job.
        """
        if self._starter is not None:
            raise ImproperlyConfigured(f"a worker of app {self.name!r} is running in this process already")
        self._starter = asyncio.current_task()
        try:
            with self._preparing:
                worker = await self._prepare(burst)
            if worker is None:
                return
            await self._middleware.call("on_app_started", self)
            if self._engine is None:  # a hook has closed the app
                return
            if begin is not None:
                begin(worker)
            await worker.run()
        finally:
            if self.worker is not None:
                self.worker.be_over()
            self.worker = self._starter = None
            await self._closing.over()

    async def _prepare(self, burst: bool) -> Worker | None:
        """A worker of an app that is connected; None: the app was closed before it was."""
        self._given_up = False
        try:
            await self._closing.over()
            self._started = True
            await self._middleware.call("on_app_starting", self)
            if self._given_up:
                return None
            await self._connect_patiently()
            await check_login(self._connected()[0])
        except asyncio.CancelledError:
            if not self._given_up:
                raise
            cast("asyncio.Task[Any]", self._starter).uncancel()
            return None
        engine, backend = self._connected()
        self.worker = Worker(self, engine, self._open_engine, self.registry, self._middleware, backend, self.get_task_queue_names())
        self.worker.burst = burst
        return self.worker

    async def _connect_patiently(self) -> None:
        """A worker that cannot reach its engine keeps trying."""
        failures = 0
        lookout: Engine | None = None
        while True:
            try:
                return await self.connect()
            except ConnectionError as error:
                failures += 1
                delay = pause_after(error, failures, _RECONNECT)
                _log.warning("cannot connect, trying again in %.1f s: %s", delay, error)
                lookout = lookout or self._open_engine()
                if await until_back(lookout, delay):
                    failures = 0

    async def stop(self, grace: float | timedelta | None = None) -> None:
        """Stop the worker: no more jobs; those that run have ``grace`` seconds (default ``config.shutdown_grace``) to end.

        What still runs then is cancelled and handed back: SUSPENDED, to be run again, not counted as a crash.
        """
        if self.worker is not None and self._starter is asyncio.current_task():  # a hook, which the worker itself waits for
            self.worker.begin_to_stop()
        elif self.worker is not None:
            await self.worker.stop(grace.total_seconds() if isinstance(grace, timedelta) else grace)

    async def close(self) -> None:
        """Stop the worker, handing back at once what it runs, close services, and disconnect. :meth:`start` returns.

        When this returns the app is closed, also if another one closes it.
        """
        if self._closing.mine:  # a hook, or what a service does at its end
            return
        await self._closing.over()
        self._outlive_loop()
        with self._closing:
            await self._give_up_starting()
            if self._engine is not None or self._started:  # also if it was never connected: hooks come in pairs
                await self._close(self._engine)

    async def _give_up_starting(self) -> None:
        """A worker that is not connected yet will not be."""
        if self._starter is not None and self.worker is None:
            self._given_up = True
            if self._starter is not asyncio.current_task():  # or else it is a hook, behind which it ends
                self._starter.cancel()
                await self._preparing.over()

    async def _close(self, engine: Engine | None) -> None:
        if self._started:
            await self._middleware.call("on_app_stopping", self)
        await self.stop(grace=0)
        started, self._started = self._started, False
        async with AsyncExitStack() as rest:  # also if this is cancelled: nobody comes back for what is left
            if started:
                rest.push_async_callback(self._middleware.call, "on_app_stopped", self)
            if engine is not None:
                rest.push_async_exit(engine)
            for each in (self._backend, self._client):
                if each is not None:
                    rest.push_async_callback(each.close)
            rest.callback(self._disconnect)
            await self.services.close()

    def _disconnect(self) -> None:
        self._engine = self._backend = self._client = self._loop = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _not_connected(self) -> NotConnected:
        where = "" if self._loop is None else " in this event loop, but in another one"
        return NotConnected(f"app {self.name!r} is not connected{where}: use `async with app`, or `await app.connect()`")

    def _connected(self) -> tuple[Engine, ResultBackend]:
        if self._engine is None or self._backend is None:
            raise self._not_connected()
        return self._engine, self._backend

    @property
    def result_backend(self) -> ResultBackend:
        """Reads, waits for, labels and deletes jobs by id. Raises :class:`NotConnected`."""
        return self._connected()[1]

    @property
    def engine(self) -> Engine:
        """The engine it is connected to, for tools that look behind the results. Raises :class:`NotConnected`."""
        return self._connected()[0]

    def add_middleware(self, middleware: Any) -> None:
        """Add hooks (see :class:`mognet.Middleware`), behind those that are there."""
        self._middleware.add(middleware)

    # calls

    def _make_request(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request[Any]:
        return create_request(self.registry, function, args, kwargs)

    async def _submit(self, request: Request[Any], context: Context | None, connection: Any = None) -> Result[Any]:
        if context is not None and not isinstance(context, Context):
            raise TypeError(f"a request brings its own arguments; what may follow it is the context of a task, not {context!r}")
        return await self._connected_client().submit(request, context, connection)

    def _submit_call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Result[Any]]:
        return self._connected_client().submit_call(function, args, kwargs)

    async def _run(self, request: Request[Any], context: Context | None) -> Any:
        return await self._connected_client().run(request, context)

    def _connected_client(self) -> Client:
        if self._client is None or self._loop is not asyncio.get_running_loop():
            raise self._not_connected()
        return self._client

    async def _submit_many(self, requests: list[Request[Any]], context: Context | None) -> list[Result[Any]]:
        return await self._connected_client().submit_many(requests, context)

    async def revoke(self, id: UUID | str, *, force: bool = False) -> Result[Any]:
        """Stop a job and all under it, in one durable step: what waits never runs, what runs is cancelled wherever it runs.

        A finished job is returned unchanged; with ``force``, its unfinished descendants are revoked all the same. An unknown
        id is marked, so that a later submit of it does not run.
        """
        return await self._connected_client().revoke(job_id(id), force=force)

    # watching

    def watch(
        self,
        id: UUID | str | None = None,
        *,
        root: UUID | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
        state: ResultState | str | Iterable[ResultState | str] | None = None,
        since: str | None = None,
    ) -> Watch:
        """What happens to jobs, as events: ``async for event in app.watch(id)``.

        * ``watch(id)``: the job as it is, then its changes; ends with its final state.
        * ``watch(root=id)``: each job of a tree as it is, then changes; ends when the root and all under it have ended.
        * ``watch(metadata={"tenant": "acme"})``: changes, from now on, of jobs whose metadata are so at that moment; a list of values
          means any of them, and dots lead into objects. Does not end by itself.
        * ``watch(name="shop.order", state={"FAILURE", "INVALID"})``: the same by the task's name and by states, also beside ``metadata``.
        * ``watch()``: changes of all jobs, from now on. Does not end by itself.

        ``since``: an event's cursor, or one of :meth:`cursor`: go on from there. A job that changes more often than the watch is read is
        told in its latest state; none goes missing. When the app is closed, watches end. An engine that cannot be reached ends none.
        Raises :class:`InvalidQuery`, and while it is read :class:`ResultLost` and :class:`InvalidCursor`.
        """
        _, backend = self._connected()
        top, tree = (None if each is None else job_id(each) for each in (id, root))
        return backend.hub.watch(top, tree, metadata, since, name=name, state=state)

    async def cursor(self) -> str:
        """A cursor for :meth:`watch` to go on from this moment."""
        return await self._connected()[1].hub.cursor()

    # queues and nodes

    def get_task_queue_names(self) -> set[str]:
        """The queues that a worker listens on: those included, or all that are known less those excluded."""
        queues = self.config.task_queues
        queues.ensure_valid()
        return set(queues.include) if queues.include else self._known_queues() - queues.exclude

    def _known_queues(self) -> set[str]:
        named = {task.queue for task in self.registry.tasks() if task.queue and task.name not in self.config.task_routes}
        return {self.config.default_task_route, *self.config.task_routes.values(), *named}

    async def queue_stats(self, name: str) -> QueueStats:
        """How many jobs wait in a queue, and how many workers listen on it. Raises :class:`QueueNotFound`."""
        engine, _ = self._connected()
        known = await engine.count(Query(queue=name))
        nodes = [node async for node in self.get_current_status_of_nodes(timeout=0.5) if name in node.payload.queues]
        if not known and not nodes and name not in self._known_queues():
            raise QueueNotFound(name)
        handed_back = await engine.count(Query(queue=name, states=frozenset({ResultState.SUSPENDED}), in_line=True))
        waiting = known.get(ResultState.PENDING, 0) + sum(handed_back.values())
        return QueueStats(queue_name=name, message_count=waiting, consumer_count=len(nodes))

    async def purge_task_queues(self) -> dict[str, int]:
        """Delete the jobs that wait in the queues this app listens on; answer how many there were in each."""
        return {queue: await self._purge(queue) for queue in sorted(self.get_task_queue_names())}

    async def _purge(self, queue: str) -> int:
        engine, _ = self._connected()
        purged = 0
        # What is due is claimed first: then no worker can have begun it when it is deleted.
        while claims := await engine.claim(self.config.node_id, [queue], PURGE_BATCH, lease=PURGE_LEASE):
            purged += await engine.delete([claim.token.id for claim in claims])
        # Of the others some may come due and begin just now; those stay.
        waiting = frozenset({ResultState.PENDING, ResultState.SUSPENDED})
        pending = Query(queue=queue, states=frozenset({ResultState.PENDING}), limit=PURGE_BATCH)
        handed_back = Query(queue=queue, in_line=True, limit=PURGE_BATCH)
        for query in (pending, handed_back):
            while ids := [record.id async for record in engine.search(query)]:
                purged += await engine.delete(ids, states=query.states or waiting)
        return purged

    async def purge_control_queue(self) -> int:
        """Forget control messages that no node has read yet. Signals are not kept, so there are none: 0."""
        self._connected()
        return 0

    async def get_current_status_of_nodes(self, *, timeout: float = 1.0) -> AsyncIterator[NodeStatus]:
        """Ask every node what it runs, and give the answers that come within ``timeout`` seconds."""
        engine, _ = self._connected()
        channel = f"reply:{uuid4().hex}"
        async with engine.subscribe(channel) as signals:
            await engine.publish(CONTROL, write(StatusQuery(reply_to=channel)))
            until = asyncio.get_running_loop().time() + timeout
            while (signal := await _next(signals, until)) is not None:
                yield NodeStatus.model_validate_json(signal.body)


async def _next(signals: AsyncIterator[Signal], until: float) -> Signal | None:
    try:
        async with asyncio.timeout_at(until):
            return await anext(signals)
    except TimeoutError:
        return None
