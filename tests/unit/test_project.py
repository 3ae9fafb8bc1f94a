"""The project's own files: what the README names exists, and nothing is in them that does not belong there."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Put together here, so that this file does not hold them itself.
UNWANTED = ["/" + "work/", "farm" + "-studio", "../" + "shared"]

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle"}
UNSAFE_CALLS = {"eval", "exec", "__import__"}


def project_files() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run([git, "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True).stdout
    return [path for name in listing.decode().split("\0") if name and (path := ROOT / name).is_file()]


def unsafe(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case ast.Call(func=ast.Name(id=name)) if name in UNSAFE_CALLS:
                yield f"line {node.lineno}: {name}()"
                continue
            case _:
                continue
        yield from (f"line {node.lineno}: import {module}" for module in modules if module.partition(".")[0] in UNSAFE_MODULES)


def test_make_targets_named_in_the_readme_exist() -> None:
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`|^\$ .*$", (ROOT / "README.md").read_text(), re.MULTILINE))))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets


def test_every_documented_make_target_is_phony() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == set(re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE))


def test_no_text_file_names_the_place_where_it_was_written() -> None:
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {word}" for word in UNWANTED if word in text]
    assert found == []


def test_the_package_neither_unpickles_nor_evaluates() -> None:
    files = sorted((ROOT / "src").rglob("*.py"))
    assert files
    assert [f"{path.relative_to(ROOT)} {what}" for path in files for what in unsafe(ast.parse(path.read_bytes()))] == []


@pytest.mark.parametrize(
    "code", ["import pickle", "from marshal import loads", "import os, shelve", "from pickle import *", "x = eval('1')", "exec('')"]
)
def test_the_search_for_unsafe_code_finds_it(code: str) -> None:
    assert list(unsafe(ast.parse(code)))


@pytest.mark.parametrize("code", ["'''pickle'''", "redis.eval('return 1')", "from .marshal import x", "import picklejar"])
def test_the_search_for_unsafe_code_leaves_the_rest_alone(code: str) -> None:
    assert not list(unsafe(ast.parse(code)))
