"""Virtual environments of peers, each of its own, outside the repository."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.table import say


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mognet-bench"


def prepare(peer: str, *requirements: str) -> str | None:
    """The Python of a peer's own virtual environment, which is made first if need be; None if that fails."""
    folder, wanted = cache() / peer, " ".join(requirements)
    python, stamp = folder / "bin" / "python", folder / "installed"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    say(f"installing {wanted} into {folder}")
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, capture_output=True, text=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        print(f"{peer} cannot be installed and is left out: {reason}", file=sys.stderr)
        return None
    stamp.write_text(wanted)
    return str(python)
