"""psycopg: a job is a row. A batch is one INSERT; one UPDATE that skips locked rows; one UPDATE with the results."""

from uuid import UUID, uuid4

from psycopg import AsyncConnection
from psycopg.types.string import BytesBinaryDumper, StrBinaryDumper
from psycopg.types.uuid import UUIDBinaryDumper

from benchmarks.raw.common import LANES, Client, arguments, main, results

TABLE = """
SELECT pg_advisory_lock(7);
CREATE TABLE IF NOT EXISTS raw (
    seq int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid NOT NULL UNIQUE, arguments bytea, done bool NOT NULL DEFAULT false,
    taken timestamptz, result bytea);
CREATE INDEX IF NOT EXISTS raw_line ON raw (seq) WHERE taken IS NULL;
SELECT pg_advisory_unlock(7)"""

GIVE = "INSERT INTO raw (id, arguments) SELECT * FROM unnest(%(ids)s::uuid[], %(arguments)s::bytea[])"
TAKE = """
UPDATE raw SET taken = statement_timestamp() WHERE seq = ANY(ARRAY(
    SELECT seq FROM raw WHERE taken IS NULL ORDER BY seq LIMIT %(number)s FOR UPDATE SKIP LOCKED)) RETURNING id, arguments"""
END = """
UPDATE raw SET done = true, result = given.result FROM unnest(%(ids)s::uuid[], %(results)s::bytea[]) AS given(id, result)
WHERE raw.id = given.id"""
ASK = f"WITH given AS ({GIVE}) SELECT pg_notify('asked', '')"
END_AND_TELL = f"WITH ended AS ({END}) SELECT pg_notify('told', %(told)s)"
KEEP = """
INSERT INTO raw (id, taken, done, result)
SELECT id, statement_timestamp(), true, result FROM unnest(%(ids)s::uuid[], %(results)s::bytea[]) AS given(id, result)"""
KEEP_AND_TELL = f"WITH kept AS ({KEEP}) SELECT pg_notify('told', %(told)s)"
LOOK = "SELECT result FROM raw WHERE id = ANY(%(ids)s::uuid[]) AND done"


class RawPostgres:
    def __init__(self, url: str) -> None:
        self._url = url
        self._heard: set[str] = set()

    async def __aenter__(self) -> "RawPostgres":
        self._lanes = [await self._connect() for _ in range(LANES)]
        await self._lanes[0].execute(TABLE, prepare=False)
        return self

    async def _connect(self) -> AsyncConnection:
        connection = await AsyncConnection.connect(self._url, autocommit=True, prepare_threshold=0)
        for kind, dumper in ((UUID, UUIDBinaryDumper), (bytes, BytesBinaryDumper), (str, StrBinaryDumper)):
            connection.adapters.register_dumper(kind, dumper)
        await connection.execute("SET enable_seqscan = off")
        return connection

    async def __aexit__(self, *exc: object) -> None:
        for lane in self._lanes:
            await lane.close()

    async def give(self, lane: int, number: int) -> None:
        await self._lanes[lane].execute(
            GIVE, {"ids": [uuid4() for _ in range(number)], "arguments": [arguments(each) for each in range(number)]}
        )

    async def take(self, lane: int, number: int) -> int:
        cursor = await self._lanes[lane].execute(TAKE, {"number": number}, binary=True)
        jobs = await cursor.fetchall()
        if jobs:
            await self.end(lane, [id for id, _ in jobs])
        return len(jobs)

    async def end(self, lane: int, ids: list[UUID]) -> None:
        """Store the results of these jobs."""
        await self._lanes[lane].execute(END, {"ids": ids, "results": results(ids)})

    async def keep(self, lane: int, ids: list[str]) -> None:
        """Store the results of jobs that a broker brought."""
        await self._lanes[lane].execute(KEEP, {"ids": [UUID(id) for id in ids], "results": results(ids)})

    async def keep_and_tell(self, id: str) -> None:
        """The same for one for which somebody waits."""
        await self._lanes[0].execute(KEEP_AND_TELL, {"ids": [UUID(id)], "results": results([id]), "told": id})

    async def listen(self, channel: str) -> None:
        """Hear from now on what :meth:`told` and :meth:`serve` wait for."""
        if channel not in self._heard:
            await self._lanes[1].execute(f"LISTEN {channel}")
            self._heard.add(channel)

    async def ask(self, id: str) -> None:
        await self.listen("told")
        await self._lanes[0].execute(ASK, {"ids": [UUID(id)], "arguments": [arguments(0)]})
        await self.told(id)

    async def told(self, id: str) -> None:
        """Wait for the result of a job, and fetch it."""
        async for notify in self._lanes[1].notifies():
            if notify.payload == id:
                break
        cursor = await self._lanes[0].execute(LOOK, {"ids": [UUID(id)]}, binary=True)
        assert await cursor.fetchone()

    async def serve(self) -> None:
        await self.listen("asked")
        while True:
            async for _ in self._lanes[1].notifies(timeout=1, stop_after=1):
                pass
            cursor = await self._lanes[0].execute(TAKE, {"number": 1}, binary=True)
            for id, _ in await cursor.fetchall():
                await self._lanes[0].execute(END_AND_TELL, {"ids": [id], "results": results([id]), "told": id.hex})


def make(place: str) -> Client:
    return RawPostgres(place)


if __name__ == "__main__":
    main(make, alone_by=1000)  # as submit_many has them
