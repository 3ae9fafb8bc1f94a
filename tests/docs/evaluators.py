"""What runs the blocks of a documentation page, one after the other, as a reader would."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from sybil import Document, Example, Region
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

from mognet import App

RUNS = {"mognet", "python", "pytest"}
"""Commands of console blocks that are run; what else stands there has to be in NAMED."""

NAMED = {"make", "pip", "cd", "sqlite3", "uvicorn"}
"""Commands that are shown, and not run here."""

PATIENCE = 30.0

_FENCE = RawFencedCodeBlockLexer(
    re.compile(r"""(?P<language>python|console|text)(?:[ ]+title="(?P<title>[^"]+)")?[^\n]*$\n""", re.MULTILINE),
    mapping={"language": "language", "title": "title", "source": "source"},
)
_HIDDEN = DirectiveInHTMLCommentLexer("invisible-code", "python")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SAID = re.compile(r"^[ ]*print\(.*\)  # (.+)$", re.MULTILINE)


def matches(expected: str, output: str) -> bool:
    """Whether an output is what a page shows; ``…`` stands for anything within a line, alone on a line for any lines."""
    pattern = ""
    for line in expected.strip().splitlines():
        if line.strip() == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*?".join(re.escape(part) for part in line.rstrip().split("…")) + r"[ ]*\n"
    lines = "".join(f"{line.rstrip()}\n" for line in output.strip().splitlines())
    return re.fullmatch(pattern, lines) is not None


class Page:
    """One page: a folder, a module that its Python blocks fill, and the workers that they start."""

    def __init__(self, path: Path, folder: Path, name: str) -> None:
        self.folder = folder
        self.module = types.ModuleType(name)
        self.module.__dict__["serve"] = self.serve
        self.module.__dict__["kill_worker"] = self.kill_worker
        self.document = Document.parse(str(path), self._parse)
        self.document.namespace = self.module.__dict__
        self.workers: list[subprocess.Popen[str]] = []
        self._served: list[tuple[asyncio.AbstractEventLoop, App, threading.Thread]] = []
        self._python = PythonEvaluator()
        self._said = ""

    # reading

    def _parse(self, document: Document) -> Iterator[Region]:
        for region in _FENCE(document):
            region.parsed = region.lexemes["source"]
            region.evaluator = self._evaluator(region)
            if region.evaluator is not None:
                yield region
        for region in _HIDDEN(document):
            region.parsed = region.lexemes["source"]
            region.evaluator = self._run_python
            yield region

    def _evaluator(self, region: Region) -> Callable[[Example], None] | None:
        if region.lexemes["language"] == "text":
            return self._compare if region.lexemes["title"] == "output" else None
        if region.lexemes["title"]:
            return self._write_file
        return self._run_python if region.lexemes["language"] == "python" else self._run_console

    # running

    def run(self) -> None:
        """All blocks, in order."""
        sys.modules[self.module.__name__] = self.module
        try:
            for example in self.document.examples():
                example.evaluate()
        finally:
            for loop, app, thread in self._served:
                asyncio.run_coroutine_threadsafe(app.stop(grace=0), loop)
                thread.join(PATIENCE)
            self._stop_workers(signal.SIGTERM)
            del sys.modules[self.module.__name__]

    def _write_file(self, example: Example) -> None:
        path = self.folder / example.region.lexemes["title"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(example.parsed)

    def _run_python(self, example: Example) -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            self._python(example)
        self._said = said.getvalue()
        expected = _SAID.findall(example.parsed)
        if expected:
            assert matches("\n".join(["…", *(part for line in expected for part in (line, "…"))]), self._said), (
                f"the page says {expected}, the code {self._said.splitlines()}"
            )

    def _compare(self, example: Example) -> None:
        """A block of text with the title "output": what the Python block before it printed."""
        assert matches(example.parsed, self._said), f"--- the page says\n{example.parsed}\n--- the code\n{self._said}"

    def serve(self, app: App) -> None:
        """Run a worker for the app of a page, in another thread; the page's own app stays unconnected."""
        twin = copy.copy(app)
        twin.services = type(app.services)(app.config)
        ready = threading.Event()
        loops: list[asyncio.AbstractEventLoop] = []

        async def work() -> None:
            async with twin:  # closed in here: what another coroutine closes would be cut off by the end of this one
                loops.append(asyncio.get_running_loop())
                ready.set()
                await twin.start()

        thread = threading.Thread(target=lambda: asyncio.run(work()), daemon=True)
        thread.start()
        assert ready.wait(PATIENCE)
        self._served.append((loops[0], twin, thread))

    # the shell

    def _run_console(self, example: Example) -> None:
        for command, expected in commands(example.parsed):
            first = shlex.split(command)[0]
            if first in NAMED:
                continue
            assert first in RUNS, f"this command is not run by the tests: {command}"
            words = shlex.split(command)
            if first == "mognet" and "run" in words[1:3] and "--burst" not in words:
                self._start_worker(command, expected)
                continue
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE
            )
            output = _ANSI.sub("", done.stdout)
            assert done.returncode == 0, f"{command}: exit {done.returncode}\n{output}"
            if expected:
                assert matches(expected, output), f"{command}\n--- the page says\n{expected}\n--- it printed\n{output}"

    def _start_worker(self, command: str, expected: str) -> None:
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("w") as out:
            worker = subprocess.Popen(shlex.split(command), cwd=self.folder, text=True, stdout=out, stderr=subprocess.STDOUT)
        self.workers.append(worker)
        wanted, until = expected or "…\n", time.monotonic() + PATIENCE
        while not ((said := _ANSI.sub("", log.read_text())).strip() and matches(f"{wanted.rstrip()}\n…", said)):
            assert worker.poll() is None, f"{command}: ended with exit {worker.returncode}\n{said}"
            assert time.monotonic() < until, f"{command}\n--- the page says\n{expected}\n--- it printed\n{said}"
            time.sleep(0.02)

    def kill_worker(self) -> None:
        """SIGKILL, as the page asks its reader to do."""
        self._stop_workers(signal.SIGKILL)

    def _stop_workers(self, number: signal.Signals) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                os.kill(worker.pid, number)
        for worker in self.workers:
            try:
                worker.wait(10)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that the page shows."""
    command, output = "", list[str]()
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, "\n".join(output)
            command, output = line[2:].partition("  # ")[0].strip(), []
        else:
            output.append(line)
    if command:
        yield command, "\n".join(output)
