from __future__ import annotations

import json
import logging
import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from mognet import config as config_module
from mognet.config import AppConfig, Queues, app_setting, default_url, project_root, resolve
from mognet.exceptions import ImproperlyConfigured

anything: Any = AppConfig  # called with what a type checker would refuse
any_queues: Any = Queues


def resolved(tmp_path: Path, config: AppConfig | None = None, *, url: str | None = None, **environ: str) -> AppConfig:
    return resolve(config, url=url, environ=environ, start=tmp_path).config


def from_environ(**environ: str) -> dict[str, Any]:
    return config_module._read_environ(AppConfig, environ, {})[0]


# --- the model


def test_defaults() -> None:
    config = AppConfig()
    assert config.url is None
    assert config.node_id == f"{os.getpid()}@{socket.gethostname()}"
    assert (config.max_recursion, config.max_retries, config.max_tasks) == (64, 3, None)
    assert config.default_task_route == "tasks"
    assert config.task_queues == Queues()
    assert (config.minimum_concurrency, config.maximum_concurrency) == (100, None)
    assert (config.lease, config.shutdown_grace, config.max_block) == (timedelta(seconds=15), timedelta(seconds=25), timedelta(seconds=60))
    assert (config.result_ttl, config.result_value_ttl, config.state_ttl) == (timedelta(days=21), timedelta(days=7), timedelta(days=21))
    assert (config.max_message_size, config.max_result_size, config.max_metadata_size) == (2**20, 2**24, 2**14)
    assert config.sweep_interval == timedelta(seconds=5)
    assert config.show_arguments is False


def test_every_setting_is_described() -> None:
    for model in (AppConfig, Queues):
        assert [name for name, field in model.model_fields.items() if not field.description] == []
    AppConfig.model_json_schema()


def test_unknown_setting_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ValidationError, match=r"unknown setting 'max_retires': did you mean 'max_retries'\?"):
        anything(max_retires=3)
    with pytest.raises(ValidationError, match="unknown setting 'zzz' "):
        anything(zzz=3)
    with pytest.raises(ValidationError, match="did you mean 'include'"):
        any_queues(inclde={"a"})
    config: Any = AppConfig()
    with pytest.raises(ValidationError, match="did you mean 'max_retries'"):
        config.max_retires = 3
    assert not hasattr(config, "max_retires")


def test_queues_are_included_or_excluded_not_both() -> None:
    with pytest.raises(ValueError, match="not both"):
        Queues(include={"a"}, exclude={"b"})
    queues = Queues(include={"a"})
    with pytest.raises(ValueError, match="not both"):
        queues.exclude = {"b"}
    assert queues == Queues(include={"a"})
    queues.ensure_valid()
    queues.exclude.add("b")
    with pytest.raises(ValueError, match="not both"):
        queues.ensure_valid()
    with pytest.raises(ValueError, match="not both"):
        AppConfig(task_queues=queues)
    with pytest.raises(ValueError, match="not both"):
        anything(task_queues={"include": ["a"], "exclude": ["b"]})


def test_searchable_metadata(tmp_path: Path) -> None:
    assert AppConfig().searchable_metadata == set()
    config = AppConfig(searchable_metadata={"tenant_id", "user.id"})
    for key in ("", "a..b", ".a", "a.", "a\0b", "\ud800", "x" * 256):
        with pytest.raises(ValueError, match="searchable_metadata"):
            AppConfig(searchable_metadata={"tenant_id", key})
        with pytest.raises(ValueError, match="is no key of metadata"):
            config.searchable_metadata = {key}
    assert config.searchable_metadata == {"tenant_id", "user.id"}
    for text in ("tenant_id, user.id", '["user.id", "tenant_id"]'):
        assert resolved(tmp_path, MOGNET_SEARCHABLE_METADATA=text).searchable_metadata == {"tenant_id", "user.id"}
    (tmp_path / "mognet.toml").write_text('searchable_metadata = ["tenant_id", "user.id"]\n')
    assert resolved(tmp_path).searchable_metadata == {"tenant_id", "user.id"}
    (tmp_path / "mognet.toml").write_text('searchable_metadata = ["tenant_id."]\n')
    with pytest.raises(ImproperlyConfigured, match=r"mognet.toml: searchable_metadata.*'tenant_id\.' is no key"):
        resolved(tmp_path)


