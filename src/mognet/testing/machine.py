"""Random sequences of operations, on an engine and on a small model side by side: after each step both hold the same.

::

    from mognet.testing.machine import prove

    def test_my_engine_against_the_model(tmp_path):
        numbers = itertools.count()
        prove(lambda: MyHarness(tmp_path / str(next(numbers))))

The harness is that of :mod:`mognet.testing.conformance`. On a clock that cannot be moved, every short lifetime is waited out
at once, and moments are not compared. ``MOGNET_TEST_EXAMPLES`` says how many sequences are tried (60 unless told).
"""

# ruff: noqa: S101
from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from mognet.engine import Engine
from mognet.outcomes import (
    failed,
    invalid,
    merge_metadata,
    paused,
    released,
    rerun,
    resume,
    retry,
    revoke,
    revoked,
    set_progress,
    set_ttl,
    succeeded,
    suspend,
)
from mognet.records import Job, Query, Record, Token
from mognet.states import FINAL, ResultState
from mognet.testing.conformance.bench import Harness
from mognet.testing.model import Kept, Model

T = TypeVar("T")

SHORT, LONG = "short", "long"
IDS = [UUID(int=number << 96 | number) for number in range(1, 9)]
TICK = 1 / 64
"""What passes with each step, so that no two steps happen at the same moment."""

ids = st.sampled_from(IDS)
queues = st.sampled_from([["a", "b"], ["b", "a"], ["a"]])
lengths = st.sampled_from([None, SHORT, LONG])
picks = st.integers(0, 40)
labels = st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9) | st.none() | st.lists(st.integers(0, 9), max_size=1), max_size=2).map(
    lambda value: json.dumps(value).encode()
)
values = st.sampled_from([b"null", b"1", b'"' + b"v" * 5000 + b'"'])
ends = st.sampled_from([succeeded, failed, revoked, invalid])
often = st.sampled_from([True, False])
seldom = st.sampled_from([True, False, False, False])
"""Whether a rule does anything this time, so that the others get more room."""


