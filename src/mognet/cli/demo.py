"""``mognet demo``: a real job on several worker processes, one of which is killed on the way."""

from __future__ import annotations

import asyncio
import importlib
import os
import shlex
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mognet
from mognet.app import App
from mognet.cli.demo_crew import Crew, Hand, environment
from mognet.cli.demo_view import Figures, Picture, View, WorkerPicture, figures_text, make_view, report
from mognet.cli.display import console as make_console
from mognet.cli.failures import FAILED, INTERRUPTED, OK, USAGE, CommandError
from mognet.cli.text import plural
from mognet.records import Query
from mognet.results import Result
from mognet.states import FINAL, ResultState

LEASE = 2.0
"""Seconds: short, so that one sees the jobs of the killed worker being taken over. In production 15 are the default."""

TICK = 0.1
"""Seconds between two looks at the store."""

KILL_AT = 0.4
"""The part of the files after which a worker is killed."""

MOURNING = 1.0
"""Seconds after which another worker is started in the place of the killed one."""

ACTIVE = frozenset({ResultState.RUNNING, ResultState.SUSPENDED})


def demo(folder: Path | None, workers: int, no_kill: bool, keep: bool) -> int:
    """Survey a folder of Python source by a tree of tasks, and show that nothing is lost when a worker dies; the exit code."""
    if workers < 1:
        raise CommandError(f"--workers: at least 1, not {workers}", USAGE)
    module, path = where_the_survey_is()
    survey = load(module, path)
    folder = Path(sysconfig.get_path("stdlib")) if folder is None else folder.resolve()
    if not folder.is_dir():
        raise CommandError(f"{folder} is no folder", USAGE)
    if next(survey.walk(folder), None) is None:
        raise CommandError(f"there are no Python files in {folder}", USAGE)
    with stopping_gently(), workplace(keep) as place:
        url = f"sqlite:///{quote(str(place / 'survey.db'))}"
        app: App = survey.app
        app.config.url, app.config.imports = url, []
        with Crew([module, "run"], place, environment(url, LEASE, path)) as crew:
            try:
                id, lost = asyncio.run(Demo(survey, folder, crew, kill=not no_kill).run(workers))
            except KeyboardInterrupt:
                print("interrupted: the workers are being ended", file=sys.stderr)
                return INTERRUPTED
        if keep:
            tell_where(place, url, module, path, id)
        return FAILED if lost else OK


def where_the_survey_is() -> tuple[str, Path | None]:
    """The name of the example's module, and what has to be on the path for it: nothing if it came with the package."""
    package = Path(mognet.__file__).resolve().parent
    return ("mognet._examples.survey", None) if (package / "_examples").is_dir() else ("examples.survey", package.parents[1])


def load(module: str, path: Path | None) -> Any:
    """Import the example, without any settings that were made for other apps."""
    if path is not None:
        sys.path.insert(0, str(path))
    settings = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("MOGNET_")}
    try:
        return importlib.import_module(module)
    finally:
        os.environ.update(settings)


@contextmanager
def workplace(keep: bool) -> Iterator[Path]:
    """A folder for the database, deleted at the end unless it is to be kept."""
    place = Path(tempfile.mkdtemp(prefix="mognet-demo-"))
    try:
        yield place
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def stopping_gently() -> Iterator[None]:
    """Let SIGTERM and the closing of the terminal do what Ctrl-C does, so that no worker and no file is left behind."""
    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        with suppress(AttributeError, ValueError):  # not on Windows, and not in a thread
            number = getattr(signal, name)
            before[number] = signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell_where(place: Path, url: str, module: str, path: Path | None, id: str) -> None:
    """Say where the database is, and how to look into it."""
    print(f"\nkept in {place}; to look into it:")
    if path is not None and path != Path.cwd():
        print(f"  cd {shlex.quote(str(path))}")
    print(f"  export MOGNET_URL={shlex.quote(url)} MOGNET_APP={module}")
    for command in ("tasks list", f"tasks tree {id}", f"tasks get {id} --include-value"):
        print(f"  mognet {command}")


