"""Engines of their own for tests: own roots, own bridge, own socket, stopped and checked at the end."""
