"""docker pull: an image's documents and layers come from a registry into the image store.

    manifest -> (of an index: the manifest for the platform) -> config -> layers, a few at a time
    layer:  bytes arrive -> decompressed and digested at once, into a file -> moved into content/ -> made by the driver

With lazy-pull the tables of contents of all layers that have one come first (`promises`).
A layer is made when all below it are; the next ones arrive meanwhile. Nothing is visible before the last transaction,
and what has come by then goes when the pull fails. Pulls that want the same layer at the same time share its download.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Any

from wherry.archive.compression import CompressionError, decompressed
from wherry.errors import EngineError, InvalidArgument
from wherry.events import Bus
from wherry.images import config as configs
from wherry.images.config import ImageConfig, chain_ids
from wherry.images.distribution import Form
from wherry.images.images import Images
from wherry.images.manifest import Candidate
from wherry.images.references import Reference
from wherry.images.spool import Member, Spool
from wherry.models import platforms
from wherry.models.manifest import MANIFESTS, OCI_CONFIG, Descriptor, Document, Platform, parse_document
from wherry.registry.api import Credentials, Report, Repository
from wherry.registry.cancellation import Cancellation
from wherry.registry.client import Registries
from wherry.registry.failures import Answered, Broken
from wherry.registry.progress import Meter, advance, short, status
from wherry.registry.reader import Damaged, Reader, check
from wherry.registry.remote import Manifest, Remote, told
from wherry.registry.shared import Job, Share, Shared
from wherry.services.promises import Promises

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_CONFIGS = ("", DOCKER_CONFIG, OCI_CONFIG, "application/octet-stream")
_LAYERS = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "",
}
_FOREIGN = ("application/vnd.docker.image.rootfs.foreign", "application/vnd.oci.image.layer.nondistributable")
_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Arrived:
    """A layer that has been downloaded, in a spool of its own."""

    member: Member
    held: ExitStack


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asks for. reference: without tag and digest it means all tags."""

    reference: Reference
    platform: str
    credentials: Credentials


@dataclass(slots=True)
class Pulling:
    """Pulls for all clients of the engine."""

    images: Images
    registries: Registries
    bus: Bus
    lazy: bool = False
    """Whether the tables of contents of layers that have one come before all data."""
    downloads: Shared[Arrived] = field(init=False)

    def __post_init__(self) -> None:
        self.downloads = Shared(self.registries.config.downloads, "wherry-download", lambda each: each.held.close())

    def pull(self, wanted: Wanted, report: Report, cancellation: Cancellation) -> None:
        """Pull an image, or all tags of a repository; tell it as dockerd does."""
        reference = wanted.reference
        repository = Repository(reference.domain, reference.path)
        with self.registries.access(wanted.credentials, cancellation) as access:
            remote = Remote(access, repository, "pull")
            names = [reference] if reference.tag or reference.digest else [
                replace(reference, tag=tag) for tag in remote.tags()
            ]  # fmt: skip
            fresh = False
            for name in names:
                one = _Pull(self, remote, name, platforms.from_words(wanted.platform), report, cancellation)
                fresh = one.run() or fresh
                self.bus.publish("image", "pull", name.familiar, {"name": name.familiar_name})
        shown = reference.familiar if reference.tag or reference.digest else reference.familiar_name
        text = "Downloaded newer image for" if fresh else "Image is up to date for"
        report(status(f"Status: {text} {shown}"))

    def close(self) -> None:
        """End all downloads."""
        self.downloads.close()


