"""The image store of one engine; see `images.api` for what it promises."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from wherry.archive.tar import Source
from wherry.errors import EngineError, NotFound
from wherry.failpoints import reach
from wherry.images import changes as instructions
from wherry.images import config as configs
from wherry.images import listing, references
from wherry.images.api import Filters, Report, Users
from wherry.images.audit import Audit
from wherry.images.choice import find
from wherry.images.commit import EMPTY, Commit, Joined, commit_config
from wherry.images.config import ImageConfig, RootFS, chain_ids
from wherry.images.content import Content
from wherry.images.distribution import Distribution
from wherry.images.layers import Layers, chain_of, shared_sizes
from wherry.images.listing import Known
from wherry.images.load import ArchiveLayers, Incoming, import_config, opened
from wherry.images.manifest import Candidate, candidates, needs, parse_platform
from wherry.images.outward import Outward
from wherry.images.references import Reference
from wherry.images.removal import Removal, Step
from wherry.images.rows import ImageRow, LayerRow, Rows
from wherry.images.spool import Member, Spool
from wherry.models import platforms
from wherry.models.check import Problem
from wherry.models.image import Image
from wherry.models.manifest import OCI_CONFIG, OCI_LAYER
from wherry.snapshots.api import Snapshotter
from wherry.store.database import Database

log = logging.getLogger(__name__)

Archives = dict[str, Member]
"""diff id -> the uncompressed tar of a layer that is to be kept."""

_CACHED = 256  # parsed configs; each may be as large as JSON_LIMIT


class Images(Outward):
    """Images, their names and their layers."""

    def __init__(
        self, database: Database, root: Path, snapshotter: Snapshotter, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """Use the content below `root`; remove what interrupted work has left. clock: Unix ns."""
        self._database = database
        self._snapshotter = snapshotter
        self._clock = clock
        self._rows = Rows(database, snapshotter.name)
        self._content = Content(root / "content", database)
        self._distribution = Distribution(database)
        self._leases = self._content.leases
        self._layers = Layers(self._rows, snapshotter, database, self._content)
        self._changing = threading.RLock()  # held while names and images change, not while layers are unpacked
        self._configs: dict[str, ImageConfig] = {}
        self._recover()

    def _recover(self) -> None:
        """Forget layers whose removal was cut off; one that an image needs keeps its row, so its archive (`audit`)."""
        present, known = self._layers.present(), self._rows.layers()
        needed = {layer.chain_id for image in self._rows.images() for layer in chain_of(image.chain_id, known)}
        with self._database.transaction():
            for chain in known.keys() - present:
                if chain in needed:
                    log.error("a layer is missing; wherry system check --repair", extra={"layer": chain})
                else:
                    self._rows.drop_layer(chain)
        self._collect()
        self._content.sweep()

    # Looking up

    def _find(self, ref: str) -> tuple[ImageRow, str]:
        return find(self._rows, ref)

    def _config(self, image_id: str) -> ImageConfig:
        known = self._configs.get(image_id)
        if known is None:
            known = configs.parse(self._content.read(image_id))
            if len(self._configs) >= _CACHED:
                self._configs.clear()
            self._configs[image_id] = known
        return known

    def _known(self, row: ImageRow, names: list[str]) -> Known:
        return Known(row, self._config(row.id), tuple(names))

    def _found(self, ref: str, platform: str) -> ImageRow:
        """Return an image that must be for a platform: "" or JSON. Raises NotFound."""
        wanted = platforms.from_json(platform)
        row, _ = self._find(ref)
        if wanted is not None:
            have = self._config(row.id).platform
            if not platforms.fits(wanted, have):
                raise NotFound(
                    f"image with reference {ref} was found but its platform ({platforms.plain(have)}) "
                    f"does not match the specified platform ({platforms.plain(wanted)})"
                )
        return row

    def resolve(self, ref: str) -> Image:
        """Return the image that a name, an id or the start of an id means."""
        row, _ = self._find(ref)
        names = [references.from_stored(name).familiar for name in self._rows.tags(row.id)]
        return configs.to_image(row.id, row.chain_id, row.size, self._config(row.id), names)

    def exists(self, image_id: str) -> bool:
        """Return whether there is an image of this id."""
        try:
            self._find(image_id)
        except NotFound:
            return False
        return True

    def inspect(self, ref: str, platform: str = "") -> dict[str, Any]:
        """Return the body of GET /images/NAME/json."""
        row = self._found(ref, platform)
        data = self._snapshotter.graph_data(row.chain_id) if row.chain_id else {}
        return listing.inspection(
            self._known(row, self._rows.tags(row.id)),
            last_tagged=self._rows.last_tagged(row.id),
            driver={"Name": self._snapshotter.name, "Data": data or None},
        )

    def history(self, ref: str, platform: str = "") -> list[dict[str, Any]]:
        """Return the body of GET /images/NAME/history."""
        row = self._found(ref, platform)
        return listing.history(self._known(row, []), self._rows.lineage(row), self._rows.layer_size)

    def listing(self, *, all: bool, filters: Filters) -> list[dict[str, Any]]:
        """Return the body of GET /images/json, newest first; intermediate images only with `all`."""
        listing.check_filters(filters, listing.LIST_FILTERS)
        dangling = listing.flag(filters, "dangling")
        patterns = filters.get("reference") or []
        newest, oldest = self._limits(filters)
        limit = listing.until(filters, self._clock())
        entries = []
        for image in self._all():
            names = listing.matching_names(image.names, patterns) if patterns else image.names
            hidden = not (all or image.names) and self._rows.is_child_of(image.row.id)
            if hidden or (patterns and not names) or not listing.fits_dangling(names, dangling):
                continue
            if (newest is not None and image.row.created >= newest) or image.row.created <= oldest:
                continue
            if listing.accepts(image, filters, limit):
                entries.append(listing.entry(Known(image.row, image.config, names)))
        return entries

    def _all(self) -> list[Known]:
        names = self._rows.all_tags()
        return [self._shown(row, names.get(row.id, [])) for row in self._rows.images()]

    def _shown(self, row: ImageRow, names: list[str]) -> Known:
        """One image whose config is damaged must not hide the others, and is to be seen to be removed."""
        try:
            return self._known(row, names)
        except EngineError as error:
            log.error("image without its configuration", extra={"image": row.id, "error": error.message})
            return Known(row, ImageConfig(RootFS()), tuple(names))

    def known(self) -> dict[str, str]:
        """Return the id of the image that each id and each name, as people write it, means."""
        found = {row.id: row.id for row in self._rows.images()}
        for image_id, names in self._rows.all_tags().items():
            found |= {references.from_stored(name).familiar: image_id for name in names}
        return found

    def shared_sizes(self) -> dict[str, int]:
        """Return for each image the bytes of those of its layers that other images have too."""
        return shared_sizes(self._rows.images(), self._rows.layers())

    def disk_size(self) -> int:
        """Return the bytes that images take: unpacked layers where the driver has them, and every blob."""
        layers = sum(layer.size for layer in self._rows.layers().values()) if self._snapshotter.unpacks else 0
        return layers + sum(max(size, 0) for _, size, _ in self._content.rows())

    def _limits(self, filters: Filters) -> tuple[int | None, int]:
        before = [self._find(ref)[0].created for ref in filters.get("before") or ()]
        since = [self._find(ref)[0].created for ref in filters.get("since") or ()]
        return (min(before) if before else None, max(since) if since else -1)

    # Names

    def tag(self, ref: str, repo: str, tag: str) -> str:
        """Give an image a further name; return it in full, "" when repo is empty."""
        target = references.parse_target(repo, tag)
        row, _ = self._find(ref)
        if target is None:
            return ""
        with self._changing, self._database.transaction(power_safe=True):
            self._rows.put_tag(target.stored, row.id, self._clock())
        return target.familiar

    # Going

    def remove(self, ref: str, *, force: bool, noprune: bool, users: Users, platform: str = "") -> list[Step]:
        """Remove a name or an image, see `removal`; return what was done, in order."""
        with self._changing:
            self._found(ref, platform)
            row, name = self._find(ref)
            with self._dropping() as drop:
                removal = Removal(self._rows, users, drop, force=force, prune=not noprune)
                if name:
                    removal.by_name(row.id, ref, name)
                else:
                    removal.by_id(row.id)
            return [*removal.steps, *self._freed()]

    @contextmanager
    def _dropping(self) -> Iterator[Callable[[str], None]]:
        """Give a function that removes the rows of an image; its blobs go when the transaction has gone well."""
        digests: list[str] = []

        def drop(image_id: str) -> None:
            row = self._rows.image(image_id)
            self._rows.drop_image(image_id)
            for digest in (image_id, row.manifest if row else ""):
                if digest and not self._rows.is_used(digest):
                    self._content.forget(digest)
                    digests.append(digest)

        with self._database.transaction(power_safe=True):
            yield drop
        reach("removal.recorded")
        for digest in digests:
            self._configs.pop(digest, None)
            self._content.delete(digest)

    def _freed(self) -> list[Step]:
        return [{"Deleted": f"sha256:{chain}"} for chain in self._collect()]

    def collect(self) -> list[str]:
        """Remove layers that no image and no container needs any more; return their chain IDs."""
        return self._collect()

    def _collect(self) -> list[str]:
        with self._changing:
            removed = self._layers.collect()
            if removed:
                reach("collect.layers")
            with self._leases.lock, self._database.transaction():  # in this order, see `leases`
                unneeded = self._content.digests(OCI_LAYER) - self._rows.diff_ids() - self._leases.names()
                for digest in unneeded:
                    self._content.forget(digest)
                if removed or unneeded:
                    self._distribution.forget_unneeded()
            for digest in unneeded:
                reach("collect.recorded")
                self._content.delete(digest)
        return removed

    def audit(self, *, deep: bool) -> list[Problem]:
        """Compare what is recorded of images with what is on the disk; deep: read every blob."""
        return list(Audit(self._database, self._rows, self._content, self._layers, deep=deep).problems())

    def prune(self, filters: Filters, *, users: Users) -> dict[str, Any]:
        """Remove unused images: dangling ones, or with dangling=false all of them."""
        listing.check_filters(filters, listing.PRUNE_FILTERS)
        dangling = listing.flag(filters, "dangling")
        limit = listing.until(filters, self._clock())
        steps: list[Step] = []
        with self._changing:
            before = self.disk_size()
            with self._dropping() as drop:
                for image in self._all():
                    unwanted = dangling is False or listing.fits_dangling(image.names, True)
                    if unwanted and not users(image.row.id) and listing.accepts(image, filters, limit):
                        removal = Removal(self._rows, users, drop, force=True, steps=steps)
                        if not self._rows.is_child_of(image.row.id):
                            removal.by_id(image.row.id)
            steps += self._freed()
            after = self.disk_size()
        return {"ImagesDeleted": steps or None, "SpaceReclaimed": before - after}

    # Coming

    def load(self, stream: BinaryIO, progress: Report, platform: str = "") -> list[str]:
        """Load a docker archive or an OCI layout: all its images or, on any error, nothing. platform: "" or JSON."""
        wanted = platforms.from_json(platform)
        with self._leases.hold() as lease, Spool(self._content.spool, self._content.leasing(lease)) as spool:
            spool.take_apart(stream)
            reach("load.spooled")
            found = candidates(spool, wanted)
            with self._kept(needs(each) for each in found):
                archives: Archives = {}
                layers = [self._ingest(each, ArchiveLayers(each, spool, progress), archives) for each in found]
                spool.clear()
                loaded = self._commit(found, layers, archives)
        for image_id, lines in loaded:
            for line in lines or [f"Loaded image ID: {image_id}\n"]:
                progress({"stream": line})
        return [image_id for image_id, _ in loaded]

    def add(self, image: Candidate, layers: Incoming) -> str:
        """Make an image whose layers come one by one: all of it or, on any error, nothing. Return its id.

        A layer is asked for when all below it are made, and only when it is not here.
        """
        with self._kept([needs(image)]):
            archives: Archives = {}
            rows = self._ingest(image, layers, archives)
            return self._commit([image], [rows], archives)[0][0]

    def _ingest(self, image: Candidate, layers: Incoming, archives: Archives) -> list[LayerRow]:
        """Make the layers that are not there yet, and note the archives to keep."""
        rows: list[LayerRow] = []
        diff_ids = image.config.rootfs.diff_ids
        for index, (diff_id, chain_id) in enumerate(zip(diff_ids, chain_ids(diff_ids), strict=True)):
            if diff_id not in archives and not self.has_layer(chain_id, diff_id):
                archives[diff_id] = self._adopt(layers.fetch(index))
            parent = rows[-1].chain_id if rows else ""
            open_layer = partial(self._archive, archives, diff_id, layers.report(index))
            rows.append(self._layers.ingest_one(LayerRow(chain_id, parent, diff_id, 0), open_layer))
            layers.done(index)
        return rows

    def has_layer(self, chain_id: str, diff_id: str) -> bool:
        """Return whether a layer is here, with its archive."""
        return self._layers.is_present(chain_id) and self._content.has(diff_id)

    def _archive(self, archives: Archives, diff_id: str, progress: Report) -> AbstractContextManager[Source]:
        return opened(archives[diff_id], diff_id, progress)

    def spool(self) -> Spool:
        """Return a new folder, to enter and leave, for the archives of layers that come."""
        return Spool(self._content.spool)

    def _adopt(self, archive: Member) -> Member:
        """Move the uncompressed tar of a layer to its place, where a storage driver may rely on it; it is leased."""
        self._content.adopt(archive.path, archive.digest)
        return replace(archive, path=self._content.path(archive.digest))

    @contextmanager
    def _kept(self, needed: Iterable[set[str]]) -> Iterator[None]:
        """Keep layers and blobs while they are needed; on failure collect those that nobody else needs."""
        try:
            with self._leases.hold(set().union(*needed)):
                yield
        except BaseException:
            self._collect()
            raise

    def _commit(
        self, found: list[Candidate], layers: list[list[LayerRow]], archives: Archives, *, tagged: int = 0
    ) -> list[tuple[str, list[str]]]:
        """Make images visible: their content is on the disk before anything refers to it.

        Return their ids, and what there is to tell of their names. tagged: when somebody named them here (Unix ns).
        """
        self._snapshotter.flush()
        reach("image.flushed")
        loaded: list[tuple[str, list[str]]] = []
        with self._changing:
            blobs = [(self._content.put(each.config_bytes), self._put_manifest(each)) for each in found]
            reach("image.blobs")
            with self._database.transaction(power_safe=True):
                for digest, member in archives.items():
                    self._content.record(digest, member.size, OCI_LAYER)
                for candidate, rows, (image_id, manifest) in zip(found, layers, blobs, strict=True):
                    self._put(candidate, rows, image_id, manifest)
                    loaded.append((image_id, self._name(candidate.names, image_id, tagged)))
                reach("image.recorded")
        reach("image.visible")
        return loaded

    def _put_manifest(self, candidate: Candidate) -> str:
        return self._content.put(candidate.manifest) if candidate.manifest else ""

    def _put(self, candidate: Candidate, layers: list[LayerRow], image_id: str, manifest: str) -> None:
        self._content.record(image_id, len(candidate.config_bytes), OCI_CONFIG)
        known = self._rows.image(image_id)
        if manifest and not (known and known.manifest):  # the first one stays; another goes with its lease
            self._content.record(manifest, len(candidate.manifest), candidate.media_type)
            self._rows.set_manifest(image_id, manifest)
        for layer in layers:
            self._rows.put_layer(layer)
        for form in candidate.forms:
            self._distribution.put(form)
        top = layers[-1].chain_id if layers else ""
        size = sum(layer.size for layer in layers)
        created = configs.created_ns(candidate.config)
        self._rows.put_image(ImageRow(image_id, top, created, size, manifest, candidate.parent))

    def _name(self, names: tuple[Reference, ...], image_id: str, tagged: int) -> list[str]:
        """Give an image its names; return what docker load tells of it."""
        lines = []
        for name in names:
            old = self._rows.tagged(name.stored)
            if old and old != image_id:
                lines.append(
                    f"The image {name.familiar} already exists, renaming the old one with ID {old} to empty string\n"
                )
            lines.append(f"Loaded image: {name.familiar}\n")
            self._rows.put_tag(name.stored, image_id, tagged)
        return lines

    def import_(
        self, stream: BinaryIO, *, repo: str, tag: str, message: str, changes: list[str], platform: str
    ) -> str:
        """Make an image of one layer from a file system's tar; return its id."""
        target = references.parse_target(repo, tag)
        system = parse_platform(platform)
        run: dict[str, Any] = {}
        instructions.apply(run, changes)
        with Spool(self._content.spool) as spool:
            member = spool.take_whole(stream)
            created = configs.now_rfc3339(self._clock())
            comment = message or "Imported from -"
            document = import_config(run, member.digest, created=created, comment=comment, system=system)
            data = configs.encode(document)
            names = (target,) if target else ()
            candidate = Candidate(data, configs.parse(data), (member,), names)
            with self._kept([needs(candidate)]):
                kept = self._adopt(member)
                rows = self._layers.ingest([kept.digest], lambda _: opened(kept, kept.digest, _quiet))
                return self._commit([candidate], [rows], {kept.digest: kept}, tagged=self._clock())[0][0]

    def commit(self, chunks: Iterator[bytes], wanted: Commit) -> str:
        """Make an image of a layer's tar on top of the layers that a container has; return its id."""
        target = references.parse_target(wanted.repo, wanted.tag)
        names = (target,) if target else ()
        below = self._diff_ids(wanted.chain_id)
        parent = self._rows.image(wanted.image_id)
        with Spool(self._content.spool) as spool:
            member = spool.take_plain(Joined(chunks))
            empty = member.digest == EMPTY
            diff_ids = below if empty else [*below, member.digest]
            document = commit_config(
                replace(wanted, system=parse_platform("")),
                self._config(parent.id) if parent else None,
                diff_ids,
                created=configs.now_rfc3339(self._clock()),
                empty=empty,
            )
            data = configs.encode(document)
            candidate = Candidate(data, configs.parse(data), (), names, parent=parent.id if parent else "")
            with self._kept([needs(candidate)]):
                archives = {} if empty else {member.digest: self._adopt(member)}
                rows = self._layers.ingest(diff_ids, lambda at: opened(archives[diff_ids[at]], diff_ids[at], _quiet))
                return self._commit([candidate], [rows], archives, tagged=self._clock())[0][0]


def _quiet(_: dict[str, Any]) -> None:
    """Report to nobody."""
