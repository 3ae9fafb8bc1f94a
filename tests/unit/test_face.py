"""The public face: its names, the tree of errors, and what importing it costs."""

from __future__ import annotations

import builtins
import inspect
import pickle
import subprocess
import sys
from importlib.resources import files
from typing import Any
from uuid import uuid4

import pytest

import mognet
from mognet import AppConfig, Middleware, exceptions

NAMES = """
    App AppConfig Backoff ClassService Context Event Middleware Pause Progress Request Result ResultState ResultTree Retry State metadata
    task
""".split()

TREE: dict[str, str] = {
    "ImproperlyConfigured": "MognetError",
    "CouldNotSubmit": "MognetError",
    "ConnectionError": "MognetError",
    "NotConnected": "ConnectionError",
    "BrokerError": "MognetError",
    "QueueNotFound": "BrokerError",
    "ResultError": "MognetError",
    "ResultNotReady": "ResultError",
    "ResultFailed": "ResultError",
    "Revoked": "ResultFailed",
    "ResultValueLost": "ResultError",
    "ResultLost": "ResultError",
    "NotRetryable": "ResultError",
    "InvalidQuery": "MognetError",
    "InvalidCursor": "InvalidQuery",
    "TooManyRetries": "MognetError",
    "InvalidTaskArguments": "MognetError",
    "UnknownTask": "MognetError",
    "TaskError": "MognetError",
}


def test_the_names_are_fixed_and_sorted() -> None:
    assert mognet.__all__ == sorted(mognet.__all__)
    assert mognet.__all__ == NAMES
    for name in NAMES:
        assert getattr(mognet, name).__doc__, name


def test_the_errors_form_one_tree() -> None:
    for name, base in TREE.items():
        assert issubclass(getattr(exceptions, name), getattr(exceptions, base))
    own = [e for e in vars(exceptions).values() if inspect.isclass(e) and issubclass(e, Exception) and e.__module__ == exceptions.__name__]
    assert all(issubclass(error, exceptions.MognetError) for error in own)
    own = [error for error in own if not error.__name__.startswith("_")]
    assert all(error.__doc__ for error in own)
    assert exceptions.__doc__ is not None
    for error in own:
        assert error.__name__ in exceptions.__doc__, "the tree is drawn at the head of the module"


def test_errors_are_what_python_expects() -> None:
    assert issubclass(exceptions.ConnectionError, builtins.ConnectionError)
    assert issubclass(exceptions.InvalidMetadata, ValueError)
    assert issubclass(exceptions.InvalidQuery, ValueError)
    assert issubclass(exceptions.InvalidTaskArguments, ValueError)
    for wish in (mognet.Pause, mognet.Retry):
        assert issubclass(wish, BaseException)
        assert not issubclass(wish, Exception)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.UnknownTask("a.b"),
        exceptions.TaskError("m:C", "text", "traceback"),
        exceptions.TooManyRetries(uuid4(), 5, 3),
        exceptions.ResultLost(uuid4()),
        exceptions.NotRetryable(uuid4(), "why"),
        exceptions.ResultValueLost(uuid4()),
        exceptions.QueueNotFound("q"),
        exceptions.InvalidTaskArguments([{"loc": ("a", 0), "msg": "m", "type": "t"}], "task"),
        mognet.Pause(5),
        mognet.Retry(5),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_keep_what_they_know(error: Any) -> None:
    """Copied to another process, as concurrent.futures does, they are the same."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, str(copy)) == (type(error), error.args, str(error))
    for name in (
        "task_name",
        "type_name",
        "message",
        "traceback",
        "request_id",
        "result_id",
        "reason",
        "queue_name",
        "errors",
        "resume_after",
        "after",
    ):
        assert getattr(copy, name, None) == getattr(error, name, None)


def test_hooks() -> None:
    hooks = {name for name in vars(Middleware) if name.startswith("on_")}
    assert hooks == {
        "on_app_starting",
        "on_app_started",
        "on_app_stopping",
        "on_app_stopped",
        "on_request_submitting",
        "on_task_starting",
        "on_task_completed",
        "on_running_task_count_changed",
    }


def test_settings() -> None:
    config = AppConfig()
    days, seconds = 86400, 1
    assert (config.max_recursion, config.max_retries, config.max_tasks, config.default_task_route) == (64, 3, None, "tasks")
    assert config.lease.total_seconds() == 15 * seconds
    assert config.shutdown_grace.total_seconds() == 25 * seconds
    assert config.result_ttl.total_seconds() == 21 * days
    assert config.result_value_ttl.total_seconds() == 7 * days
    assert config.minimum_concurrency > 1
    for name in (
        "maximum_concurrency",
        "services_settings",
        "state_ttl",
        "max_message_size",
        "max_result_size",
        "max_metadata_size",
        "searchable_metadata",
        "url",
    ):
        assert hasattr(config, name)
    with pytest.raises(ValueError, match="did you mean 'max_retries'"):
        AppConfig(max_retris=5)  # type: ignore[call-arg]


def test_it_is_typed() -> None:
    assert files("mognet").joinpath("py.typed").is_file()


def test_importing_it_loads_no_engine_client_and_no_terminal() -> None:
    code = """
import sys, mognet
heavy = {"sqlite3", "rich", "typer", "redis", "psycopg", "aiormq", "pytest", "hypothesis", "cronsim", "mognet.cli", "mognet.testing"}
heavy |= {"mognet.engines.memory", "mognet.engines.sql", "multiprocessing", "ssl"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
