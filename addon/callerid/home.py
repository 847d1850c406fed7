"""HOME: the one directory with state. 0700, its files 0600, whatever the umask was."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from callerid.errors import StoreError


@dataclass(frozen=True, slots=True)
class Home:
    """The places inside HOME (DESIGN section 3). Nothing is created by naming it."""

    path: Path

    @property
    def ca(self) -> Path:
        """mitmproxy's confdir; clients trust ``mitmproxy-ca-cert.pem`` in it."""
        return self.path / "ca"

    @property
    def ca_cert(self) -> Path:
        return self.ca / "mitmproxy-ca-cert.pem"

    @property
    def registry(self) -> Path:
        """Scoped tokens and blocked principals (SQLite)."""
        return self.path / "registry.db"

    @property
    def audit(self) -> Path:
        """The audit trail (SQLite)."""
        return self.path / "audit.db"

    def prepare(self) -> None:
        """Create HOME and ``ca/`` with mode 0700, and tighten a looser HOME of our own.

        Raises:
            StoreError: HOME cannot be made or written, or belongs to somebody else.
        """
        try:
            for folder in (self.path, self.ca):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                info = folder.stat()
                if stat.S_IMODE(info.st_mode) != 0o700:
                    folder.chmod(0o700)
        except OSError as error:
            raise StoreError(
                f"the home directory {self.path} cannot be used: {error.strerror or error}",
                hint="Choose another place with --home DIR or CALLERID_HOME, or mend its owner and mode.",
            ) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise StoreError(
                f"the home directory {self.path} is not writable",
                hint="Choose another place with --home DIR or CALLERID_HOME, or mend its owner and mode.",
            )


def private_file(path: Path) -> None:
    """Make sure that ``path`` exists with mode 0600 before anything is written to it.

    Raises:
        StoreError: the file cannot be made or its mode cannot be set.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened for writing: {error.strerror or error}",
            hint="Check the owner and the mode of the file and of the folder around it.",
        ) from error
