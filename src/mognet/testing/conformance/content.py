"""Bytes in = bytes out: bodies, values, notes and signals come back as they were; metadata as an equal JSON object."""

# ruff: noqa: S101
from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mognet.codec import dump_metadata, loads
from mognet.engine import DONE, SMALL_VALUE
from mognet.outcomes import failed, merge_metadata, released, succeeded
from mognet.records import Job, Query
from mognet.states import ResultState
from mognet.testing.conformance.bench import LONG, Bench, Group, labels, make_job, plain

TEXTS = [
    b"null",
    b"{}",
    b"[]",
    b'""',
    b"",
    b' { "a" :\t1 }\r\n',
    b'{"b":1,"a":2,"a":3}',
    b'"\\u0000"',
    b'"\\ud800"',
    b'["\\ud83d\\ude00","\\udfff\\ud800"]',
    '"ß 漢字 \N{GRINNING FACE} \u202e \u2028"'.encode(),
    b'"it\'s \\"quoted\\" %s {} ${x} \\\\ ; DROP TABLE jobs; --"',
    b"-0.0",
    b"1e400",
    b"1" * 5000,
    b"[" * 500 + b"]" * 500,
    b'"' + b"x" * 300_000 + b'"',
    b"true\n",
]
"""JSON texts that have hurt somewhere: in a column that understands JSON, a text protocol, a format string, a number type."""

NAMES = [
    "a.b:c",
    "it's",
    'say "hi"',
    "100%s %(x)s",
    "{0} {x}",
    "a*b?c[d]",
    "semi;colon--",
    "back\\slash",
    "new\nline\ttab",
    " space ",
    "$dollar#hash",
    "ß漢字",
    "\N{GRINNING FACE}",
    "A",
    "a",
    "x" * 200,
    "null",
    "../up",
]
"""Names that are to be taken literally."""

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
json_texts = st.one_of(
    json_values.map(lambda value: json.dumps(value).encode()),
    json_values.map(lambda value: json.dumps(value, ensure_ascii=False, indent=1).encode()),
    st.sampled_from(TEXTS),
)
clean = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
metadata_objects: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    clean,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e15, 1e15) | clean,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(clean, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=5,
)
some_examples = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors, HealthCheck.too_slow],
)