def test_refused_assignment_keeps_the_old_value() -> None:
    config = AppConfig(minimum_concurrency=5, maximum_concurrency=10)
    with pytest.raises(ValueError, match=r"maximum_concurrency \(10\) must be at least minimum_concurrency \(11\)"):
        config.minimum_concurrency = 11
    with pytest.raises(ValueError, match="must be at least"):
        config.maximum_concurrency = 4
    assert (config.minimum_concurrency, config.maximum_concurrency) == (5, 10)
    other = AppConfig()
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        other.minimum_concurrency = 0
    assert other.model_fields_set == set()


def test_default_of_minimum_concurrency_follows_a_lower_maximum() -> None:
    config = AppConfig(maximum_concurrency=10)
    assert (config.minimum_concurrency, config.maximum_concurrency) == (10, 10)
    assert AppConfig(maximum_concurrency=500).minimum_concurrency == 100
    config = AppConfig()
    config.maximum_concurrency = 7
    assert config.minimum_concurrency == 7


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(0.3, 0.3), (2, 2), ("0.3", 0.3), (".5", 0.5), ("15", 15), ("500ms", 0.5), ("2 m", 120), ("1h", 3600), ("7d", 604800), ("PT3S", 3)],
)
def test_durations_are_seconds_or_carry_a_unit(given: Any, seconds: float) -> None:
    assert AppConfig(lease=given).lease == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", [0, -1, "0", "x", "5 parsecs", True, float("nan"), float("inf"), timedelta.max, "9" * 400])
def test_impossible_durations_are_refused(value: Any) -> None:
    for name in ("lease", "max_block", "result_ttl", "result_value_ttl", "state_ttl", "sweep_interval"):
        with pytest.raises(ValidationError) as caught:
            AppConfig(**{name: value})
        assert caught.value.errors()[0]["loc"] == (name,)