@dataclass(slots=True)
class _Pull:
    """One image on its way."""

    pulling: Pulling
    remote: Remote
    name: Reference
    platform: Platform
    report: Report
    cancellation: Cancellation

    @property
    def _shown(self) -> str:
        return self.name.familiar

    def run(self) -> bool:
        """Pull it; return whether the name means another image than before."""
        top = self.remote.manifest(self.name.digest or self.name.tag, self._shown)
        which = self._shown if self.name.digest else self.name.tag
        self.report({"status": f"Pulling from {self.name.path}", "id": which})
        manifest, document = self._for_platform(top)
        config_bytes = self._config(document)
        config = configs.parse(config_bytes)
        layers = self._layers(document, config)
        by_digest = Reference(self.name.domain, self.name.path, digest=top.digest)
        names = (by_digest,) if self.name.digest else (by_digest, self.name)
        before = self._meaning()
        candidate = Candidate(
            config_bytes,
            config,
            (),
            names,
            manifest.data,
            manifest.media_type,
            forms=tuple(self._form(*each) for each in zip(config.rootfs.diff_ids, layers, strict=True)),
        )
        assert document.config is not None
        image_id = self._add(candidate, document.config.digest, layers)
        self.report(status(f"Digest: {top.digest}"))
        self._warn(config)
        return image_id != before

    def _meaning(self) -> str:
        try:
            return self.pulling.images.resolve(self._shown).id
        except EngineError:
            return ""

    def _form(self, diff_id: str, layer: Descriptor) -> Form:
        return Form(diff_id, layer.digest, layer.size, layer.media_type, self.name.name)

    def _for_platform(self, top: Manifest) -> tuple[Manifest, Document]:
        found = top
        for _ in range(_DEPTH):
            document = parse_document(found.data, f"manifest of {self._shown}", found.media_type)
            if document.manifests is None:
                media_type = found.media_type or document.media_type
                kind = media_type if media_type in MANIFESTS else "application/vnd.oci.image.manifest.v1+json"
                return replace(found, media_type=kind), document
            found = self.remote.child(platforms.choose(document.manifests, self.platform), self._shown)
        raise InvalidArgument(f"{self._shown}: indexes nested too deep")

    def _config(self, document: Document) -> bytes:
        config = document.config
        if config is None or document.layers is None:
            raise InvalidArgument(f"the manifest of {self._shown} has no config or no layers")
        if config.media_type not in _CONFIGS:
            raise InvalidArgument(f'Encountered remote "{config.media_type[:100]}"(unknown) when fetching')
        return self.remote.small_blob(config)

    def _layers(self, document: Document, config: ImageConfig) -> list[Descriptor]:
        layers = document.layers or []
        if len(layers) != len(config.rootfs.diff_ids):
            raise InvalidArgument(
                f"the manifest of {self._shown} has {len(layers)} layers, its config {len(config.rootfs.diff_ids)}"
            )
        for layer in layers:
            check(layer)
            if layer.media_type.startswith(_FOREIGN):
                raise InvalidArgument(
                    f"layer {short(layer.digest)} of {self._shown} is a foreign layer: its registry does not have it, "
                    "and other places are not asked for it"
                )
            if layer.media_type not in _LAYERS:
                kind = layer.media_type[:100]
                raise InvalidArgument(f"layer {short(layer.digest)} has the unknown media type {kind!r}")
        return layers

    def _add(self, candidate: Candidate, image_id: str, layers: list[Descriptor]) -> str:
        with self.pulling.images.spool() as spool:
            lazy = self.pulling.lazy
            promises = Promises(self.remote, spool, self.report, self.cancellation) if lazy else None
            coming = _Coming(self, candidate.config.rootfs.diff_ids, layers, spool, promises)
            try:
                coming.begin(quiet=self.pulling.images.exists(image_id))
                return self.pulling.images.add(candidate, coming)
            finally:
                coming.end()

    def _warn(self, config: ImageConfig) -> None:
        """dockerd's words for an image that is not for the platform that was asked for."""
        have = Platform(config.architecture, config.os or "linux", config.variant)
        if config.architecture and platforms.normal(have) not in platforms.suitable(self.platform):
            found, wanted = platforms.words(have), platforms.words(self.platform)
            self.report(status(
                f"WARNING: image with reference {self._shown} was found but its platform ({found}) does not match the "
                f"specified platform ({wanted})"
            ))  # fmt: skip


