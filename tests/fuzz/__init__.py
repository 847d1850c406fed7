"""Fuzz targets over bytes: fast in the tests, deep by ``scripts/fuzz``; what they find is kept as seeds."""
