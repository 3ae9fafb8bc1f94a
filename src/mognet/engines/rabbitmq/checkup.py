"""What the doctor looks at on a RabbitMQ."""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from mognet.engines.findings import Finding, Schema, client_version, encryption, error, ok, server_version, warning
from mognet.engines.rabbitmq.link import explained
from mognet.engines.rabbitmq.session import CONNECT_SECONDS
from mognet.engines.rabbitmq.settings import Address, queue_arguments, queue_name, read_urls, read_version
from mognet.engines.rabbitmq.wire import Wire, aiormq
from mognet.engines.tls import INSECURE
from mognet.exceptions import ConnectionError

TESTED = (3, 10)
CLIENT_TESTED = (7, 2, 4)

SECONDS = 5.0
"""How long a message may take there and back."""

_LOOK = "rabbitmq-diagnostics check_local_alarms"


class RabbitMQCheckup:
    """Looks at a RabbitMQ."""

    title = "RabbitMQ"

    def __init__(self, urls: Sequence[str], app: str) -> None:
        self._settings = read_urls(urls)
        self._app = app
        self.shown = ", ".join(address.shown for address in self._settings.addresses)

    async def examine(self, queues: Collection[str]) -> list[Finding]:
        found, wire = await self._nodes()
        try:
            found = [client_version("aiormq", "amqp", CLIENT_TESTED), _server(wire), self._encryption(wire.address), *found]
            found += [await self._queue(wire, queue) for queue in sorted(queues)]
            found.append(await self._round_trip(wire))  # last: a connection that publishes to a blocked server is read no more
        except (aiormq.AMQPError, OSError, RuntimeError) as problem:
            raise ConnectionError(f"RabbitMQ at {wire.address.shown}: {explained(problem)}") from problem
        finally:
            await _leave(wire)
        if not any(finding.subject == "alarms" for finding in found):
            text = f"it takes messages, so that no memory or disk alarm blocks it now; {_LOOK} on its host shows more"
            found.append(ok("alarms", text))
        return found

    def _encryption(self, address: Address) -> Finding:
        check = f"leave {INSECURE} out of the URL, and name the authority: ?cafile="
        checked = not self._settings.tls.insecure
        return encryption([address.host], tls=address.tls, checked=checked, switch_on="amqps:// (its listeners.ssl)", check=check)

    async def schema(self) -> Schema | None:
        return None

    async def size(self) -> int | None:
        return None

    async def migrate(self, version: int | None = None) -> None:
        pass

    async def _nodes(self) -> tuple[list[Finding], Wire]:
        """A word on each node that does not answer, and a connection to the first that does."""
        reasons: dict[Address, str] = {}
        found: Wire | None = None
        for address in self._settings.addresses:
            try:
                wire = await self._connect(address)
            except (aiormq.AMQPError, OSError, RuntimeError) as problem:
                reasons[address] = "no answer" if isinstance(problem, TimeoutError) else explained(problem)
                continue
            if found is None:
                found = wire
            else:
                await _leave(wire)
        if found is None:
            whys = "; ".join(f"{address.shown}: {why}" for address, why in reasons.items())
            raise ConnectionError(f"RabbitMQ cannot be reached: {whys}")
        remedy = "rabbitmq-diagnostics status, on its host"
        return [warning("node", f"{address.shown} does not let us in: {why}", remedy) for address, why in reasons.items()], found

    async def _connect(self, address: Address) -> Wire:
        context = await self._settings.tls.context(address.shown) if address.tls else None
        wire = Wire(address, self._settings, context, "mognet doctor")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await wire.connect()
        except BaseException:
            wire.transport.abort()
            await wire.end()
            raise
        return wire

    async def _round_trip(self, wire: Wire) -> Finding:
        """A message through a queue that only this connection sees, and that goes with it."""
        channel = await wire.channel(publisher_confirms=True)
        name = queue_name(self._app, f"doctor-{uuid4().hex}")
        came: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        async def arrived(_: Any) -> None:
            if not came.done():
                came.set_result(time.perf_counter())

        try:
            await channel.queue_declare(name, exclusive=True, auto_delete=True)
            await channel.basic_consume(name, arrived, no_ack=True)
        except aiormq.exceptions.ChannelAccessRefused as problem:
            return self._not_allowed(wire.address, problem)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(SECONDS):
                await channel.basic_publish(b"{}", routing_key=name)
                confirmed = time.perf_counter() - began
                delivered = await came - began
                # A server whose memory or disk is short takes one message of each connection, and then no more.
                await channel.basic_publish(b"{}", routing_key=name)
        except TimeoutError:
            text = f"it has not taken a message within {SECONDS:g} s: most likely a memory or disk alarm blocks those who publish"
            return error("alarms", text, f"{_LOOK}, on its host; then free memory or disk there")
        except aiormq.exceptions.ChannelAccessRefused as problem:
            return self._not_allowed(wire.address, problem)
        return ok("round trip", f"publish confirmed in {confirmed * 1000:.1f} ms, delivered in {delivered * 1000:.1f} ms")

    def _not_allowed(self, address: Address, problem: Exception) -> Finding:
        text = f"user {address.user!r} may not make, fill and read queues of the app ({explained(problem)})"
        return error("round trip", text, _grant(address, self._app))

    async def _queue(self, wire: Wire, queue: str) -> Finding:
        """Whether a queue is there, and made as the settings say. It is not made."""
        name, wanted = queue_name(self._app, queue), self._settings.queue_type
        subject = f"queue {queue}"
        try:
            there = await (await wire.channel()).queue_declare(name, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return ok(subject, f"{name!r} is not there yet: the first worker or submit makes it, {wanted}")
        except aiormq.exceptions.ChannelAccessRefused as problem:
            return error(
                subject, f"user {wire.address.user!r} may not look at {name!r} ({explained(problem)})", _grant(wire.address, self._app)
            )
        refused = ""
        for number, arguments in enumerate(queue_arguments(wanted, read_version(wire.version))):
            try:
                await (await wire.channel()).queue_declare(name, durable=True, arguments=dict(arguments))
            except aiormq.exceptions.ChannelPreconditionFailed as problem:
                refused = explained(problem)
                continue
            if number:
                pattern = f"^{re.escape(queue_name(self._app, ''))}"
                where = ["-p", wire.address.vhost] if wire.address.vhost != "/" else []
                words = ["rabbitmqctl", "set_policy", *where, "--apply-to", "queues", "mognet-tickets", pattern, '{"delivery-limit":-1}']
                remedy = shlex.join(words)
                return warning(subject, f"{name!r} was made by an older server, and may drop tickets that were delivered 20 times", remedy)
            kept = "on one node (?queue_type=quorum keeps copies)" if wanted == "classic" else "copied by its cluster"
            waiting = f"tickets that wait: {there.message_count or 0}, consumers: {there.consumer_count or 0}"
            return ok(subject, f"{name!r} is durable, {wanted}, {kept}; {waiting}")
        text = f"{name!r} was made with other settings than queue_type={wanted} ({refused})"
        return error(subject, text, f"say so in the broker's URL, or let it run empty and: rabbitmqctl delete_queue {name!r}")


def _server(wire: Wire) -> Finding:
    version = wire.version
    text = version.decode(errors="replace") if isinstance(version, bytes) else str(version)
    return server_version("server", f"RabbitMQ {text}", text, TESTED)


def _grant(address: Address, app: str) -> str:
    ours = re.escape(queue_name(app, ""))
    where = ["-p", address.vhost] if address.vhost != "/" else []
    rights = [f"^{ours}.*", f"^(amq\\.default|{ours}.*)$", f"^{ours}.*"]
    return shlex.join(["rabbitmqctl", "set_permissions", *where, address.user, *rights])


async def _leave(wire: Wire) -> None:
    with suppress(Exception):
        async with asyncio.timeout(2.0):
            await wire.close()
    wire.transport.abort()


__all__ = ["RabbitMQCheckup"]
