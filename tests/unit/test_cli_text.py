"""What is shown can steer no terminal."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime, timedelta

import pytest

from mognet.cli.display import Column, Lines, Sheet, Span, console, last_of
from mognet.cli.failures import CommandError, report
from mognet.cli.logsetup import TEXT, JSONFormatter, SafeFormatter
from mognet.cli.text import age, clean, clean_lines, json_text, plural, span

NASTY = {
    "hyperlink": "\x1b]8;;http://evil.example\x07click\x1b]8;;\x07",
    "clipboard": "\x1b]52;c;aGVsbG8=\x07",
    "clipboard, C1": "\x9d52;c;aGVsbG8=\x9c",
    "colour": "\x1b[31mred\x1b[0m",
    "C1 colour": "\x9b31mred",
    "overwrite": "harmless\rDELETED",
    "new line": "one\ntwo\r\nthree\x0bfour\x0cfive\x85six\u2028seven",
    "backspace": "abc\b\b\bxyz",
    "bell and NUL": "\x07\x00",
    "right to left": "\u202egnp.exe\u202c \u2066x\u2069 \u200f \u061c",
    "tags": "\U000e0041\U000e007f",
    "half a pair": "\ud800",
    "delete": "\x7f",
}
FORBIDDEN = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *"\u202e\u202c\u2066\u2069\u200f\u061c\u2028\U000e0041\ud800"}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
class TestNastyText:
    def test_clean_leaves_no_control_character(self, text: str) -> None:
        assert not FORBIDDEN & set(clean(text))

    def test_json_is_escaped_and_reads_back_equal(self, text: str) -> None:
        for indent in (None, 2):
            shown = json_text({"key " + text: [text]}, indent=indent)
            assert not (FORBIDDEN - {"\n"}) & set(shown)
            assert json.loads(shown) == {"key " + text: [text]}
        assert "\n" not in json_text(text)

    def test_plain_tables_and_lines(self, text: str) -> None:
        sheet = Sheet([Column("A"), Column("B")], [[text, Span(text, "red")]])
        assert not (FORBIDDEN - {"\n"}) & set(sheet.plain())
        assert sheet.plain().count("\n") == 1
        assert not FORBIDDEN & set(Lines([[text, Span(text)]]).plain())

    def test_rich_tables_and_lines(self, text: str) -> None:
        screen = console(color=False)
        for view in (Sheet([Column("A", shrink=True), Column("B")], [[text, "b"]]), Lines([[text, "b"]])):
            with screen.capture() as captured:
                screen.print(view.rich(80))
            assert not (FORBIDDEN - {"\n"}) & set(captured.get())

    def test_log_text(self, text: str) -> None:
        record = logging.LogRecord("name" + text, logging.INFO, "path", 1, "message %s", (text,), None)
        shown = SafeFormatter(TEXT).format(record)
        assert not FORBIDDEN & set(shown)
        assert not FORBIDDEN & set(SafeFormatter("%(name)s %(args)s %(message)s").format(record))

    def test_log_traceback_cannot_look_like_a_record(self, text: str) -> None:
        try:
            raise ValueError(text + "\n12:00:00 INFO mognet: all is well")
        except ValueError:
            record = logging.LogRecord("name", logging.ERROR, "path", 1, "failed", (), sys.exc_info())
        first, *more = SafeFormatter(TEXT).format(record).split("\n")
        assert first.endswith("failed")
        assert all(line.startswith("    ") for line in more)
        assert not (FORBIDDEN - {"\n"}) & set("".join(more))

    def test_log_json(self, text: str) -> None:
        record = logging.LogRecord("name", logging.INFO, "path", 1, "message %s", (text,), None)
        record.more = text
        shown = JSONFormatter().format(record)
        assert not FORBIDDEN & set(shown)
        assert json.loads(shown)["message"] == f"message {text}"
        assert json.loads(shown)["more"] == text

    def test_error_messages(self, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert report(CommandError(f"no {text}", 3, details=(text,)), debug=False) == 3
        assert report(RuntimeError(text), debug=True) == 1
        assert not (FORBIDDEN - {"\n"}) & set(capsys.readouterr().err)


def test_clean_keeps_words_apart_and_other_languages_whole() -> None:
    assert clean("a\r\nb\tc") == "a b c"
    assert clean("Grüße 世界 👩‍🍳 שלום") == "Grüße 世界 👩‍🍳 שלום"
    assert clean_lines("a\n  b\x1b[0m") == ["a", "  b"]
    assert clean("\x1b[1;31mred\x1b[m \x1b[38:2::1:2:3mrgb") == "red rgb"
    assert clean("\x1b[2Jx") == "[2Jx"


def test_markup_and_emoji_codes_are_no_commands() -> None:
    screen = console(color=True)
    with screen.capture() as captured:
        screen.print(Lines([["[red]x[/red] :smile: [/]"]]).rich(80))
    assert captured.get() == "[red]x[/red] :smile: [/]\n"


def test_json_log_has_the_job_and_the_exception() -> None:
    record = logging.LogRecord("mognet.task", logging.INFO, "path", 1, "started", (), None)
    record.task_id, record.task, record.attempt = "1", "cook", 2
    data = json.loads(JSONFormatter().format(record))
    assert (data["level"], data["logger"], data["task_id"], data["task"], data["attempt"]) == ("INFO", "mognet.task", "1", "cook", 2)
    assert datetime.fromisoformat(data["time"]).tzinfo is not None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, ""),
        (-1, "0 ms"),
        (0.006, "6 ms"),
        (0.3, "0.3 s"),
        (5, "5.0 s"),
        (31.4, "31 s"),
        (65, "1 min 5 s"),
        (7380, "2 h 3 min"),
        (timedelta(days=3, hours=4), "3 d 4 h"),
    ],
)
def test_span(seconds: float | timedelta | None, shown: str) -> None:
    assert span(seconds) == shown


def test_age_and_plural() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert [age(now - timedelta(seconds=s), now) for s in (3, 119, 7300, 200_000)] == ["3 s", "1 min", "2 h", "2 d"]
    assert age(None) == ""
    assert (plural(1, "job"), plural(1200, "job")) == ("1 job", "1,200 jobs")


class TestTables:
    sheet = Sheet(
        [Column("ID"), Column("TASK", shrink=True), Column("AGE", right=True), Column("NOTE", shrink=True)],
        [["0123abcd", "shop.mail.send", "5 s", "x" * 100], ["0123abce", "b", "12 min", ""]],
    )

    def test_a_pipe_gets_everything(self) -> None:
        lines = self.sheet.plain().split("\n")
        assert lines[0] == "ID        TASK               AGE  NOTE"
        assert lines[1] == "0123abcd  shop.mail.send     5 s  " + "x" * 100
        assert lines[2] == "0123abce  b               12 min"

    def test_in_a_terminal_the_widest_gives_way_and_no_column_is_lost(self) -> None:
        screen = console(color=False)
        screen.width = 80
        with screen.capture() as captured:
            screen.print(self.sheet.rich(80))
        header, first, *_ = captured.get().split("\n")
        assert header.split() == ["ID", "TASK", "AGE", "NOTE"]
        assert first.startswith("0123abcd  shop.mail.send     5 s  xxx")
        assert len(first.rstrip()) <= 80
        assert first.rstrip().endswith("…")

    def test_columns_stand_below_each_other_whatever_the_script(self) -> None:
        sheet = Sheet(
            [Column("TASK"), Column("N", right=True), Column("AGE")],
            [["日本語", "1", "a"], ["e\u0301té", "世", "b"], ["abcdefg", "10", "c"]],
        )
        lines = sheet.plain().split("\n")
        assert lines == ["TASK      N  AGE", "日本語    1  a", "e\u0301té      世  b", "abcdefg  10  c"]

    def test_the_end_of_a_name_is_what_is_kept(self) -> None:
        assert last_of("shop.pack", 9) == "shop.pack"
        assert last_of("shop.pack", 6) == "….pack"
        assert last_of("日本語のタスク", 6) == "…スク"
        assert last_of("日本", 1) == "…"

    def test_a_line_that_is_cut_cuts_the_beginning_of_the_name(self) -> None:
        line = ["└── ", Span("package." * 9 + "pack", shrink=True), " ", Span("0123abcd"), " SUSPENDED"]
        screen = console(color=False)
        for width, name in ((50, "…ge.package.pack"), (40, "…package.pack")):
            screen.width = width
            with screen.capture() as captured:
                screen.print(Lines([line], cut=True).rich(width))
            assert captured.get().rstrip() == f"└── {name} 0123abcd SUSPENDED"

    def test_empty(self) -> None:
        assert Sheet([Column("A")], empty="no jobs found").plain() == "no jobs found"
