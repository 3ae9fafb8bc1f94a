"""The names of all keys and channels, and what they hold.

Every key of an app starts with ``mognet:{app}:``; the braces keep them in one hash slot of a cluster. Times are microseconds
since 1970 by the server's clock, ids are 32 hexadecimal digits.

======================  =============  =========================================================================================
key                     type           what
======================  =============  =========================================================================================
``job:ID``              hash           one job; its fields are in :data:`FIELDS`
``meta:ID``             hash           its metadata: JSON text of the key -> JSON text of the value
``body:ID``             string         its call, and once it has ended its value or error
``notes:ID``            hash           the notes of its attempts
``ready:QUEUE``         sorted set     jobs that are due, best first; a member is arrival, priority and id in one
``later:QUEUE``         sorted set     jobs that are not, by due time; the same members
``wait:QUEUE``          sorted set     who waits for a job, until when; goes by itself seconds after the last has gone
``carried``             sorted set     jobs that a broker carries, by due time
``late``                sorted set     jobs that nobody holds and that have a latest moment, by it
``leases``              sorted set     jobs that are held, by the end of the lease
``ends``                sorted set     jobs of which something expires, by the moment
``open``, ``done``      sorted set     unfinished and finished jobs, by creation
``children:ID``         sorted set     the children of a job, by creation
``tree:ID``             sorted set     the jobs below a topmost job, by creation
``ids``                 sorted set     all ids, in their order
``counts``              hash           how many jobs there are of a state, in line or not, a queue and a name
``seq``                 string         the last number of arrival; the only key that stays when all jobs are gone
======================  =============  =========================================================================================

Channels: ``sig:CHANNEL`` carries what is published, ``done`` the ends of jobs, ``bell:ENGINE`` rings for one engine object.
"""

from __future__ import annotations

import re
from typing import NewType

Key = NewType("Key", bytes)
Prefix = NewType("Prefix", bytes)

FIELDS = {
    "n": "name",
    "q": "queue",
    "s": "state, as a digit: its place in ResultState",
    "p": "priority",
    "c": "created",
    "d": "due",
    "b": "begun: when it was first claimed",
    "f": "finished",
    "a": "starts",
    "o": "stops",
    "t": "attempt",
    "u": "parent",
    "r": "root, if that is another job",
    "w": "node (worker)",
    "l": "label",
    "y": "lifetime set by hand",
    "x": "when it expires",
    "m": "1: it has metadata",
    "k": "the token that holds it: its start and its holder",
    "e": "its place in the order of arrival",
    "i": "1: it is in line, 2: a broker carries it",
    "v": "when its value expires",
    "g": "it has notes; when they expire, or 0",
    "h": "its place in the batch in which it came",
    "z": "its latest moment",
    "j": "how long its record lives if that passes",
}
"""The fields of a job's hash, in the order in which the scripts answer them (``lua/common.lua`` has the same list)."""

RECORD = 18
"""So many of them are what a reader gets."""


def prefix(app: str) -> Prefix:
    """What all keys of an app begin with. Braces would end the hash tag."""
    tag = re.sub("[{}%]", lambda found: f"%{ord(found[0]):02x}", app)
    return Prefix(b"mognet:{%b}:" % text(tag))


def text(value: str) -> bytes:
    """Any text as bytes, lone surrogates included."""
    return value.encode("utf-8", "surrogatepass")


def channel(start: Prefix, name: str) -> Key:
    """The channel of what is published under this name."""
    return Key(b"%bsig:%b" % (start, text(name)))


def done(start: Prefix) -> Key:
    """The channel on which the scripts tell of the ends of jobs."""
    return Key(b"%bdone" % start)


def bell(start: Prefix, engine: str) -> Key:
    """The channel of one engine object."""
    return Key(b"%bbell:%b" % (start, text(engine)))


def by_creation(start: Prefix) -> tuple[Key, Key]:
    """The sets of all jobs."""
    return Key(b"%bopen" % start), Key(b"%bdone" % start)


def children(start: Prefix, id: bytes) -> Key:
    """The set of a job's children."""
    return Key(b"%bchildren:%b" % (start, id))


def tree(start: Prefix, id: bytes) -> Key:
    """The set of the jobs below a root."""
    return Key(b"%btree:%b" % (start, id))
