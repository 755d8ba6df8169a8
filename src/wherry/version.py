"""Versions: ours, the engine's that clients take us for, and the range of the API."""

WHERRY = "0.1.0"
COMPATIBLE = "28.5.2"
"""The dockerd release whose behaviour we keep; compose, buildx and testcontainers parse it."""
API_NEWEST = "1.51"
API_OLDEST = "1.24"
