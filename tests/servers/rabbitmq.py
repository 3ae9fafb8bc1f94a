"""A private RabbitMQ, with an epmd of its own."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from servers import Server, find_binary, free_port

SCRIPTS = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"
"""Where Debian keeps the programs themselves; those on its PATH insist on being root, and on the machine's own node."""

GIVEN = os.environ.get("MOGNET_TEST_AMQP_URL")
_shared: list[str] = []


def shared_rabbitmq() -> str:
    """The URL of a node that no test kills; started when the first asks, ended with this process."""
    if GIVEN:
        return GIVEN
    if not _shared:
        folder = Path(tempfile.mkdtemp(prefix="mognet-rabbitmq-"))
        server, url = rabbitmq_server(folder)
        server.start()

        def end() -> None:
            server.kill()
            shutil.rmtree(folder, ignore_errors=True)

        atexit.register(end)
        _shared.append(url)
    return _shared[0]


def rabbitmqctl(server: Server, *words: str) -> str:
    """Run a command of an operator on a node that runs; what it said."""
    program = find_binary("rabbitmqctl", f"{SCRIPTS}/rabbitmqctl")
    done = subprocess.run([program, *words], env=server.env, cwd=server.folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rabbitmq_server(folder: Path) -> tuple[Server, str]:
    """A node of its own, and its URL. Not started yet; it takes some seconds."""
    program = find_binary("rabbitmq-server", f"{SCRIPTS}/rabbitmq-server")
    port, distribution, epmd = free_port(), free_port(), free_port()
    (folder / "env.conf").touch()
    env = {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"mognet{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_BASE": str(folder),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_CTL_ERL_ARGS": "-start_epmd false",
    }
    # epmd in the foreground, so that it ends with the process group; Erlang would start one that stays.
    names = f"epmd -port {epmd} -names >/dev/null 2>&1"
    command = ["sh", "-c", f"epmd -port {epmd} -address 127.0.0.1 & until {names}; do sleep 0.05; done; exec {shlex.quote(program)}"]

    def ready() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.settimeout(2)
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    return Server("rabbitmq-server", command, folder, ready, env=env), f"amqp://guest:guest@127.0.0.1:{port}/"
