"""The clients of the servers, doing the least that the same job takes: it is stored with its arguments, handed out once, its result stored.

Each module is run like ``benchmarks.app``: ``python -m benchmarks.raw.redis COMMAND PLACE …``. What they leave out is what mognet adds:
states, leases, fencing, order by priority and due time, search, counts, recovery.
"""
