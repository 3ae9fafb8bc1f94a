"""DBOS with its system database on SQLite.

Settings, and why:

- The file is put into WAL mode beforehand, which DBOS leaves as it finds it; it more than doubles DBOS's rates. synchronous is
  SQLite's default, FULL: equal durability.
- Bulk submit: ``DBOSClient.enqueue_in_transaction``, 1,000 in one transaction. It is by far the best of DBOS's ways
  (``enqueue_workflow`` in a loop, in threads, ``enqueue_workflow_async`` gathered, ``DBOSClient.enqueue``: a third or less).
- One by one: ``DBOSClient.enqueue``, a little faster than ``DBOS.enqueue_workflow``.
- Drain: a plain (not async) workflow without steps, four executor threads, and a poll every 10 ms. Async workflows, the
  default number of threads and a ``worker_concurrency`` are all slower, and so is polling less often.
- The console shows WARNING and above. The span is from the first workflow's run (the claim is not counted) until all are
  SUCCESS in the database.
"""

import os
import sqlite3
import sys
import time
from importlib.metadata import version
from pathlib import Path

import sqlalchemy
from dbos import DBOS, DBOSClient
from meter import WARM, Counter, Span, report

BATCH = 1000
OPTIONS = {"queue_name": "bench", "workflow_name": "noop", "app_version": "1"}

counter = Counter()


@DBOS.workflow()
def noop() -> None:
    counter.tick()


def launch(file: Path) -> str:
    url = f"sqlite:///{file}"
    if not file.exists():
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
    config = {"name": "bench", "system_database_url": url, "application_version": "1", "max_executor_threads": 4}
    DBOS(config={**config, "log_level": "WARNING", "console_log_level": "WARNING"})
    DBOS.launch()
    return url


def submit(folder: Path, ones: int, many: int) -> None:
    url = launch(folder / "line.db")
    client = DBOSClient(system_database_url=url, application_name="bench")
    engine = sqlalchemy.create_engine(url)
    whole = Span(WARM + ones)
    for _ in range(WARM):
        client.enqueue({**OPTIONS, "queue_name": "other"})
    span = Span(ones)
    for _ in range(ones):
        client.enqueue({**OPTIONS, "queue_name": "other"})
    one, new = span.stop(), whole.stop()
    span = Span(many)
    for start in range(0, many, BATCH):
        with engine.begin() as transaction:
            for _ in range(min(BATCH, many - start)):
                client.enqueue_in_transaction(transaction, OPTIONS)
    report(one=one, new=new, many=span.stop(), version=version("dbos"))


def drain(folder: Path, total: int) -> None:
    launch(folder / "line.db")
    DBOS.register_queue("bench", polling_interval_sec=0.01)
    connection = sqlite3.connect(folder / "line.db", timeout=30)
    give_up = time.monotonic() + 120
    while counter.count < total:
        if time.monotonic() > give_up:
            sys.exit(f"{counter.count} of {total} workflows ran within 120 s")
        time.sleep(0.01)
    while connection.execute("SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'").fetchone()[0] < total:
        time.sleep(0.002)
    report(burst=counter.stop())


if __name__ == "__main__":
    command, folder, *numbers = sys.argv[1:]
    {"submit": submit, "drain": drain}[command](Path(folder), *map(int, numbers))
    sys.stdout.flush()
    os._exit(0)  # its threads have nothing more to do
