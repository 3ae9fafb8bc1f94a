"""Log entries as they are stored and read."""

from __future__ import annotations

import logging

from hypothesis import given
from hypothesis import strategies as st

from mognet.entries import MAX_TEXT, MAX_TRACE, pack, pack_record, read_entry
from mognet.records import LogLine


def test_a_record_whose_arguments_do_not_fit_is_kept() -> None:
    record = logging.LogRecord("mine", logging.INFO, "f.py", 1, "wrong %d", ("text",), None)
    assert read_entry(LogLine(1, pack_record(record))).message == "'wrong %d' with arguments that do not fit"


@given(st.text(), st.text(max_size=20), st.none() | st.text())
def test_whatever_is_logged_comes_back(message: str, level: str, exception: str | None) -> None:
    entry = read_entry(LogLine(3, pack(12.5, level, "mine", message, exception)))
    assert (entry.number, entry.time.timestamp(), entry.level, entry.logger) == (3, 12.5, level, "mine")
    assert (entry.message, entry.exception) == (message, exception)


def test_entries_are_bounded() -> None:
    line = pack(0.0, "INFO" * 100, "l" * 1000, "m" * 10_000, "t" * 100_000)
    assert len(line) < MAX_TEXT + MAX_TRACE + 400
    assert read_entry(LogLine(1, line)).message == "m" * (MAX_TEXT - 1) + "…"


@given(st.binary())
def test_what_is_no_entry_is_shown_as_text(data: bytes) -> None:
    assert isinstance(read_entry(LogLine(1, data)).message, str)
