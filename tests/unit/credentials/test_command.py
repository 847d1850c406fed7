"""The command source, with real commands."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from callerid.config import Credential
from callerid.credentials.sources import MAX_FILE_BYTES, Fetched, Flight, Unavailable
from callerid.credentials.sources.command import Command, parsed
from tests.unit.credentials.helpers import VALUE, credential

WALL = 1_800_000_000.0
ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "WIKI_KEY": VALUE, "HTTPS_PROXY": "http://x"}


def of(*argv: str, **changes: Any) -> Credential:
    return credential(source_kind="exec", source="", argv=argv, **changes)


def python(script: str, **changes: Any) -> Credential:
    return of(sys.executable, "-I", "-S", "-c", script, **changes)


def run(subject: Credential, timeout: float = 20.0) -> Fetched | Unavailable:
    flight = Flight(timeout, time.monotonic, WALL)
    try:
        return Command(subject, ENVIRON).fetch(flight)
    finally:
        flight.landed()


def fault(found: Fetched | Unavailable) -> str:
    assert isinstance(found, Unavailable), found
    assert VALUE not in repr(found)
    assert found.hint
    return found.detail


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def await_gone(pid: int) -> None:
    end = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < end, "it still runs"
        os.sched_yield()


@pytest.mark.parametrize("ending", ["", "\\n", "\\r\\n"])
def test_what_it_prints_is_the_secret(ending: str) -> None:
    assert run(of("printf", f"{VALUE}{ending}".replace("%", "%%"))) == Fetched(VALUE)


def test_json_can_say_more() -> None:
    said = json.dumps({"value": VALUE, "expires_in": 60, "version": 7})
    assert run(of("echo", said)) == Fetched(VALUE, WALL + 60, "7")


def test_there_is_no_shell() -> None:
    assert run(of("echo", f"{VALUE}; echo $HOME && `id` | cat > /tmp/x")) == Fetched(
        f"{VALUE}; echo $HOME && `id` | cat > /tmp/x"
    )


def test_it_sees_little_of_our_environment_and_nothing_on_stdin() -> None:
    script = (
        "import os,sys; print('-'.join(sorted(os.environ)) + '-' + str(len(sys.stdin.read())) + os.getcwd())"
    )
    found = run(python(script))
    assert isinstance(found, Fetched)
    assert set(found.value.split("-")) - {"LC_CTYPE"} == {"HOME", "PATH", "0/"}


def test_a_command_that_may_not_be_run_wants_chmod(tmp_path: Path) -> None:
    script = tmp_path / "op"
    script.write_text("#!/bin/sh\necho x\n")
    found = run(of(str(script)))
    assert isinstance(found, Unavailable)
    assert "chmod +x" in found.hint


@pytest.mark.parametrize(
    ("subject", "says"),
    [
        pytest.param(of("/nowhere/at/all"), "cannot be run: No such file", id="no such command"),
        pytest.param(of("no-such-command-anywhere"), "cannot be run", id="not on the path"),
        pytest.param(of("/"), "cannot be run: Permission denied", id="a folder"),
        pytest.param(of(), "cannot be run", id="no command"),
        pytest.param(of("echo", "a\0b"), "cannot be run", id="a NUL"),
        pytest.param(of("true"), "is empty", id="nothing"),
        pytest.param(of("false"), "ended with status 1", id="a failure"),
        pytest.param(of("sh", "-c", f"echo {VALUE}; exit 3"), "status 3", id="a secret, and a failure"),
        pytest.param(of("sh", "-c", f"echo {VALUE} >&2; exit 3"), "status 3", id="a secret on stderr"),
        pytest.param(of("sh", "-c", "kill -TERM $$"), "signal 15", id="a signal"),
        pytest.param(of("printf", "two-lines-of\\nX-Admin: yes"), "line break", id="two lines"),
        pytest.param(of("printf", "\\377\\376secret-bytes"), "not UTF-8", id="not text"),
        pytest.param(of("echo", "short"), "fewer than 12", id="too short"),
        pytest.param(of("echo", "{half a thing"), "not sound JSON", id="broken JSON"),
        pytest.param(
            of("echo", '{"error": "denied by the server"}'), 'without a text "value"', id="no value"
        ),
        pytest.param(of("echo", '{"value": 17}'), 'without a text "value"', id="a number"),
        pytest.param(of("echo", '{"value": ""}'), "is empty", id="an empty value"),
        pytest.param(of("head", "-c", str(MAX_FILE_BYTES + 1), "/dev/zero"), "more than", id="too much"),
        pytest.param(of("cat", "/dev/zero"), "more than", id="without an end"),
        pytest.param(of("yes"), "more than", id="text without an end"),
    ],
)
def test_whatever_else_is_a_fault(subject: Credential, says: str) -> None:
    assert says in fault(run(subject))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"expires_at": "soon"}, "no time"),
        ({"expires_at": "2030-01-01T00:00:00"}, "without a time zone"),
        ({"expires_at": []}, "no time"),
        ({"expires_in": "60"}, "no number"),
        ({"expires_in": True}, "no number"),
        ({"expires_in": -1}, "expired already"),
        ({"expires_at": 1}, "expired already"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expired already"),
    ],
)
def test_an_end_that_cannot_be_meant(more: dict[str, Any], says: str) -> None:
    data = json.dumps({"value": VALUE, **more}).encode()
    assert says in fault(parsed(of("x"), "the output", data, WALL))


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none(literal: str) -> None:
    data = f'{{"value": "{VALUE}", "expires_in": {literal}}}'.encode()
    assert "no number" in fault(parsed(of("x"), "the output", data, WALL))


def test_ends_are_understood() -> None:
    for at in (WALL + 100, "2027-01-15T08:01:40Z", "2027-01-15T09:01:40+01:00"):
        data = json.dumps({"value": VALUE, "expires_at": at}).encode()
        assert parsed(of("x"), "the output", data, WALL) == Fetched(VALUE, WALL + 100)


def test_a_tower_of_brackets_is_a_fault() -> None:
    assert "sound JSON" in fault(parsed(of("x"), "the output", b'{"a":' * 30_000, WALL))


def test_what_a_command_leaves_behind_is_ended_as_well(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    script = f"sleep 600 >/dev/null 2>&1 & echo $! >> {note}; echo {VALUE}"
    assert run(of("sh", "-c", script)) == Fetched(VALUE)
    await_gone(int(note.read_text()))


def test_what_a_command_leaves_behind_with_its_output_is_ended_as_well(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    script = f"sleep 600 & echo $! >> {note}; echo {VALUE}"
    assert "did not end within 5 s" in fault(run(of("sh", "-c", script), timeout=1.0))
    await_gone(int(note.read_text()))


def test_one_that_never_ends_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    script = f"sleep 600 & echo $! >> {note}; echo $$ >> {note}; wait"
    assert "did not end within 5 s" in fault(run(of("sh", "-c", script), timeout=1.0))
    for pid in note.read_text().split():
        await_gone(int(pid))


def test_one_that_closes_its_output_and_stays_is_killed_too() -> None:
    assert "did not end" in fault(run(python("import os,time; os.close(1); time.sleep(600)"), timeout=1.0))


def test_one_that_ignores_being_asked_is_killed() -> None:
    script = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    assert "did not end" in fault(run(python(script), timeout=1.0))


def test_it_can_be_ended_from_outside() -> None:
    """As the end of the process does it."""
    flight = Flight(600, time.monotonic, WALL)
    found: list[Fetched | Unavailable] = []
    thread = threading.Thread(target=lambda: found.append(Command(of("sleep", "600"), ENVIRON).fetch(flight)))
    thread.start()
    flight.expire()
    thread.join(10)
    assert not thread.is_alive()
    assert "did not end" in fault(found[0])


def test_nothing_of_a_run_is_left_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        run(of("echo", VALUE))
        run(of("false"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_works_beside_thousands_of_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1500)]
    try:
        assert run(of("echo", VALUE)) == Fetched(VALUE)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_pair_of_aws_keys_may_be_the_object_itself() -> None:
    keys = {"access_key_id": "AKIDEXAMPLE1234", "secret_access_key": "secret-access-key-of-the-tests"}
    found = parsed(of("x", inject="aws_sigv4"), "the output", json.dumps(keys, indent=2).encode(), WALL)
    assert isinstance(found, Fetched)
    assert json.loads(found.value) == keys


def test_a_pem_keeps_its_lines() -> None:
    pem = (
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
        "-----BEGIN PRIVATE " + "KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49\n-----END PRIVATE KEY-----\n"
    )
    assert parsed(of("x", inject="mtls"), "the output", pem.encode(), WALL) == Fetched(pem)
