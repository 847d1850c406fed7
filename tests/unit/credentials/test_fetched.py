"""Secrets that are fetched: one flight each, fresh, stale, refused, doubted, reloaded. The clock is ours."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from callerid.config import Credential
from callerid.credentials import slots as slots_module
from callerid.credentials.fetching import AT_ONCE
from callerid.credentials.inject import Injection, apply
from callerid.credentials.minting import Given, Minter, Subject, Wanted
from callerid.credentials.outgoing import Outgoing
from callerid.credentials.secret import Secret
from callerid.credentials.sources import Fetched, Flight, Unavailable
from callerid.credentials.store import KEPT_VERSIONS, CredentialStore, Refused
from callerid.credentials.timetable import DOUBT_EVERY, Clock
from callerid.model import Reason
from tests.unit.credentials.helpers import NEXT_VALUE, VALUE, credential, destination, write_secret

WALL = 1_800_000_000.0
DEADLINE = 10.0


class Scene:
    """A clock that the test turns, and sources that do what the test says, and count how often."""

    def __init__(self) -> None:
        self.now = 0.0
        self.clock = Clock(lambda: self.now, lambda: WALL + self.now, lambda: 0.0)
        self.answers: dict[str, Callable[[Flight], Fetched | Unavailable]] = {}
        self.count: dict[str, int] = {}
        self.under_way: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self._lock = threading.Lock()

    def source(self, credential: Credential, *rest: Any) -> Any:
        return _Source(self, credential.id) if credential.source_kind == "exec" else None

    def fetch(self, name: str, flight: Flight) -> Fetched | Unavailable:
        with self._lock:
            self.count[name] = self.count.get(name, 0) + 1
            self.under_way[name] = self.under_way.get(name, 0) + 1
            self.most[name] = max(self.most.get(name, 0), self.under_way[name])
        try:
            return self.answers[name](flight)
        finally:
            with self._lock:
                self.under_way[name] -= 1

    def store(self, *credentials: Credential, **more: Any) -> CredentialStore:
        made = CredentialStore(credentials or (fetched(),), {}, clock=self.clock, **more)
        made.refresh()
        self.land(made)
        return made

    def land(self, store: CredentialStore) -> None:
        """Until nothing is under way any more, and what came is in force."""
        for _ in range(3):
            store._fetching.flights.settle(DEADLINE)
            store.refresh()

    def pass_time(self, seconds: float, store: CredentialStore) -> None:
        self.now += seconds
        store.refresh()
        self.land(store)


class _Source:
    def __init__(self, scene: Scene, name: str) -> None:
        self._scene, self._name = scene, name

    def fetch(self, flight: Flight) -> Fetched | Unavailable:
        return self._scene.fetch(self._name, flight)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene()
    monkeypatch.setattr(slots_module, "source_for", made.source)
    made.answers["github-shared"] = gives(VALUE)
    return made


def fetched(**changes: Any) -> Credential:
    return credential(**{"source_kind": "exec", "source": "", "argv": ("/bin/give",), **changes})


def gives(value: str, **more: Any) -> Callable[[Flight], Fetched | Unavailable]:
    return lambda flight: Fetched(value, **more)


def fails(flight: Flight) -> Fetched | Unavailable:
    return Unavailable("github-shared", "the vault is sealed", "Unseal it.")


def raises(flight: Flight) -> Fetched | Unavailable:
    raise RuntimeError(f"what a library says, with {VALUE} in it")


def sent(
    store: CredentialStore, name: str = "github-shared", subject: Subject | None = None
) -> tuple[str, str]:
    injection = store.prepare(name, destination(), subject)
    assert isinstance(injection, Injection), injection
    out = Outgoing(method="POST", scheme="https", host="h", port=443, path="/mcp/", headers={})
    apply(injection, out)
    return injection.label, out.headers["Authorization"]


def refused(store: CredentialStore, name: str = "github-shared", subject: Subject | None = None) -> str:
    found = store.prepare(name, destination(), subject)
    assert isinstance(found, Refused), found
    assert found.reason is Reason.CREDENTIAL_UNAVAILABLE
    return found.detail


class TestShared:
    def test_before_it_is_there_calls_are_refused_and_the_start_does_not_wait(self, scene: Scene) -> None:
        gate = threading.Event()

        def slow(flight: Flight) -> Fetched | Unavailable:
            gate.wait(DEADLINE)
            return Fetched(VALUE)

        scene.answers["github-shared"] = slow
        other = credential(id="files-shared", source="FILES")
        store = CredentialStore((fetched(), other), {"FILES": NEXT_VALUE}, clock=scene.clock)
        assert "not been fetched yet" in refused(store)
        store.refresh()
        assert "not been fetched yet" in refused(store)
        assert sent(store, "files-shared")[1] == f"Bearer {NEXT_VALUE}"
        gate.set()
        scene.land(store)
        assert sent(store) == ("github-shared@v1", f"Bearer {VALUE}")
        assert scene.count["github-shared"] == 1

    def test_it_is_renewed_at_its_interval_and_a_new_value_is_a_new_version(self, scene: Scene) -> None:
        store = scene.store()
        scene.pass_time(299, store)
        assert scene.count["github-shared"] == 1
        scene.answers["github-shared"] = gives(NEXT_VALUE, version="7")
        scene.pass_time(2, store)
        assert scene.count["github-shared"] == 2
        assert sent(store) == ("github-shared@v2", f"Bearer {NEXT_VALUE}")
        assert store.scrubber.holds(VALUE.encode())

    def test_the_same_value_again_is_no_new_version_and_no_new_scrubber(self, scene: Scene) -> None:
        store = scene.store()
        before = store.scrubber
        scene.pass_time(301, store)
        assert scene.count["github-shared"] == 2
        assert sent(store)[0] == "github-shared@v1"
        assert store.scrubber is before

    def test_a_value_with_an_end_is_renewed_before_it_and_never_used_after_it(self, scene: Scene) -> None:
        scene.answers["github-shared"] = gives(VALUE, expires_at=WALL + 100)
        store = scene.store()
        scene.answers["github-shared"] = fails
        scene.pass_time(79, store)
        assert scene.count["github-shared"] == 1
        scene.pass_time(2, store)
        assert scene.count["github-shared"] == 2
        assert sent(store)[0] == "github-shared@v1"
        scene.pass_time(20, store)
        assert "sealed" in refused(store)

    def test_what_had_expired_when_it_came_is_not_used(self, scene: Scene) -> None:
        scene.answers["github-shared"] = gives(VALUE, expires_at=WALL - 1)
        store = scene.store()
        assert "expired" in refused(store)

    def test_a_failing_source_leaves_the_last_good_value_for_a_while(self, scene: Scene) -> None:
        store = scene.store()
        scene.answers["github-shared"] = fails
        scene.pass_time(300, store)
        assert sent(store)[0] == "github-shared@v1"
        [status] = store.status()
        assert (status.ok, status.failing) == (True, "the vault is sealed")
        scene.pass_time(599, store)
        assert sent(store)[0] == "github-shared@v1"
        scene.pass_time(2, store)
        assert "sealed" in refused(store)
        [status] = store.status()
        assert (status.ok, status.detail, status.hint) == (False, "the vault is sealed", "Unseal it.")
        assert store.scrubber.holds(VALUE.encode())
        scene.answers["github-shared"] = gives(VALUE)
        scene.pass_time(61, store)
        assert sent(store)[0] == "github-shared@v1"
        assert store.status()[0].failing == ""

    def test_an_exception_is_a_failure_that_says_nothing_of_what_it_said(self, scene: Scene) -> None:
        scene.answers["github-shared"] = raises
        store = scene.store()
        assert refused(store) == "fetching it failed: RuntimeError"
        assert VALUE not in repr(store.status())

    def test_an_outage_under_load_is_a_bounded_number_of_fetches(self, scene: Scene) -> None:
        scene.answers["github-shared"] = fails
        store = scene.store()
        calls = 0
        for _ in range(1200):  # ten minutes of looks, with calls in each
            for _ in range(5):
                refused(store)
                calls += 1
            scene.now += 0.5
            store.refresh()
            store._fetching.flights.settle(DEADLINE)
        assert calls == 6000
        # 1, 2, 4 ... 60 s, each cut to half at this end of the scatter: then one every 30 s.
        assert 15 <= scene.count["github-shared"] <= 27
        assert scene.most["github-shared"] == 1

    def test_a_source_that_hangs_holds_one_thread_and_its_server_only(self, scene: Scene) -> None:
        gate, ended = threading.Event(), threading.Event()

        def hangs(flight: Flight) -> Fetched | Unavailable:
            flight.on_timeout(ended.set)
            gate.wait(DEADLINE)
            return Fetched(NEXT_VALUE)

        scene.answers["github-shared"] = hangs
        store = CredentialStore((fetched(),), {}, clock=scene.clock)
        store.refresh()
        for _ in range(200):
            scene.now += 1.0
            store.refresh()
        assert ended.is_set()
        assert "within 5 s" in refused(store)
        assert (scene.count["github-shared"], scene.most["github-shared"]) == (1, 1)
        scene.answers["github-shared"] = gives(VALUE)
        gate.set()
        scene.land(store)
        assert sent(store) == ("github-shared@v1", f"Bearer {VALUE}")
        assert not store.scrubber.holds(NEXT_VALUE.encode())

    def test_closing_ends_what_hangs_and_waits_for_nothing(self, scene: Scene) -> None:
        ended = threading.Event()

        def hangs(flight: Flight) -> Fetched | Unavailable:
            flight.on_timeout(ended.set)
            ended.wait(DEADLINE)
            return Fetched(VALUE)

        scene.answers["github-shared"] = hangs
        store = CredentialStore((fetched(),), {}, clock=scene.clock)
        store.refresh()
        store.close()
        assert ended.wait(DEADLINE)

    def test_old_versions_are_scrubbed_for_a_day(self, scene: Scene) -> None:
        store = scene.store()
        scene.answers["github-shared"] = gives(NEXT_VALUE)
        scene.pass_time(301, store)
        scene.pass_time(23 * 3600, store)
        assert store.scrubber.holds(VALUE.encode())
        scene.pass_time(2 * 3600, store)
        assert not store.scrubber.holds(VALUE.encode())
        assert store.scrubber.holds(NEXT_VALUE.encode())

    def test_a_secret_is_scrubbed_before_it_is_handed_out(self, scene: Scene) -> None:
        store = scene.store()
        scene.answers["github-shared"] = gives(NEXT_VALUE)
        scene.now += 301
        store.refresh()
        store._fetching.flights.settle(DEADLINE)
        # It is here, in a thread's hands; until the snapshot is exchanged the old one is what leaves.
        assert sent(store)[1] == f"Bearer {VALUE}"
        store.refresh()
        assert sent(store)[1] == f"Bearer {NEXT_VALUE}"
        assert store.scrubber.holds(NEXT_VALUE.encode())


class TestDoubt:
    def test_a_refused_secret_is_fetched_early_and_anew_but_not_in_a_storm(self, scene: Scene) -> None:
        store = scene.store()
        asked: list[bool] = []

        def rotated(flight: Flight) -> Fetched | Unavailable:
            asked.append(flight.anew)
            return Fetched(NEXT_VALUE)

        scene.answers["github-shared"] = rotated
        for _ in range(50):
            store.doubt("github-shared@v1")
        scene.pass_time(0.5, store)
        assert asked == [True]
        assert sent(store)[0] == "github-shared@v2"
        for _ in range(50):
            store.doubt("github-shared@v1")  # late answers to the old one
            store.doubt("github-shared@v2")
            scene.pass_time(0.5, store)
        assert len(asked) == 1
        scene.now += DOUBT_EVERY
        store.doubt("github-shared@v2")
        scene.pass_time(0.5, store)
        assert len(asked) == 2

    def test_who_has_tokens_refused_for_long_brings_no_good_one_out_of_sight(self, scene: Scene) -> None:
        """Each refusal has a new one made, and the first would still be taken where it was noted down."""
        made: list[str] = []

        def another(flight: Flight) -> Fetched | Unavailable:
            made.append(f"live-token-number-{len(made):06}")
            return Fetched(made[-1], WALL + scene.now + 12 * 3600)

        scene.answers["github-shared"] = another
        store = scene.store(fetched(refresh=6 * 3600.0))
        for _ in range(400):
            store.doubt(f"github-shared@v{len(made)}")
            scene.pass_time(DOUBT_EVERY, store)
            assert store.scrubber.holds(made[0].encode())
        assert 5 < len(made) <= KEPT_VERSIONS // 2
        assert all(store.scrubber.holds(value.encode()) for value in made)

    def test_what_went_with_a_call_that_is_not_answered_yet_is_not_forgotten(self, scene: Scene) -> None:
        class Exchange:
            pass

        store, call = scene.store(), Exchange()
        store.sent(call, "github-shared@v1")
        scene.answers["github-shared"] = gives(NEXT_VALUE)
        scene.pass_time(301, store)
        after = store.replaced((fetched(),))
        scene.pass_time(48 * 3600, after)
        assert after.scrubber.holds(VALUE.encode())
        del call
        gc.collect()
        scene.pass_time(1, after)
        assert not after.scrubber.holds(VALUE.encode())

    @pytest.mark.parametrize("label", ["", "nobody@v1", "github-shared@v9", "github-shared", "@v"])
    def test_what_is_not_live_is_not_doubted(self, scene: Scene, label: str) -> None:
        store = scene.store()
        store.doubt(label)
        scene.pass_time(0.5, store)
        assert scene.count["github-shared"] == 1


class TestReplaced:
    def test_a_reload_of_the_same_source_fetches_nothing(self, scene: Scene) -> None:
        store = scene.store()
        after = store.replaced((fetched(), credential(id="more", source="MORE")))
        after.refresh()
        scene.land(after)
        assert sent(after)[0] == "github-shared@v1"
        assert scene.count["github-shared"] == 1

    def test_a_reload_in_mid_flight_loses_nothing(self, scene: Scene) -> None:
        gate = threading.Event()

        def slow(flight: Flight) -> Fetched | Unavailable:
            gate.wait(DEADLINE)
            return Fetched(VALUE)

        scene.answers["github-shared"] = slow
        store = CredentialStore((fetched(),), {}, clock=scene.clock)
        store.refresh()
        after = store.replaced((fetched(refresh=60),))
        gate.set()
        store._fetching.flights.settle(DEADLINE)
        store.refresh()  # the old rooms are still in force
        after.refresh()
        assert sent(after) == ("github-shared@v1", f"Bearer {VALUE}")
        assert scene.count["github-shared"] == 1

    def test_a_new_source_is_never_sent_where_the_old_rules_bind(self, scene: Scene) -> None:
        store = scene.store()
        after = store.replaced((fetched(argv=("/bin/other",)),))
        assert "not been fetched yet" in refused(after)  # what the old source gave is not the new one's
        scene.answers["github-shared"] = gives(NEXT_VALUE)
        after.refresh()
        scene.land(after)
        assert sent(after) == ("github-shared@v2", f"Bearer {NEXT_VALUE}")
        assert sent(store) == ("github-shared@v1", f"Bearer {VALUE}")

    def test_a_reload_that_failed_later_leaves_the_old_store_working(self, scene: Scene) -> None:
        store = scene.store()
        store.replaced((fetched(argv=("/bin/other",)),))
        scene.answers["github-shared"] = gives(NEXT_VALUE)
        scene.pass_time(301, store)
        assert sent(store) == ("github-shared@v2", f"Bearer {NEXT_VALUE}")

    def test_a_removed_credential_is_scrubbed_for_a_day_and_not_fetched(self, scene: Scene) -> None:
        after = scene.store().replaced(())
        scene.pass_time(3600, after)
        assert scene.count["github-shared"] == 1
        assert after.scrubber.holds(VALUE.encode())
        scene.pass_time(24 * 3600, after)
        assert not after.scrubber.holds(VALUE.encode())

    def test_a_credential_that_comes_back_is_scrubbed_as_long_as_it_is_used(self, scene: Scene) -> None:
        """Taken out by mistake and put back: what it was forgotten by must not count any more."""
        back = scene.store().replaced(()).replaced((fetched(refresh=7200),))
        back.refresh()
        scene.land(back)
        for _ in range(25):
            scene.now += 3600
            back.refresh()
            assert sent(back) == ("github-shared@v1", f"Bearer {VALUE}")
            assert back.scrubber.holds(VALUE.encode())
            assert [secret.label for _, secret, _ in back.held()] == ["github-shared@v1"]
            scene.land(back)


class Mint:
    """Makes tokens of what it is given, and remembers what that was."""

    def __init__(self, *, per_person: bool = False) -> None:
        self.per_person = per_person
        self.given: list[Given] = []
        self.say: Callable[[Given, Flight], Fetched | Unavailable] = self.number

    def number(self, given: Given, flight: Flight) -> Fetched | Unavailable:
        return Fetched(f"access-token-number-{len(self.given)}", flight.wall + 100)

    def mint(self, given: Given, flight: Flight) -> Fetched | Unavailable:
        self.given.append(given)
        return self.say(given, flight)

    def for_all(self, credential: Credential, roots: Path | None) -> Minter | None:
        return self


OAUTH: dict[str, Any] = {"inject": "oauth_client_credentials"}


@pytest.fixture
def client_secret(tmp_path: Path) -> Credential:
    return credential(source_kind="file", source=str(write_secret(tmp_path / "s", VALUE)), **OAUTH)


class TestMinted:
    def test_a_token_is_made_of_the_secret_and_injected(
        self, scene: Scene, client_secret: Credential
    ) -> None:
        mint = Mint()
        store = scene.store(client_secret, minters=mint.for_all)
        assert sent(store) == ("github-shared@v1", "Bearer access-token-number-1")
        [given] = mint.given
        assert given.secret == Secret(VALUE, label="x")
        for value in (VALUE, "access-token-number-1"):
            assert store.scrubber.holds(value.encode())

    def test_it_is_renewed_by_its_life(self, scene: Scene, client_secret: Credential) -> None:
        mint = Mint()
        store = scene.store(client_secret, minters=mint.for_all)
        scene.pass_time(79, store)
        assert len(mint.given) == 1
        scene.pass_time(2, store)
        assert sent(store) == ("github-shared@v2", "Bearer access-token-number-2")

    def test_a_new_client_secret_makes_a_new_token_at_once(
        self, scene: Scene, client_secret: Credential
    ) -> None:
        mint = Mint()
        store = scene.store(client_secret, minters=mint.for_all)
        write_secret(Path(client_secret.source), NEXT_VALUE)
        scene.pass_time(0.5, store)
        scene.pass_time(0.5, store)
        assert [given.secret for given in mint.given] == [Secret(v, label="x") for v in (VALUE, NEXT_VALUE)]
        assert sent(store)[0] == "github-shared@v2"

    def test_a_client_secret_that_is_gone_takes_its_token_along(
        self, scene: Scene, client_secret: Credential
    ) -> None:
        store = scene.store(client_secret, minters=Mint().for_all)
        Path(client_secret.source).unlink()
        scene.pass_time(0.5, store)
        assert "does not exist" in refused(store)

    def test_a_successor_is_used_from_then_on_until_the_source_changes(
        self, scene: Scene, client_secret: Credential
    ) -> None:
        mint = Mint()
        mint.say = lambda given, flight: Fetched(
            f"access-token-number-{len(mint.given)}",
            flight.wall + 100,
            successor=f"refresh-token-number-{len(mint.given)}",
        )
        store = scene.store(client_secret, minters=mint.for_all)
        scene.pass_time(81, store)
        scene.pass_time(81, store)
        write_secret(Path(client_secret.source), NEXT_VALUE)
        scene.pass_time(1, store)
        scene.pass_time(1, store)
        wanted = (VALUE, "refresh-token-number-1", "refresh-token-number-2", NEXT_VALUE)
        assert [given.secret for given in mint.given] == [Secret(v, label="x") for v in wanted]
        for value in wanted:
            assert store.scrubber.holds(value.encode())

    @pytest.mark.parametrize("seen_first", [True, False])
    def test_a_source_that_changes_in_mid_flight_is_not_replaced_by_a_successor_of_before(
        self, scene: Scene, client_secret: Credential, seen_first: bool
    ) -> None:
        mint, begun, gate = Mint(), threading.Event(), threading.Event()

        def say(given: Given, flight: Flight) -> Fetched | Unavailable:
            number = len(mint.given)
            if number == 1:
                begun.set()
                gate.wait(DEADLINE)
            successor = f"refresh-token-number-{number}"
            return Fetched(f"access-token-number-{number}", flight.wall + 100, successor=successor)

        mint.say = say
        store = CredentialStore((client_secret,), {}, clock=scene.clock, minters=mint.for_all)
        store.refresh()
        begun.wait(DEADLINE)
        write_secret(Path(client_secret.source), NEXT_VALUE)
        if seen_first:
            store.refresh()
        gate.set()
        scene.land(store)
        scene.land(store)
        assert [given.secret for given in mint.given] == [Secret(v, label="x") for v in (VALUE, NEXT_VALUE)]
        assert sent(store)[1] == "Bearer access-token-number-2"

    def test_a_token_that_no_header_can_carry_is_a_failure(
        self, scene: Scene, client_secret: Credential
    ) -> None:
        mint = Mint()
        mint.say = lambda given, flight: Fetched("two-lines-of\r\nX-Admin: yes")
        store = scene.store(client_secret, minters=mint.for_all)
        assert "line break" in refused(store)

    def test_other_credentials_secrets_are_at_hand(self, scene: Scene, client_secret: Credential) -> None:
        mint = Mint()
        other = credential(id="client", source="CLIENT")
        made = CredentialStore(
            (client_secret, other), {"CLIENT": NEXT_VALUE}, clock=scene.clock,
            minters=lambda c, roots: mint if c.id == "github-shared" else None,
        )  # fmt: skip
        made.refresh()
        scene.land(made)
        assert mint.given[0].others == {"client": Secret(NEXT_VALUE, label="x")}


ALICE = Subject("user:alice@corp.example corp-idp", Secret("alices-own-token-1", label="a@v1"))
BOB = Subject("user:bob@corp.example corp-idp", Secret("bobs-own-token-number-1", label="b@v1"))


class TestPeople:
    @pytest.fixture
    def mint(self) -> Mint:
        made = Mint(per_person=True)
        made.say = lambda given, flight: Fetched(
            f"for-{given.subject and hash(given.subject)}-{len(made.given)}", flight.wall + 100
        )
        return made

    @pytest.fixture
    def store(self, scene: Scene, client_secret: Credential, mint: Mint) -> CredentialStore:
        return scene.store(client_secret, minters=mint.for_all)

    async def obtain(self, store: CredentialStore, subject: Subject) -> str:
        wanted = store.prepare("github-shared", destination(), subject)
        assert isinstance(wanted, Wanted)
        await store.obtain(wanted)
        return sent(store, subject=subject)[1]

    async def test_each_gets_their_own_and_keeps_it(self, store: CredentialStore, mint: Mint) -> None:
        alices, bobs = await self.obtain(store, ALICE), await self.obtain(store, BOB)
        assert alices != bobs
        assert [given.subject for given in mint.given] == [ALICE.token, BOB.token]
        assert [sent(store, subject=ALICE)[1], sent(store, subject=BOB)[1]] == [alices, bobs]
        assert len(mint.given) == 2
        assert sent(store, subject=ALICE)[0] != sent(store, subject=BOB)[0]
        for header in (alices, bobs):
            assert store.scrubber.holds(header.removeprefix("Bearer ").encode())

    async def test_many_at_once_are_one_fetch(self, store: CredentialStore, mint: Mint) -> None:
        wanted = Wanted("github-shared", ALICE)
        await asyncio.gather(*(store.obtain(wanted) for _ in range(50)))
        assert len(mint.given) == 1
        assert sent(store, subject=ALICE)

    async def test_without_a_token_of_the_caller_there_is_none(self, store: CredentialStore) -> None:
        found = store.prepare("github-shared", destination())
        assert isinstance(found, Refused)
        assert found.reason is Reason.NO_SUBJECT_TOKEN

    async def test_a_refusal_is_remembered_for_a_moment_and_not_longer(
        self, scene: Scene, store: CredentialStore, mint: Mint
    ) -> None:
        mint.say = lambda given, flight: fails(flight)
        await store.obtain(Wanted("github-shared", ALICE))
        assert "sealed" in refused(store, subject=ALICE)
        await store.obtain(Wanted("github-shared", ALICE))
        assert len(mint.given) == 1
        scene.now += 2
        store.refresh()
        assert isinstance(store.prepare("github-shared", destination(), ALICE), Wanted)

    async def test_a_forgotten_person_has_none_any_more(self, store: CredentialStore, mint: Mint) -> None:
        header = await self.obtain(store, ALICE)
        await self.obtain(store, BOB)
        store.forget(ALICE.key)
        assert isinstance(store.prepare("github-shared", destination(), ALICE), Wanted)
        assert sent(store, subject=BOB)
        store.refresh()
        assert store.scrubber.holds(header.removeprefix("Bearer ").encode())

    async def test_a_doubted_token_is_not_used_again(self, store: CredentialStore, mint: Mint) -> None:
        await self.obtain(store, ALICE)
        await self.obtain(store, BOB)
        store.doubt(sent(store, subject=ALICE)[0])
        assert isinstance(store.prepare("github-shared", destination(), ALICE), Wanted)
        assert sent(store, subject=BOB)

    async def test_an_expired_token_is_not_used(
        self, scene: Scene, store: CredentialStore, mint: Mint
    ) -> None:
        await self.obtain(store, ALICE)
        scene.now += 101
        assert isinstance(store.prepare("github-shared", destination(), ALICE), Wanted)
        store.refresh()
        assert isinstance(store.prepare("github-shared", destination(), ALICE), Wanted)

    async def test_a_token_near_its_end_is_renewed_behind_the_call_that_uses_it(
        self, scene: Scene, store: CredentialStore, mint: Mint
    ) -> None:
        first = await self.obtain(store, ALICE)
        scene.now += 85
        assert sent(store, subject=ALICE)[1] == first
        store.refresh()
        scene.land(store)
        assert len(mint.given) == 2
        assert sent(store, subject=ALICE)[1] != first

    async def test_an_endpoint_that_hangs_is_waited_for_no_longer_than_its_time(
        self, scene: Scene, client_secret: Credential, mint: Mint
    ) -> None:
        gate, asked = threading.Event(), threading.Event()

        def hangs(given: Given, flight: Flight) -> Fetched | Unavailable:
            scene.now += 100
            asked.set()
            gate.wait(DEADLINE)
            return Fetched(VALUE)

        mint.say = hangs
        store = scene.store(client_secret, minters=mint.for_all)
        waiting = asyncio.create_task(store.obtain(Wanted("github-shared", ALICE)))
        await asyncio.to_thread(asked.wait, DEADLINE)
        store.refresh()
        await asyncio.wait_for(waiting, DEADLINE)
        assert "within 5 s" in refused(store, subject=ALICE)
        gate.set()

    async def test_so_many_persons_and_no_more(
        self, store: CredentialStore, mint: Mint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("callerid.credentials.store.MAX_PEOPLE", 3)
        for n in range(5):
            await self.obtain(store, Subject(f"user:{n}", ALICE.token))
        asked = [
            store.prepare("github-shared", destination(), Subject(f"user:{n}", ALICE.token)) for n in range(5)
        ]
        kept = [n for n, found in enumerate(asked) if isinstance(found, Injection)]
        assert kept == [2, 3, 4]

    async def test_one_person_with_many_tokens_takes_nobody_elses_place(
        self, store: CredentialStore, mint: Mint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("callerid.credentials.store.MAX_PEOPLE", 6)
        monkeypatch.setattr("callerid.credentials.store.OF_ONE", 3)
        bob = Subject("user:bob\ncorp-idp\n0", BOB.token)
        await self.obtain(store, bob)
        of_alice = [Subject(f"user:alice\ncorp-idp\n{n}", ALICE.token) for n in range(9)]
        for subject in of_alice:
            await self.obtain(store, subject)
        assert sent(store, subject=bob)
        asked = [store.prepare("github-shared", destination(), subject) for subject in of_alice]
        assert [n for n, found in enumerate(asked) if isinstance(found, Injection)] == [6, 7, 8]

    async def test_an_endpoint_that_hangs_holds_so_many_threads_and_no_more(
        self, scene: Scene, client_secret: Credential, mint: Mint
    ) -> None:
        gate = threading.Event()

        def slow(given: Given, flight: Flight) -> Fetched | Unavailable:
            gate.wait(DEADLINE)
            return Fetched(VALUE)

        mint.say = slow
        store = scene.store(client_secret, minters=mint.for_all)
        subjects = [Subject(f"user:{n}", ALICE.token) for n in range(40)]
        waiting = [asyncio.create_task(store.obtain(Wanted("github-shared", s))) for s in subjects]
        await asyncio.sleep(0)
        assert len(mint.given) <= AT_ONCE
        gate.set()
        await asyncio.wait_for(asyncio.gather(*waiting), DEADLINE)
        assert len(mint.given) == 40
        assert all(sent(store, subject=subject) for subject in subjects)
