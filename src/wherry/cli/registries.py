"""pull, push, login, logout and search."""

from __future__ import annotations

import sys

from wherry.cli import credentials, engine
from wherry.cli.failures import Failure, UsageError
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import quote
from wherry.cli.listing import filters
from wherry.cli.progress import follow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    from wherry.cli.http import Client

PULL = Command(
    "pull",
    "NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    "registries:pull",
    (
        Flag("-a --all-tags", "Download all tagged images in the repository"),
        Flag("--platform", "Set platform if the engine is multi-platform capable", "text"),
        Flag("-q --quiet", "Suppress verbose output"),
    ),
    (1, 1),
)
PUSH = Command(
    "push",
    "NAME[:TAG]",
    "Upload an image to a registry",
    "registries:push",
    (
        Flag("-a --all-tags", "Push all tags of an image to the repository"),
        Flag("-q --quiet", "Suppress verbose output"),
    ),
    (1, 1),
)
LOGIN = Command(
    "login",
    "[SERVER]",
    "Authenticate to a registry",
    "registries:login",
    (
        Flag("-p --password", "Password or Personal Access Token (PAT)", "text"),
        Flag("--password-stdin", "Take the Password or Personal Access Token (PAT) from stdin"),
        Flag("-u --username", "Username", "text"),
    ),
    (0, 1),
)
LOGOUT = Command("logout", "[SERVER]", "Log out from a registry", "registries:logout", (), (0, 1))
SEARCH = Command(
    "search",
    "TERM",
    "Search Docker Hub for images",
    "registries:search",
    (
        Flag("-f --filter", "Filter output based on conditions provided", "list"),
        Flag("--format", "Pretty-print search using a Go template", "text"),
        Flag("--limit", "Max number of search results", "int"),
        Flag("--no-trunc", "Don't truncate output"),
    ),
    (1, 1),
)
_UNENCRYPTED = """
WARNING! Your credentials are stored unencrypted in '{path}'.
Configure a credential helper to remove this warning. See
https://docs.docker.com/go/credential-store/
"""
_DESCRIPTION = 45
_TITLES = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}
_TABLE = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"


def _split(name: str) -> tuple[str, str]:
    """Name without tag and digest, and what of both it has."""
    repository, at, digest = name.partition("@")
    head, colon, tag = repository.rpartition(":")
    if colon and "/" not in tag:
        return head, f"{tag}@{digest}" if at else tag
    return repository, digest if at else ""


def _in_full(name: str) -> str:
    """The name with its registry, as docker prints it last."""
    if credentials.server_of(name) != credentials.HUB:
        return name
    path = name.removeprefix("docker.io/").removeprefix("index.docker.io/")
    return f"docker.io/{path}" if "/" in path.partition("@")[0] else f"docker.io/library/{path}"


def fetch(client: Client, name: str, platform: str, output: IO[str] | None, *, all_tags: bool = False) -> None:
    """Pull an image by its name with tag or digest, or all tags of a name without; tell of it to the output."""
    repository, which = _split(name)
    query = {
        "fromImage": name if "@" in name else repository,
        "tag": None if "@" in name or all_tags else which,
        "platform": platform or None,
    }
    headers = credentials.header(credentials.load(credentials.server_of(name)))
    follow(client.open("POST", "/images/create", query, headers=headers), output)


def pull(host: str, flags: Parsed) -> int:
    """Bring an image here."""
    name, which = flags.words[0], _split(flags.words[0])[1]
    if flags["all-tags"] and which:
        raise UsageError("tag can't be used with --all-tags/-a", 1)
    if not which and not flags["all-tags"]:
        name = f"{name}:latest"
        if not flags["quiet"]:
            print("Using default tag: latest")
    output = None if flags["quiet"] else sys.stdout
    fetch(engine.client(host, start=True), name, flags["platform"], output, all_tags=flags["all-tags"])
    print(_in_full(name))
    return 0


def push(host: str, flags: Parsed) -> int:
    """Send an image to its registry."""
    name, (repository, which) = flags.words[0], _split(flags.words[0])
    if flags["all-tags"] and which:
        raise UsageError("tag can't be used with --all-tags/-a", 1)
    if not which and not flags["all-tags"]:
        name, which = f"{name}:latest", "latest"
        if not flags["quiet"]:
            print("Using default tag: latest")
    headers = credentials.header(credentials.load(credentials.server_of(name)))
    query = {"tag": None if flags["all-tags"] else which}
    response = engine.client(host).open("POST", f"/images/{quote(repository)}/push", query, headers=headers)
    follow(response, None if flags["quiet"] else sys.stdout)
    if flags["quiet"]:
        print(_in_full(name))
    return 0


def _password(flags: Parsed) -> str:
    if flags["password-stdin"]:
        if flags["password"]:
            raise Failure("--password and --password-stdin are mutually exclusive")
        if not flags["username"]:
            raise Failure("Must provide --username with --password-stdin")
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if flags["password"]:
        print("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", file=sys.stderr)
        return str(flags["password"])
    if not sys.stdin.isatty():
        raise Failure("Error: Cannot perform an interactive login from a non TTY device")
    from getpass import getpass

    return getpass("Password: ")


def _username(flags: Parsed) -> str:
    if flags["username"]:
        return str(flags["username"])
    if not sys.stdin.isatty():
        raise Failure("Error: Cannot perform an interactive login from a non TTY device")
    return input("Username: ").strip()


def login(host: str, flags: Parsed) -> int:
    """Try a name and a password, and keep them when they are taken."""
    server = credentials.key_of(flags.words[0] if flags.words else "")
    if flags["password-stdin"]:
        password, name = _password(flags), _username(flags)
    else:
        name, password = _username(flags), _password(flags)
    if not name or not password:
        raise Failure("Error: Password Required" if name else "Error: Non-null Username Required")
    auth = {"username": name, "password": password, "serveraddress": server}
    answer = engine.client(host, start=True).post("/auth", None, auth)
    if credentials.store(server, name, password, answer.get("IdentityToken", "")):
        print(_UNENCRYPTED.format(path=credentials.path()), file=sys.stderr)
    print(answer["Status"])
    return 0


def logout(host: str, flags: Parsed) -> int:
    """Forget a name and a password."""
    server = credentials.key_of(flags.words[0] if flags.words else "")
    print(f"Removing login credentials for {server}")
    if not credentials.erase(server):
        print(f"Not logged in to {server}")
    return 0


def search(host: str, flags: Parsed) -> int:
    """Look for images."""
    from wherry.cli.tables import listing

    term = flags.words[0]
    query: dict[str, Any] = {"term": term, "limit": flags["limit"], "filters": filters(flags["filter"]) or None}
    headers = credentials.header(credentials.load(credentials.server_of(term)))
    response = engine.client(host, start=True).open("GET", "/images/search", query, headers=headers)
    found = response.json()
    response.close()
    rows = [_row(each, whole=flags["no-trunc"]) for each in found]
    shape = flags["format"] or _TABLE
    sys.stdout.write(listing(rows, _TABLE if shape == "table" else shape, _TITLES))
    return 0


def _row(found: dict[str, Any], *, whole: bool) -> dict[str, str]:
    description = found["description"].replace("\n", " ").replace("\r", " ")
    if not whole and len(description) > _DESCRIPTION:
        description = f"{description[: _DESCRIPTION - 1]}…"
    return {
        "Name": found["name"],
        "Description": description,
        "StarCount": str(found["star_count"]),
        "IsOfficial": "[OK]" if found["is_official"] else "",
    }
