"""redis-py: a job is an item of a list, its result a key that expires. Pushes, pops and results go pipelined, one command for each."""

from uuid import uuid4

from redis.asyncio import Redis

from benchmarks.raw.common import Client, arguments, main, results

TTL = 600


class RawRedis:
    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url)

    async def __aenter__(self) -> "RawRedis":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._redis.aclose()

    async def give(self, lane: int, number: int) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for each in range(number):
            pipeline.lpush("raw", uuid4().hex.encode() + arguments(each))
        await pipeline.execute()

    async def take(self, lane: int, number: int) -> int:
        pipeline = self._redis.pipeline(transaction=False)
        for _ in range(number):
            pipeline.rpop("raw")
        jobs = [job for job in await pipeline.execute() if job is not None]
        await self.keep(lane, [job[:32].decode() for job in jobs])
        return len(jobs)

    async def keep(self, lane: int, ids: list[str]) -> None:
        """Store the results of these jobs."""
        pipeline = self._redis.pipeline(transaction=False)
        for id, result in zip(ids, results(ids), strict=True):
            pipeline.set(f"result:{id}", result, ex=TTL)
        await pipeline.execute()

    async def ask(self, id: str) -> None:
        await self._redis.lpush("asked", id.encode() + arguments(0))
        await self.told(id)

    async def listen(self, channel: str) -> None:
        """Nothing is to be done before :meth:`told`."""

    async def told(self, id: str) -> None:
        """Wait for the result of a job, and fetch it."""
        await self._redis.brpop([f"result:{id}"])

    async def serve(self) -> None:
        while True:
            _, job = await self._redis.brpop(["asked"])
            await self.keep_and_tell(job[:32].decode())

    async def keep_and_tell(self, id: str) -> None:
        """Leave one result where somebody waits for it."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.lpush(f"result:{id}", b"1").expire(f"result:{id}", TTL)
        await pipeline.execute()


def make(place: str) -> Client:
    return RawRedis(place)


if __name__ == "__main__":
    main(make)
