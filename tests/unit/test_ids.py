from __future__ import annotations

from uuid import RFC_4122, UUID

from mognet.ids import make_id, random_id


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


def test_an_id_of_a_number() -> None:
    number = 0x12345678_1234_4234_8234_123456789ABC
    assert make_id(number) == UUID(int=number)
    assert repr(make_id(number)) == repr(UUID(int=number))
