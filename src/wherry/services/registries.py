"""What the API offers of registries: pull, push, login, search, distribution."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from wherry.errors import InvalidArgument
from wherry.images import references
from wherry.images.references import Reference
from wherry.models.manifest import Platform, decode, parse_document
from wherry.models.queries import Filters
from wherry.registry.api import Credentials, Report, Repository
from wherry.registry.cancellation import Cancellation
from wherry.registry.client import Registries
from wherry.registry.credentials import AuthConfig, decode_auth, for_host, host_of
from wherry.registry.login import login
from wherry.registry.remote import Access, Remote
from wherry.registry.search import search, split
from wherry.services.following import follow
from wherry.services.pace import at_their_pace
from wherry.services.pulling import Pulling, Wanted
from wherry.services.pushing import Pushing

Result = TypeVar("Result")
_FILTERS = {"is-automated", "is-official", "stars"}


@dataclass(frozen=True, slots=True)
class RegistryService:
    """RegistriesBackend."""

    registries: Registries
    pulling: Pulling
    pushing: Pushing

    def close(self) -> None:
        """Cancel what is left of the work of all clients, and wait for it."""
        self.pulling.close()
        self.registries.close()

    def pull(self, *, image: str, tag: str, platform: str, auth: str) -> AsyncIterator[Any]:
        """POST /images/create?fromImage=."""
        reference = references.parse(image)
        if tag and references.is_digest(tag):
            reference = Reference(reference.domain, reference.path, digest=tag)
        elif tag:
            reference = references.parse(f"{reference.name}:{tag}")
        wanted = Wanted(reference, platform, for_host(decode_auth(auth), reference.domain))
        cancellation = Cancellation()

        def work(report: Report) -> None:
            self.pulling.pull(wanted, report, cancellation)

        return follow(work, cancellation)

    def push(self, image: str, *, tag: str, auth: str) -> AsyncIterator[Any]:
        """POST /images/NAME/push."""
        reference = references.parse(f"{image}:{tag}" if tag else image)
        if reference.digest:
            raise InvalidArgument("cannot push a digest reference")
        credentials = for_host(decode_auth(auth), reference.domain)
        cancellation = Cancellation()

        def work(report: Report) -> None:
            self.pushing.push(reference, credentials, report, cancellation)

        return follow(work, cancellation)

    async def login(self, auth: Mapping[str, Any]) -> Any:
        """POST /auth."""
        try:
            config = msgspec.convert(auth, AuthConfig)
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"invalid auth configuration: {error}") from error
        host = host_of(config.serveraddress)
        token = await self._ask(for_host(config, host), lambda access: login(access, host))
        return {"IdentityToken": token, "Status": "Login Succeeded"}

    async def _ask(self, credentials: Credentials, work: Callable[[Access], Result]) -> Result:
        """Do something that is cancelled with the client."""
        cancellation = Cancellation()

        def job() -> Result:
            with self.registries.access(credentials, cancellation) as access:
                return work(access)

        done = at_their_pace(job)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            cancellation.cancel()
            done.add_done_callback(lambda _: done.cancelled() or done.exception())
            raise

    async def search(self, term: str, *, limit: int, filters: Filters, auth: str) -> list[Any]:
        """GET /images/search."""
        for name in filters:
            if name not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        credentials = for_host(decode_auth(auth), split(term)[0])
        found = await self._ask(credentials, lambda access: search(access, term, limit))
        return [each for each in found if _accepts(each, filters)]

    async def distribution(self, ref: str, *, auth: str) -> Any:
        """GET /distribution/NAME/json."""
        reference = references.parse(ref)
        credentials = for_host(decode_auth(auth), reference.domain)
        return await self._ask(credentials, lambda access: _distribution(access, reference))


def _accepts(found: Mapping[str, Any], filters: Filters) -> bool:
    for name, key in (("is-official", "is_official"), ("is-automated", "is_automated")):
        if values := filters.get(name):
            if values[0] not in ("true", "1", "false", "0"):
                raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)}]'")
            if bool(found[key]) != (values[0] in ("true", "1")):
                return False
    for value in filters.get("stars") or ():
        if not value.isascii() or not value.isdigit():
            raise InvalidArgument(f"invalid filter 'stars=[{value}]'")
        if int(found["star_count"]) < int(value[:9]):
            return False
    return True


def _distribution(access: Access, reference: Reference) -> dict[str, Any]:
    remote = Remote(access, Repository(reference.domain, reference.path), "pull")
    manifest = remote.manifest(reference.digest or reference.tag or references.DEFAULT_TAG, reference.familiar)
    document = parse_document(manifest.data, f"manifest of {reference.familiar}", manifest.media_type)
    if document.manifests is not None:
        found = [each.platform for each in document.manifests if each.platform is not None]
    else:
        assert document.config is not None
        config = remote.small_blob(document.config)
        found = [decode(config, "image config", Platform)]
    return {
        "Descriptor": {
            "mediaType": manifest.media_type or document.media_type,
            "digest": manifest.digest,
            "size": len(manifest.data),
        },
        "Platforms": [_platform(each) for each in found],
    }


def _platform(platform: Platform) -> dict[str, str]:
    names = {"architecture": platform.architecture, "os": platform.os, "os.version": platform.os_version}
    return {name: value for name, value in (names | {"variant": platform.variant}).items() if value}
