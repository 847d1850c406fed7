"""One PKI, one upstream and one proxy per module: starting a process is the expensive part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import harness
from tests.e2e.house import House, open_house
from tests.e2e.warm import Warm


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> harness.Pki:
    return harness.Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def upstream(pki: harness.Pki) -> Iterator[harness.Upstream]:
    server = harness.Upstream(pki.server_context())
    yield server
    server.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("callerid")


@pytest.fixture(scope="module")
def proxy(home: Path, pki: harness.Pki, upstream: harness.Upstream) -> Iterator[harness.Proxy]:
    """A proxy with the standard rules towards ``upstream``, as ``callerid run``."""
    made = harness.Proxy(
        home, harness.standard_rules(upstream.port), ca=pki.ca, environ={"THINGS_SECRET": harness.SECRET}
    )
    with harness.running(made):
        yield made


@pytest.fixture(scope="module")
def alice(proxy: harness.Proxy) -> str:
    """Alice's scoped token."""
    return proxy.issue("user:alice@corp.example")


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Starts proxies in a fraction of the time; for the modules that start many."""
    made = Warm()
    yield made
    made.close()


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Stage]:
    """SDK servers, SDK clients and two proxies for all tests with the SDK; rows are told apart by ``seq``."""
    pki = harness.Pki(tmp_path_factory.mktemp("sdk-pki"))
    with harness.sdk_stage(tmp_path_factory.mktemp("sdk"), pki) as made:
        yield made


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, pki: harness.Pki, warm: Warm) -> Iterator[House]:
    """A proxy with callers of every kind."""
    with open_house(tmp_path_factory.mktemp("house"), pki, warm) as made:
        yield made
