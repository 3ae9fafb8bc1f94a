"""How fast mognet is, beside huey and DBOS: ``make bench``."""
