"""Headers come from anybody: what is named and well formed is taken, all else is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mognet
from mognet.codec import dump_metadata, loads
from mognet.exceptions import ImproperlyConfigured
from mognet.http import MAX_BAGGAGE, MAX_VALUE, MetadataMiddleware, outgoing_headers, read_baggage
from mognet.scope import scope_metadata, scope_trace, trace

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def taken(headers: Sequence[tuple[bytes, bytes]], /, **options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """What a request with these headers puts into the scope."""
    seen: list[tuple[dict[str, Any], dict[str, str]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((dict(scope_metadata()), dict(scope_trace())))

    async def wires(*_: Any) -> Any: ...

    asyncio.run(MetadataMiddleware(app, **options)({"type": "http", "headers": list(headers)}, wires, wires))
    return seen[0]


def labels(value: bytes) -> dict[str, Any]:
    return taken([(b"x-tenant", value)], headers={"X-Tenant": "tenant"})[0]


def test_named_headers() -> None:
    assert labels(b"acme") == {"tenant": "acme"}
    assert labels("Zoë & söhne".encode()) == {"tenant": "Zoë & söhne"}
    assert labels(b"  acme ") == {"tenant": "acme"}
    assert taken([(b"x-other", b"1")], headers={"X-Tenant": "tenant"})[0] == {}


@pytest.mark.parametrize("value", [b"", b"a\x00b", b"a\nb", b"\x1b[31m", b"\xff\xfe", b"x" * (MAX_VALUE + 1), "a\u202eb".encode(), b" "])
def test_hostile_values_are_left_out(value: bytes) -> None:
    assert labels(value) == {}


def test_of_headers_that_differ_none_is_taken() -> None:
    twice = [(b"x-tenant", b"a"), (b"X-Tenant", b"b")]
    assert taken(twice, headers={"X-Tenant": "tenant"})[0] == {}
    assert taken([twice[0], twice[0], (b"x-tenant", b" a")], headers={"X-Tenant": "tenant"})[0] == {"tenant": "a"}
    for spoilt in (b"\xff", b"b" * 300, b""):
        assert taken([twice[0], (b"x-tenant", spoilt)], headers={"X-Tenant": "tenant"})[0] == {}


def test_baggage_by_the_specification() -> None:
    line = " key1 = value1 ; prop=1;p2 ,key2=a%2Cb%20c%C3%A9,key3=%FF,key4,=x,key1=again,evil=1"
    assert read_baggage(line, {"key1", "key2", "key3", "key4"}) == {"key2": "a,b cé"}, "of two that differ, neither"
    assert read_baggage("a=1,b=%ff,a=1,b=2,a=%31", {"a", "b"}) == {"a": "1"}
    assert read_baggage("k=" + "v" * MAX_BAGGAGE, {"k"}) == {}
    assert read_baggage("a=1,b=\ud800,a=\udcff", {"a", "b"}) == {}
    assert read_baggage("k=%0d%0aSet-Cookie", {"k"}) == {}
    assert taken([(b"baggage", b"a=1"), (b"baggage", b"b=2")], baggage={"a", "b"})[0] == {"a": "1", "b": "2"}


def test_a_header_goes_before_baggage() -> None:
    both = [(b"baggage", b"tenant=bag"), (b"x-tenant", b"head")]
    assert taken(both, headers={"X-Tenant": "tenant"}, baggage={"tenant"})[0] == {"tenant": "head"}
    for spoilt in (b"other", b"\xff", b"\0"):  # added by somebody who also chose the baggage
        assert taken([*both, (b"x-tenant", spoilt)], headers={"X-Tenant": "tenant"}, baggage={"tenant"})[0] == {}


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        b"00",
        PARENT.upper(),
        PARENT + b"-more",
        b"01" + PARENT[2:] + b"-\n",
        b"ff" + PARENT[2:],
        b"00-" + b"0" * 32 + PARENT[35:],
        PARENT[:36] + b"0" * 16 + b"-01",
    ],
)
def test_a_malformed_trace_is_left_out(parent: bytes) -> None:
    assert taken([(b"traceparent", parent), (b"tracestate", b"a=1")])[1] == {}


def test_trace_context() -> None:
    assert taken([(b"traceparent", PARENT), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")])[1] == {
        "traceparent": PARENT.decode(),
        "tracestate": "a=1,b=2",
    }
    later = b"01" + PARENT[2:] + b"-more"  # versions to come have at least what is known now, and may have more
    assert taken([(b"traceparent", later)])[1] == {"traceparent": later.decode()}
    assert taken([(b"traceparent", PARENT), (b"traceparent", PARENT)])[1] == {}
    assert taken([(b"traceparent", PARENT), (b"tracestate", b"\x00")])[1] == {"traceparent": PARENT.decode()}


@given(st.lists(st.tuples(st.sampled_from([b"x-tenant", b"baggage", b"traceparent", b"tracestate", b"\xff"]), st.binary(max_size=80))))
def test_whatever_comes_can_be_stored(headers: list[tuple[bytes, bytes]]) -> None:
    found, trace = taken(headers, headers={"x-tenant": "tenant"}, baggage={"a", "tenant"})
    dump_metadata(found)
    assert found.keys() <= {"tenant", "a"}
    assert trace.keys() <= {"traceparent", "tracestate"}


@given(st.dictionaries(st.sampled_from(["tenant", "user"]), st.text(min_size=1, max_size=60).filter(str.isprintable)))
def test_what_goes_out_comes_in(metadata: dict[str, str]) -> None:
    with mognet.metadata(metadata):
        out = outgoing_headers(baggage={"tenant", "user"})
    came = taken([(name.encode(), value.encode()) for name, value in out.items()], baggage={"tenant", "user"})[0]
    assert came == metadata


def test_only_named_and_plain_keys_go_out() -> None:
    with mognet.metadata(tenant="acme", secret="s", number=5, flag=True, deep={"a": 1}, none=None, line="a\nb", uni="é"):
        assert outgoing_headers() == {}
        assert outgoing_headers(headers={"X-Tenant": "tenant", "X-Line": "line", "X-Uni": "uni"}) == {"X-Tenant": "acme"}
        assert outgoing_headers(baggage={"number", "flag", "deep", "none", "line"}) == {"baggage": "flag=true,line=a%0Ab,number=5"}


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"bad name": "x"}},
        {"headers": {"a\r\n": "x"}},
        {"baggage": {"a b"}},
        {"baggage": {"a=b"}},
        {"baggage": "tenant"},
        {"baggage": [5]},
        {"headers": "X-Tenant"},
        {"headers": ["X-Tenant"]},
        {"headers": {5: "x"}},
        {"headers": {"": "x"}},
    ],
)
def test_bad_names_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured):
        taken([], **options)
    with pytest.raises(ImproperlyConfigured):
        outgoing_headers(**options)


@pytest.mark.parametrize("key", [5, None, "a\0", "\ud800"])
def test_keys_that_no_job_could_have_are_refused_at_once(key: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="is no key of metadata"):
        taken([], headers={"X-Tenant": key})


def test_what_a_stored_call_carries_goes_out_only_as_trace_context() -> None:
    """A job's trace comes from the store, and from whoever wrote there."""
    good = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "a=b"}
    with trace(good | {"authorization": "x"}):
        assert outgoing_headers() == good
    with trace({"traceparent": "x\r\nInjected: 1", "tracestate": "a=b"}):
        assert outgoing_headers() == {}
    with trace({"traceparent": good["traceparent"], "tracestate": "a=b\r\nInjected: 1"}):
        assert outgoing_headers() == {"traceparent": good["traceparent"]}


class Plan(str, Enum):  # noqa: UP042 - unlike a StrEnum, it is printed by its name
    FREE = "free"


@pytest.mark.parametrize("value", [Plan.FREE, UUID(int=5), date(2026, 1, 2), 1.5])
def test_what_goes_out_is_what_a_job_would_have(value: Any) -> None:
    stored = str(loads(dump_metadata({"value": value}))["value"])
    with mognet.metadata(value=value):
        assert outgoing_headers(headers={"X-Value": "value"}, baggage={"value"}) == {"X-Value": stored, "baggage": f"value={stored}"}


@pytest.mark.parametrize("value", [10**5000, float("nan")], ids=["digits", "nan"])
def test_what_no_job_could_have_does_not_go_out(value: Any) -> None:
    with mognet.metadata(value=value):
        assert outgoing_headers(headers={"X-Value": "value"}, baggage={"value"}) == {}


def test_text_that_is_none_does_not_go_out() -> None:
    with mognet.metadata(t="\ud800"):
        assert outgoing_headers(headers={"X-T": "t"}, baggage={"t"}) == {}