def test_grace_may_be_nothing_at_all() -> None:
    assert anything(shutdown_grace=0).shutdown_grace == timedelta(0)
    with pytest.raises(ValidationError):
        anything(shutdown_grace=-1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_recursion", 0),
        ("max_retries", -1),
        ("max_tasks", 0),
        ("minimum_concurrency", 0),
        ("maximum_concurrency", 0),
        ("max_message_size", 0),
        ("max_result_size", -5),
        ("max_metadata_size", "0"),
        ("max_metadata_size", "5 bananas"),
        ("max_metadata_size", True),
        ("max_retries", True),
        ("url", ""),
        ("node_id", ""),
        ("default_task_route", ""),
    ],
)
def test_bounds(name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        AppConfig(**{name: value})
    assert caught.value.errors()[0]["loc"] == (name,)


def test_sizes_may_carry_a_unit() -> None:
    assert anything(max_message_size="4MiB").max_message_size == 4 * 2**20
    assert type(anything(max_message_size="4MiB").max_message_size) is int


def test_neither_repr_nor_errors_tell_secrets() -> None:
    config = AppConfig(url="amqp://me:hunter2@host/v", services_settings={"password": "hunter2"})
    assert "hunter2" not in repr(config)
    assert "amqp://me:***@host/v" in str(config)
    with pytest.raises(ValidationError) as caught:
        anything(url=["hunter2"], services_settings="hunter2")
    assert "hunter2" not in str(caught.value)


# --- files


def test_from_file_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('app = "shop:app"\nlease = 30\nmax_message_size = "2MiB"\n[task_queues]\ninclude = ["a", "b"]\n')
    (tmp_path / "a.json").write_text(
        '\ufeff{"lease": 30, "app": "x", "task_queues": {"include": ["a", "b"]}, "max_message_size": 2097152}', "utf-8"
    )
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[tool.mognet]\nlease = 30\nmax_message_size = "2MiB"\ntask_queues = {include = ["b", "a"]}'
    )
    expected = AppConfig(lease=timedelta(seconds=30), max_message_size=2**21, task_queues=Queues(include={"a", "b"}))
    for name in ("a.toml", "a.json", "pyproject.toml"):
        config = AppConfig.from_file(tmp_path / name)
        assert config == expected
        assert config.model_fields_set == {"lease", "max_message_size", "task_queues"}
    assert AppConfig.from_file(str(tmp_path / "a.toml")) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.toml", b"max_retires = 3", "unknown setting 'max_retires': did you mean 'max_retries'?"),
        ("c.toml", b"max-retries = 3", "did you mean 'max_retries'?"),
        ("c.toml", b"[task_queues]\ninclud = []", "task_queues: unknown setting 'includ': did you mean 'include'?"),
        ("c.toml", b"lease = 'soon'", "lease: Input should be a valid timedelta"),
        ("c.toml", b"max_retries = true", "max_retries: should be a number"),
        ("c.toml", b"imports = 'a'", "imports: Input should be a valid list"),
        ("c.toml", b"minimum_concurrency = 3\nmaximum_concurrency = 2", "must be at least minimum_concurrency"),
        ("c.toml", b"[task_queues]\ninclude=['a']\nexclude=['b']", "task_queues: queues can be included or excluded"),
        ("c.toml", b"lease = = 3", "is not valid TOML"),
        ("c.toml", b"lease = '\xff'", "is not valid TOML (not UTF-8)"),
        ("c.json", b"{", "is not valid JSON"),
        ("c.json", b"[" * 200_000, "is not valid JSON"),
        ("c.json", b"[1]", "should be a table"),
        ("c.yaml", b"lease: 3", "settings are read from .json or .toml"),
        ("pyproject.toml", b"[project]\nname='x'", "no [tool.mognet] table"),
        ("pyproject.toml", b"tool = 3", "no [tool.mognet] table"),
        ("pyproject.toml", b"[tool]\nmognet = 3", "should be a table"),
    ],
)
def test_from_file_names_the_file_the_key_and_the_remedy(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImproperlyConfigured) as caught:
        AppConfig.from_file(tmp_path / name)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / name}: ")
    assert message in text
    assert "\n" not in text
    assert any(word in text for word in ("correct", "rename", "add it", "should be a table"))


def test_from_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"gone\.toml: cannot be read \(No such file or directory\); check its path"):
        AppConfig.from_file(tmp_path / "gone.toml")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ImproperlyConfigured, match=r"folder\.json: cannot be read"):
        AppConfig.from_file(tmp_path / "folder.json")


def test_from_file_does_not_repeat_values(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"url": ["hunter2"]}')
    with pytest.raises(ImproperlyConfigured, match="url") as caught:
        AppConfig.from_file(tmp_path / "c.json")
    assert "hunter2" not in str(caught.value)


# --- precedence


def test_code_before_environment_before_file_before_default(tmp_path: Path) -> None:
    file = tmp_path / "mognet.toml"
    file.write_text("lease = 1\nmax_retries = 1\nmax_recursion = 1\n")
    config = AppConfig(lease=timedelta(seconds=3))
    found = resolve(config, environ={"MOGNET_LEASE": "2", "MOGNET_MAX_RETRIES": "2"}, start=tmp_path)
    assert found.config is config
    assert (config.lease, config.max_retries, config.max_recursion, config.max_tasks) == (timedelta(seconds=3), 2, 1, None)
    expected = {"lease": "code", "max_retries": "MOGNET_MAX_RETRIES", "max_recursion": str(file), "max_tasks": "default"}
    assert {name: found.origins[name] for name in expected} == expected
    assert found.origins.keys() == AppConfig.model_fields.keys()


