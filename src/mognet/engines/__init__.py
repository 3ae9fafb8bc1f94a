"""From a URL to an engine, which is imported only then."""

from __future__ import annotations

from collections.abc import Sequence

from mognet.engine import OpenEngine
from mognet.exceptions import ImproperlyConfigured
from mognet.redaction import redact_url

SCHEMES = ("sqlite", "memory", "redis", "postgresql")


def engine_factory(url: str, app: str, *, broker: Sequence[str] = ()) -> OpenEngine:
    """What makes engines for an app of this name; all that it makes share line and records.

    With a broker (the URLs of its nodes), the engine of the URL is the store beside it. Raises :class:`ImproperlyConfigured` for a URL
    that no engine understands. Connects to nothing yet.
    """
    if broker:
        return _pair_factory(broker, url, app)
    scheme = url.partition(":")[0].lower()
    if scheme in ("amqp", "amqps"):
        raise ImproperlyConfigured(
            f"{redact_url(url)!r} is a broker, which keeps no jobs: set AppConfig.broker to it, and result_backend to the URL of a store"
        )
    if scheme == "memory":
        from mognet.engines.memory import MemoryEngine, shared_store
        from mognet.engines.memory_rows import MemoryStore

        name = url.partition("://")[2]
        store = shared_store(app, name) if name else MemoryStore()
        return lambda: MemoryEngine(app, store=store)
    if scheme == "sqlite":
        from mognet.engines.sql.sqlite import SQLiteEngine

        SQLiteEngine.from_url(url, app)  # a wrong URL is refused now, not at the first connect
        return lambda: SQLiteEngine.from_url(url, app)
    if scheme in ("postgresql", "postgres"):
        try:
            from mognet.engines.postgres.engine import PostgresEngine
        except ImportError as error:
            raise ImproperlyConfigured(f'PostgreSQL needs psycopg: pip install "mognet[postgres]" ({error})') from error
        PostgresEngine.from_url(url, app)
        return lambda: PostgresEngine.from_url(url, app)
    if scheme.partition("+")[0] in ("redis", "rediss", "valkey", "valkeys", "unix"):
        try:
            from mognet.engines.redis.engine import RedisEngine
        except ImportError as error:
            raise ImproperlyConfigured(f'{redact_url(url)!r} needs redis-py: pip install "mognet[redis]" ({error})') from error
        RedisEngine(url, app)
        return lambda: RedisEngine(url, app)
    known = ", ".join(f"{each}://" for each in SCHEMES)
    raise ImproperlyConfigured(f"no engine understands the URL {redact_url(url)!r}; it should start with one of {known}")


def _pair_factory(broker: Sequence[str], url: str, app: str) -> OpenEngine:
    from mognet.engines.rabbitmq.settings import read_urls

    settings = read_urls(broker)
    store = engine_factory(url, app)
    from mognet.engines.paired import Paired
    from mognet.engines.rabbitmq.broker import RabbitMQBroker

    return lambda: Paired(RabbitMQBroker(settings, app), store(), exact=settings.exact_order)
