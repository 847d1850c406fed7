"""TLS towards the servers that secrets and keys come from."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from callerid.errors import ConfigError
from callerid.trust import trusting


def test_everybody_is_verified_by_name_and_the_environment_gets_no_session_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    context = trusting(None)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.keylog_filename is None
    assert len(context.get_ca_certs()) > 50


def test_own_roots_come_beside_the_public_ones_or_alone(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    alone = trusting(path, public=False).get_ca_certs()
    assert len(alone) == 1
    assert alone[0] in trusting(path).get_ca_certs()
    assert len(trusting(path).get_ca_certs()) > 50


@pytest.mark.parametrize("data", [None, b"nothing of use"])
def test_roots_that_are_none_are_an_error_with_a_hint(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        trusting(path)
    assert caught.value.hint
