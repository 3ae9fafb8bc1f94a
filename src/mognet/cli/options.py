"""The global options, as every command gets them."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """What was given before (or after) the command."""

    app: str | None = None
    url: str | None = None
    log_level: str | None = None
    log_format: str | None = None
    no_color: bool = False

    @property
    def color(self) -> bool:
        """Whether colours are wanted, where there is a terminal."""
        return not self.no_color and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def again(self, command: str) -> str:
        """A command line that says the same app and URL as this one."""
        words = ["mognet"]
        if self.url is not None:
            from mognet.redaction import redact_url

            words += ["--url", shlex.quote(self.url) if redact_url(self.url) == self.url else "…"]
        if self.app is not None:
            words.append(shlex.quote(self.app))
        return " ".join([*words, command])
