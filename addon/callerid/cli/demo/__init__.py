"""``callerid demo``: the product told in under a minute, with real processes on this machine.

The command is in ``command``. Nothing is imported here: every client and server of the demo comes by.
"""
