"""docker push: an image goes to a registry, layers first.

    for each layer, a few at a time:  a form of it that the registry has            "Layer already exists"
                                      one that another repository of it has         "Mounted from NAME"
                                      else compressed and sent                      "Pushed"
    config -> manifest -> tag

When every layer is there in the form in which it once came, the manifest that it came with is sent as it was: the
digest stays the same. Otherwise a new one is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass

from wherry.archive.gzipping import compressed
from wherry.archive.tar import CHUNK
from wherry.errors import NotFound, SystemFailure
from wherry.events import Bus
from wherry.images.distribution import Form, Outgoing, OutgoingLayer, Pushed
from wherry.images.images import Images
from wherry.images.references import Reference
from wherry.models.manifest import DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST, Descriptor, parse_document
from wherry.registry.api import Credentials, Report, Repository
from wherry.registry.cancellation import Cancellation
from wherry.registry.client import Registries
from wherry.registry.progress import Meter, short, status
from wherry.registry.remote import Manifest, Remote
from wherry.registry.upload import Uploads
from wherry.services.pulling import DOCKER_CONFIG

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_GZIP = ("", DOCKER_LAYER, OCI_GZIP_LAYER)
_CANDIDATES = 5


@dataclass(frozen=True, slots=True)
class Pushing:
    """Pushes for all clients of the engine."""

    images: Images
    registries: Registries
    bus: Bus

    def push(self, name: Reference, credentials: Credentials, report: Report, cancellation: Cancellation) -> None:
        """Push an image by its name, or all tags of a name that has none."""
        report(status(f"The push refers to repository [{name.name}]"))
        names = [name] if name.tag else self.images.tags_of(name.name)
        if not names:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
        repository = Repository(name.domain, name.path)
        with self.registries.access(credentials, cancellation) as access:
            uploads = Uploads(Remote(access, repository, "pull", "push"))
            for each in names:
                _Push(self, uploads, each, report, cancellation).run()
                self.bus.publish("image", "push", each.familiar, {"name": each.familiar_name})


@dataclass(frozen=True, slots=True)
class _Push:
    """One image on its way."""

    pushing: Pushing
    uploads: Uploads
    name: Reference
    report: Report
    cancellation: Cancellation

    def run(self) -> None:
        """Push it."""
        images = self.pushing.images
        if self.name not in images.tags_of(self.name.name):
            raise NotFound(f"tag does not exist: {self.name.familiar}")
        with images.outgoing(self.name.stored) as image:
            for layer in reversed(image.layers):
                self.report(status("Preparing", short(layer.diff_id)))
            self.uploads.remote.session  # noqa: B018  the registry is asked once who we are, before many ask at once
            forms = self._layers(image.layers)
            manifest = self._manifest(image, forms)
            self.uploads.put_manifest(manifest, self.name.tag)
            by_digest = Reference(self.name.domain, self.name.path, digest=manifest.digest)
            images.pushed(Pushed(image.id, by_digest, tuple(forms)))
        size = len(manifest.data)
        self.report(status(f"{self.name.tag}: digest: {manifest.digest} size: {size}"))
        aux = {"Tag": self.name.tag, "Digest": manifest.digest, "Size": size}
        self.report({"progressDetail": {}, "aux": aux})

    def _layers(self, layers: tuple[OutgoingLayer, ...]) -> list[Form]:
        """Bring all layers there, a few at a time; one that is in the image twice goes once."""
        pool = self.pushing.registries.uploads
        futures: dict[str, Future[Form]] = {}
        try:
            for layer in layers:
                if layer.diff_id not in futures:
                    futures[layer.diff_id] = pool.submit(self._layer, layer)
            wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in futures.values():
                if future.done():
                    future.result()
            return [futures[layer.diff_id].result() for layer in layers]
        except BaseException:
            self.cancellation.cancel()
            for future in futures.values():
                future.cancel()
            wait(futures.values())
            raise

    def _layer(self, layer: OutgoingLayer) -> Form:
        """Bring one layer there, in the cheapest way."""
        self.cancellation.check()
        name, ours = short(layer.diff_id), self.name.name
        known = sorted(layer.forms, key=lambda form: form.repository != ours)
        for form in known[:_CANDIDATES]:
            if (form.repository == ours or form.repository.partition("/")[0] == self.name.domain) and self.uploads.has(
                form.digest
            ):
                self.report(status("Layer already exists", name))
                return self._here(form)
        for form in known[:_CANDIDATES]:
            host, _, path = form.repository.partition("/")
            if host == self.name.domain and path != self.name.path and self.uploads.mount(form.digest, path):
                self.report(status(f"Mounted from {path}", name))
                return self._here(form)
        return self._send(layer)

    def _here(self, form: Form) -> Form:
        return Form(form.diff_id, form.digest, form.size, form.media_type, self.name.name)

    def _send(self, layer: OutgoingLayer) -> Form:
        meter = Meter(self.report, "Pushing", short(layer.diff_id), layer.size)
        digest, size = self.uploads.put(lambda: compressed(self._tar(layer, meter)))
        self.report(status("Pushed", short(layer.diff_id)))
        return Form(layer.diff_id, digest, size, DOCKER_LAYER, self.name.name)

    def _tar(self, layer: OutgoingLayer, meter: Meter) -> Iterator[bytes]:
        """Yield the layer's tar, whose name is its digest; its last bytes only when all were right."""
        digest, done = hashlib.sha256(), 0
        with open(layer.path, "rb", buffering=0) as file:
            while done < layer.size:
                self.cancellation.check()
                data = file.read(min(CHUNK, layer.size - done))
                digest.update(data)
                done += len(data)
                if not data or (done == layer.size and f"sha256:{digest.hexdigest()}" != layer.diff_id):
                    self.pushing.images.doubt(layer.diff_id)
                    raise SystemFailure(
                        f"{layer.path} is damaged: its bytes are not those of its digest; load or pull the image again"
                    )
                meter(done)
                yield data

    def _manifest(self, image: Outgoing, forms: list[Form]) -> Manifest:
        config = self.uploads.put_bytes(image.config)
        if kept := _kept(image, forms):
            return kept
        docker = all(form.media_type in _GZIP for form in forms)
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
            "config": _entry(DOCKER_CONFIG if docker else OCI_CONFIG, config.digest, config.size),
            "layers": [_entry(_layer_type(form, docker=docker), form.digest, form.size) for form in forms],
        }
        data = json.dumps(document, separators=(",", ":")).encode()
        return Manifest(data, str(document["mediaType"]), f"sha256:{hashlib.sha256(data).hexdigest()}")


def _layer_type(form: Form, *, docker: bool) -> str:
    if docker:
        return DOCKER_LAYER
    return OCI_GZIP_LAYER if form.media_type in _GZIP else form.media_type


def _entry(media_type: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "size": size, "digest": digest}


def _kept(image: Outgoing, forms: list[Form]) -> Manifest | None:
    """Return the manifest that an image came with, when it says what is there."""
    if not image.manifest:
        return None
    layers: list[Descriptor] = parse_document(image.manifest, "manifest", image.media_type).layers or []
    if [each.digest for each in layers] != [form.digest for form in forms]:
        return None
    return Manifest(image.manifest, image.media_type, f"sha256:{hashlib.sha256(image.manifest).hexdigest()}")
