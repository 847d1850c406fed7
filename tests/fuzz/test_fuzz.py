"""Every fuzz target, fast, and every input that was once found; ``scripts/fuzz`` runs the same for minutes.

A seed that ends in ``.open`` shows a fault that stands: it has to fail, so that mending is noticed. Then its
name loses the ending, and ``is_open`` of its target the case.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.targets import TARGETS, Target

SEEDS = Path(__file__).parent / "seeds"
EXAMPLES = {"rules": 60, "answers": 120}


def seeds() -> list[Path]:
    return sorted(path for path in SEEDS.glob("*/*") if path.is_file())


def kept(path: Path) -> object:
    standing = pytest.mark.xfail(strict=True, reason="a finding that stands", raises=AssertionError)
    marks = [standing] if path.suffix == ".open" else []
    return pytest.param(path, id=f"{path.parent.name}-{path.stem}", marks=marks)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_target_holds_for_new_inputs(target: Target) -> None:
    fast = settings(
        max_examples=EXAMPLES.get(target.name, 150),
        deadline=None,
        derandomize=bool(os.environ.get("CI")),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )

    @fast
    @given(target.cases)
    def holds(data: bytes) -> None:
        if target.is_open(data) is None:
            target.check(data)

    holds()


@pytest.mark.parametrize("path", [kept(path) for path in seeds()])
def test_what_was_found_once_stays_mended(path: Path) -> None:
    TARGETS[path.parent.name].check(path.read_bytes())


def test_every_target_has_seeds_and_every_seed_a_target() -> None:
    assert {path.parent.name for path in seeds()} == set(TARGETS)


@pytest.mark.parametrize(
    "path", [path for path in seeds() if path.suffix == ".open"], ids=lambda path: path.stem
)
def test_the_search_passes_by_what_is_known(path: Path) -> None:
    assert TARGETS[path.parent.name].is_open(path.read_bytes()) is not None
