"""What the README and the documentation show is run, in order, page by page; what they link to is there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from docs.evaluators import Page, commands, matches
from mognet import exceptions

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]

# Their authors run what they show themselves.
ELSEWHERE = {"CONTRIBUTING.md", "docs/cli.md", "docs/benchmarks.md"}


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ELSEWHERE and re.search(r"```(python|console)", (ROOT / name).read_text())]
)
def test_blocks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [*os.environ]:
        if variable.startswith("MOGNET_"):
            monkeypatch.delenv(variable)
    text = (ROOT / name).read_text()
    if not re.search(r"^\$ mognet ", text, re.MULTILINE):
        monkeypatch.setenv("MOGNET_URL", f"memory://{name}")  # the blocks of one page share it
    monkeypatch.setenv("MOGNET_LEASE", "2")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    try:
        Page(ROOT / name, folder, re.sub(r"\W", "_", name)).run()
    finally:
        for module in set(sys.modules) - before:
            if str(getattr(sys.modules[module], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[module]


@pytest.mark.parametrize("name", NAMES)
def test_links(name: str) -> None:
    page = ROOT / name
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        there = (page.parent / path) if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            missing.append(target)
    assert missing == []


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_every_page_is_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text()
    missing = [name for name in NAMES if name.startswith("docs/") and name.removeprefix("docs/") not in config]
    assert [name for name in missing if not name.startswith("docs/decisions/")] == []


def test_every_decision_is_listed() -> None:
    index = (ROOT / "docs/decisions/0000-index.md").read_text()
    assert [path.name for path in sorted((ROOT / "docs/decisions").glob("*.md")) if path.name[:4] not in index] == []


def test_what_the_promises_name_exists() -> None:
    """Each test, group and file that the page of the promises names."""
    text = (ROOT / "docs/promises.md").read_text()
    source = "\n".join(path.read_text() for folder in ("src/mognet/testing", "tests") for path in (ROOT / folder).rglob("*.py"))
    named = re.findall(r"`(\w+\.)?(test_\w+)`", text)
    assert named
    assert [name for group, name in named if f"def {name}(" not in source or (group and f"class {group[:-1]}(" not in source)] == []
    assert [path for path in re.findall(r"`((?:tests|src)/[\w/.]+)`", text) if not (ROOT / path).exists()] == []


def test_the_tree_of_errors_is_whole() -> None:
    shown = re.findall(r"[├└]── (\w+)", (ROOT / "docs/errors.md").read_text())
    there = [name for name, each in vars(exceptions).items() if isinstance(each, type) and issubclass(each, exceptions.MognetError)]
    assert sorted(shown) == sorted(name for name in there if name != "MognetError" and not name.startswith("_"))


# The evaluator itself


@pytest.mark.parametrize(
    ("expected", "output", "verdict"),
    [
        ("a\nb", "a\nb\n", True),
        ("a…c", "abbbc", True),
        ("a…c", "ab\nbc", False),
        ("a\n…", "a\nb\nc", True),
        ("…\nc", "a\nb\nc", True),
        ("a\n…\nc", "a\nc", True),
        ("a", "a\nb", False),
        ("a.c", "abc", False),
    ],
)
def test_wildcards(expected: str, output: str, verdict: bool) -> None:
    assert matches(expected, output) is verdict


def test_commands_of_a_console_block() -> None:
    assert list(commands("$ a b  # why\nx\ny\n$ c\n")) == [("a b", "x\ny"), ("c", "")]
