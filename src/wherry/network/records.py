"""What the engine remembers of networks and endpoints: the JSON of ``networks.record`` and ``endpoints.record``."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

from msgspec import field, json

from wherry.models.base import Model
from wherry.network.api import Endpoint


class Network(Model, frozen=True):
    """A network. subnet "" for those that give out no addresses. created: Unix ns."""

    id: str
    name: str
    driver: str
    created: int
    subnet: str = ""
    gateway: str = ""
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    internal: bool = False

    def encode(self) -> bytes:
        """Return the record as the store keeps it."""
        return json.encode(self)

    @property
    def network(self) -> ipaddress.IPv4Network:
        """The subnet as a value; only for networks that have one."""
        return ipaddress.IPv4Network(self.subnet)


@dataclass(frozen=True, slots=True)
class Attached:
    """An endpoint as the store keeps it: with its sandbox and with the name of its link on the host."""

    endpoint: Endpoint
    sandbox_id: str
    host_link: str = ""

    def encode(self) -> bytes:
        """Return the record as the store keeps it."""
        return json.encode(self)


_networks = json.Decoder(Network)
_attached = json.Decoder(Attached)


def decode_network(data: bytes) -> Network:
    """Read a network back."""
    return _networks.decode(data)


def decode_attached(data: bytes) -> Attached:
    """Read an endpoint back."""
    return _attached.decode(data)


def new_id() -> str:
    """Return a fresh 64-digit id."""
    return os.urandom(32).hex()
