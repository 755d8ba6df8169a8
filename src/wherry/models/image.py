"""Images as the other layers see them."""

from __future__ import annotations

from typing import Any

from msgspec import field

from wherry.models.base import Model
from wherry.models.container import HealthConfig


class ImageRunConfig(Model, frozen=True):
    """The ``config`` object of an OCI image config: defaults of the containers made from the image."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any] | None] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, dict[str, Any] | None] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    healthcheck: HealthConfig | None = None
    on_build: list[str] | None = None
    shell: list[str] | None = None
    args_escaped: bool | None = None


class Image(Model, frozen=True):
    """A resolved image.

    id: "sha256:HEX", the digest of the image config. chain_id: name of the committed snapshot of the top
    layer, "" for an image without layers. size: bytes of all layers, uncompressed.
    """

    id: str
    chain_id: str
    config: ImageRunConfig
    os: str = "linux"
    architecture: str = ""
    variant: str = ""
    created: str = ""
    size: int = 0
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = field(default=())