def test_resolving_again_starts_over(tmp_path: Path) -> None:
    config = AppConfig(max_retries=9)
    for value in ("2", "4"):
        assert resolved(tmp_path, config, MOGNET_LEASE=value, MOGNET_IMPORTS=f"a,{value}").imports == ["a", value]
        assert config.lease == timedelta(seconds=int(value))
    assert config.model_fields_set == {"max_retries"}
    origins = resolve(config, environ={}, start=tmp_path).origins
    assert (config.lease, config.imports, config.max_retries) == (timedelta(seconds=15), [], 9)
    assert (origins["lease"], origins["imports"]) == ("default", "default")


def test_changes_in_place_are_code(tmp_path: Path) -> None:
    config = AppConfig()
    config.task_queues.include = {"mine"}
    config.imports.append("mine")
    found = resolve(
        config, environ={"MOGNET_TASK_QUEUES__INCLUDE": "b", "MOGNET_IMPORTS": "b", "MOGNET_TASK_ROUTES": "a=b"}, start=tmp_path
    )
    assert (config.task_queues.include, config.imports, config.task_routes) == ({"mine"}, ["mine"], {"a": "b"})
    assert (found.origins["task_queues"], found.origins["imports"]) == ("code", "code")
    config.task_routes["c"] = "d"
    assert resolve(config, environ={"MOGNET_TASK_ROUTES": "x=y"}, start=tmp_path).origins["task_routes"] == "code"
    assert config.task_routes == {"a": "b", "c": "d"}


def test_lists_keep_their_identity_when_nothing_changes(tmp_path: Path) -> None:
    config = AppConfig()
    imports = config.imports
    resolved(tmp_path, config, MOGNET_LEASE="3")
    assert config.imports is imports


def test_url_of_the_call_is_code(tmp_path: Path) -> None:
    config = AppConfig(url="memory://a")
    found = resolve(config, url="memory://b", environ={"MOGNET_URL": "memory://c"}, start=tmp_path)
    assert (config.url, found.origins["url"]) == ("memory://b", "code")
    assert resolved(tmp_path, config, MOGNET_URL="memory://c").url == "memory://b"
    assert resolved(tmp_path, MOGNET_URL="memory://c").url == "memory://c"
    with pytest.raises(ImproperlyConfigured, match="code: url"):
        resolve(url="", environ={}, start=tmp_path)


def test_values_that_fit_only_together(tmp_path: Path) -> None:
    config = resolved(tmp_path, MOGNET_MAXIMUM_CONCURRENCY="5", MOGNET_MINIMUM_CONCURRENCY="2")
    assert (config.minimum_concurrency, config.maximum_concurrency) == (2, 5)
    assert resolved(tmp_path, MOGNET_MAXIMUM_CONCURRENCY="5").minimum_concurrency == 5
    (tmp_path / "mognet.toml").write_text("minimum_concurrency = 30")
    with pytest.raises(ImproperlyConfigured) as caught:
        resolved(tmp_path, MOGNET_MAXIMUM_CONCURRENCY="5")
    assert f"minimum_concurrency from {tmp_path / 'mognet.toml'}" in str(caught.value)
    assert "maximum_concurrency from MOGNET_MAXIMUM_CONCURRENCY" in str(caught.value)


def test_an_error_leaves_the_config_as_it_was(tmp_path: Path) -> None:
    config = AppConfig(max_retries=9)
    with pytest.raises(ImproperlyConfigured):
        resolve(config, url="memory://", environ={"MOGNET_LEASE": "3", "MOGNET_MAX_TASKS": "many"}, start=tmp_path)
    assert config == AppConfig(max_retries=9)
    assert config.model_fields_set == {"max_retries"}


def test_flags_stand_above_everything(tmp_path: Path) -> None:
    config = resolved(tmp_path, MOGNET_MINIMUM_CONCURRENCY="5")
    config.minimum_concurrency = 3
    found = resolve(config, environ={"MOGNET_MINIMUM_CONCURRENCY": "5"}, start=tmp_path)
    assert (config.minimum_concurrency, found.origins["minimum_concurrency"]) == (3, "code")


