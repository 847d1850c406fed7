"""The command that the suite starts for each client scenario: ``python -I -S knock.py SOCKET URL``.

It asks the process of ``warm.py`` for a client, lends it its environment and outputs, and ends as it ended.
"""

from __future__ import annotations

import json
import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as warm:
    warm.connect(sys.argv[1])
    wanted = json.dumps({"environ": dict(os.environ), "url": sys.argv[2]}).encode()
    socket.send_fds(warm, [wanted], [1, 2])
    warm.shutdown(socket.SHUT_WR)
    sys.exit(ord(warm.recv(1) or b"\1"))
