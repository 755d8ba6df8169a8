"""What a client asks of a volume."""

from __future__ import annotations

from typing import Any

from wherry.models.base import Model


class CreateVolume(Model, frozen=True):
    """The body of POST /volumes/create."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None
