"""Caller ID for MCP: a verified caller, a decision, the right secret and a row for every call."""

__version__ = "0.1.0"
