from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

import pytest

from mognet.ids import AT_A_TIME, copy_id, is_copy, make_id, random_id


def test_a_random_id_is_a_uuid_of_version_4() -> None:
    ids = [random_id() for _ in range(200)]
    assert len(set(ids)) == 200
    assert {(id.version, id.variant) for id in ids} == {(4, RFC_4122)}
    assert all(UUID(str(id)) == id and hash(UUID(str(id))) == hash(id) for id in ids)


def test_all_other_bits_are_random() -> None:
    seen_0 = seen_1 = 0
    for _ in range(400):
        number = random_id().int
        seen_1 |= number
        seen_0 |= ~number
    fixed = 0xF000 << 64 | 0xC000 << 48
    assert seen_1 & seen_0 & (1 << 128) - 1 == (1 << 128) - 1 & ~fixed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_gives_other_ids() -> None:
    random_id()
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writes, b"".join([random_id().bytes for _ in range(AT_A_TIME)]))
        os._exit(0)
    os.close(writes)
    with open(reads, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    theirs = {data[start : start + 16] for start in range(0, len(data), 16)}
    assert len(theirs) == AT_A_TIME
    assert theirs.isdisjoint({random_id().bytes for _ in range(AT_A_TIME)})


def test_threads_share_no_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = [id for some in pool.map(lambda _: [random_id() for _ in range(500)], range(16)) for id in some]
    assert len(set(ids)) == 8000


def test_an_id_of_a_number() -> None:
    number = 0x12345678_1234_4234_8234_123456789ABC
    assert make_id(number) == UUID(int=number)
    assert repr(make_id(number)) == repr(UUID(int=number))


def test_the_id_of_a_copy_is_known_as_one() -> None:
    ids = [make_id(number * 0x9E3779B97F4A7C15F39CC0605CEDC835 & (1 << 128) - 1) for number in range(1, 501)]
    copies = [copy_id(id, "1:2.5") for id in ids]
    assert copies == [copy_id(id, "1:2.5") for id in ids]
    assert len({*copies, *(copy_id(id, "2:2.5") for id in ids), *(copy_id(id, "1:2.5") for id in copies)}) == 1500
    assert {id.variant for id in copies} == {RFC_4122}
    assert {id.int >> 76 & 15 for id in copies} == {8}
    assert all(is_copy(UUID(str(id))) for id in copies)
    assert not any(is_copy(id) for id in ids)
    assert not any(is_copy(make_id(id.int ^ 1 << bit)) for id in copies[:20] for bit in range(128))


def test_all_free_bits_of_the_id_of_a_copy_are_used() -> None:
    seen_0 = seen_1 = 0
    for _ in range(400):
        number = copy_id(random_id(), "1").int
        seen_1 |= number
        seen_0 |= ~number
    assert (seen_1 & seen_0 & (1 << 128) - 1).bit_count() == 122
