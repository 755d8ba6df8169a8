"""What this engine cannot do yet: refused when a client asks for it, a warning when it comes with an image."""

from __future__ import annotations

from wherry.errors import NotImplementedHere
from wherry.models.container import ContainerConfig, HostConfig
from wherry.models.image import ImageRunConfig


def _wanted(config: ContainerConfig, host: HostConfig) -> list[tuple[bool, str]]:
    return [
        (bool(host.port_bindings) or host.publish_all_ports, "publishing ports (-p, -P)"),
        (bool(config.volumes), "anonymous volumes (-v /path without a host directory)"),
        (bool(host.volumes_from), "--volumes-from"),
        (bool(host.volume_driver), "volume drivers (--volume-driver)"),
        (bool(host.links), "links (--link)"),
        (host.ipc_mode.startswith("container:"), "another container's IPC namespace (--ipc container:)"),
        (bool(host.device_requests), "device requests (--gpus)"),
        (bool(host.storage_opt), "storage options (--storage-opt)"),
    ]


def check(config: ContainerConfig, host: HostConfig, image: ImageRunConfig) -> list[str]:
    """Return warnings about the image's wishes; raises NotImplementedHere for config."""
    for wanted, what in _wanted(config, host):
        if wanted:
            raise NotImplementedHere(f"{what}: this engine does not have that yet")
    warnings = []
    if image.volumes:
        places = ", ".join(sorted(image.volumes))
        warnings.append(f"The image declares volumes ({places}); what is written there stays in the container.")
    return warnings
