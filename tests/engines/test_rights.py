"""The rights that the documentation asks for: a worker runs with exactly these. (Those of RabbitMQ: ``test_rabbitmq_nodes.py``.)"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from redis import Redis
from redis.exceptions import ResponseError

from exercise import exercise
from mognet import App, AppConfig
from mognet.engines.checkups import checkups
from mognet.engines.postgres.engine import PostgresEngine
from mognet.exceptions import ImproperlyConfigured
from servers.postgres import PASSWORD, empty_postgres, query
from servers.redis import redis_server

PAGES = Path(__file__).parents[2] / "docs/engines"


def blocks(page: str, heading: str) -> list[str]:
    """The blocks of code below a heading of a page."""
    text = (PAGES / f"{page}.md").read_text()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\w+\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


# --- Redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    server, url = redis_server(tmp_path, durable=False)
    server.start()
    yield url
    server.kill()


@pytest.fixture
def limited(redis: str) -> str:
    """The URL of a user with the rights of the page."""
    [rules] = blocks("redis", "Rights")
    with Redis.from_url(redis) as client:
        for line in rules.splitlines():
            client.execute_command(*line.replace("PASSWORD", PASSWORD).split())
    return redis.replace("//", f"//mognet:{PASSWORD}@")


async def test_redis_an_app_with_the_rights_of_the_page(limited: str) -> None:
    await exercise(url=limited)
    found = await checkups(limited, "x")[""].examine([])
    assert [each for each in found if each.grade == "error"] == []


def test_redis_and_nothing_else(limited: str) -> None:
    others = (
        "FLUSHALL",
        "CONFIG SET maxmemory 1",
        "KEYS *",
        "ACL WHOAMI",
        "SHUTDOWN",
        "PUBLISH other 1",
        "SUBSCRIBE other",
    )
    with Redis.from_url(limited) as client:
        for command in ("SET other 1", "GET other", "EVAL return(redis.call('get','other')) 0", *others):
            with pytest.raises(ResponseError, match=r"ermission|can't access"):
                client.execute_command(*command.split())


async def test_redis_an_error_names_what_grants_it(redis: str) -> None:
    with Redis.from_url(redis) as client:
        client.execute_command("ACL", "SETUSER", "small", "on", f">{PASSWORD}", "~mognet:*", "&mognet:*", "+info", "+ping", "+select")
        url = redis.replace("//", f"//small:{PASSWORD}@")
        with pytest.raises(ImproperlyConfigured, match="ACL SETUSER") as caught:
            async with App("x", AppConfig(url=url)):
                pass
        rules = re.findall(r"ACL SETUSER name (.*) \(see", str(caught.value))[0].split()
        client.execute_command("ACL", "SETUSER", "small", *rules)
    await exercise(url=url)


def test_redis_each_right_is_needed() -> None:
    """What is granted is what our scripts call, and what we send."""
    granted = set(re.findall(r"\+([\w|]+)", blocks("redis", "Rights")[0]))
    scripts = files("mognet.engines.redis").joinpath("lua").iterdir()
    called = {word.lower().replace("pubsub", "pubsub|numsub") for script in scripts for word in CALLED.findall(script.read_text())}
    assert granted == called | {"eval", "evalsha", "ping", "info", "select", "client|setname", "publish", "subscribe", "unsubscribe"}


CALLED = re.compile(r"'(?!LIMIT|WITHSCORES|NUMSUB)([A-Z]{3,})'")
"""Commands, as scripts name them: some by way of a variable."""


# --- PostgreSQL


@pytest.fixture
def roles() -> Iterator[tuple[str, str]]:
    """The URLs of a role that brings in the schema, and of the one that works; both in a database of their own."""
    url = empty_postgres()

    def drop() -> None:
        query(url, "DROP DATABASE IF EXISTS shop WITH (FORCE)")
        for role in ("mognet_owner", "worker"):
            query(url, f"DROP ROLE IF EXISTS {role}")

    drop()
    query(url, "CREATE DATABASE shop")
    parts = urlsplit(url)
    names = ("mognet_owner", "worker")
    yield tuple(parts._replace(netloc=f"{name}:{PASSWORD}@{parts.hostname}:{parts.port}", path="/shop").geturl() for name in names)  # type: ignore[misc]
    drop()


def as_admin(url: str, statements: str) -> None:
    admin, database = urlsplit(empty_postgres()), urlsplit(url).path
    with psycopg.connect(admin._replace(path=database).geturl(), autocommit=True) as connection:
        connection.execute(statements.replace("a long password", PASSWORD).encode())


async def test_postgres_an_app_with_the_rights_of_the_page(roles: tuple[str, str]) -> None:
    """One role brings in the schema, another works with it, and can change nothing else."""
    owner, worker = roles
    create, grant = blocks("postgresql", "Rights")
    as_admin(owner, create)
    with pytest.raises(ImproperlyConfigured, match="GRANT"):
        async with PostgresEngine.from_url(worker):
            pass
    await checkups(owner, "x")[""].migrate()
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(grant.encode())
    await exercise(url=worker)
    errors = [each for each in await checkups(worker, "x")[""].examine([]) if each.grade == "error"]
    assert {each.subject for each in errors} <= {"durability"}  # the server of the tests does not wait for its disk
    with psycopg.connect(worker, autocommit=True) as connection:
        for statement in ("CREATE TABLE mognet.mine (x int)", "DROP TABLE mognet.job", "TRUNCATE mognet.job", "CREATE SCHEMA mine"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


async def test_a_missing_right_is_named_with_what_grants_it(roles: tuple[str, str]) -> None:
    owner, worker = roles
    create, grant = blocks("postgresql", "Rights")
    as_admin(owner, create)
    await checkups(owner, "x")[""].migrate()
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(grant.encode())
        connection.execute(b"REVOKE INSERT ON ALL TABLES IN SCHEMA mognet FROM worker")
    with pytest.raises(ImproperlyConfigured, match="GRANT"):
        async with App("y", AppConfig(url=worker)):
            pass
