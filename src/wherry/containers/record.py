"""What the engine remembers of a container: the JSON of ``containers.record``."""

from __future__ import annotations

from typing import Any

from msgspec import json, structs

from wherry.containers.state import State, check_move
from wherry.models.base import Model
from wherry.models.container import ContainerConfig, HostConfig, NetworkingConfig


class MountRecord(Model, frozen=True):
    """A resolved mount. type: bind, volume, tmpfs or image; options as in Mount; destination: absolute and normal.

    source: for a bind the path on the host, for a volume where docker inspect shows it, "" for a tmpfs.
    make_source: a directory is made when nothing is at source. name: of the volume; anonymous: nobody gave it.
    subpath: the part of the volume that is mounted. copy: the image's content is copied into an empty volume. driver:
    of the volume; of one that is not "local", source is where it was mounted last.
    idmap: "owner=UID:GID" (whose is the source is seen as that), or a mapping as in `runtime.idmaps`.
    image: as the client named it; image_id, chain_id: what that was; source is then where the supervisor mounts it.
    """

    type: str
    source: str
    destination: str
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    options: tuple[str, ...] = ()
    make_source: bool = False
    name: str = ""
    anonymous: bool = False
    subpath: str = ""
    copy: bool = False
    driver: str = "local"
    idmap: str = ""
    image: str = ""
    image_id: str = ""
    chain_id: str = ""


class Link(Model, frozen=True):
    """A link of the default bridge. container: id of the one that is linked to; name: what it was called then."""

    container: str
    name: str
    alias: str


_MOUNTERS = frozenset({"ALL", "SYS_ADMIN", "CAP_SYS_ADMIN"})


class Record(Model, frozen=True):
    """A container as it was asked for (config already merged with the image's) and where it stands.

    created: Unix ns. path, args: the command as docker inspect shows it. network_mode is in host_config.
    """

    id: str
    name: str
    created: int
    image_id: str
    config: ContainerConfig
    host_config: HostConfig
    networking: NetworkingConfig
    driver: str
    path: str
    args: tuple[str, ...]
    mounts: tuple[MountRecord, ...] = ()
    links: tuple[Link, ...] = ()
    state: State = State()

    @property
    def may_mount(self) -> bool:
        """Whether its processes may mount file systems, and so ones whose server they are themselves."""
        host = self.host_config
        return host.privileged or not _MOUNTERS.isdisjoint(each.upper() for each in host.cap_add or ())

    def moved(self, status: str, **changes: Any) -> Record:
        """Return the record in another state; raises Conflict when that move is not in the table."""
        check_move(self.id, self.state.status, status)
        return structs.replace(self, state=structs.replace(self.state, status=status, **changes))

    def encode(self) -> bytes:
        """Return the record as the store keeps it."""
        return json.encode(self)


_decoder = json.Decoder(Record)


def decode(data: bytes) -> Record:
    """Read a record back; raises msgspec.ValidationError when it was not written by `Record.encode`."""
    return _decoder.decode(data)
