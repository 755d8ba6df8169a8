"""Networks that hold a configuration for others (--config-only), and those that take one (--config-from). PURE.

The texts are dockerd's.
"""

from __future__ import annotations

from msgspec import structs

from wherry.errors import Forbidden, NotFound
from wherry.models.network import CreateNetwork, Ipam
from wherry.network.records import Network


def source_of(asked: CreateNetwork) -> str:
    """Return the name of the network whose configuration is to be taken, "" for none."""
    return asked.config_from.network if asked.config_from else ""


def check(asked: CreateNetwork) -> None:
    """Raise Forbidden for what does not go together."""
    if asked.config_only and (asked.ingress or asked.internal or asked.attachable or asked.scope):
        raise Forbidden(
            "configuration network can only contain network specific fields. Network operator fields like "
            "[ ingress | internal | attachable | scope ] are not supported."
        )
    if not source_of(asked):
        return
    if asked.config_only:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    ipam = asked.ipam or Ipam()
    if ipam.driver not in ("", "default") or ipam.config or ipam.options or asked.enable_ipv6 or asked.labels:
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a configuration network"
        )
    if asked.options:
        raise Forbidden(
            "network driver options are not supported if the network depends on a configuration network"
        )


def applied(asked: CreateNetwork, source: Network | None) -> CreateNetwork:
    """Return a request with the configuration of another network. Raises NotFound when that is none."""
    if source is None or not source.config_only:
        raise NotFound(f'configuration network "{source_of(asked)}" does not exist')
    return structs.replace(
        asked,
        config_from=None,
        enable_ipv4=source.ipv4,
        enable_ipv6=source.ipv6,
        ipam=Ipam(driver=source.ipam_driver, options=source.ipam_options, config=list(source.asked)),
        options=source.options,
        labels=source.labels,
    )
