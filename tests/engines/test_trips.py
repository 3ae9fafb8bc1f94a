"""Round trips for each job, counted at a proxy: one to submit and two to run, one more of each with a broker before the store."""

from __future__ import annotations

from contextlib import AsyncExitStack
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from mognet.engines import engine_factory
from mognet.outcomes import succeeded
from mognet.testing.conformance.bench import make_job
from proxy import Proxy
from servers.postgres import empty_postgres
from servers.rabbitmq import shared_rabbitmq
from servers.redis import empty_redis

JOBS, BATCH = 20, 50


@pytest.mark.parametrize("store", [empty_redis, empty_postgres])
@pytest.mark.parametrize("brokers", [0, 1])
async def test_round_trips(store: object, brokers: int) -> None:
    """Nobody else listens; the first job, which makes connections and prepares statements, does not count."""
    urls = [shared_rabbitmq()] * brokers + [store()]  # type: ignore[operator]
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(urlsplit(url).port or 0)) for url in urls]
        *broker, place = [proxy.url(url) for proxy, url in zip(proxies, urls, strict=True)]
        engine = await stack.enter_async_context(engine_factory(place, f"trips-{uuid4()}", broker=broker)())

        def spent() -> int:
            return sum(proxy.trips for proxy in proxies)

        async def run(limit: int) -> None:
            claims = await engine.claim("n", ["q"], limit, lease=60, wait=5 * brokers)  # without a wait, a pair looks at more than it needs
            assert len(claims) == limit
            await engine.settle([succeeded(claim.token, b"%d" % number) for number, claim in enumerate(claims)])

        async def all_of(batch: int, times: int) -> tuple[int, int]:
            begin = spent()
            for _ in range(times):
                await engine.submit([make_job() for _ in range(batch)])
            submitted = spent()
            for _ in range(times):
                await run(batch)
            return submitted - begin, spent() - submitted

        await all_of(1, 3)
        submits, runs = await all_of(1, JOBS)
        # The line of a pair's store is looked at once in a while, too.
        assert submits == (1 + brokers) * JOBS
        assert (2 + brokers) * JOBS <= runs <= (2 + brokers) * JOBS + 3 * brokers
        await all_of(BATCH, 1)  # a broker is asked for more each time
        submits, runs = await all_of(BATCH, 1)
        assert submits == 1 + brokers
        assert runs <= 2 + brokers + brokers
