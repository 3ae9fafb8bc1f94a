"""The files that settings come from, and the places that they name."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from mognet.exceptions import ImproperlyConfigured


def read_table(path: Path) -> dict[str, Any] | None:
    """The settings in a file; None for a ``pyproject.toml`` without ``[tool.mognet]``."""
    import tomllib  # here, so that `import mognet` does not pay for it

    if path.suffix not in (".json", ".toml"):
        raise ImproperlyConfigured(f"{path}: settings are read from .json or .toml; rename or convert the file")
    try:
        text = path.read_text("utf-8-sig")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ImproperlyConfigured(f"{path}: cannot be read ({error.strerror}); check its path and permissions") from None
    except (ValueError, RecursionError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeError) else error
        raise ImproperlyConfigured(f"{path}: is not valid {path.suffix[1:].upper()} ({reason}); correct the file") from None
    if path.name == "pyproject.toml":
        tool = data.get("tool")
        data = tool.get("mognet") if isinstance(tool, dict) else None
    if data is not None and not isinstance(data, dict):
        raise ImproperlyConfigured(f"{path}: settings should be a table of names and values")
    return data


def _upwards(start: Path | None) -> list[Path]:
    here = Path(start if start is not None else Path.cwd()).resolve()
    here = here.parent if here.is_file() else here
    return [here, *here.parents]


def find_file(start: Path | None) -> Path | None:
    """The nearest ``mognet.toml``, or ``pyproject.toml`` that speaks of mognet, from ``start`` upwards."""
    for folder in _upwards(start):
        if os.path.isfile(own := folder / "mognet.toml"):
            return own
        shared = folder / "pyproject.toml"
        try:
            if os.path.isfile(shared) and read_table(shared) is not None:
                return shared
        except ImproperlyConfigured:  # ours to report only if it holds our settings
            if os.access(shared, os.R_OK) and b"mognet" in shared.read_bytes():
                raise
    return None


def project_root(start: Path | None = None) -> Path:
    """The nearest folder upwards with a ``pyproject.toml`` or ``mognet.toml``, else the start itself (default: working directory)."""
    folders = _upwards(start)
    marks = ("pyproject.toml", "mognet.toml")
    return next((folder for folder in folders if any(os.path.isfile(folder / mark) for mark in marks)), folders[0])


def default_url(app_name: str, start: Path | None = None) -> str:
    """The URL of an app that was given none: ``.mognet/<app name>.db`` at the project root. Nothing is created.

    In the path ``%``, ``?`` and ``#`` are percent-encoded, all else is as it is; odd characters of the name become ``=XX``.
    """
    raw = app_name.encode("utf-8", "surrogatepass")
    name = "".join(chr(b) if re.match(rb"[A-Za-z0-9_.-]", bytes([b])) else f"={b:02X}" for b in raw) or "="
    name = f"=2E{name[1:]}" if name.startswith(".") else name
    if len(name) > 150:  # file systems stop at 255, and SQLite adds suffixes
        name = f"{name[:120]}={hashlib.sha256(raw).hexdigest()[:16]}"
    path = (project_root(start) / ".mognet" / f"{name}.db").as_posix()
    return "sqlite:///" + path.replace("%", "%25").replace("?", "%3F").replace("#", "%23")


def app_setting(start: Path | None = None) -> str | None:
    """The ``app`` named in the nearest file: what the command line runs when it is told none."""
    path = find_file(start)
    app = (read_table(path) or {}).get("app") if path is not None else None
    if app is not None and (not isinstance(app, str) or not app.strip()):
        raise ImproperlyConfigured(f"{path}: app: should be text such as 'package.module:app'; correct or remove it in the file")
    return app
