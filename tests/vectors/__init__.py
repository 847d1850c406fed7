"""Cases as data: what callers may send, and what must be left of it."""
