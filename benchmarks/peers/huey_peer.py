"""huey on SQLite: SqliteHuey, and its consumer.

Settings, and why:

- ``fsync=True``: synchronous=FULL, so that a task that was enqueued survives a power cut, as with mognet. The journal is huey's
  default, WAL.
- There is no bulk enqueue: ``task.map`` enqueues one by one, each in a transaction of its own, as a plain call does. Threads do
  not help: all of a process share one connection behind a lock.
- ``store_none=True``: the end of each task is stored, as mognet and DBOS always do. Without it huey keeps no trace of a task
  that returns None; ``drain --lean`` measures that.
- The consumer has one worker thread, the fastest: 2, 4 and 8 threads drain a fifth to a quarter less (they share the one
  connection), one or two processes as much as one thread. No periodic tasks. It logs nothing: there is no handler, and the
  level is WARNING.
- The span is from the first task's run (its claim is not counted) until the consumer has stored the last task's end, told by
  huey's own "complete" signal, which is sent after that.
"""

import os
import sys
import threading
from pathlib import Path

import huey
from huey.signals import SIGNAL_COMPLETE
from meter import WARM, Counter, Span, report


def main(command: str, folder: str, *rest: str) -> None:
    lean = "--lean" in rest
    counter, done = Counter(), threading.Event()

    def app(file: str) -> tuple[huey.SqliteHuey, huey.api.TaskWrapper]:
        app = huey.SqliteHuey("bench", filename=str(Path(folder, file)), fsync=True, store_none=not lean)
        return app, app.task(name="noop")(lambda: counter.tick())

    if command == "submit":
        ones, many = map(int, rest[:2])
        _, noop = app("one.db")
        whole = Span(WARM + ones)
        for _ in range(WARM):
            noop()
        span = Span(ones)
        for _ in range(ones):
            noop()
        one, new = span.stop(), whole.stop()
        _, noop = app("line.db")
        span = Span(many)
        noop.map([()] * many)
        report(one=one, new=new, many=span.stop(), version=huey.__version__)
        return

    total = int(rest[0])
    queue, _ = app("line.db")
    ended = 0

    @queue.signal(SIGNAL_COMPLETE)
    def complete(signal: str, task: object) -> None:
        nonlocal ended
        ended += 1
        if ended == total:
            report(burst=counter.stop())
            done.set()

    consumer = queue.create_consumer(workers=1, worker_type="thread", periodic=False)
    consumer.start()
    if not done.wait(120):
        sys.exit(f"{ended} of {total} tasks ended within 120 s")
    os._exit(0)  # its threads have nothing more to do


if __name__ == "__main__":
    main(*sys.argv[1:])
