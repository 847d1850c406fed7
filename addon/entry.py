"""``mitmdump -s addon/entry.py``: the same addon object as ``callerid run``, from a bare clone."""

from callerid.proxy.addon import CalleridAddon

addons = [CalleridAddon()]
