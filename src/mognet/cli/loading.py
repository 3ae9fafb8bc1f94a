"""From `module:attribute` to an app; every way this can go wrong is one line."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from pathlib import Path

import pydantic
from pydantic import ValidationError

from mognet.app import App
from mognet.cli.failures import UNREACHABLE, USAGE, CommandError
from mognet.cli.options import Options
from mognet.config import app_setting, project_root
from mognet.engines.sql.connection import parse_url
from mognet.exceptions import MognetError

_SPEC = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*)(?::(?P<attribute>[^\W\d]\w*(?:\.[^\W\d]\w*)*))?")


def load_app(options: Options) -> App:
    """The app that was named, with the URL that was given. Raises :class:`CommandError`."""
    app = find_app(find_spec(options))
    if options.url is not None:
        if not options.url.strip():
            raise CommandError("--url is empty: give an engine's URL, such as sqlite:///jobs.db, or leave it out", USAGE)
        try:
            app.config.url = options.url
        except ValidationError as error:
            raise CommandError(f"--url: {error.errors()[0]['msg']}", USAGE) from None
        app.origins["url"] = "--url"
    return app


def check_store(app: App) -> None:
    """Raise :class:`CommandError` if the jobs would be in a file that is not there: who looks at a mistyped path must not make it."""
    url = app._place.store
    if url.startswith("sqlite:") and not (path := parse_url(url).path).exists():
        raise CommandError(
            f"there is no store at {path}: the first `run`, `submit` or `call` makes it; if there are jobs already, correct the path",
            UNREACHABLE,
        )


def find_spec(options: Options) -> str:
    """What names the app: the command line, the environment or the settings file."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    spec = options.app or os.environ.get("MOGNET_APP")
    if not spec:
        spec = app_setting()
        root = str(project_root())
        if spec and root not in sys.path:
            sys.path.append(root)
    if not spec:
        raise CommandError(
            "which app? Name it before the command (mognet MODULE:ATTRIBUTE run), by --app, in MOGNET_APP, or as `app` in [tool.mognet]",
            USAGE,
        )
    return spec.strip()


def find_app(spec: str) -> App:
    """The app at ``module[:attribute]``; the attribute is ``app`` if not given."""
    if spec.partition(":")[0].endswith(".py"):
        raise CommandError(f"{spec!r} is a file, and an app is named by its module: write {_as_module(spec)}", USAGE)
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise CommandError(f"{spec!r} names no app: it should be module or module:attribute, such as tasks:app", USAGE)
    name, attribute = match["module"], match["attribute"] or "app"
    found: object = _import(name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise CommandError(f"module {name!r} ({_file(name)}) has no attribute {attribute!r}{_instead(name)}", USAGE)
        found = getattr(found, part)
    if not isinstance(found, App):
        raise CommandError(f"{name}:{attribute} is {_what(found)}, not an App{_instead(name)}", USAGE)
    return found


def _as_module(spec: str) -> str:
    path, colon, attribute = spec.partition(":")
    return path.removesuffix(".py").removeprefix("./").strip("/").replace("/", ".") + colon + attribute


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise CommandError(
                f"there is no module {name!r} in {os.getcwd()} or on the Python path: check the name, or change to its folder", USAGE
            ) from error
        raise _broken(name, error) from error
    except MognetError as error:
        # It names what is wrong, which may as well be a variable or a file that the app reads as it is made.
        raise CommandError(f"{error} — found at {_place(error)}", USAGE) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> CommandError:
    text = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    return CommandError(f"module {name!r} cannot be imported: {' '.join(text.split()).rstrip(': ')} ({_place(error)})", USAGE)


def _place(error: BaseException) -> str:
    """File and line where an import failed: the last ones that are not of the import machinery."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    ours = (str(Path(__file__).parent.parent), str(Path(pydantic.__file__).parent))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    theirs = [f for f in frames if not f.filename.startswith(ours) and f.filename != importlib.__file__] or frames
    return f"{_short(theirs[-1].filename)}:{theirs[-1].lineno}" if theirs else "in its import"


def _short(filename: str) -> str:
    path, here = Path(filename), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else filename


def _file(module: str) -> str:
    return _short(getattr(sys.modules[module], "__file__", None) or "no file")


def _what(found: object) -> str:
    if isinstance(found, type):
        return f"the class {found.__name__}"
    return "a function" if callable(found) else f"of type {type(found).__name__}"


def _instead(module: str) -> str:
    """The apps that the module does hold."""
    names = [name for name, value in vars(sys.modules[module]).items() if isinstance(value, App)]
    if names:
        return "; did you mean " + " or ".join(f"{module}:{name}" for name in names) + "?"
    return "; write `app = App(...)` there, or name the right attribute"
