"""A private Redis."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from servers import Server, find_binary, free_port


def redis_server(folder: Path, *more: str, durable: bool = True) -> tuple[Server, str]:
    """A Redis that writes every command to disk before it answers (or nothing), and its URL. Not started yet."""
    port = free_port()
    command = [find_binary("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += [
        "--save",
        "",
        "--appendonly",
        "yes" if durable else "no",
        "--appendfsync",
        "always",
        "--maxmemory-policy",
        "noeviction",
        "--repl-diskless-sync-delay",
        "0",
        *more,
    ]

    def ready() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    return Server("redis-server", command, folder, ready), f"redis://127.0.0.1:{port}/0"


@cache
def shared_redis() -> str:
    """The URL of a Redis for all tests of this process that do no harm to it; they may empty it. It keeps nothing on disk."""
    if url := os.environ.get("MOGNET_TEST_REDIS_URL"):
        return url
    folder = Path(tempfile.mkdtemp(prefix="mognet-redis-"))
    server, url = redis_server(folder, durable=False)
    server.start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    return url


def empty_redis() -> str:
    """The URL of the same Redis, without any keys."""
    url = shared_redis()
    tell_redis(url, "FLUSHALL")
    return url


def tell_redis(url: str, command: str) -> None:
    """Have a server do something that it answers with OK."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "localhost", parts.port or 6379), 10) as connection:
        connection.sendall(f"{command}\r\n".encode())
        assert connection.recv(16).startswith(b"+OK")
