from __future__ import annotations

import uuid

import pytest

from callerid.audit.ids import uuid7


def test_the_example_of_rfc_9562_appendix_a6_has_our_fields_in_place() -> None:
    """The appendix uses 0x017F22E279B0 as its time and 0x18C4DC0C0C07398F as random bits."""
    made = uuid7(0x017F22E279B0 * 1000, bytes.fromhex("18C4DC0C0C07398F"))
    assert made == "017f22e2-79b0-7000-98c4-dc0c0c07398f"


def test_version_and_variant_are_those_of_uuid_7() -> None:
    parsed = uuid.UUID(uuid7(1_790_000_000_123_456, b"\xff" * 10))
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == 1_790_000_000_123


def test_ids_of_successive_microseconds_sort_whatever_their_randomness() -> None:
    made = [
        uuid7(1_790_000_000_000_000 + step, (b"\xff", b"\x00")[step % 2] * 8) for step in range(0, 3000, 7)
    ]
    assert made == sorted(made)


@pytest.mark.parametrize(
    ("time_us", "random"),
    [
        pytest.param(-1, bytes(8), id="a time before the epoch"),
        pytest.param((1 << 48) * 1000, bytes(8), id="a time beyond 48 bits of milliseconds"),
        pytest.param(0, bytes(7), id="too little randomness"),
    ],
)
def test_what_does_not_fit_is_refused(time_us: int, random: bytes) -> None:
    with pytest.raises(ValueError):
        uuid7(time_us, random)
