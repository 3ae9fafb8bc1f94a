"""A private PgBouncer in front of a private PostgreSQL."""

from __future__ import annotations

import atexit
import shutil
import socket
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from servers import Server, find_binary, free_port
from servers.postgres import as_postgres, shared_postgres


def pgbouncer_server(folder: Path, url: str, **options: str) -> tuple[Server, int]:
    """A PgBouncer in transaction mode before the server of this URL, and its port. Not started yet.

    It has few connections, so that those who come through it share them. Others must be able to look into ``folder``.
    """
    program, prefix, port = find_binary("pgbouncer", "/usr/sbin/pgbouncer"), as_postgres(), free_port()
    server = urlsplit(url)
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": "users.txt",
        "pool_mode": "transaction",
        "default_pool_size": "4",
        "max_client_conn": "1000",
        **options,
    }
    lines = ["[databases]", f"* = host={server.hostname} port={server.port}", "[pgbouncer]"]
    lines += [f"{name} = {value}" for name, value in settings.items()]
    (folder / "pgbouncer.ini").write_text("\n".join(lines))
    (folder / "users.txt").write_text(f'"{unquote(server.username or "")}" "{unquote(server.password or "")}"\n')
    if prefix:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "postgres")

    def ready() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return Server("pgbouncer", [*prefix, program, "pgbouncer.ini"], folder, ready), port


def through(port: int, url: str) -> str:
    """A database of the server behind the PgBouncer of this port, through it."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()


@cache
def shared_pgbouncer() -> int:
    """The port of one before the PostgreSQL that all tests of this process share; no test does harm to it."""
    folder = Path(tempfile.mkdtemp(prefix="mognet-pgbouncer-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server, port = pgbouncer_server(folder, shared_postgres())
    server.start()
    atexit.register(server.kill)
    return port
