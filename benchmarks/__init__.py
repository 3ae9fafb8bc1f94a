"""How fast mognet is on each engine: ``make bench``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # the private servers and the proxy are those of the tests
