from __future__ import annotations

import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mognet.config import redact_url

CANARY = "CaNaRy7"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://"),
        ("", ""),
        ("sqlite:////home/me@work/a:b/.mognet/shop.db", "sqlite:////home/me@work/a:b/.mognet/shop.db"),
        ("sqlite:///jobs.db?synchronous=normal", "sqlite:///jobs.db?synchronous=normal"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://[::1]:6379/0?timeout=3", "redis://[::1]:6379/0?timeout=3"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:p@host/db?sslmode=require", "postgresql://me:***@host/db?sslmode=require"),
        ("redis://:p@host:6379/0", "redis://:***@host:6379/0"),
        ("amqp://me:p%40%2F@host/%2F", "amqp://me:***@host/%2F"),
        ("amqp://me%3Ap@host", "amqp://me:***@host"),
        ("amqp://a:p@h1;amqp://b:q@h2", "amqp://a:***@h1;amqp://b:***@h2"),
        ("amqp://a:p@h1, amqp://h2:5672", "amqp://a:***@h1, amqp://h2:5672"),
        ("redis://a:p@h1:1,h2:2/0", "redis://a:***@h1:1,h2:2/0"),
        ("mongodb://a:p@h1,b:q@h2/x", "mongodb://a:***@h2/x"),
        ("redis://h/0?password=p&db=1", "redis://h/0?password=***&db=1"),
        ("nats://h?auth-token=p;x=1", "nats://h?auth-token=***"),
        ("redis://h/0?ssl_keyfile=a&API_KEY=b", "redis://h/0?ssl_keyfile=***&API_KEY=***"),
        ("redis://h/0?p%61ssword=p", "redis://h/0?p%61ssword=***"),
        ("jdbc:postgresql://h/db;password=p;user=me", "jdbc:postgresql://h/db;password=***"),
        ("amqp://h/?store=redis%3A%2F%2Fa%3Ap%40h2%2F0&x=1", "amqp://h/?store=redis%3A//a%3A***%40h2/0&x=1"),
        ("amqp://me:p/q@host/v", "amqp://me:***"),
        ("amqp://guest:guest", "amqp://guest:***"),
        ("amqp:///me:p@host", "amqp:///me:***@host"),
        ("me:p@host/db", "me:***@host/db"),
        ("host=h password=p dbname=d", "host=h password=*** dbname=d"),
        (r"host=h password='a b=c\' d' dbname=d", "host=h password=*** dbname=d"),
        ("Server=h;Pwd=a b;Database=d", "Server=h;Pwd=***;Database=d"),
        ("host=h password='never closed user=x", "host=h password=***"),
        ("h:6379,password=p,ssl=True", "h:6379,password=***,ssl=True"),
        ("/var/lib/jobs.db", "/var/lib/jobs.db"),
    ],
)
def test_what_is_shown(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert redact_url(shown) == shown


TEXT = st.text(max_size=12)
RAW = st.text(st.sampled_from("aZ09:/@?#%&=;,+-._~!$ \t\n'\"\\[]()é漢"), max_size=12)
SCHEMES = st.sampled_from(["redis", "rediss", "amqp", "amqps", "postgresql", "postgresql+asyncpg", "valkey", "nats", "x"])
USERS = st.sampled_from(["", "me", "a%40b", "a.b-c"])
HOSTS = st.sampled_from(["h", "h.example:5672", "[::1]:6379", "h1:1,h2:2", "localhost"])
TAILS = st.sampled_from(["", "/", "/0", "/v%2F?x=1&timeout=3", "?heartbeat=5", "/db#f"])
KEYS = st.sampled_from(
    ["password", "PASSWD", "pwd", "secret", "client_secret", "token", "access-token", "key", "api_key", "sslpassword", "s%65cret"]
)


RAW_VALUES = RAW.filter(lambda text: "&" not in text and "://" not in text)


def hidden(text: str) -> None:
    shown = redact_url(text)
    assert CANARY not in shown
    assert redact_url(shown) == shown


@given(SCHEMES, USERS, TEXT, TEXT, HOSTS, TAILS)
def test_encoded_password_of_the_user(scheme: str, user: str, before: str, after: str, host: str, tail: str) -> None:
    password = quote(before + CANARY + after, safe="", errors="surrogatepass")
    shown = redact_url(f"{scheme}://{user}:{password}@{host}{tail}")
    assert shown == f"{scheme}://{user}:***@{host}{tail}"


@given(SCHEMES, USERS, RAW, RAW, HOSTS, TAILS)
@example("amqp", "u", "12/", "", "h", "")
@example("amqp", "u", "12?key=1", "", "h", "/?password=1")
@example("amqp", "u", "x,y://", "", "h", "")
@example("amqp", "u", "x,sqlite:///", "", "h", "")
@example("amqp", "u", "12 password=", "", "h", "")
@example("redis", "", "'", "@", "h", "")
def test_raw_password_of_the_user(scheme: str, user: str, before: str, after: str, host: str, tail: str) -> None:
    hidden(f"{scheme}://{user}:{before}{CANARY}{after}@{host}{tail}")


@given(st.lists(st.tuples(SCHEMES, USERS, TEXT, HOSTS), min_size=1, max_size=4), st.sampled_from([",", ";", ", ", " ; ", "\n"]), TAILS)
def test_lists_of_urls(urls: list[tuple[str, str, str, str]], separator: str, tail: str) -> None:
    hidden(
        separator.join(
            f"{scheme}://{user}:{quote(text + CANARY, safe='', errors='surrogatepass')}@{host}{tail}" for scheme, user, text, host in urls
        )
    )
    scheme, user, _, _ = urls[0]
    hidden(
        f"{scheme}://" + separator.join(f"{user}:{quote(text + CANARY, safe='')}@{host}" for _, user, text, host in urls if text.isascii())
    )
    hidden(f"sqlite:////tmp/a.db{separator}{scheme}://h:1{separator}{scheme}://{user}:{CANARY}@h{tail}")


@given(SCHEMES, HOSTS, KEYS, TEXT, TEXT, st.booleans(), st.sampled_from(["", "x=1&", "x=a%40b&", "email=a@b.c&"]))
def test_encoded_query_parameters(scheme: str, host: str, key: str, before: str, after: str, plus: bool, first: str) -> None:
    value = (quote_plus if plus else quote)((before + CANARY + after).encode("utf-8", "surrogatepass"), safe="")
    hidden(f"{scheme}://{host}/0?{first}{key}={value}&y=2")
    hidden(f"sqlite:///a.db?{first}{key}={value}#f")


# "&" begins another parameter and ";x://" another URL, whoever wrote them.
@given(SCHEMES, HOSTS, KEYS, RAW_VALUES, RAW_VALUES)
@example("redis", "h:1", "password", "se:cret", "@x")
@example("redis", "h", "password", "a@", "#b=c")
def test_raw_query_parameters(scheme: str, host: str, key: str, before: str, after: str) -> None:
    hidden(f"{scheme}://{host}/0?{key}={before}{CANARY}{after}")


@given(SCHEMES, SCHEMES, USERS, TEXT, HOSTS, st.integers(0, 6))
def test_urls_inside_parameters(outer: str, inner: str, user: str, text: str, host: str, times: int) -> None:
    value = f"{inner}://{user}:{quote(text + CANARY, safe='', errors='surrogatepass')}@{host}/0"
    for _ in range(times):
        value = quote(value, safe="")
    hidden(f"{outer}://h/?a=1&store={value}&b=2")
    hidden(f"{outer}://{user}:{CANARY}@h/?store={value}")


@given(KEYS.filter(lambda key: "%" not in key), RAW, RAW, st.sampled_from(["host=h ", "", "user=a@b ", "options='a:b' "]))
def test_quoted_values_of_a_dsn(key: str, before: str, after: str, first: str) -> None:
    value = f"{before}{CANARY}{after}".replace("\\", "\\\\").replace("'", "\\'")
    hidden(f"{first}{key}='{value}' dbname=d")
    hidden(f"{first}{key} = '{value}'")


@given(KEYS, st.text(st.sampled_from("aZ09:/@?#%+-._~!$'\"\\[]()é漢"), max_size=8), st.sampled_from([" ", ";", " ; ", "&"]))
def test_plain_values_of_a_dsn(key: str, text: str, separator: str) -> None:
    hidden(separator.join(["host=h", f"{key}={text}{CANARY}{text}", "dbname=d"]))


# "me://…" is a URL, and its user is shown.
@given(RAW.filter(lambda text: "=" not in text and not text.startswith("//")), RAW.filter(lambda text: "=" not in text), HOSTS)
def test_user_and_password_without_a_scheme(before: str, after: str, host: str) -> None:
    hidden(f"me:{before}{CANARY}{after}@{host}")


@given(st.text(max_size=200) | st.text(st.sampled_from("a:/@?&=;, %253A'\""), max_size=200))
def test_no_text_is_too_odd(text: str) -> None:
    redact_url(text)


@pytest.mark.parametrize("unit", ["a", "a=", "%25", ",a://", " a", ":", "'", "?", "a=a://", "/"])
def test_long_texts_are_no_trouble(unit: str) -> None:
    for prefix in ("", "redis://", "redis://h?x=", "password="):
        begin = time.perf_counter()
        redact_url(prefix + unit * 5_000)
        assert time.perf_counter() - begin < 2