def test_a_config_class_of_ones_own(tmp_path: Path) -> None:
    class Mail(BaseModel):
        host: str = "localhost"
        port: int = 25

    class Mine(AppConfig):
        mail: Mail = Mail()

    config = Mine()
    resolve(config, environ={"MOGNET_MAIL__PORT": "26"}, start=tmp_path)
    assert config.mail == Mail(port=26)


# --- the environment


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("MOGNET_URL", " memory:// ", "url", "memory://"),
        ("MOGNET_MAX_TASKS", "7", "max_tasks", 7),
        ("MOGNET_MAX_TASKS", "none", "max_tasks", None),
        ("MOGNET_LEASE", "300ms", "lease", timedelta(seconds=0.3)),
        ("MOGNET_SHOW_ARGUMENTS", "yes", "show_arguments", True),
        ("MOGNET_MAX_RESULT_SIZE", "1 GiB", "max_result_size", 2**30),
        ("MOGNET_IMPORTS", "a, b,,c", "imports", ["a", "b", "c"]),
        ("MOGNET_IMPORTS", '["a,b"]', "imports", ["a,b"]),
        ("MOGNET_TASK_ROUTES", "a.b=c, d=e=f", "task_routes", {"a.b": "c", "d": "e=f"}),
        ("MOGNET_TASK_ROUTES", "a=1", "task_routes", {"a": "1"}),
        ("MOGNET_TASK_ROUTES", '{"a": "b"}', "task_routes", {"a": "b"}),
        ("MOGNET_TASK_QUEUES", '{"exclude": ["a"]}', "task_queues", Queues(exclude={"a"})),
        ("MOGNET_TASK_QUEUES__INCLUDE", "a,b", "task_queues", Queues(include={"a", "b"})),
        ("MOGNET_TASK_QUEUES__INCLUDE", '["a", "b"]', "task_queues", Queues(include={"a", "b"})),
        ("MOGNET_SERVICES_SETTINGS__SMTP__PORT", "25", "services_settings", {"smtp": {"port": 25}}),
        ("MOGNET_SERVICES_SETTINGS", "a=1,b=x", "services_settings", {"a": 1, "b": "x"}),
        ("MOGNET_LEASE", "  ", "lease", timedelta(seconds=15)),
    ],
)
def test_variables(tmp_path: Path, variable: str, text: str, field: str, value: Any) -> None:
    found = resolve(environ={variable: text}, start=tmp_path)
    assert getattr(found.config, field) == value
    assert found.origins[field] == (variable if text.strip() else "default")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MOGNET_LEASE", "hunter2"),
        ("MOGNET_LEASE", "0"),
        ("MOGNET_MAX_TASKS", "hunter2"),
        ("MOGNET_SHOW_ARGUMENTS", "hunter2"),
        ("MOGNET_IMPORTS", '["hunter2"'),
        ("MOGNET_IMPORTS", "[1]"),
        ("MOGNET_IMPORTS", "[" * 200_000),
        ("MOGNET_TASK_ROUTES", "hunter2"),
        ("MOGNET_TASK_ROUTES", "=hunter2"),
        ("MOGNET_TASK_QUEUES", "hunter2"),
        ("MOGNET_TASK_QUEUES", '["hunter2"]'),
        ("MOGNET_TASK_QUEUES", '{"include": ["hunter2"], "exclude": ["hunter2"]}'),
        ("MOGNET_URL", "hunter2\udcff"),
    ],
)
def test_wrong_values_name_the_variable_not_the_value(tmp_path: Path, variable: str, text: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        resolve(environ={variable: text}, start=tmp_path)
    assert str(caught.value).startswith(variable)
    assert "hunter2" not in str(caught.value)
    assert "correct" in str(caught.value) or "should be JSON, or pairs" in str(caught.value)


def test_nested_variables_join_the_entries_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mognet.toml").write_text('[services_settings.smtp]\nhost = "h"\nport = 1\n[task_queues]\nexclude = ["x"]\n')
    found = resolve(environ={"MOGNET_SERVICES_SETTINGS__SMTP__PORT": "2", "MOGNET_TASK_QUEUES__INCLUDE": "a"}, start=tmp_path)
    assert found.config.services_settings == {"smtp": {"host": "h", "port": 2}}
    assert found.config.task_queues == Queues(include={"a"})
    assert resolved(tmp_path, MOGNET_SERVICES_SETTINGS="a=1").services_settings == {"a": 1}
    both = {"MOGNET_SERVICES_SETTINGS": "a=1", "MOGNET_SERVICES_SETTINGS__B": "x"}
    found = resolve(environ=both, start=tmp_path)
    assert found.config.services_settings == {"a": 1, "b": "x"}
    assert found.origins["services_settings"] == "MOGNET_SERVICES_SETTINGS, MOGNET_SERVICES_SETTINGS__B"
    with pytest.raises(ImproperlyConfigured, match="MOGNET_SERVICES_SETTINGS__A__B: sets an entry of what is not a table"):
        resolved(tmp_path, MOGNET_SERVICES_SETTINGS="a=1", MOGNET_SERVICES_SETTINGS__A__B="1")


def test_unknown_variables_are_logged_once_and_harm_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "_warned", set())
    environ = {
        "MOGNET_LEESE": "hunter2",
        "MOGNET_TASK_QUEUES__INCLUD": "hunter2",
        "MOGNET_LEASE__X": "1",
        "MOGNET_SERVICES_SETTINGS__": "1",
        "MOGNET_": "1",
        "MOGNET_APP": "a:b",
        "MOGNET_LOG_LEVEL": "x",
        "MOGNET_LOG_FORMAT": "x",
        "MOGNET_TEST_REDIS": "x",
        "MOGNET_REQUIRE_REDIS": "x",
        "MOGNETX": "x",
        "PATH": "x",
    }
    with caplog.at_level(logging.WARNING, "mognet"):
        for _ in range(2):
            assert resolve(environ=environ, start=tmp_path).origins == dict.fromkeys(AppConfig.model_fields, "default")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 5
    assert "unknown environment variable 'MOGNET_LEESE' is ignored: did you mean 'MOGNET_LEASE'?" in messages
    assert any("did you mean 'MOGNET_TASK_QUEUES__INCLUDE'?" in message for message in messages)
    assert "hunter2" not in caplog.text


