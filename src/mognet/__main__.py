"""``python -m mognet``."""

from mognet.cli import main

main()
