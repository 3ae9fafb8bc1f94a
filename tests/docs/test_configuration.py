"""The table of settings in docs/configuration.md is made from the model. Run this file to write it anew."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from mognet.config import AppConfig, Queues

PAGE = Path(__file__).resolve().parents[2] / "docs/configuration.md"
BLOCK = re.compile(r"(?<=<!-- settings: begin -->\n).*?(?=<!-- settings: end -->)", re.DOTALL)


def default(value: Any, shown: str = "") -> str:
    if value is PydanticUndefined:
        return shown
    if value is None:
        return "unset"
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        return f"{seconds / 86400:g} d" if seconds >= 86400 else f"{seconds:g} s"
    return str(value).lower() if isinstance(value, bool) else f"`{value}`" if isinstance(value, str) else str(value)


def table() -> str:
    """One row per setting, nested ones too."""
    rows = ["| setting | default | |", "| --- | --- | --- |"]
    for name, field in AppConfig.model_fields.items():
        shown = "`pid@host`" if name == "node_id" else "empty"
        rows.append(f"| `{name}` | {default(field.default, shown)} | {field.description} |")
        if field.annotation is Queues:
            rows += [f"| `{name}.{inner}` | empty | {each.description} |" for inner, each in Queues.model_fields.items()]
    return "\n".join(rows) + "\n"


def test_the_table_of_settings_is_the_models() -> None:
    found = BLOCK.search(PAGE.read_text())
    assert found is not None
    assert found[0] == table(), "run: python tests/docs/test_configuration.py"


def test_every_setting_is_described() -> None:
    assert [name for name, field in AppConfig.model_fields.items() if not field.description] == []


if __name__ == "__main__":
    PAGE.write_text(BLOCK.sub(lambda _: table(), PAGE.read_text()))