NAMES = st.text(st.characters(exclude_characters=",[]{}=", exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)


@given(st.lists(NAMES))
def test_lists_can_be_written_in_both_ways(names: list[str]) -> None:
    assert from_environ(MOGNET_IMPORTS=json.dumps(names))["imports"] == names
    assert from_environ(MOGNET_IMPORTS=",".join(names)).get("imports", []) == names
    assert set(from_environ(MOGNET_TASK_QUEUES__INCLUDE=" , ".join(names)).get("task_queues", {"include": []})["include"]) == set(names)


@given(st.dictionaries(NAMES, NAMES))
def test_dictionaries_can_be_written_in_both_ways(routes: dict[str, str]) -> None:
    assert from_environ(MOGNET_TASK_ROUTES=json.dumps(routes))["task_routes"] == routes
    assert from_environ(MOGNET_TASK_ROUTES=",".join(f"{key}={value}" for key, value in routes.items())).get("task_routes", {}) == routes


@given(st.timedeltas(min_value=timedelta(milliseconds=1), max_value=timedelta(days=365)))
def test_durations_in_seconds_come_back(duration: timedelta) -> None:
    assert AppConfig(lease=from_environ(MOGNET_LEASE=f"{duration.total_seconds():f}")["lease"]).lease == duration


@given(st.sampled_from(sorted(AppConfig.model_fields)), st.text())
@example("imports", "[")
@example("services_settings", "NaN")
@example("services_settings", "{" * 100_000)
@example("max_tasks", "9" * 5000)
def test_no_text_breaks_more_than_its_own_setting(tmp_path_factory: pytest.TempPathFactory, name: str, text: str) -> None:
    try:
        found = resolve(environ={f"MOGNET_{name.upper()}": text}, start=Path("/"))
    except ImproperlyConfigured as error:
        assert f"MOGNET_{name.upper()}" in str(error)
    else:
        assert {origin for key, origin in found.origins.items() if key != name} == {"default"}


# --- places


def test_the_nearest_file_counts(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "mognet.toml").write_text('max_retries = 1\napp = "top:app"')
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'a'")
    assert resolved(deep).max_retries == 1
    assert app_setting(deep) == "top:app"
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.mognet]\nmax_retries = 2")
    assert resolved(deep).max_retries == 2
    assert app_setting(deep) is None
    (tmp_path / "a" / "mognet.toml").write_text("max_retries = 3")
    assert resolved(deep).max_retries == 3
    (deep / "tasks.py").touch()
    assert resolved(deep / "tasks.py").max_retries == 3


