"""The Redis engine beside redis-py doing the minimum: python -m benchmarks.redis_rates redis://127.0.0.1:PORT/0

The server should be an empty one: all its data is deleted. Each figure is jobs a second in one process, in batches of 100. redis-py
pushes to a list and pops from it, pipelined; a drain that leaves a result, as ours does, sets one key for each job as well.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from redis.asyncio import Redis

from mognet.engines.redis.engine import RedisEngine
from mognet.outcomes import succeeded
from mognet.records import Job

JOBS, BATCH, LANES = 20_000, 100, 4


async def rate(part: Callable[[int], Awaitable[None]]) -> float:
    start = time.perf_counter()
    await asyncio.gather(*(part(JOBS // LANES) for _ in range(LANES)))
    return JOBS / (time.perf_counter() - start)


async def ours(url: str) -> tuple[float, float]:
    async with RedisEngine(url, "benchmark") as engine:

        async def submit(number: int) -> None:
            for _ in range(number // BATCH):
                await engine.submit([Job(uuid4(), "work", "q", b'{"v":1}') for _ in range(BATCH)])

        async def drain(_: int) -> None:
            while claims := await engine.claim("node", ["q"], BATCH, lease=15):
                await engine.settle([succeeded(claim.token, b"1", ttl=600) for claim in claims])

        return await rate(submit), await rate(drain)


async def raw(url: str) -> tuple[float, float, float]:
    async with Redis.from_url(url) as client:

        async def push(number: int) -> None:
            for _ in range(number // BATCH):
                pipeline = client.pipeline(transaction=False)
                for _ in range(BATCH):
                    pipeline.lpush("benchmark", uuid4().hex + '{"v":1}')
                await pipeline.execute()

        async def pop(number: int, *, result: bool = False) -> None:
            for _ in range(number // BATCH):
                pipeline = client.pipeline(transaction=False)
                for _ in range(BATCH):
                    pipeline.rpop("benchmark")
                jobs = await pipeline.execute()
                if result:
                    for job in jobs:
                        pipeline.set(job[:32], b"1", ex=600)
                    await pipeline.execute()

        pushed, popped = await rate(push), await rate(pop)
        await rate(push)
        return pushed, popped, await rate(lambda number: pop(number, result=True))


async def main(url: str) -> None:
    async with Redis.from_url(url) as client:
        await client.flushall()
        mine, other = await ours(url), await raw(url)
        await client.flushall()
    rows = (("submit / push", mine[0], other[0]), ("drain / pop", mine[1], other[1]), ("drain / pop and set", mine[1], other[2]))
    for name, a, b in rows:
        print(f"{name:20} {a:10,.0f} /s   redis-py {b:10,.0f} /s   ratio {a / b:.2f}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