class Demo:
    """One run: submits the survey, watches it in the store, and kills a worker in the middle."""

    def __init__(self, survey: Any, folder: Path, crew: Crew, *, kill: bool) -> None:
        self._survey = survey
        self._app: App = survey.app
        self._folder = folder
        self._crew = crew
        self._kill = kill
        self._killed: tuple[Hand, tuple[int, int], float] | None = None
        self._replaced = False

    async def run(self, workers: int) -> tuple[str, int]:
        """The id of the tree's first task, and how many of its tasks were lost."""
        console = make_console(color=True)
        self._introduce(console, workers)
        async with self._app:
            result = await self._app.submit(self._survey.survey, self._folder)
            for _ in range(workers):
                self._crew.start()
            with make_view(console) as view:
                await self._watch(result, view)
            figures = await self._figures(result)
            try:
                report(console, await result)
            except Exception as error:
                raise CommandError(f"the survey has failed: {error}") from error
            console.print()
            if self._kill and not figures.kills:
                console.print("it was over before a worker could be killed", style="dim", soft_wrap=True)
            console.print(figures_text(figures), soft_wrap=True)
            return str(result.id), figures.lost

    def _introduce(self, console: Any, workers: int) -> None:
        console.print(f"A survey of {self._folder}", style="bold", soft_wrap=True)
        end = "; one will be killed." if self._kill else "."
        console.print(f"Each file is a task, run by {plural(workers, 'worker')} on one SQLite file{end}", soft_wrap=True)

    async def _watch(self, result: Result[Any], view: View) -> None:
        while True:
            await result.refresh()  # first, so that the picture of the end is that of the end
            picture, listed = await self._look(result)
            view.show(picture, last=result.done)
            if result.done:
                return
            self._crew.check()
            if self._kill:
                await self._kill_one(result, picture, listed)
            await asyncio.sleep(TICK)

    async def _look(self, result: Result[Any]) -> tuple[Picture, bool]:
        """The tree as it is now, and whether all packages have listed their files."""
        backend = self._app.result_backend
        states = await backend.tally(Query(root=result.id))
        files = await backend.tally(Query(root=result.id, name="file"))
        packages = await backend.tally(Query(root=result.id, name="package"))
        listed = bool(packages) and not packages.get(ResultState.PENDING) and not packages.get(ResultState.RUNNING)
        workers = {hand.name: WorkerPicture(hand.name, stands_in_for=hand.stands_in_for) for hand in self._crew.hands}
        if self._killed is not None:
            workers[self._killed[0].name].killed = self._killed[1]
        async for each in backend.search(Query(root=result.id, states=ACTIVE)):
            worker = workers.get(each.node_id or "")
            if worker is not None and each.state is ResultState.RUNNING:
                worker.running += 1
                worker.doing = str(each.to_dict()["metadata"].get("file", worker.doing))
            elif worker is not None:
                worker.waiting += 1
        done = sum(count for state, count in files.items() if ResultState(state) in FINAL)
        return Picture(sum(files.values()), done, states, list(workers.values())), listed

    async def _kill_one(self, result: Result[Any], picture: Picture, listed: bool) -> None:
        """Kill the busiest worker once enough is done, and start another one a moment later, as a supervisor would."""
        if self._killed is None:
            victim = max(picture.workers, key=lambda worker: worker.running)
            if listed and victim.running and picture.done >= KILL_AT * picture.files:
                hand = self._crew.kill(victim.name)
                await result.set_metadata(killed=[hand.name])
                after = next(worker for worker in (await self._look(result))[0].workers if worker.name == hand.name)
                self._killed = (hand, (after.running, after.waiting), time.monotonic())
        elif not self._replaced and time.monotonic() - self._killed[2] >= MOURNING:
            self._replaced = True
            self._crew.start(stands_in_for=self._killed[0].name)

    async def _figures(self, result: Result[Any]) -> Figures:
        """Read everything back from the store."""
        tree = [each async for each in self._app.result_backend.search(Query(root=result.id))]
        return Figures(
            tasks=len(tree),
            workers=len({each.node_id for each in tree} - {None}),
            kills=len((await result.get_metadata()).get("killed", [])),
            retried=sum(each.unexpected_retry_count > 0 for each in tree),
            lost=sum(not each.successful for each in tree),
        )
