"""docker commit: what a container has changed becomes a layer, and its configuration an image's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec

from wherry.containers.catalog import Container
from wherry.errors import Conflict, InvalidArgument
from wherry.images import changes as instructions
from wherry.images import references
from wherry.images.commit import Commit
from wherry.images.images import Images
from wherry.models.container import ContainerConfig
from wherry.models.image import ImageRunConfig
from wherry.models.queries import CommitQuery
from wherry.services.lifecycle import Lifecycle
from wherry.services.merge import merge, words


@dataclass(frozen=True, slots=True)
class Committing:
    """Makes images of containers."""

    lifecycle: Lifecycle
    images: Images

    async def commit(self, container: Container, query: CommitQuery, config: ContainerConfig | None) -> str:
        """Return the id of the new image. config: replaces what it says of the container's configuration.

        A running container is frozen meanwhile, unless the query says otherwise.
        """
        wanted = self._wanted(container, query, config)
        frozen = query.pause and container.record.state.status == "running"
        if frozen:
            try:
                self.lifecycle.pause(container)
            except Conflict:  # it ended just now and changes nothing any more
                frozen = False
        try:
            image_id = await asyncio.to_thread(self._make, container, wanted)
        finally:
            if frozen and container.record.state.status == "paused":
                self.lifecycle.thaw(container)
        publish = self.lifecycle.bus.publish
        publish("image", "create", image_id, {"name": image_id})
        target = references.parse_target(query.repo, query.tag)
        name = target.familiar if target else ""
        if name:
            publish("image", "tag", image_id, {"name": name})
        self.lifecycle.publish(container, "commit", comment=query.comment, imageID=image_id, imageRef=name)
        return image_id

    def _make(self, container: Container, wanted: Commit) -> str:
        return self.images.commit(self.lifecycle.snapshotter.layer(container.id), wanted)

    def _wanted(self, container: Container, query: CommitQuery, config: ContainerConfig | None) -> Commit:
        record = container.record
        return Commit(
            chain_id=self.lifecycle.snapshotter.stat(container.id).parent,
            image_id=record.image_id,
            run=run_config(record.config, config, query.changes),
            created_by=" ".join(words(record.config.cmd) or ()),
            repo=query.repo,
            tag=query.tag,
            comment=query.comment,
            author=query.author,
        )


def run_config(container: ContainerConfig, asked: ContainerConfig | None, changes: list[str]) -> dict[str, object]:
    """Return the run configuration of the image: the container's, what was asked for over it, and the instructions.

    Only what an image can say (OCI image spec, "config"); a hostname or a terminal is the container's own.
    """
    base = msgspec.to_builtins(asked or container)
    instructions.apply(base, changes)
    try:
        over = msgspec.convert(base, ContainerConfig)
        merged = merge(over, msgspec.convert(container, ImageRunConfig, from_attributes=True))
        run = msgspec.convert(merged, ImageRunConfig, from_attributes=True)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"the configuration does not fit an image: {error}") from error
    told = msgspec.to_builtins(msgspec.structs.replace(run, on_build=over.on_build))
    return {key: value for key, value in told.items() if value}
