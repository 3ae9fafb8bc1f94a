"""Every type that a user can reach through the public face is written down, so that each checker sees the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mognet

ROOMS = tuple(
    f"mognet.{room}."
    for room in (
        "acting",
        "app",
        "backend",
        "backoff",
        "calling",
        "config",
        "context",
        "control",
        "entries",
        "events",
        "exceptions",
        "finding",
        "http",
        "middleware",
        "progress",
        "records",
        "registry",
        "requests",
        "results",
        "scope",
        "services",
        "state",
        "states",
        "testing.fixtures",
        "watching",
        "worker",
    )
)


def test_the_public_face_is_fully_typed() -> None:
    bin = Path(sys.executable).parent
    command = [str(bin / "pyright"), "--verifytypes", "mognet", "--ignoreexternal", "--outputjson"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"}, check=False)
    symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    face = [each for each in symbols if each["name"].startswith((*ROOMS, *(f"mognet.{name}" for name in mognet.__all__)))]
    assert len(face) > 200
    unclear = [each["name"] for each in face if not each["isTypeKnown"] or each["isTypeAmbiguous"]]
    assert unclear == []
