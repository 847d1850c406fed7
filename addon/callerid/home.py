"""HOME: the one directory with state. 0700, its files 0600, whatever the umask was."""

from __future__ import annotations

import errno
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

    @property
    def fingerprint_key(self) -> Path:
        """The key under which callers' keys are digested: 32 bytes, made once."""
        return self.path / "fingerprint.key"

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

    A file that is there is not opened: closing it again would take away the locks that SQLite holds on it in
    this process, whatever the descriptor (POSIX, fcntl).

    Raises:
        StoreError: the file cannot be made or its mode cannot be set.
    """
    try:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
            if stat.S_IMODE(mode) & 0o077:
                os.chmod(path, 0o600)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened for writing: {error.strerror or error}",
            hint="Check the owner and the mode of the file and of the folder around it.",
        ) from error
