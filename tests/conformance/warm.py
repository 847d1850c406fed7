"""Forks clients for the suite: importing the SDK takes longer than most of its scenarios.

Run as ``python -m tests.conformance.warm SOCKET``: it says ``"ready"``, and ends, with all that it started,
when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import sys
import traceback

from tests.conformance import client


def main() -> None:
    os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        print(json.dumps("ready"), flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            asked, _ = listener.accept()
            with asked:
                fork(asked)
    os.killpg(0, signal.SIGKILL)


def fork(asked: socket.socket) -> None:
    """Start the client that somebody asked for; it tells them itself how it ended."""
    if os.fork():
        return
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        live(asked)
        status = 0
    except BaseException:  # whatever it was, it is the end of this process, and its traceback tells
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        asked.send(bytes([status]))
        os._exit(status)


def live(asked: socket.socket) -> None:
    said, (out, err), _, _ = socket.recv_fds(asked, 1 << 20, 2)
    while more := asked.recv(1 << 20):
        said += more
    os.dup2(out, 1)
    os.dup2(err, 2)
    wanted = json.loads(said)
    os.environ.clear()
    os.environ.update(wanted["environ"])
    asyncio.run(client.main(wanted["url"]))


if __name__ == "__main__":
    main()
