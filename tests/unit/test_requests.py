"""What a request refuses at once."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mognet import Request


@pytest.mark.parametrize("key", [1, None, b"tenant", ("a",)])
def test_keys_of_metadata_are_strings(key: Any) -> None:
    with pytest.raises(ValidationError, match="should be a valid string"):
        Request(name="x", metadata={key: 1})
    request: Request[Any] = Request(name="x")
    with pytest.raises(ValidationError, match="should be a valid string"):
        request.metadata = {key: 1}
