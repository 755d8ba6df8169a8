"""import, load, tag, rmi, and the progress that the engine reports meanwhile."""

from __future__ import annotations

import sys

from wherry.cli import engine
from wherry.cli.failures import ApiError, UsageError
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import Response, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

IMPORT = Command(
    "import",
    "file|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    "images:import_",
    (
        Flag("-c --change", "Apply Dockerfile instruction to the created image", "list"),
        Flag("-m --message", "Set commit message for imported image", "text"),
        Flag("--platform", "Set platform if the engine is multi-platform capable", "text"),
    ),
    (1, 2),
)
LOAD = Command(
    "load",
    "",
    "Load an image from a tar archive or STDIN",
    "images:load",
    (
        Flag("-i --input", "Read from tar archive file, instead of STDIN", "text"),
        Flag("-q --quiet", "Suppress the load output"),
    ),
    (0, 0),
)
TAG = Command(
    "tag",
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    "images:tag",
    (),
    (2, 2),
)
RMI = Command(
    "rmi",
    "IMAGE [IMAGE...]",
    "Remove one or more images",
    "images:remove",
    (Flag("-f --force", "Force removal of the image"), Flag("--no-prune", "Do not delete untagged parents")),
    (1, -1),
)


def split_reference(reference: str) -> tuple[str, str]:
    """Repository and tag; a colon before a slash belongs to a port."""
    head, colon, tag = reference.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (reference, "")


def show_progress(response: Response, output: IO[str], *, quiet: bool = False) -> None:
    """Print the engine's progress records; an error among them is the end."""
    for record in response.records():
        if "error" in record:
            raise ApiError(500, record["error"])
        if quiet:
            continue
        if "stream" in record:
            output.write(record["stream"])
        elif "status" in record and not record.get("progressDetail"):
            name = f"{record['id']}: " if record.get("id") else ""
            output.write(f"{name}{record['status']}\n")
        output.flush()
    response.close()


def _open(path: str) -> IO[bytes]:
    if path != "-":
        return open(path, "rb")
    if sys.stdin.isatty():
        raise UsageError("requested load from stdin, but stdin is empty", 1)
    return sys.stdin.buffer


def import_(host: str, flags: Parsed) -> int:
    """Make an image of a root file system in a tar archive."""
    repository, tag = split_reference(flags.words[1]) if len(flags.words) > 1 else ("", "")
    query: dict[str, Any] = {
        "fromSrc": "-",
        "repo": repository or None,
        "tag": tag or None,
        "message": flags["message"] or None,
        "changes": flags["change"] or None,
        "platform": flags["platform"] or None,
    }
    client = engine.client(host, start=True)
    with _open(flags.words[0]) as source:
        show_progress(client.upload("/images/create", query, source), sys.stdout)
    return 0


def load(host: str, flags: Parsed) -> int:
    """Load images that were saved."""
    client = engine.client(host, start=True)
    with _open(flags["input"] or "-") as source:
        response = client.upload("/images/load", {"quiet": flags["quiet"] or None}, source)
        show_progress(response, sys.stdout, quiet=False)
    return 0


def tag(host: str, flags: Parsed) -> int:
    """Give an image one more name."""
    source, target = flags.words
    repository, name = split_reference(target)
    engine.client(host).post(f"/images/{quote(source)}/tag", {"repo": repository, "tag": name or None})
    return 0


def remove(host: str, flags: Parsed) -> int:
    """Take names from images, and remove what has none left."""
    client = engine.client(host)
    query = {"force": flags["force"] or None, "noprune": flags["no-prune"] or None}
    status = 0
    for name in flags.words:
        try:
            records = client.call("DELETE", f"/images/{quote(name)}", query)
        except ApiError as error:
            print(f"Error response from daemon: {error.message}", file=sys.stderr)
            status = 0 if flags["force"] and error.http == 404 and not status else 1
            continue
        for record in records:
            for verb, what in record.items():
                print(f"{verb}: {what}")
    return status
