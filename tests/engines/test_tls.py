"""TLS: what is checked, with an authority and certificates of our own, on real servers that insist on knowing their clients."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exercise import exercise
from mognet import App, AppConfig
from mognet.engines.checkups import checkups
from mognet.engines.findings import encryption
from mognet.engines.rabbitmq.broker import RabbitMQBroker
from mognet.engines.rabbitmq.settings import read_urls
from mognet.exceptions import ConnectionError, MognetError
from mognet.records import Ticket
from mognet.testing.conformance.bench import make_job
from servers import Server, free_port
from servers.certificates import Certificates
from servers.postgres import PASSWORD, USER, as_postgres, postgres_server
from servers.rabbitmq import rabbitmq_server
from servers.redis import redis_server


class Secured:
    """A server that speaks TLS, and how a URL says what to check it against."""

    ca, crt, key = "cafile", "certfile", "keyfile"
    insecure = "insecure_skip_verify=1"
    strict = ""
    """What has to be said for certificates to be checked against the system's authorities."""

    def __init__(self, url: str, files: Certificates) -> None:
        self.address, self.files = url, files

    def url(self, ca: str | None = "ca", client: str | None = "client", more: str = "") -> str:
        options = [f"{self.ca}={self.files.crt(ca)}"] if ca else []
        options += [f"{self.crt}={self.files.crt(client)}", f"{self.key}={self.files.key(client)}"] if client else []
        return f"{self.address}?{'&'.join([*options, *([more] if more else [])])}"

    def settings(self, url: str) -> dict[str, Any]:
        return {"url": url}

    def user(self, url: str) -> Callable[[], Awaitable[None]]:
        """Connects, each time that it is called; fails if it is not let in."""
        app = App("tls", AppConfig(url=url))

        async def use() -> None:
            async with app:
                pass

        return use

    async def encryption(self, url: str) -> str:
        """What the doctor says of it."""
        found = await next(iter(checkups(url, "tls").values())).examine([])
        return next(each.grade for each in found if each.subject == "encryption")


class SecuredRedis(Secured):
    ca, crt, key = "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"


class SecuredPostgres(Secured):
    ca, crt, key = "sslrootcert", "sslcert", "sslkey"
    insecure = "sslmode=require"
    strict = "sslmode=verify-full"


class SecuredRabbitMQ(Secured):
    def settings(self, url: str) -> dict[str, Any]:
        return {"broker": url, "result_backend": "memory://tls"}

    def user(self, url: str) -> Callable[[], Awaitable[None]]:
        broker = RabbitMQBroker(read_urls(url), "tls")

        async def use() -> None:
            async with broker:
                await broker.push([Ticket(make_job().id, "q", 5)])

        return use

    async def encryption(self, url: str) -> str:
        found = await checkups("memory://", "tls", broker=[url])["broker"].examine([])
        return next(each.grade for each in found if each.subject == "encryption")


def redis(folder: Path, files: Certificates) -> tuple[Server, Secured]:
    port = free_port()
    words = (
        f"--tls-port {port} --tls-cert-file {files.crt('server')} --tls-key-file {files.key('server')} --tls-ca-cert-file {files.crt('ca')}"
    )
    server, _ = redis_server(folder, *words.split(), "--tls-auth-clients", "yes")
    return server, SecuredRedis(f"rediss://127.0.0.1:{port}/0", files)


