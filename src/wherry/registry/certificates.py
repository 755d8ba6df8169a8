"""TLS settings of a host, from folders as dockerd's certs.d.

    FOLDER/HOST[:PORT]/  NAME.crt          further authorities to trust
                         NAME.cert, .key   who we are
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from wherry.errors import SystemFailure


def context(netloc: str, folders: Sequence[Path], *, verified: bool) -> ssl.SSLContext:
    """Return the settings with which a host is talked to. netloc: with its port, when it has one."""
    made = ssl.create_default_context()
    if not verified:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    for folder in folders:
        _take(made, folder / netloc)
    return made


def _take(made: ssl.SSLContext, folder: Path) -> None:
    try:
        names = sorted(path for path in folder.iterdir() if path.suffix in (".crt", ".cert", ".key"))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise SystemFailure(f"cannot read {folder}: {error}") from error
    for path in names:
        try:
            if path.suffix == ".crt":
                made.load_verify_locations(cafile=path)
            elif path.suffix == ".cert":
                made.load_cert_chain(path, _key(path))
            elif not path.with_suffix(".cert").exists():
                raise SystemFailure(f"missing client certificate {path.stem}.cert for key {path.name} in {folder}")
        except (OSError, ssl.SSLError) as error:
            raise SystemFailure(f"cannot use {path}: {error}") from error


def _key(certificate: Path) -> Path:
    key = certificate.with_suffix(".key")
    if not key.exists():
        raise SystemFailure(
            f"missing key {key.name} for client certificate {certificate.name} in {certificate.parent}. "
            "CA certificates must use the extension .crt"
        )
    return key