class EngineMachine(RuleBasedStateMachine):
    """The rules. :func:`prove` gives it a harness."""

    def __init__(self, harness: Harness) -> None:
        super().__init__()
        self.harness = harness
        self.tokens: list[Token] = []
        self.engines: list[Engine] = []
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.waits = False
        self.looked = False

    # the frame

    @initialize(running=st.integers(0, 4))
    def first(self, running: int) -> None:
        """One engine and a small family, partly running, to begin with; the model's time is the engine's."""
        self.reopen()
        self.runner.run(self.engine.submit([Job(IDS[0], "clock", "clock", b"{}")]))
        [record] = self.runner.run(self.engine.get([IDS[0]]))
        assert record is not None
        self.runner.run(self.engine.delete([IDS[0]]))
        self.model = Model(record.created)
        self.at = self.runner.run(self.engine.changes(None)).at
        self.told: dict[UUID, Record] = {}
        self.tick()
        parents = (None, IDS[0], IDS[0], IDS[1])
        jobs = [Job(id, "work", "a", b"0", parent=parent, root=IDS[0]) for id, parent in zip(IDS, parents, strict=False)]
        assert self.do(self.engine.submit(jobs)) == [self.model.submit(job) for job in jobs]
        self.claim(["a"], running, LONG, "n", False)

    def do(self, operation: Coroutine[Any, Any, T]) -> T:
        """One step on the engine, a moment after the last one."""
        if self.harness.fake_clock:
            self.runner.run(self.harness.advance(TICK))
        return self.runner.run(operation)

    def tick(self) -> None:
        """The same moment passes for the model."""
        self.looked = False
        self.model.pass_time(TICK)

    @property
    def engine(self) -> Engine:
        """Whichever engine object was opened last."""
        return self.engines[-1]

    def seconds(self, length: str | None) -> float | None:
        """How long that is."""
        if length == SHORT:
            self.waits = not self.harness.fake_clock
            return self.harness.unit
        return 1e6 if length == LONG else None

    def wait_out(self) -> None:
        """What cannot be seen exactly on a real clock is not looked at before it is over."""
        if self.waits:
            self.waits = False
            self.advance(1)

    def teardown(self) -> None:
        """Delete all, look what is left, and close, also what a crash has left open."""
        try:
            if self.engines and sys.exc_info()[0] is None:
                self.delete(IDS)
                self.sweep()
                assert not any(self.runner.run(self.harness.leftovers()).values())
            self.runner.run(self.stack.aclose())
        finally:
            self.runner.close()

    # time and faults

    @rule(now=often, units=st.sampled_from([0.25, 0.5, 1, 2]))
    def advance(self, units: float, now: bool = True) -> None:
        """Time passes."""
        if not now:
            return
        self.runner.run(self.harness.advance(units * self.harness.unit))
        self.model.pass_time(units * self.harness.unit)
        self.looked = False

    @precondition(lambda self: len(self.engines) < 4)
    @rule(now=seldom)
    def reopen(self, now: bool = True) -> None:
        """The process dies: its engine is never closed in order; another one opens the store."""
        if not now:
            return
        self.looked = False
        self.engines.append(self.runner.run(self.stack.enter_async_context(self.harness.open())))

    @rule(now=seldom)
    def sweep(self, now: bool = True) -> None:
        """Lost jobs come back."""
        if not (now or any(job.token and job.lease_end <= self.model.now for job in self.model.jobs.values())):
            return
        self.tick()
        swept = self.do(self.engine.sweep())
        assert (swept.recovered, swept.more) == (self.model.sweep(), False)

    # the line

    @rule(
        id=ids,
        more=st.lists(ids, max_size=2),
        family=st.none() | picks,
        fenced=st.booleans(),
        queue=st.sampled_from("aab"),
        priority=st.sampled_from([5, 5, 5, 5, 0, 10]),
        delay=st.sampled_from([None, None, SHORT, LONG]),
        metadata=labels,
        ttl=lengths,
    )
    def submit(
        self,
        id: UUID,
        more: list[UUID],
        family: int | None,
        fenced: bool,
        queue: str,
        priority: int,
        delay: str | None,
        metadata: bytes,
        ttl: str | None,
    ) -> None:
        """New jobs and known ones, alone and as children of anything, with and without a parent's token."""
        jobs: list[Job] = []
        for each in [id, *more]:
            below = [parent for parent in IDS if parent < each]
            parent = below[family % len(below)] if family is not None and below else None
            token = next((token for token in reversed(self.tokens) if token.id == parent), None) if fenced and parent else None
            job = Job(each, "work", queue, b'"%d"' % len(jobs), metadata, priority, self.seconds(delay) or 0.0, parent, parent, token)
            jobs.append(job._replace(ttl=self.seconds(ttl)))
        self.tick()
        assert self.do(self.engine.submit(jobs)) == [self.model.submit(job) for job in jobs]
        self.wait_out()

    @rule(
        queues=queues,
        limit=st.sampled_from([1, 2, 9]),
        lease=st.sampled_from([SHORT, LONG, LONG]),
        node=st.sampled_from("nm"),
        narrow=st.booleans(),
    )
    def claim(self, queues: list[str], limit: int, lease: str, node: str, narrow: bool) -> None:
        """The best that are due, in their order."""
        seconds = self.seconds(lease) or 0.0
        self.tick()
        want = [job for job in self.model.due(queues) if not narrow or job.record.id in IDS[::2]][:limit]
        claims = self.do(self.engine.claim(node, queues, limit, lease=seconds, ids=IDS[::2] if narrow else None))
        assert [(claim.token.id, claim.body) for claim in claims] == [(job.record.id, job.body) for job in want]
        for claim in claims:
            self.model.claim(claim, node, seconds)
            self.check_record(claim.record, self.model.jobs[claim.token.id])
            assert claim.token.start == claim.record.starts
            assert claim.token not in self.tokens
            self.tokens.append(claim.token)
        self.wait_out()

    @precondition(lambda self: self.tokens)
    @rule(now=seldom, lease=st.sampled_from([SHORT, LONG]))
    def extend(self, lease: str, now: bool = True) -> None:
        """All tokens that ever were; those that hold their job are answered."""
        if not now:
            return
        seconds = self.seconds(lease) or 0.0
        self.tick()
        held = {token for token in self.tokens if self.model.held(token)}
        assert self.do(self.engine.extend(self.tokens, seconds)) == held
        for token in held:
            self.model.jobs[token.id].lease_end = self.model.now + seconds
        self.wait_out()

    @precondition(lambda self: self.tokens)
    @rule(pick=picks, end=ends, value=values, ttl=lengths, value_ttl=lengths)
    def finish(self, pick: int, end: Callable[..., Any], value: bytes, ttl: str | None, value_ttl: str | None) -> None:
        """A token, new or old, ends its job."""
        self.settle(end(self.token(pick), value, ttl=self.seconds(ttl), value_ttl=self.seconds(value_ttl)))

    @precondition(lambda self: self.tokens)
    @rule(pick=picks, fate=st.sampled_from([retry, paused, released]), delay=lengths)
    def give_back(self, pick: int, fate: Callable[..., Any], delay: str | None) -> None:
        """A token, new or old, puts its job back in line."""
        token = self.token(pick)
        self.settle(released(token) if fate is released else fate(token, self.seconds(delay) or 0.0))

    def settle(self, outcome: Any) -> None:
        """One settle, sent twice."""
        self.tick()
        [record] = self.do(self.engine.settle([outcome]))
        self.check_record(record, self.model.settle(outcome))
        assert self.runner.run(self.engine.settle([outcome])) == [None]
        self.wait_out()

    def token(self, pick: int) -> Token:
        """One of the tokens, rather one that holds its job."""
        held = [token for token in self.tokens if self.model.held(token)]
        tokens = self.tokens if pick % 4 == 0 or not held else held
        return tokens[pick // 4 % len(tokens)]

    # the records

    @precondition(lambda self: self.tokens)
    @rule(pick=picks, change=st.sampled_from([suspend, suspend, resume]))
    def wait_for_children(self, pick: int, change: Callable[..., Any]) -> None:
        """Suspend and resume, by any token."""
        token = self.token(pick)
        self.tick()
        record = self.do(self.engine.update(token.id, change(token)))
        job = self.model.held(token)
        if job is not None:
            self.model.change(job, change(token).state)
        self.check_record(record, job)

    @rule(now=seldom, id=ids | st.just(IDS[0]), force=st.booleans(), ttl=lengths)
    def revoke(self, id: UUID, force: bool, ttl: str | None, now: bool = True) -> None:
        """A job with all its descendants, or a tombstone."""
        if not now:
            return
        seconds = self.seconds(ttl)
        self.tick()
        record = self.do(self.engine.update(id, revoke(ttl=seconds), unless=() if force else FINAL))
        self.model.revoke(id, seconds, force=force)
        self.check_record(record, self.model.jobs[id])
        self.wait_out()

    @rule(now=often, id=ids, pick=st.none() | picks, metadata=labels, force=st.booleans())
    def label(self, id: UUID, pick: int | None, metadata: bytes, force: bool, now: bool = True) -> None:
        """Anyone merges labels; an attempt, new or old, those of its job."""
        if not now:
            return
        token = None if pick is None or not self.tokens else self.token(pick)
        id = token.id if token else id
        self.tick()
        record = self.do(self.engine.update(id, merge_metadata(metadata, token), unless=() if force else FINAL))
        job = self.model.held(token) if token else self.model.jobs.get(id)
        if job is not None and (force or not job.record.done):
            self.model.merge(job, metadata)
        self.check_record(record, job)

    @rule(now=often, id=ids, body=st.sampled_from([b"1", b"2"]), force=st.booleans(), metadata=labels)
    def rerun(self, id: UUID, body: bytes, force: bool, metadata: bytes, now: bool = True) -> None:
        """What ended without a value runs again."""
        if not now:
            return
        self.tick()
        record = self.do(self.engine.update(id, rerun(body, metadata=metadata), unless=() if force else FINAL))
        if force:
            self.model.rerun(id, body, metadata)
        self.check_record(record, self.model.jobs.get(id))

    @precondition(lambda self: self.tokens)
    @rule(pick=picks, progress=st.sampled_from([b"1", b"2"]))
    def progress(self, pick: int, progress: bytes) -> None:
        """An attempt, new or old, says how far it is."""
        token = self.token(pick)
        self.tick()
        record = self.do(self.engine.update(token.id, set_progress(token, progress)))
        job = self.model.held(token)
        if job is not None:
            job.record = job.record._replace(progress=progress)
        self.check_record(record, job)

    @rule(now=seldom, limit=st.sampled_from([1, 3, 1000]))
    def read_changes(self, limit: int, now: bool = True) -> None:
        """Every job that is not as it was when this was read last is told, as it is now."""
        if not now:
            return
        start = self.at
        told, self.at = self.read_on(start, Query(), limit)
        tree = {id: record for id, record in told.items() if IDS[0] in (id, record.root)}
        one = {id: record for id, record in told.items() if id == IDS[1]}
        for query, some in ((Query(root=IDS[0]), tree), (Query(id_prefix=IDS[1].hex), one)) if not self.waits else ():
            assert self.read_on(start, query, limit)[0] == some
        present = {id: self.plain(job.record) for id, job in self.model.jobs.items()}
        assert told == {id: present[id] for id in told}
        unlike = {id for id, record in present.items() if _seen(record) != _seen(self.told.get(id))}
        assert unlike <= told.keys()
        self.told = present

    def read_on(self, at: str, query: Query, limit: int) -> tuple[dict[UUID, Record], str]:
        """What has changed since then, and from where to go on."""
        told: dict[UUID, Record] = {}
        more = True
        while more:
            changes = self.runner.run(self.engine.changes(at, query, limit=limit))
            assert not changes.lost
            told |= {changed.record.id: self.plain(changed.record) for changed in changes.changed}
            at, more = changes.at, changes.more
        return told, at

    @rule(now=seldom, id=ids, ttl=st.sampled_from([SHORT, LONG]))
    def set_ttl(self, id: UUID, ttl: str, now: bool = True) -> None:
        """A lifetime set by hand, before the end or after it."""
        if not now:
            return
        seconds = self.seconds(ttl) or 0.0
        self.tick()
        record = self.do(self.engine.update(id, set_ttl(seconds), unless=()))
        job = self.model.jobs.get(id)
        if job is not None:
            job.record = job.record._replace(ttl=seconds)
            if job.record.done:
                self.model.limit(job, seconds, seconds)
        self.check_record(record, job)
        self.wait_out()

    @rule(now=seldom, chosen=st.lists(ids, min_size=1, max_size=2))
    def delete(self, chosen: list[UUID], now: bool = True) -> None:
        """Records go."""
        if not now:
            return
        self.tick()
        gone = {id for id in chosen if self.model.jobs.pop(id, None)}
        assert self.do(self.engine.delete(chosen)) == len(gone)

    # notes

    @precondition(lambda self: self.tokens)
    @rule(pick=picks, changes=st.dictionaries(st.sampled_from("kl"), st.sampled_from([b"1", b"2", None])), ttl=lengths)
    def save(self, pick: int, changes: dict[str, bytes | None], ttl: str | None) -> None:
        """An attempt, new or old, saves notes."""
        token, seconds = self.token(pick), self.seconds(ttl)
        self.tick()
        answer = self.do(self.engine.save(token, changes, ttl=seconds))
        job = self.model.held(token)
        if job is None:
            assert answer is None
        else:
            assert answer == {key: job.notes[key] for key in changes if key in job.notes}
            job.notes = {key: value for key, value in {**job.notes, **changes}.items() if value is not None}
            job.notes_expire = None if seconds is None else self.model.now + seconds
        self.wait_out()

    @precondition(lambda self: self.tokens)
    @rule(now=often, pick=picks)
    def load(self, pick: int, now: bool = True) -> None:
        """An attempt, new or old, reads its notes."""
        if not now:
            return
        token = self.token(pick)
        self.tick()
        job = self.model.held(token)
        assert self.do(self.engine.load(token)) == (job.notes if job else {})

    # what has to be equal

    def check_record(self, record: Record | None, job: Kept | None) -> None:
        """A record of the engine is that of the model."""
        assert (record is None) == (job is None)
        if record is not None and job is not None:
            assert self.plain(record) == self.plain(job.record)

    def plain(self, record: Record) -> Record:
        """What can be compared: moments only on a clock that stands still."""
        if not self.harness.fake_clock:
            started, finished, expires = (None if moment is None else 0.0 for moment in (record.started, record.finished, record.expires))
            record = record._replace(created=0.0, due=0.0, started=started, finished=finished, expires=expires)
        metadata = json.dumps(json.loads(record.metadata), sort_keys=True).encode()
        return record._replace(metadata=metadata, root=record.root or record.id, place=0)

    @invariant()
    def all_records(self) -> None:
        """Every record and value is that of the model, and there are no others."""
        if not self.engines or self.looked:
            return
        self.looked = True
        jobs = [self.model.jobs.get(id) for id in IDS]
        for record, job in zip(self.runner.run(self.engine.get(IDS)), jobs, strict=True):
            self.check_record(record, job)
            if job is not None and job.record.done:
                assert self.runner.run(self.engine.value(job.record.id)) == job.value
        counted = Counter(str(job.record.state) for job in jobs if job is not None)
        assert self.runner.run(self.engine.count(Query())) == counted

    @rule(now=seldom, state=st.sampled_from(ResultState), parent=st.none() | ids)
    def search(self, state: ResultState, parent: UUID | None, now: bool = True) -> None:
        """Who stands in a state, of all or of one family."""
        if not now:
            return
        query = Query(states=frozenset({state}), parent=parent)
        jobs = [job.record for job in self.model.jobs.values() if job.record.state is state]
        assert self.runner.run(self.found(query)) == {record.id for record in jobs if parent in (None, record.parent)}

    async def found(self, query: Query) -> set[UUID]:
        """The ids that a search finds."""
        return {record.id async for record in self.engine.search(query)}


def _seen(record: Record | None) -> Record | None:
    """What a watcher wants to know of a record: not how long it lives."""
    return record and record._replace(ttl=None, expires=None)


def prove(make_harness: Callable[[], Harness], *, examples: int | None = None, steps: int = 60, once: bool = False) -> None:
    """Hold an engine against the model, in many sequences, each with a harness of its own.

    With ``CI=true`` they are the same each time. ``once`` takes those too, and stops at the first that fails, without a search for a
    shorter one.
    """
    phases = [Phase.generate] if once else [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
    options = settings(
        max_examples=examples or int(os.environ.get("MOGNET_TEST_EXAMPLES", "60")),
        stateful_step_count=steps,
        derandomize=once or os.environ.get("CI") == "true",
        deadline=None,
        print_blob=True,
        phases=phases,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(lambda: EngineMachine(make_harness()), settings=options)  # type: ignore[arg-type] # any factory will do
