"""Images: what the rest of the engine may ask of them; the implementation is `images.Images`.

An *image* is a config (its digest is the image's id), an ordered list of layers, and any number of names. A *layer*
is a committed snapshot, shared by all images whose chains begin the same. A *name* ("docker.io/library/busybox:latest",
spelled out in the store, short on the wire) means one image at a time; an image without names is *dangling*.

    load, import_  ->  layers are unpacked and flushed, blobs are fsynced, then one transaction makes images and
                       names visible; before it nothing can be seen, and a failure or a kill leaves nothing behind
    remove, prune  ->  one transaction takes names and images away, then layers that no image needs are removed

A layer that a container still needs stays, with its archive in content/, until `collect` finds it free; `collect` runs
after every removal and at start. All methods block and may be called from several threads.

    resolve(ref) -> Image                     NotFound "No such image: REF"; InvalidArgument for a malformed one
    listing(all, filters) -> [dict]           GET /images/json, newest first
    inspect(ref, platform) -> dict            GET /images/NAME/json
    history(ref, platform) -> [dict]          GET /images/NAME/history, newest first
    tag(ref, repo, tag) -> str                the full name it has now, "" when repo is empty
    remove(ref, force, noprune, users, platform) -> [{"Untagged": name} | {"Deleted": digest}]; Conflict, Docker's texts
    load(stream, progress, platform) -> [image id]   tar of `docker save` or an OCI layout, compressed or not
    import_(stream, repo, tag, message, changes, platform) -> image id
    commit(chunks, wanted) -> image id        a layer's tar on top of a container's layers
    saved(refs, platform)                     context: (image ids, tar as docker save writes it)
    prune(filters, users) -> dict             POST /images/prune
    collect() -> [chain ID]                   frees layers nobody needs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Report = Callable[[dict[str, Any]], None]
"""Is given progress records in the wire form of the Engine API."""

Users = Callable[[str], list[tuple[str, bool]]]
"""Given an image id, returns (container id, whether it runs) for each container made from it."""

Filters = Mapping[str, list[str]]
