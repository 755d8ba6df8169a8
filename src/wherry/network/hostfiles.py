"""The host's own name resolution files, as containers take them over."""

from __future__ import annotations

from dataclasses import dataclass

RESOLV_CONF = "/etc/resolv.conf"
SYSTEMD_RESOLV_CONF = "/run/systemd/resolve/resolv.conf"
"""The servers behind the stub 127.0.0.53, which a container cannot reach: systemd-resolved.service(8)."""

STUB = ["127.0.0.53"]


@dataclass(frozen=True, slots=True)
class HostFiles:
    """Texts of the host's files, "" for one that is missing."""

    hosts: str
    resolv_conf: str
    resolv_path: str = RESOLV_CONF


def read(*, own_namespace: bool) -> HostFiles:
    """Read the files that fit a container: one in the host's namespace can use the stub resolver."""
    path = RESOLV_CONF
    text = _text(path)
    if own_namespace and listed_nameservers(text) == STUB:
        path = SYSTEMD_RESOLV_CONF
        text = _text(path)
    return HostFiles(_text("/etc/hosts"), text, path)


def nameservers(path: str = RESOLV_CONF) -> list[str]:
    """Return the IP addresses of the host's nameservers. Raises OSError, but not for a file that is missing."""
    return [each for each in listed_nameservers(_text(path)) if _is_address(each)]


def listed_nameservers(text: str) -> list[str]:
    """Return what stands behind "nameserver" in a resolv.conf."""
    lines = (line.split() for line in text.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def _is_address(word: str) -> bool:
    from ipaddress import ip_address

    try:
        ip_address(word)
    except ValueError:
        return False
    return True


def _text(path: str) -> str:
    """Read for each start: unbuffered, since a text file asks the kernel three times as much."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall().decode(errors="replace")
    except FileNotFoundError:
        return ""
