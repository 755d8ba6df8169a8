"""The way out: docker save and docker push. What goes out stays whole meanwhile, also when the image is removed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from wherry.images import references, save
from wherry.images.choice import choose
from wherry.images.config import ImageConfig, chain_ids
from wherry.images.content import Content
from wherry.images.distribution import Distribution, Outgoing, OutgoingLayer, Pushed
from wherry.images.layers import chain_of
from wherry.images.leases import Leases
from wherry.images.references import Reference
from wherry.images.rows import ImageRow, Rows
from wherry.models import platforms
from wherry.models.manifest import OCI_LAYER, Platform
from wherry.models.parts import Part
from wherry.store.database import Database


class Outward(ABC):
    """The part of `Images` that hands images out."""

    _database: Database
    _rows: Rows
    _content: Content
    _distribution: Distribution
    _leases: Leases
    _clock: Callable[[], int]
    _changing: AbstractContextManager[bool]

    @abstractmethod
    def _find(self, ref: str) -> tuple[ImageRow, str]: ...

    @abstractmethod
    def _config(self, image_id: str) -> ImageConfig: ...

    @abstractmethod
    def _collect(self) -> list[str]: ...

    @contextmanager
    def saved(self, refs: list[str], platform: str = "") -> Iterator[tuple[list[str], Generator[Part, None, None]]]:
        """Give the ids of images and a tar of them. They stay whole while it is read, also when they are removed."""
        wanted = platforms.from_json(platform)
        with ExitStack() as held:
            held.callback(self._collect)
            with self._changing:
                images = [self._outgoing(*each, wanted) for each in choose(self._rows, self._find, refs)]
                for image in images:
                    diff_ids = [diff_id for diff_id, _ in image.layers]
                    held.enter_context(self._leases.hold([*diff_ids, *chain_ids(diff_ids)]))
            paths = {diff_id: self._content.path(diff_id) for image in images for diff_id, _ in image.layers}
            yield [image.id for image in images], self._sent(save.archive(save.members(images, paths)))

    def _sent(self, archive: Iterator[Part]) -> Generator[Part, None, None]:
        """Pass on what is read; a blob that is found damaged then gives way to the next that comes."""
        try:
            yield from archive
        except save.Damaged as error:
            self._content.distrust(error.digest)
            raise

    def _outgoing(self, row: ImageRow, names: tuple[Reference, ...], wanted: Platform | None) -> save.Saved:
        save.check_platform(self._config(row.id), wanted)
        layers = save.with_sizes(self._diff_ids(row.chain_id), self._content.sizes(OCI_LAYER))
        return save.Saved(row.id, self._content.read(row.id), row.created, names, layers)

    @contextmanager
    def outgoing(self, ref: str) -> Iterator[Outgoing]:
        """Give what a push needs of an image, which stays whole meanwhile."""
        with ExitStack() as held:
            held.callback(self._collect)
            with self._changing:
                row, _ = self._find(ref)
                diff_ids = self._diff_ids(row.chain_id)
                held.enter_context(self._leases.hold([row.id, row.manifest, *diff_ids, *chain_ids(diff_ids)]))
                layers = tuple(
                    OutgoingLayer(diff_id, size, self._content.path(diff_id), self._distribution.forms(diff_id))
                    for diff_id, size in save.with_sizes(diff_ids, self._content.sizes(OCI_LAYER))
                )
                manifest = self._content.read(row.manifest) if row.manifest else b""
                config, kind = self._content.read(row.id), self._content.media_type(row.manifest)
            yield Outgoing(row.id, config, manifest, kind, layers)

    def pushed(self, news: Pushed) -> None:
        """Take note of what a registry has now."""
        with self._changing, self._database.transaction(power_safe=True):
            if self._rows.image(news.image_id) is not None:
                self._rows.put_tag(news.name.stored, news.image_id, self._clock())
                for form in news.forms:
                    self._distribution.put(form)

    def doubt(self, digest: str) -> None:
        """Believe no more in a blob whose bytes were found to be others: the next pull or load brings it anew."""
        self._content.distrust(digest)

    def tags_of(self, name: str) -> list[Reference]:
        """Return all names that are this full name with a tag, sorted."""
        return [references.from_stored(stored) for stored in self._rows.tags_of(name)]

    def _diff_ids(self, chain_id: str) -> list[str]:
        """Return the digests of a chain of layers, lowest first."""
        return [layer.diff_id for layer in chain_of(chain_id, self._rows.layers())][::-1]
