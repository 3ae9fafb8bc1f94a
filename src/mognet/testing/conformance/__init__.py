"""The proof that an engine keeps the laws of :mod:`mognet.engine`: one group of tests per law.

Whoever writes an engine says in a :class:`Harness` how to open it, and lets pytest collect :class:`EngineConformance`::

    import pytest
    from mognet.testing.conformance import APP, EngineConformance, Harness

    class MyHarness(Harness):
        def __init__(self, path):
            self.path = path

        def open(self, app=APP):
            return MyEngine(self.path, app)

    class TestMyEngine(EngineConformance):
        @pytest.fixture
        def harness(self, tmp_path):
            return MyHarness(tmp_path)

It needs pytest, pytest-asyncio and hypothesis. A harness on whose store the clock can be moved says ``fake_clock = True`` and
moves it in ``advance``: then every boundary is tested to the point, and no test sleeps. ``leftovers`` opens the store by other
means than the engine and counts what is there; without it the law *nothing leaks* is only half proved.
:mod:`mognet.testing.machine` goes on from here with random sequences of operations.
"""

from __future__ import annotations

import pytest

for _name in (
    "bench",
    "repeatable",
    "holding",
    "fencing",
    "finality",
    "ordering",
    "content",
    "signals",
    "leaks",
    "cancelling",
    "carrying",
    "trees",
    "counters",
    "deadlines",
    "searching",
    "lifetimes",
    "batches",
    "labelling",
    "changing",
    "returning",
):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")

from mognet.testing.conformance.batches import Apps, Batches  # noqa: E402
from mognet.testing.conformance.bench import APP, Bench, Group, Harness  # noqa: E402
from mognet.testing.conformance.cancelling import Cancelling  # noqa: E402
from mognet.testing.conformance.carrying import Carrying  # noqa: E402
from mognet.testing.conformance.changing import Changing, Logging, Progress, Rerunning  # noqa: E402
from mognet.testing.conformance.content import Content  # noqa: E402
from mognet.testing.conformance.counters import Counters  # noqa: E402
from mognet.testing.conformance.deadlines import Deadlines  # noqa: E402
from mognet.testing.conformance.fencing import Fenced  # noqa: E402
from mognet.testing.conformance.finality import FinalIsFinal  # noqa: E402
from mognet.testing.conformance.holding import OneHolder  # noqa: E402
from mognet.testing.conformance.labelling import Indexing, Labels  # noqa: E402
from mognet.testing.conformance.leaks import NothingLeaks  # noqa: E402
from mognet.testing.conformance.lifetimes import Lifetimes, Sweeping  # noqa: E402
from mognet.testing.conformance.ordering import Clock, Order  # noqa: E402
from mognet.testing.conformance.repeatable import Repeatable  # noqa: E402
from mognet.testing.conformance.returning import Returning  # noqa: E402
from mognet.testing.conformance.searching import Searching  # noqa: E402
from mognet.testing.conformance.signals import Signals, Waiting  # noqa: E402
from mognet.testing.conformance.trees import Trees  # noqa: E402


class EngineConformance(
    Repeatable,
    OneHolder,
    Fenced,
    FinalIsFinal,
    Order,
    Clock,
    Content,
    Signals,
    Waiting,
    NothingLeaks,
    Cancelling,
    Trees,
    Counters,
    Searching,
    Lifetimes,
    Sweeping,
    Batches,
    Apps,
    Carrying,
    Deadlines,
    Changing,
    Returning,
    Progress,
    Rerunning,
    Logging,
    Labels,
    Indexing,
):
    """Every law."""


__all__ = [
    "APP",
    "Apps",
    "Batches",
    "Bench",
    "Cancelling",
    "Carrying",
    "Changing",
    "Clock",
    "Content",
    "Counters",
    "Deadlines",
    "EngineConformance",
    "Fenced",
    "FinalIsFinal",
    "Group",
    "Harness",
    "Indexing",
    "Labels",
    "Lifetimes",
    "Logging",
    "NothingLeaks",
    "OneHolder",
    "Order",
    "Progress",
    "Repeatable",
    "Rerunning",
    "Returning",
    "Searching",
    "Signals",
    "Sweeping",
    "Trees",
    "Waiting",
]