class Content(Group):
    """The law *bytes in = bytes out*."""

    async def keeps(self, bench: Bench, texts: list[bytes]) -> None:
        """Every text comes back as body, value, error and note."""
        engine, queue = bench.engine, "content"
        jobs = await bench.submit(*(make_job(queue=queue, body=text) for text in texts))
        claims = await bench.take(len(jobs), [queue])
        assert [claim.body for claim in claims] == texts
        for claim, text in zip(claims, texts, strict=True):
            assert await engine.save(claim.token, {"note": text, "other": b"1"}) == {}
            assert await engine.load(claim.token) == {"note": text, "other": b"1"}
            assert await engine.save(claim.token, {"note": b"2", "other": None}) == {"note": text, "other": b"1"}
        ends = [
            (succeeded if number % 2 else failed)(claim.token, text) for number, (claim, text) in enumerate(zip(claims, texts, strict=True))
        ]
        assert None not in await engine.settle(ends)
        assert [await engine.value(claim.token.id) for claim in claims] == texts
        await engine.delete([job.id for job in jobs])

    async def test_strange_texts(self, bench: Bench) -> None:
        """JSON texts that hurt elsewhere are kept to the byte."""
        await self.keeps(bench, TEXTS)

    @some_examples
    @given(texts=st.lists(json_texts, min_size=1, max_size=6))
    async def test_any_text(self, bench: Bench, texts: list[bytes]) -> None:
        """Any JSON text is kept to the byte."""
        await self.keeps(bench, texts)

    async def test_a_body_outlives_every_attempt(self, bench: Bench) -> None:
        """The body is the same at each claim: after a hand-back, and after a crash."""
        body = '{"v":1,"args":["\\u0000 ß"]}'.encode()
        claim = await bench.start(body=body)
        await bench.settle(released(claim.token))
        [claim] = await bench.take(1)
        assert claim.body == body
        await bench.crash(claim)
        [claim] = await bench.take(1)
        assert claim.body == body

    async def test_a_large_value(self, bench: Bench) -> None:
        """Bodies and values of some megabytes."""
        text = b'"' + bytes(range(0x30, 0x50)).replace(b'"', b"") * 100_000 + b'"'
        await self.keeps(bench, [text])

    async def test_strange_names(self, bench: Bench) -> None:
        """Queues, task names, labels, nodes, keys of notes and channels are taken literally."""
        engine = bench.engine
        for name in NAMES:
            job = make_job(name=name, queue=name, label=name)
            await bench.submit(job)
            [claim] = await bench.take(1, [name], node=name)
            record = claim.record
            assert (record.name, record.queue, record.label, record.node) == (name, name, name, name)
            assert plain(await bench.record(job.id)) == plain(record)
            assert await engine.save(claim.token, {name: b"1", name + "2": b"2"}) == {}
            assert await engine.load(claim.token) == {name: b"1", name + "2": b"2"}
        for name in NAMES:
            for query in (Query(name=name), Query(queue=name), Query(node=name)):
                assert [(record.name, record.queue) for record in await bench.search(query)] == [(name, name)]
        assert await engine.count(Query(), by="queue") == await engine.count(Query(), by="name") == dict.fromkeys(NAMES, 1)

    async def test_strange_channels(self, bench: Bench) -> None:
        """A channel's name is taken literally: each signal arrives on its own, and with its body as it was."""
        async with bench.engine.subscribe(*NAMES) as signals:
            for number, name in enumerate(NAMES):
                text = TEXTS[number % len(TEXTS)][:4000]
                await bench.engine.publish(name, text)
                signal = await bench.heard(signals, lambda signal, name=name: signal.channel == name)  # type: ignore[misc]
                assert signal.body == text

    async def test_every_field_of_a_job(self, bench: Bench) -> None:
        """All that a job says stands in its record."""
        id, parent, root = (UUID(int=n) for n in (2**127 + 1, 0, 2**128 - 1))
        job = Job(id, "n", "q", b'"b"', b'{"m":[1,{"x":null}]}', 0, 0.25, parent, root, None, "l", 12.5)
        await bench.submit(job)
        record = await bench.record(id)
        assert record[:5] == (id, "n", "q", ResultState.PENDING, 0)
        assert (record.parent, record.root, record.label, record.attempt, record.starts, record.stops) == (parent, root, "l", 1, 0, 0)
        assert (record.started, record.finished, record.node, record.ttl, record.expires) == (None, None, None, None, None)
        assert labels(record) == {"m": [1, {"x": None}]}
        assert isinstance(record.state, ResultState)
        assert isinstance(record.metadata, bytes)
        assert not record.done

    async def test_the_default_root(self, bench: Bench) -> None:
        """A job without a root is the top of its own tree."""
        [job] = await bench.add()
        assert (await bench.record(job.id)).root in (None, job.id)
        assert [record.id for record in await bench.search(Query(root=job.id))] == [job.id]

    @some_examples
    @given(first=metadata_objects, second=metadata_objects)
    async def test_any_metadata(self, bench: Bench, first: dict[str, Any], second: dict[str, Any]) -> None:
        """Metadata comes back as an equal object, and a merge puts the new keys over the old, one by one, not deeper."""
        [job] = await bench.add(metadata=dump_metadata(first))
        assert same(labels(await bench.record(job.id)), first)
        answer = await bench.engine.update(job.id, merge_metadata(dump_metadata(second)))
        assert answer is not None
        assert same(labels(answer), {**first, **second})
        assert same(labels(await bench.record(job.id)), {**first, **second})
        [claim] = await bench.take(1)
        assert same(labels(claim.record), {**first, **second})

    async def test_a_merge_is_not_deep(self, bench: Bench) -> None:
        """A key's new value takes the old one's place as a whole, null included; nothing is removed."""
        [job] = await bench.add(metadata=b'{"a":{"x":1,"y":2},"b":1,"c":[1,2],"":0}')
        answer = await bench.engine.update(job.id, merge_metadata(b'{"a":{"z":3},"b":null,"c":[],"d.e":{"f":1}}'))
        assert answer is not None
        assert labels(answer) == {"a": {"z": 3}, "b": None, "c": [], "d.e": {"f": 1}, "": 0}

    async def test_numbers_in_metadata(self, bench: Bench) -> None:
        """Large integers, small fractions, true and 1 stay what they are, also when other keys are merged."""
        numbers = {"big": 2**63, "huge": 10**40, "negative": -(2**70), "fraction": 0.1, "tiny": 5e-324, "one": 1, "float": 1.0, "yes": True}
        [job] = await bench.add(metadata=dump_metadata(numbers))
        answer = await bench.engine.update(job.id, merge_metadata(b'{"other":1}'))
        assert answer is not None
        assert same(labels(answer), {**numbers, "other": 1})

    async def test_a_done_signal_carries_any_text(self, bench: Bench) -> None:
        """Small values travel along with DONE as they were."""
        async with bench.engine.subscribe(DONE) as signals:
            for text in TEXTS:
                if len(text) <= SMALL_VALUE:
                    record = await bench.ended(value=text)
                    assert await bench.done(signals, record.id) == (record, text)

    async def test_nothing_is_executed_or_expanded(self, bench: Bench) -> None:
        """Ids are matched as ids: a job's text never selects another job."""
        [one] = await bench.add(name="%", queue="%")
        [two] = await bench.add(name="_", queue="_")
        assert [record.id for record in await bench.search(Query(name="%"))] == [one.id]
        assert [record.id for record in await bench.search(Query(queue="_"))] == [two.id]
        assert await bench.search(Query(id_prefix="%")) == []
        claims = await bench.engine.claim("node", ["%"], 9, lease=LONG)
        assert [claim.token.id for claim in claims] == [one.id]


def same(one: object, other: object) -> bool:
    """Whether two JSON values are equal, and numbers of the same kind."""
    return json.dumps(one, sort_keys=True) == json.dumps(loads(json.dumps(other).encode()), sort_keys=True)
