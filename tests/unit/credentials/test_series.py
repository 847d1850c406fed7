"""What is kept of a secret's versions: by time, by their own end, and by what is not answered yet."""

from __future__ import annotations

from callerid.credentials.secret import PemSecret, Secret
from callerid.credentials.series import KEPT_FOR, KEPT_VERSIONS, LEEWAY, Series

HOUR = 3600.0


def needles(secret: Secret | PemSecret) -> tuple[bytes, ...]:
    assert isinstance(secret, Secret)
    return secret.renderings()


def grown(
    count: int, *, ends: float | None = None, every: float = 0.0, in_use: frozenset[str] = frozenset()
) -> Series:
    series = Series("shared")
    for number in range(count):
        now = number * every
        secret = Secret(f"token-number-{number:05}", label=series.next_label())
        life = None if ends is None else now + ends
        series = series.added(secret, needles, now, life, lambda: in_use)
    return series


def held(series: Series, number: int) -> bool:
    return any(f"token-number-{number:05}".encode() in needle for needle in series.needles())


def test_of_values_without_an_end_so_many_are_kept() -> None:
    series = grown(KEPT_VERSIONS + 2)
    assert [held(series, number) for number in (0, 1, 2, KEPT_VERSIONS + 1)] == [False, False, True, True]


def test_a_token_that_is_still_good_is_kept_however_many_came_after_it() -> None:
    series = grown(KEPT_VERSIONS + 50, ends=HOUR, every=1.0)
    assert held(series, 0)


def test_those_that_are_over_make_room_first() -> None:
    series = grown(KEPT_VERSIONS + 50, ends=10.0, every=LEEWAY)
    assert len(series.kept) == KEPT_VERSIONS
    assert not held(series, 0)


def test_what_went_with_an_exchange_that_is_under_way_stays() -> None:
    in_use = frozenset({"shared@v1"})
    series = grown(KEPT_VERSIONS + 50, in_use=in_use)
    assert [held(series, number) for number in (0, 1)] == [True, False]
    late = series.pruned(10 * KEPT_FOR, lambda: in_use)
    assert [one.secret.label for one in late.kept] == ["shared@v1", f"shared@v{series.version}"]
    assert len(series.pruned(10 * KEPT_FOR).kept) == 1


def test_a_token_that_is_good_for_days_is_looked_for_until_it_ends() -> None:
    series = grown(2, ends=72 * HOUR)
    assert held(series.pruned(72 * HOUR), 0)
    assert not held(series.pruned(72 * HOUR + LEEWAY), 0)


def test_it_is_crowded_by_tokens_that_are_still_good_only() -> None:
    assert grown(KEPT_VERSIONS // 2, ends=HOUR).is_crowded(0.0)
    assert not grown(KEPT_VERSIONS // 2 - 1, ends=HOUR).is_crowded(0.0)
    assert not grown(KEPT_VERSIONS, ends=HOUR).is_crowded(2 * HOUR)
    assert not grown(KEPT_VERSIONS).is_crowded(0.0)
