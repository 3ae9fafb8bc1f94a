"""What log lines say of a job."""

from __future__ import annotations

from uuid import uuid4

from mognet.codec import dumps
from mognet.logs import SHOWN, Marks
from mognet.records import Record
from mognet.states import ResultState


def line(**metadata: object) -> str:
    record = Record(uuid4(), "t", "q", ResultState.RUNNING, 5, 0.0, 0.0, metadata=dumps(metadata))
    return str(Marks(record, metadata.keys()))


def test_values_as_they_are() -> None:
    assert line(a="acme é", b=7, c={"d": [1]}) == ' a=acme é b=7 c={"d":[1]}'
    assert line(a="x" * 500) == f" a={'x' * (SHOWN - 1)}…"


def test_no_value_ends_the_line_or_steers_the_terminal() -> None:
    for value in ("a\nERROR forged", "a\x1b[2J", "a\u2028b", "a\u202eb", {"k": ["\u2028\x9b"]}):
        assert line(a=value).isprintable()
    assert line(a="a\nb") == r" a=a\nb"