def postgres(folder: Path, files: Certificates) -> tuple[Server, Secured]:
    (folder / "hba").write_text(HBA)
    for path in (files.crt("server"), files.key("server"), files.crt("ca")):
        shutil.copy(path, folder)
    if as_postgres():
        for path in folder.iterdir():
            shutil.chown(path, "postgres")
    names = {"ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "ca.crt", "hba_file": "hba"}
    server, url = postgres_server(folder, ssl="on", **{name: str(folder / file) for name, file in names.items()})
    return server, SecuredPostgres(url, files)


HBA = "hostnossl all all 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full\n"
"""Without TLS, too, for those who look whether it has started."""


def rabbitmq(folder: Path, files: Certificates) -> tuple[Server, Secured]:
    port = free_port()
    lines = [
        f"listeners.ssl.1 = 127.0.0.1:{port}",
        f"ssl_options.cacertfile = {files.crt('ca')}",
        f"ssl_options.certfile = {files.crt('server')}",
    ]
    lines += [f"ssl_options.keyfile = {files.key('server')}", "ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = true"]
    (folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
    server, _ = rabbitmq_server(folder)
    return server, SecuredRabbitMQ(f"amqps://guest:guest@127.0.0.1:{port}/", files)


SERVERS: dict[str, Callable[[Path, Certificates], tuple[Server, Secured]]] = {"redis": redis, "postgres": postgres, "rabbitmq": rabbitmq}


@pytest.fixture(params=SERVERS, scope="module")
def secured(request: pytest.FixtureRequest) -> Iterator[Secured]:
    with tempfile.TemporaryDirectory(prefix="mognet-tls-") as name:
        folder, certificates = Path(name) / "server", Path(name) / "files"
        folder.mkdir()
        certificates.mkdir()
        Path(name).chmod(0o755)
        server, found = SERVERS[request.param](folder, Certificates(certificates, USER))
        server.start()
        yield found
        server.kill()


async def test_both_sides_are_who_they_say(secured: Secured) -> None:
    await exercise(**secured.settings(secured.url()))
    assert await secured.encryption(secured.url()) == "ok"


async def refused(secured: Secured, url: str) -> str:
    with pytest.raises(ConnectionError) as caught:
        await secured.user(url)()
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


async def test_an_authority_that_we_do_not_know_is_refused(secured: Secured) -> None:
    assert "certificate" in await refused(secured, secured.url(ca="other"))
    assert "certificate" in await refused(secured, secured.url(ca=None, more=secured.strict))


async def test_who_names_an_authority_trusts_no_other(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's are for those who name none."""
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.files.crt("ca")))
    await refused(secured, secured.url(ca="other"))
    if isinstance(secured, SecuredPostgres):
        await secured.user(secured.url(ca=None, more="sslrootcert=system"))()
    else:
        await secured.user(secured.url(ca=None))()


async def test_another_host_is_refused(secured: Secured) -> None:
    """The certificate is good, but for 127.0.0.1 only."""
    elsewhere = secured.url().replace("127.0.0.1", "localhost")
    assert "localhost" in await refused(secured, elsewhere)


async def test_the_server_wants_to_know_us(secured: Secured) -> None:
    await refused(secured, secured.url(client=None))


async def test_switched_off_loudly(secured: Secured, caplog: pytest.LogCaptureFixture) -> None:
    url = secured.url(ca=None, more=secured.insecure)
    await secured.user(url.replace("127.0.0.1", "localhost"))()
    assert await secured.encryption(url) == "warning"
    if not isinstance(secured, SecuredPostgres):
        assert "anybody in between" in caplog.text


async def test_files_that_are_not_there(secured: Secured) -> None:
    for url in (secured.url(ca="lost"), secured.url(client="lost")):
        with pytest.raises(MognetError, match=r"lost\.(crt|key)"):
            await secured.user(url)()


async def test_new_files_are_read_without_a_restart(secured: Secured, tmp_path: Path) -> None:
    """Certificates run out; who connects again finds those that have replaced them."""
    ca = tmp_path / "ca.crt"
    shutil.copy(secured.files.crt("other"), ca)
    use = secured.user(secured.url(ca=None, more=f"{secured.ca}={ca}"))
    with pytest.raises(ConnectionError):
        await use()
    shutil.copy(secured.files.crt("ca"), ca)
    await use()


def test_what_the_doctor_says_of_the_way() -> None:
    def grade(*hosts: str, tls: bool = False, checked: bool = False) -> str:
        return encryption(hosts, tls=tls, checked=checked, switch_on="x", check="y").grade

    assert {grade("localhost"), grade("127.0.0.1", "::1"), grade("/run/redis"), grade(), grade("db", tls=True, checked=True)} == {"ok"}
    assert {grade("db"), grade("localhost", "10.0.0.1"), grade("localhost", tls=True)} == {"warning"}
