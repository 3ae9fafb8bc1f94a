"""Where the examples are run: an app of an example, as it would be with the settings of each engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from mognet import App
from servers.postgres import empty_postgres
from servers.rabbitmq import shared_rabbitmq
from servers.redis import empty_redis

PLACES: dict[str, Callable[[Path], dict[str, str]]] = {
    "memory": lambda _: {"url": f"memory://{uuid4().hex}"},
    "sqlite": lambda folder: {"url": f"sqlite:///{folder}/jobs.db"},
    "redis": lambda _: {"url": empty_redis()},
    "postgres": lambda _: {"url": empty_postgres()},
    "rabbitmq+redis": lambda _: {"broker": shared_rabbitmq(), "result_backend": empty_redis()},
    "rabbitmq+postgres": lambda _: {"broker": shared_rabbitmq(), "result_backend": empty_postgres()},
}


@contextmanager
def placed(app: App, name: str, folder: Path) -> Iterator[App]:
    """Inside the context, the app's settings name this engine."""
    place, config = PLACES[name](folder), app.config
    before = config.url, config.broker, config.result_backend
    config.url, config.broker, config.result_backend = (place.get(each) for each in ("url", "broker", "result_backend"))
    yield app
    config.url, config.broker, config.result_backend = before
