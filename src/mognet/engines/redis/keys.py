"""The names of all keys and channels, and what they hold.

Every key of an app starts with ``mognet:{app}:``; the braces keep them in one hash slot of a cluster. Times are microseconds
since 1970 by the server's clock, ids are 32 hexadecimal digits.

======================  =============  =========================================================================================
key                     type           what
======================  =============  =========================================================================================
``job:ID``              hash           one job; its fields are in :data:`FIELDS`
``body:ID``             string         its call; once it has succeeded, its value. Before either, its metadata as it came, until that is
                                       changed (``lua/metadata.lua`` says how)
``meta:ID``             hash           its metadata, once that was changed: JSON text of the key -> JSON text of the value; number of an
                                       indexed path -> label of the value there; ``p`` -> its progress
``value:ID``            string         what it left, if it ended otherwise
``log:ID``              list           the last lines that it logged
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
``paths``               hash           paths in the metadata that are indexed -> their numbers, with a ``?`` until the index is whole
``has:NUMBER``          sorted set     the index of a path: jobs that have a value there; a member is label, NUL, creation and id in one
``changes``             sorted set     the jobs that have changed, by the number of the last change; only while ``watched``
``app``                 hash           what is known of the app as a whole; its fields are in :data:`APP_FIELDS`
``seq``                 string         the last number of arrival; this and ``app`` stay when all jobs are gone
======================  =============  =========================================================================================

Channels: ``sig:CHANNEL`` carries what is published (``sig:changed`` rings while ``watched``), ``done`` the ends of jobs, ``bell:ENGINE``
rings for one engine object.
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
    "h": "its place in the batch in which it came",
    "m": "its metadata: how much of it stands in ``body:ID``; or 1: there is something in ``meta:ID``, 2: labels, too",
    "k": "the token that holds it: its start and its holder",
    "e": "its place in the order of arrival",
    "i": "1: it is in line, 2: a broker carries it",
    "v": "when its value expires",
    "g": "it has notes; when they expire, or 0",
    "z": "its latest moment",
    "j": "how long its record lives if that passes",
    "G": "how many lines it has logged",
}
"""The fields of a job's hash, in the order in which the scripts answer them (``lua/common.lua`` has the same list)."""

RECORD = 19
"""So many of them are what a reader gets, and behind them its progress."""

APP_FIELDS = {
    "identity": "a random text, to know what belongs elsewhere",
    "paths": "the version of the declaration: another random text whenever ``paths`` changes",
    "numbers": "the last number that a path got",
    "walk": "how far those who bring the indexes up to date have come: score and id; only while there is something to do",
    "watched": "until when notes of changes are taken",
    "changes": "the last number of a change",
    "floor": "the number of the first change since which notes are taken without a gap",
}
"""The fields of the hash of the app."""


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


def index(start: Prefix, number: bytes) -> Key:
    """The index of a path in the metadata."""
    return Key(b"%bhas:%b" % (start, number))
