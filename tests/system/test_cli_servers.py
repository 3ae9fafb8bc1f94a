"""``mognet doctor`` and ``mognet store`` on private servers, as a user has them."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mognet.engines.postgres.checkup import PostgresCheckup
from mognet.engines.postgres.connecting import connect
from mognet.engines.postgres.migrate import migrate
from mognet.engines.postgres.settings import parse_url
from mognet.engines.rabbitmq import checkup as rabbitmq_checkup
from mognet.engines.rabbitmq.checkup import RabbitMQCheckup
from mognet.engines.redis.checkup import RedisCheckup
from mognet.exceptions import ConnectionError
from servers.postgres import PASSWORD, own_postgres, query
from servers.rabbitmq import rabbitmq_server
from servers.redis import redis_server

pytestmark = pytest.mark.skipif(os.name != "posix", reason="servers as Unix has them")

SOURCE = """
from mognet import App, Context

app = App("kitchen")


@app.task
async def cook(context: Context, dish: str) -> str:
    return f"{dish} is served"
"""


class Said(NamedTuple):
    code: int
    text: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def found(self) -> dict[str, dict[str, Any]]:
        """Findings by section and subject."""
        return {f"{each['section']}/{each['subject']}".removeprefix("/"): each for each in self.json["findings"]}

    @property
    def errors(self) -> list[str]:
        return [subject for subject, each in self.found.items() if each["grade"] == "error"]


Mognet = Callable[..., Said]


@pytest.fixture
def mognet(tmp_path: Path) -> Mognet:
    (tmp_path / "meals.py").write_text(SOURCE)
    (tmp_path / "mognet.toml").write_text("")
    own = {key: value for key, value in os.environ.items() if not key.startswith("MOGNET_") and key != "COLUMNS"}

    def run(*words: str, **settings: str) -> Said:
        line = [sys.executable, "-m", "mognet", "meals", *words]
        env = own | {f"MOGNET_{name.upper()}": value for name, value in settings.items()}
        done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert PASSWORD not in done.stdout + done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[Any, str]]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server, url = redis_server(folder, "--requirepass", PASSWORD)
    server.start()
    yield server, url.replace("://", f"://:{PASSWORD}@")
    server.kill()


class TestRedis:
    def test_a_sound_one(self, mognet: Mognet, redis: tuple[Any, str]) -> None:
        said = mognet("doctor", "--json", url=redis[1])
        assert (said.code, said.errors) == (0, [])
        assert {"client", "server", "clock", "eviction", "memory", "persistence", "connections", "round trip"} <= set(said.found)
        assert "always" in said.found["persistence"]["text"]
        assert mognet("store", "migrate", "--check", url=redis[1]).code == 0
        assert mognet("submit", "cook", "dish=soup", url=redis[1]).code == 0
        info = mognet("store", "info", "--json", url=redis[1]).json
        assert (info["engine"], info["schema"], info["jobs"]) == ("Redis", None, {"PENDING": 1})

    def test_an_evicting_one_has_to_be_mended(self, mognet: Mognet, redis: tuple[Any, str]) -> None:
        self.set(redis[1], "maxmemory-policy", "allkeys-lru", "appendonly", "no")
        said = mognet("doctor", "--json", url=redis[1])
        assert (said.code, said.errors) == (1, ["engine", "eviction"])
        assert said.found["eviction"]["remedy"].startswith("redis-cli CONFIG SET maxmemory-policy noeviction")
        assert "forgets all jobs" in said.found["persistence"]["text"]
        said = mognet("doctor", "--json", url=f"{redis[1]}?allow_eviction=1")
        assert (said.code, said.found["eviction"]["grade"]) == (0, "warning")

    async def test_what_its_user_may_not_see(self, redis: tuple[Any, str]) -> None:
        self.run(redis[1], "ACL", "SETUSER", "small", "on", f">{PASSWORD}", "+info", "+time", "+select", "+ping", "+client|setname")
        found = await RedisCheckup(redis[1].replace(":s3", "small:s3"), "kitchen").examine(["tasks"])
        assert "cannot be seen" in next(each.text for each in found if each.subject == "persistence")

    def test_a_database_that_is_not_there(self, mognet: Mognet, redis: tuple[Any, str]) -> None:
        for words in (("submit", "cook", "dish=soup"), ("tasks", "list"), ("store", "info")):
            refused = mognet(*words, url=f"{redis[1].removesuffix('/0')}/99999")
            assert (refused.code, "databases" in refused.err) == (2, True), words
        said = mognet("doctor", "--json", url=f"{redis[1].removesuffix('/0')}/99999")
        assert (said.code, "databases" in str(said.json)) == (1, True)

    def test_none(self, mognet: Mognet, redis: tuple[Any, str]) -> None:
        redis[0].kill()
        said = mognet("doctor", "--json", url=redis[1])
        assert (said.code, said.errors) == (4, ["engine"])
        assert mognet("store", "info", url=redis[1]).code == 4

    def set(self, url: str, *pairs: str) -> None:
        self.run(url, "CONFIG", "SET", *pairs)

    def run(self, url: str, *command: str) -> None:
        from redis import Redis

        with Redis.from_url(url) as client:
            client.execute_command(*command)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with own_postgres() as (_, url):
        yield url


class TestPostgres:
    def test_a_sound_one(self, mognet: Mognet, postgres: str) -> None:
        said = mognet("doctor", "--json", url=postgres)
        assert (said.code, said.errors) == (0, [])
        assert {"client", "server", "clock", "durability", "connections", "pooler"} <= set(said.found)
        assert {each["grade"] for each in said.json["findings"] if each["subject"] == "durability"} == {"ok"}

    def test_the_schema(self, mognet: Mognet, postgres: str) -> None:
        url = f"{postgres}?schema=of_store"
        assert mognet("store", "migrate", "--check", url=url).code == 1
        assert mognet("store", "info", "--json", url=url).json["schema"]["found"] == 0
        assert query(postgres, "SELECT to_regclass('of_store.job')") == [(None,)]
        done = mognet("store", "migrate", "--json", url=url)
        assert (done.code, done.json["done"]) == (0, True)
        assert mognet("store", "migrate", "--check", url=url).code == 0
        assert mognet("submit", "cook", "dish=soup", url=url).code == 0
        info = mognet("store", "info", "--json", url=url).json
        assert info["jobs"] == {"PENDING": 1}
        assert info["size"] > 0
        assert info["schema"]["found"] == info["schema"]["known"]
        query(postgres, "INSERT INTO of_store.version (version) VALUES (99)")
        for words in (("store", "migrate", "--check"), ("store", "migrate"), ("tasks", "list")):
            refused = mognet(*words, url=url)
            assert refused.code == 5
            assert "99" in refused.err
        newer = mognet("store", "info", "--json", url=url).json
        assert (newer["schema"]["found"], newer["jobs"]) == (99, None)

    def test_a_schema_of_before(self, mognet: Mognet, postgres: str) -> None:
        """Brought down for an older mognet and up again, it keeps its jobs."""
        url = f"{postgres}?schema=of_before"
        assert mognet("submit", "cook", "dish=soup", url=url).code == 0
        asyncio.run(self.down(url, 1))
        assert mognet("store", "migrate", "--check", url=url).code == 1
        info = mognet("store", "info", "--json", url=url).json["schema"]
        assert (info["found"], info["found"] < info["known"]) == (1, True)
        assert mognet("store", "migrate", url=url).code == 0
        assert mognet("store", "info", "--json", url=url).json["jobs"] == {"PENDING": 1}

    async def down(self, url: str, version: int) -> None:
        settings = parse_url(url)
        connection, _ = await connect(settings)
        async with connection:
            await migrate(connection, settings.schema, version)

    async def test_settings_that_lose_jobs(self, postgres: str) -> None:
        query(postgres, "ALTER DATABASE postgres SET synchronous_commit = off")
        try:
            found = await PostgresCheckup(postgres, "kitchen").examine([])
        finally:
            query(postgres, "ALTER DATABASE postgres RESET synchronous_commit")
        durability = [each for each in found if each.subject == "durability"]
        assert [each.grade for each in durability] == ["warning"]
        assert durability[0].remedy == 'ALTER DATABASE "postgres" SET synchronous_commit = on'
        assert (
            next(each.grade for each in await PostgresCheckup(f"{postgres}?pooler=1", "k").examine([]) if each.subject == "pooler")
            == "warning"
        )

    async def test_few_connections_and_no_fsync(self) -> None:
        with own_postgres(max_connections="15", fsync="off", autovacuum="off") as (server, url):
            found = {each.subject: each for each in await PostgresCheckup(url, "kitchen").examine([])}
            assert {subject for subject, each in found.items() if each.grade == "error"} == {"durability", "autovacuum"}
            assert found["connections"].grade == "warning"
            server.kill()
            with pytest.raises(ConnectionError):
                await PostgresCheckup(url, "kitchen").examine([])


class TestRabbitMQ:
    def test_a_pair(self, mognet: Mognet, tmp_path: Path) -> None:
        server, broker = rabbitmq_server(tmp_path)
        server.start()
        try:
            pair = {"broker": broker, "result_backend": "sqlite:///jobs.db"}
            said = mognet("doctor", "--json", **pair)
            assert (said.code, said.errors) == (0, [])
            assert "is not there yet" in said.found["broker/queue tasks"]["text"]
            assert {"broker/client", "broker/server", "broker/round trip", "broker/alarms", "store/journal"} <= set(said.found)
            assert mognet("submit", "cook", "dish=soup", **pair).code == 0
            assert "classic" in mognet("doctor", "--json", **pair).found["broker/queue tasks"]["text"]
            text = mognet("doctor", **pair).text
            assert text.index("\nbroker\n") < text.index("\nstore\n")
            info = mognet("store", "info", "--json", **pair).json
            assert (info["engine"], info["jobs"]) == ("SQLite", {"PENDING": 1})
            said = mognet("doctor", "--json", **(pair | {"broker": f"{broker}?queue_type=quorum"}))
            assert (said.code, said.errors) == (1, ["broker/queue tasks"])
            server.kill()
            said = mognet("doctor", "--json", **pair)
            assert (said.code, said.errors) == (4, ["broker/RabbitMQ"])
        finally:
            server.kill()

    async def test_a_blocked_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rabbitmq_checkup, "SECONDS", 1.0)
        (tmp_path / "rabbitmq.conf").write_text("disk_free_limit.absolute = 1000000000000000\n")
        server, url = rabbitmq_server(tmp_path)
        server.start()
        try:
            found = {each.subject: each for each in await RabbitMQCheckup([url], "kitchen").examine(["tasks"])}
            assert found["alarms"].grade == "error"
            assert "check_local_alarms" in str(found["alarms"].remedy)
            others = [url, "amqp://guest:canary@127.0.0.1:1/"]
            text = str(await RabbitMQCheckup(others, "kitchen").examine(["tasks"]))
            assert "127.0.0.1:1 does not let us in" in text
            assert "canary" not in text
        finally:
            server.kill()


class TestSQLite:
    def test_the_schema(self, mognet: Mognet, tmp_path: Path) -> None:
        file, url = tmp_path / "jobs.db", "sqlite:///jobs.db"
        assert mognet("store", "migrate", "--check", url=url).code == 1
        assert mognet("store", "info", "--json", url=url).json["jobs"] == {}
        assert not file.exists()
        assert mognet("store", "migrate", url=url).code == 0
        assert mognet("store", "migrate", "--check", url=url).code == 0
        assert mognet("store", "migrate", "--to", "1", url=url).text == "brought from schema 3 to 1\n"
        refused = mognet("store", "migrate", "--check", "--to", "7", url=url)
        assert (refused.code, "no schema 7" in refused.err) == (5, True)
        mognet("submit", "cook", "dish=soup", url=url)
        said = mognet("store", "info", url=url)
        assert said.text.split("\n")[-2].split() == ["PENDING", "1"]
        with sqlite3.connect(file) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        assert [mognet("store", *words, url=url).code for words in (("migrate", "--check"), ("migrate",), ("info",))] == [5, 5, 0]

    def test_another_programs_file(self, mognet: Mognet, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "theirs.db") as connection:
            connection.execute("CREATE TABLE theirs (x)")
        connection.close()
        assert mognet("store", "info", url="sqlite:///theirs.db").code == 2
