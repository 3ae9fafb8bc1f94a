"""A private Redis."""

from __future__ import annotations

import socket
from pathlib import Path

from servers import Server, find_binary, free_port


def redis_server(folder: Path) -> tuple[Server, str]:
    """A Redis that writes every command to disk before it answers, and its URL. Not started yet."""
    port = free_port()
    command = [find_binary("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]

    def ready() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    return Server("redis-server", command, folder, ready), f"redis://127.0.0.1:{port}/0"
