"""The examples: each of them imports and runs."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from docs.engines import PLACES, placed
from mognet import App, Context, Pause
from mognet.testing.fixtures import running, swap_for_memory

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py") if path.stem != "__init__")


CART = '''class Cart:
    """It."""
    async def add(self):
        if self:
            for _ in self:
                pass
'''


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module(f"examples.{request.param}")


@pytest.fixture
async def app(example: Any) -> AsyncIterator[App]:
    swap_back = swap_for_memory(example.app)
    async with running(example.app):
        yield example.app
    swap_back()


@pytest.fixture(params=PLACES)
async def anywhere(example: Any, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[App]:
    """The example's app, as it would be with the settings of each engine."""
    with placed(example.app, request.param, tmp_path):
        async with running(example.app):
            yield example.app


def test_there_are_examples() -> None:
    assert {"kitchen", "live", "survey"} <= set(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, indirect=True)
def test_each_example_is_an_app_and_says_what_it_is(example: Any) -> None:
    assert isinstance(example.app, App)
    assert example.__doc__


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_readme_tells_of_each_example(name: str) -> None:
    assert f"[`{name}.py`]({name}.py)" in (ROOT / "examples" / "README.md").read_text()


def test_the_kitchen_takes_at_most_ten_lines() -> None:
    tree = ast.parse((ROOT / "examples" / "kitchen.py").read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.AsyncFunctionDef) and ast.get_docstring(node):
            del node.body[0]
    assert len([line for line in ast.unparse(tree).splitlines() if line]) <= 10


@pytest.mark.parametrize("example", ["kitchen"], indirect=True)
async def test_the_kitchen_cooks(example: Any, app: App) -> None:
    assert await app.run(example.cook, "pea soup", minutes=0) == "pea soup is served"


@pytest.mark.parametrize("example", ["kitchen"], indirect=True)
async def test_the_kitchen_cooks_on_each_engine(example: Any, anywhere: App) -> None:
    assert await anywhere.run(example.cook, "pea soup", minutes=0) == "pea soup is served"


@pytest.mark.parametrize("example", ["survey"], indirect=True)
async def test_the_survey_counts_on_each_engine(example: Any, anywhere: App, source: Path) -> None:
    result = await anywhere.submit(example.survey, source)
    found = await result
    assert (found.files, found.classes, found.functions, found.not_parsed) == (10, 1, 3, 6)
    assert [child.result.name for child in (await result.tree()).children] == ["package"] * 3
    assert await anywhere.result_backend.count(root=result.id, by="name") == {"survey": 1, "package": 3, "file": 10}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    files = {
        "setup.py": "import sys\n",
        "shop/__init__.py": "",
        "shop/cart.py": CART,
        "shop/deep/pay.py": "def pay(): pass\ndef _secret(): pass\n",
        "shop/site-packages/other.py": "not surveyed",
        "broken/two.py": "print 'two'\n",
        "broken/nul.py": "x = 1\0\n",
        "broken/coding.py": "# coding: nonsense\n",
        "broken/deep.py": "x = " + "-" * 5000 + "1\n",
        "notes/readme.txt": "nothing",
    }
    for name, text in files.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "source/broken/bytes.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "source/broken/gone.py").symlink_to("nowhere.py")
    return tmp_path / "source"


@pytest.mark.parametrize("example", ["survey"], indirect=True)
async def test_the_survey_counts_and_takes_broken_files_for_findings(example: Any, app: App, source: Path) -> None:
    result = await app.submit(example.survey, source)
    found = await result
    assert {size.name: size.files for size in found.packages} == {"broken": 6, "shop": 3, ".": 1}
    assert (found.files, found.classes, found.functions, found.async_functions) == (10, 1, 3, 1)
    assert found.undocumented == 2
    hardest = found.hardest[0]
    assert (hardest.name, hardest.place, hardest.branches, hardest.depth) == ("add", "shop/cart.py:3", 3, 2)
    assert found.not_parsed == 6
    assert {problem.file: problem.reason for problem in found.problems}["broken/gone.py"] == "No such file or directory"
    assert (await result.get_metadata())["files"] == 10
    tree = await result.tree()
    assert [child.result.name for child in tree.children] == ["package"] * 3
    labels = [await file.result.get_metadata() for child in tree.children for file in child.children]
    assert {"package": "shop", "file": "shop/cart.py", "lines": 6, "not_parsed": 0} in labels


@pytest.mark.parametrize("example", ["survey"], indirect=True)
async def test_a_task_that_starts_again_goes_on_with_its_list_and_its_children(
    example: Any, app: App, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted, listings = set(), []
    gather, list_packages = Context.gather, example.list_packages

    async def gather_at_the_second_start(context: Context, *results: Any) -> list[Any]:
        if context.id not in interrupted:
            interrupted.add(context.id)
            (source / "late").mkdir(exist_ok=True)
            (source / "late" / "comer.py").write_text("")
            raise Pause
        return await gather(context, *results)

    def list_packages_once(root: Path) -> Any:
        listings.append(root)
        return list_packages(root)

    monkeypatch.setattr(Context, "gather", gather_at_the_second_start)
    monkeypatch.setattr(example, "list_packages", list_packages_once)
    result = await app.submit(example.survey, source)
    assert (await result).files == 10
    assert len(interrupted) == 4
    assert listings == [source]
    assert await app.result_backend.count(root=result.id, by="name") == {"survey": 1, "package": 3, "file": 10}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_worker_and_a_call_from_the_command_line(name: str, source: Path, tmp_path: Path) -> None:
    calls = {
        "kitchen": ["cook", "dish=pea soup", "minutes=0"],
        "live": ["report", "title=a short one", "pages=2"],
        "survey": ["survey", f"folder={source}"],
    }
    environment = {**os.environ, "MOGNET_URL": f"sqlite:///{tmp_path / 'jobs.db'}", "NO_COLOR": "1"}
    mognet = [sys.executable, "-m", "mognet", f"examples.{name}"]
    with subprocess.Popen([*mognet, "run"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as worker:
        try:
            called = subprocess.run(
                [*mognet, "call", *calls[name]], cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False
            )
        finally:
            worker.terminate()
    assert called.returncode == 0, called.stderr
    value = json.loads(called.stdout)
    assert value in ("pea soup is served", "a short one: 2 pages") or value["files"] == 10
