"""Where jobs are kept: one URL, a broker beside a result backend, and the configuration of Mognet 2.0."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mognet import App, AppConfig
from mognet import config_legacy as legacy
from mognet.config import resolve
from mognet.engines import engine_factory
from mognet.exceptions import ImproperlyConfigured

OLD: dict[str, Any] = {
    "result_backend": {
        "redis": {
            "url": "redis://db:6379/",
            "result_ttl": 60,
            "result_value_ttl": 30,
            "result_value_encoding": "gzip",
            "retry_connect_attempts": 10,
            "retry_connect_timeout": 30,
            "max_connections": None,
        }
    },
    "state_backend": {"redis": {"url": "redis://db/0", "state_ttl": 7200, "max_connections": 5}},
    "broker": {"amqp": {"url": "amqp://guest:secret@rabbit:5672/", "retry_connect_attempts": 10, "retry_connect_timeout": 30}},
    "max_reconnect_retries": 5,
    "reconnect_interval": 5,
    "minimum_concurrency": 1,
}


def place(config: AppConfig | None = None, folder: Path = Path("/"), **environ: str) -> legacy.Place:
    config = resolve(config, environ=environ, start=folder).config
    return legacy.place_of(config.url, config.broker, config.result_backend, "default")


def test_the_configuration_of_mognet_2(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legacy, "_noted", set())
    with caplog.at_level(logging.INFO):
        config = AppConfig.model_validate(OLD)
    assert place(config) == legacy.Place("redis://db:6379/", ("amqp://guest:secret@rabbit:5672/",))
    assert (config.result_ttl, config.result_value_ttl, config.state_ttl) == (
        timedelta(seconds=60),
        timedelta(seconds=30),
        timedelta(hours=2),
    )
    for name in (
        "max_reconnect_retries",
        "reconnect_interval",
        "result_value_encoding",
        "broker.retry_connect_attempts",
        "max_connections",
    ):
        assert any(name in record.getMessage() for record in caplog.records)
    assert "secret" not in caplog.text + repr(config)


def test_as_json_toml_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(json.dumps(OLD))
    want = place(AppConfig.model_validate(OLD))
    assert place(AppConfig.from_file(file)) == want
    (tmp_path / "mognet.toml").write_text('[broker.amqp]\nurl = "amqp://a"\n[result_backend.redis]\nresult_ttl = 60\n')
    assert place(folder=tmp_path) == legacy.Place(legacy.LOCAL_REDIS, ("amqp://a",))
    environ = {f"MOGNET_{name.upper()}": json.dumps(OLD[name]) for name in ("broker", "result_backend", "state_backend")}
    found = resolve(environ=environ, start=Path("/")).config
    assert (found.result_backend, found.result_ttl) == ("redis://db:6379/", timedelta(seconds=60))


def test_nothing_said_means_localhost() -> None:
    config = AppConfig.model_validate({"broker": {"amqp": {}}, "result_backend": {"redis": {}}, "state_backend": {"redis": {}}})
    assert place(config) == legacy.Place("redis://localhost:6379/", ("amqp://localhost:5672/",))
    assert config.result_ttl == timedelta(days=21)


def test_for_ever_is_as_long_as_a_setting_may_be() -> None:
    config = AppConfig.model_validate({"result_backend": {"redis": {"result_ttl": None, "result_value_ttl": None}}})
    assert config.result_ttl == config.result_value_ttl == timedelta(days=36_525)


def test_a_lifetime_of_its_own_goes_before() -> None:
    config = AppConfig.model_validate({"result_backend": {"redis": {"result_ttl": 60}}, "result_ttl": 90})
    assert config.result_ttl == timedelta(seconds=90)


def test_several_nodes() -> None:
    urls = ("amqp://a:p,w@one", "amqp://a:p,w@two:5673")
    for broker in (list(urls), ",".join(urls), json.dumps(urls)):
        assert place(AppConfig(broker=broker, result_backend="memory://x")).broker == urls
        assert place(MOGNET_RESULT_BACKEND="memory://x", MOGNET_BROKER=broker if isinstance(broker, str) else urls[0]).broker[0] == urls[0]


def test_a_result_backend_alone_is_the_engine() -> None:
    assert place(AppConfig(result_backend="sqlite:///a.db")) == legacy.Place("sqlite:///a.db")
    assert App("a", AppConfig(result_backend="sqlite:///a.db")).url == "sqlite:///a.db"


def test_what_is_said_by_half_or_twice() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"broker \(from code\) carries only tickets.*set result_backend"):
        place(AppConfig(broker="amqp://a"))
    with pytest.raises(ImproperlyConfigured, match=r"url \(from code\) and broker \(from code\) and .* both say"):
        place(AppConfig(url="memory://", broker="amqp://a", result_backend="memory://"))
    with pytest.raises(ImproperlyConfigured, match="without a result_backend"):
        place(AppConfig(state_backend="redis://a"))
    with pytest.raises(ImproperlyConfigured, match=r"keeps no jobs: set AppConfig\.broker"):
        engine_factory("amqp://a", "app")


def test_the_first_who_says_where_says_it(tmp_path: Path) -> None:
    pair = {"MOGNET_BROKER": "amqp://a", "MOGNET_RESULT_BACKEND": "redis://a"}
    assert place(AppConfig(url="memory://x"), **pair) == legacy.Place("memory://x")
    (tmp_path / "mognet.toml").write_text('url = "sqlite:///file.db"\n')
    assert place(folder=tmp_path, **pair) == legacy.Place("redis://a", ("amqp://a",))
    assert place(AppConfig(broker="amqp://b"), MOGNET_RESULT_BACKEND="redis://a") == legacy.Place("redis://a", ("amqp://b",))


def test_a_state_backend_of_its_own_is_refused() -> None:
    for same in ("redis://a", "redis://a/0", "redis://a:6379/"):
        AppConfig(result_backend="redis://a", state_backend=same)
    for other in ("redis://b", "redis://a/1", "memory://a"):
        with pytest.raises(ValidationError, match="state is kept with its record"):
            AppConfig(result_backend="redis://a", state_backend=other)


@pytest.mark.parametrize("broker", [{"redis": {}}, {"amqp": 5}, {"amqp": {}, "kafka": {}}, '{"amqp"', 5, [5]])
def test_what_is_no_broker(broker: Any) -> None:
    with pytest.raises(ValidationError) as error:
        AppConfig.model_validate({"broker": broker})
    assert "broker" in str(error.value)


def test_passwords_are_not_shown() -> None:
    config = AppConfig(
        broker=["amqp://u:canary@a", "amqp://u:canary@b"], result_backend="redis://:canary@c", state_backend="redis://:canary@c"
    )
    app = App("a", config)
    assert app.url == "amqp://u:***@a, amqp://u:***@b + redis://:***@c"
    assert "canary" not in f"{config!r} {config} {app.url}"


def test_a_url_set_by_hand_goes_before_all() -> None:
    app = App("a", AppConfig(broker="amqp://a", result_backend="redis://a"))
    app.config.url = "memory://x"
    assert app.url == "memory://x"


def test_what_2_0_ignored_without_a_word_is_told(caplog: pytest.LogCaptureFixture) -> None:
    AppConfig.model_validate({"result_backend": {"redis": {"url": "redis://db", "result_tll": 5}}, "broker": {"amqp": {"url": "amqp://h"}}})
    assert [record.message for record in caplog.records] == ["unknown setting result_backend.result_tll is ignored, as Mognet 2.0 did"]
