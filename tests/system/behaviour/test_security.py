"""Whoever can write into the store can run no code in those who read it."""

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import uuid4

import pytest

from mognet import App, Request
from mognet.control import CONTROL
from mognet.exceptions import MognetError, TaskError
from mognet.outcomes import failed, succeeded
from mognet.records import Job

from .conftest import soon

effects: list[str] = []


class Trap(Exception):
    """Notes all that is called of it."""

    def __new__(cls, *args: Any) -> Trap:
        effects.append("new")
        return super().__new__(cls, *args)

    def __init__(self, *args: Any) -> None:
        effects.append("init")
        super().__init__(*args)

    def __setstate__(self, state: Any) -> None:
        effects.append("setstate")

    def __setattr__(self, name: str, value: Any) -> None:
        effects.append("setattr")
        super().__setattr__(name, value)

    @property
    def prop(self) -> str:
        return "prop"

    @prop.setter
    def prop(self, value: str) -> None:
        effects.append("prop")


class NotAnError:
    def __init__(self, *args: Any) -> None:
        effects.append("not an error")


def function(*args: Any) -> None:
    effects.append("function")


TYPES = [
    "subprocess:getoutput",
    "os:system",
    "shutil:rmtree",
    "builtins:eval",
    "builtins:exec",
    "builtins:open",
    "builtins:__import__",
    "builtins:SystemExit",
    "builtins:KeyboardInterrupt",
    "builtins:BaseException",
    "antigravity:anything",
    "this:c",
    "idlelib.idle:main",
    "turtledemo.clock:main",
    "lib2to3.pgen2.driver:main",
    "importlib:import_module",
    "ctypes:CDLL",
    "pickle:loads",
    f"{__name__}:function",
    f"{__name__}:NotAnError",
    f"{__name__}:Trap.__init__",
    f"{__name__}:Trap.__class__",
    f"{__name__}:effects.clear",
    f"{__name__}:sys.exit",
    "builtins:Exception.__subclasses__",
    "builtins:object.__subclasses__",
    "tests..:x",
    "..:x",
    ":",
    "",
    "no colon",
    "builtins:ValueError:x",
    "\x00:\x00",
    "a" * 10_000,
    "{0.__class__}:{x}",
    "../../etc/passwd:x",
]


@pytest.fixture(autouse=True)
def _nothing_has_happened() -> None:
    effects.clear()


async def plant(app: App, make: Any, value: Any, name: str = "planted") -> Any:
    """A finished job with this value in its record, as somebody with access to the store may write it."""
    id = uuid4()
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    await app.engine.submit([Job(id, name, "planted", b"{}")])
    [claim] = await app.engine.claim("attacker", ["planted"], 1, lease=60)
    await app.engine.settle([make(claim.token, data)])
    return await app.result_backend.get(id)


@pytest.mark.parametrize("type_name", TYPES, ids=lambda name: name[:30].replace("\0", "NUL"))
async def test_nothing_runs_or_is_imported_for_a_stored_type(idle: App, type_name: str, tmp_path: Any) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    modules = set(sys.modules)
    for arguments in ([f"touch {tmp_path}/run"], [str(victim)], [], ["a", "b", "c"], [{"x": 1}]):
        error = {"type_name": type_name, "message": "m", "traceback": "t", "args": arguments, "attributes": {"cmd": "x", "__class__": "y"}}
        result = await plant(idle, failed, error)
        with pytest.raises(TaskError) as caught:
            await soon(result)
        assert type(caught.value) is TaskError
        assert caught.value.type_name == type_name
    assert set(sys.modules) == modules
    assert effects == []
    assert victim.is_dir()
    assert not (tmp_path / "run").exists()


async def test_the_code_of_an_exception_class_is_not_run(idle: App) -> None:
    error = {
        "type_name": f"{__name__}:Trap",
        "message": "m",
        "traceback": "t",
        "args": ["a"],
        "attributes": {"prop": "x", "plain": 1, "args": ["b"], "__cause__": "x", "with_traceback": "y"},
    }
    result = await plant(idle, failed, error)
    with pytest.raises(Exception) as caught:
        await soon(result)
    assert effects == []
    if type(caught.value) is Trap:
        assert caught.value.args == ("a",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04N.",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"\xff\xff",
        b'{"type_name": 5}',
        b"[" * 100_000,
        b'{"type_name":"builtins:ValueError","message":"m","traceback":"t","args":5,"attributes":[]}',
        b'{"type_name":"builtins:ValueError","message":"m","traceback":"t","args":[],"attributes":{},"more":1}',
        b'{"value_type":"subprocess:getoutput","raw_value":{"cmd":"touch /tmp/x"}}',
    ],
    ids=lambda data: repr(data[:20]),
)
async def test_garbled_errors_and_values(idle: App, data: bytes) -> None:
    result = await plant(idle, failed, data)
    with pytest.raises(MognetError):
        await soon(result)
    value = await plant(idle, succeeded, data)
    try:
        read = await soon(value)
    except (MognetError, ValueError):
        return
    assert read == json.loads(data)


async def test_a_stored_value_cannot_choose_its_type(idle: App) -> None:
    @idle.task(name="typed")
    async def typed() -> int:
        return 1

    value = {"value_type": "subprocess:getoutput", "raw_value": {"cmd": "true"}, "__class__": "os:system", "$type": "os:system"}
    assert await soon(await plant(idle, succeeded, value, "typed")) == value
    assert await soon(await plant(idle, succeeded, value)) == value


@pytest.mark.parametrize("name", ["os.system", "os:system", "builtins.eval", f"{__name__}.function", f"{__name__}:function", "__import__"])
async def test_only_registered_tasks_run(app: App, name: str) -> None:
    result = await app.submit(Request(name=name, args=("touch x",)))
    await soon(result.wait())
    assert result.state == "INVALID"
    assert effects == []


@pytest.mark.parametrize(
    "body", [b"", b"\x80\x04N.", b"null", b"[]", b"{}", b'{"v":2}', b'{"v":1,"args":5}', b'{"v":1,"stack":["x"]}', b"[" * 10_000], ids=repr
)
async def test_garbled_calls_end_invalid(app: App, body: bytes) -> None:
    runs: list[int] = []

    @app.task(name="work")
    async def work() -> None:
        runs.append(1)

    id = uuid4()
    await app.engine.submit([Job(id, "work", "tasks", body)])
    result = await app.result_backend.get(id)
    assert result is not None
    await soon(result.wait())
    assert result.state == "INVALID"
    assert runs == []


async def test_garbled_control_messages_are_ignored(app: App) -> None:
    for body in (b"", b"\xff", b"null", b"[]", b'{"kind":"revoke"}', b'{"kind":"other"}', b'{"kind":"status","reply_to":5}', b"[" * 10_000):
        await app.engine.publish(CONTROL, body)

    @app.task
    async def work() -> int:
        return 1

    assert await soon(app.run(work)) == 1
    assert [node.node_id async for node in app.get_current_status_of_nodes(timeout=0.3)] == [app.config.node_id]
