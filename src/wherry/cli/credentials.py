"""Names and passwords of registries where docker keeps them: config.json, or the credential helpers that it names.

    {"auths": {"HOST": {"auth": base64 of NAME:PASSWORD, "identitytoken"}},
     "credsStore": NAME, "credHelpers": {HOST: NAME}}

A helper is docker-credential-NAME on the PATH: get, store or erase as its argument, the host or JSON on its input.
https://github.com/docker/docker-credential-helpers
"""

from __future__ import annotations

import os

from wherry.cli.failures import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HUB = "https://index.docker.io/v1/"
_HUB_NAMES = ("", "docker.io", "index.docker.io", "registry-1.docker.io")
_NOT_FOUND = "credentials not found"
_TOKEN = "<token>"


def server_of(name: str) -> str:
    """The key of the registry that an image's name belongs to."""
    first, slash, _ = name.partition("/")
    if slash and (set(first) & set(".:") or first == "localhost" or first.lower() != first):
        return key_of(first)
    return HUB


def key_of(server: str) -> str:
    """The key of a server, as users write it, in config.json."""
    host = (server.partition("://")[2] or server).partition("/")[0]
    return HUB if host in _HUB_NAMES else host


def path() -> str:
    """Where config.json is, or would be."""
    folder = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return os.path.join(folder, "config.json")


def _read() -> dict[str, Any]:
    import json

    try:
        with open(path()) as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failure(f"cannot read {path()}: {error}") from error
    if not isinstance(found, dict):
        raise Failure(f"cannot read {path()}: it must hold a JSON object")
    return found


def _write(config: dict[str, Any]) -> None:
    """Replace the file at once, readable by its owner alone; a link stays one."""
    import json

    target = os.path.realpath(path())
    aside = f"{target}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(config, file, indent="\t")
        os.replace(aside, target)
    except OSError as error:
        raise Failure(f"cannot write {target}: {error}") from error


def _helper(config: dict[str, Any], server: str) -> str:
    helpers = config.get("credHelpers") or {}
    return str(helpers.get(server) or config.get("credsStore") or "")


def _run(helper: str, action: str, data: str) -> str:
    """Ask a helper; its failure is told, and nothing else is tried instead of it."""
    import subprocess

    if "/" in helper:
        raise Failure(f"invalid name of a credential helper in {path()}: {helper!r}")
    program = f"docker-credential-{helper}"
    try:
        ran = subprocess.run([program, action], input=data, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"error getting credentials - err: {error}, out: ``") from error
    if ran.returncode:
        text = (ran.stdout.strip() or ran.stderr.strip())[:500]
        if action == "get" and _NOT_FOUND in text:
            return ""
        raise Failure(f"error {action} credentials - err: exit status {ran.returncode}, out: `{text}`")
    return ran.stdout


def load(server: str) -> dict[str, str]:
    """What is known for a registry, as X-Registry-Auth has it; empty for nothing."""
    import base64
    import json

    config = _read()
    if helper := _helper(config, server):
        answer = _run(helper, "get", server)
        if not answer:
            return {}
        try:
            found = json.loads(answer)
            name, secret = str(found["Username"]), str(found["Secret"])
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(f"docker-credential-{helper} answers what cannot be understood") from error
        if name == _TOKEN:
            return {"identitytoken": secret, "serveraddress": server}
        return {"username": name, "password": secret, "serveraddress": server}
    entry = _entry(config, server)
    if not entry:
        return {}
    name, _, password = base64.b64decode(entry.get("auth", "")).decode(errors="replace").partition(":")
    known = {"username": name, "password": password, "identitytoken": str(entry.get("identitytoken", ""))}
    return {key: value for key, value in known.items() if value} | {"serveraddress": server}


def _entry(config: dict[str, Any], server: str) -> dict[str, Any]:
    """The entry of a registry, also under the URL that older versions wrote."""
    auths = config.get("auths") or {}
    for key, entry in auths.items():
        if key == server or key_of(key) == server:
            return dict(entry)
    return {}


def store(server: str, name: str, password: str, token: str) -> bool:
    """Keep what has been accepted; return whether it lies in config.json as it is."""
    import base64
    import json

    config = _read()
    if helper := _helper(config, server):
        secret = {"ServerURL": server, "Username": _TOKEN if token else name, "Secret": token or password}
        _run(helper, "store", json.dumps(secret))
        return False
    text = base64.b64encode(f"{name}:{'' if token else password}".encode()).decode()
    entry = {"auth": text} | ({"identitytoken": token} if token else {})
    config["auths"] = (config.get("auths") or {}) | {server: entry}
    _write(config)
    return True


def erase(server: str) -> bool:
    """Forget a registry; return whether anything was known."""
    config = _read()
    if helper := _helper(config, server):
        known = bool(_run(helper, "get", server))
        if known:
            _run(helper, "erase", server)
        return known
    auths = config.get("auths") or {}
    gone = [key for key in auths if key == server or key_of(key) == server]
    for key in gone:
        del auths[key]
    if gone:
        config["auths"] = auths
        _write(config)
    return bool(gone)


def header(auth: dict[str, str]) -> dict[str, str]:
    """The header that hands credentials to the engine, also when there are none."""
    import base64
    import json

    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()}