def test_start_is_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mognet.toml").write_text('max_retries = 7\napp = "x"')
    monkeypatch.chdir(tmp_path)
    assert resolve(environ={}).config.max_retries == 7
    assert app_setting() == "x"
    assert project_root() == tmp_path.resolve()


def test_a_broken_pyproject_matters_only_if_it_speaks_of_mognet(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project")
    assert resolved(tmp_path) == AppConfig()
    (tmp_path / "pyproject.toml").write_text("[tool.mognet")
    with pytest.raises(ImproperlyConfigured, match=r"pyproject\.toml: is not valid TOML"):
        resolved(tmp_path)


def test_errors_of_a_found_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "mognet.toml").write_text("max_retires = 1")
    with pytest.raises(ImproperlyConfigured, match=r"mognet\.toml: unknown setting 'max_retires': did you mean 'max_retries'?"):
        resolved(tmp_path)
    for app in ("3", '" "'):
        (tmp_path / "mognet.toml").write_text(f"app = {app}")
        with pytest.raises(ImproperlyConfigured, match=r"mognet\.toml: app: should be text"):
            app_setting(tmp_path)


def test_project_root(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert project_root(deep) == deep.resolve()
    (tmp_path / "pyproject.toml").touch()
    assert project_root(deep) == tmp_path.resolve()
    (tmp_path / "a" / "mognet.toml").touch()
    assert project_root(deep) == (tmp_path / "a").resolve()


def test_default_url(tmp_path: Path) -> None:
    root = tmp_path.resolve().as_posix()
    assert default_url("shop", tmp_path) == f"sqlite:///{root}/.mognet/shop.db"
    assert default_url("shop", tmp_path).startswith("sqlite:////")
    assert default_url("my shop/../é", tmp_path).endswith("/.mognet/my=20shop=2F..=2F=C3=A9.db")
    assert default_url("..", tmp_path).endswith("/.mognet/=2E..db")
    assert default_url("", tmp_path).endswith("/.mognet/=.db")
    assert list(tmp_path.iterdir()) == []


def test_default_url_of_an_odd_folder(tmp_path: Path) -> None:
    odd = tmp_path / "100% a?b#c d"
    odd.mkdir()
    assert default_url("x", odd).endswith("/100%25 a%3Fb%23c d/.mognet/x.db")


@given(st.text(st.characters()), st.text(st.characters()))
@example("a" * 300, "a" * 301)
@example("=", "")
@example(".a", "=2Ea")
def test_each_app_name_has_a_file_of_its_own(one: str, other: str) -> None:
    files = [default_url(name, Path("/")).removeprefix("sqlite:////.mognet/") for name in (one, other)]
    assert (files[0] == files[1]) == (one == other)
    for file in files:
        assert "/" not in file
        assert len(file) < 200
        assert not file.startswith(".")
        assert file.isascii()
        assert file.isprintable()