class _Coming:
    """The layers of one image, for `Images.add`."""

    def __init__(
        self, pull: _Pull, diff_ids: list[str], layers: list[Descriptor], spool: Spool, promises: Promises | None
    ) -> None:
        self._pull = pull
        self._promises = promises
        self._diff_ids = diff_ids
        self._layers = layers
        self._spool = spool
        self._shares: dict[int, Share[Arrived]] = {}
        self._fetched: set[int] = set()

    def begin(self, *, quiet: bool) -> None:
        """Ask for all layers that are not here, lowest first. quiet: the image is known, so only of them it is told."""
        images, report = self._pull.pulling.images, self._pull.report
        missing: list[int] = []
        for index, (diff_id, chain) in enumerate(zip(self._diff_ids, chain_ids(self._diff_ids), strict=True)):
            here = images.has_layer(chain, diff_id)
            if not here or not quiet:
                report(status("Already exists" if here else "Pulling fs layer", short(self._layers[index].digest)))
            if not here:
                missing.append(index)
        if self._promises:
            threads = self._pull.pulling.registries.config.downloads
            self._promises.fetch([self._layers[index] for index in missing], threads)
        for index in missing:
            self._start(index)
        for index, share in self._shares.items():
            if not share.started:
                report(status("Waiting", short(self._layers[index].digest)))

    def _start(self, index: int) -> None:
        layer, pull = self._layers[index], self._pull

        def work(job: Job[Arrived]) -> Arrived:
            return download(pull.remote, pull.pulling.images, layer, job)

        self._shares[index] = pull.pulling.downloads.join(layer.digest, work, pull.report)

    def fetch(self, index: int) -> Member:
        """Wait for a layer; it is checked against the config."""
        if index not in self._shares:  # it was here a moment ago
            self._start(index)
        share = self._shares[index]
        member = self._spool.take_link(share.result(self._pull.cancellation).member)
        share.let_go()
        del self._shares[index]
        self._fetched.add(index)
        if member.digest != self._diff_ids[index]:
            raise InvalidArgument(
                f"layers from manifest don't match image configuration: {self._layers[index].digest} unpacks to "
                f"{member.digest}, the config says {self._diff_ids[index]}"
            )
        if self._promises:
            self._promises.compare(self._layers[index], member)
        return member

    def report(self, index: int) -> Report:
        """Return who is told how far a layer has been made."""
        layer, report, cancellation = short(self._layers[index].digest), self._pull.report, self._pull.cancellation

        def told(record: dict[str, Any]) -> None:
            cancellation.check()
            detail = record["progressDetail"]
            report(advance("Extracting", layer, detail["current"], detail["total"]))

        return told

    def done(self, index: int) -> None:
        """Tell it, and look whether one of those to come has failed."""
        if index in self._fetched:
            self._pull.report(status("Pull complete", short(self._layers[index].digest)))
        self._pull.cancellation.check()
        for share in self._shares.values():
            share.check()

    def end(self) -> None:
        """Let go of what has not been fetched."""
        for share in self._shares.values():
            share.let_go()


def download(remote: Remote, images: Images, layer: Descriptor, job: Job[Arrived]) -> Arrived:
    """Download a layer into a file, decompressed. Raises EngineErrors."""
    name = short(layer.digest)
    meter = Meter(job.report, "Downloading", name, layer.size)
    for last in (False, True):
        with remote.session.wire.held(), ExitStack() as stack:
            spool = stack.enter_context(images.spool())
            try:
                with closing(remote.reader(layer, meter, job.cancellation)) as reader:
                    member = _stored(spool, reader, layer)
            except Damaged as error:
                if last or not reader.resumes:  # else a part of it may have been another file's
                    raise InvalidArgument(str(error)) from error
                continue
            except (Broken, Answered) as error:
                raise told(error) from error
            job.report(status("Verifying Checksum", name))
            job.report(status("Download complete", name))
            return Arrived(member, stack.pop_all())
    raise AssertionError("not reached")


def _stored(spool: Spool, reader: Reader, layer: Descriptor) -> Member:
    """Decompress what comes into a file. Raises Damaged when it is not the layer, whatever else is wrong with it."""
    try:
        member = spool.take_plain(decompressed(reader)[0])
    except CompressionError as error:
        reader.finish()
        raise InvalidArgument(f"layer {layer.digest}: {error}") from error
    reader.finish()
    return member


