"""No ticket is lost, and none is held, by what may happen around a pair's claims and submits."""

from __future__ import annotations

import asyncio

import pytest

from proxy import Proxy
from servers import Server
from servers.rabbitmq import rabbitmqctl

from .test_pairs_faults import Load, load, node, proxy

__all__ = ["load", "node", "proxy"]


async def test_an_alarm_breaks_no_connection(load: Load, node: tuple[Server, str], proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that is short of memory is not bothered by new connections, nor its users by a line for each submit."""
    pair = await load.pair()
    await load.submit(pair, 3)

    def limit(bytes: str) -> None:
        rabbitmqctl(node[0], "set_vm_memory_high_watermark", bytes)

    await asyncio.to_thread(limit, "0.0000001")
    try:
        await load.submit(pair, 3)
        made = proxy.connections
        for _ in range(12):
            await load.submit(pair, 3)
        await asyncio.sleep(3.0)
        assert proxy.connections <= made + 1
        assert len(caplog.records) < 5
    finally:
        await asyncio.to_thread(limit, "0.4")
    load.tasks = [asyncio.create_task(load.work(pair))]
    await load.all_run(seconds=15)
    await load.check()
