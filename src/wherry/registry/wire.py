"""One HTTP exchange: urllib3 without its redirects and retries, which do not know whose credentials are whose."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

import urllib3
from urllib3 import connection, connectionpool, exceptions
from urllib3.response import BaseHTTPResponse

from wherry.errors import SystemFailure
from wherry.registry import certificates
from wherry.registry.api import RegistryConfig
from wherry.registry.failures import Broken
from wherry.registry.origins import Address, Origins, is_loopback, literal, place
from wherry.version import WHERRY

CONNECT_SECONDS = 10.0
BODY_LIMIT = 4 << 20
BODY_SECONDS = 60.0
PIECE = 256 << 10

# Said at each request to a host that the user has called insecure.
urllib3.disable_warnings(exceptions.InsecureRequestWarning)
# Its debug lines hold whole URLs, and those of token servers and of redirects hold secrets.
logging.getLogger("urllib3").setLevel(logging.WARNING)

Body = bytes | Iterable[bytes] | None


class _Refused(exceptions.HTTPError):
    """The other end is nobody whom a registry may send us to."""


@dataclass(frozen=True, slots=True)
class _Target:
    """What connections are kept for. sent: a registry elsewhere has named it, so it must not be this machine."""

    scheme: str
    netloc: str
    verified: bool
    sent: bool


def _check_peer(sock: socket.socket, host: str) -> socket.socket:
    """Close a connection to which a registry must not lead us. Raises _Refused."""
    address = literal(str(sock.getpeername()[0]))
    if address is not None and is_inner(address):
        sock.close()
        raise _Refused(f"{host} is at {address}, where a registry may not send anybody")
    return sock


def is_inner(address: Address) -> bool:
    """Return whether an address is this machine, or one by which clouds tell machines their secrets."""
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return is_inner(mapped)
    return address.is_loopback or address.is_link_local or address.is_unspecified


class _SentConnection(connection.HTTPConnection):
    """Looks at whom it has reached before it says anything: a name may resolve to anything."""

    def _new_conn(self) -> socket.socket:
        return _check_peer(super()._new_conn(), self.host)


class _SentTlsConnection(connection.HTTPSConnection):
    """The same with TLS."""

    def _new_conn(self) -> socket.socket:
        return _check_peer(super()._new_conn(), self.host)


class _SentPool(connectionpool.HTTPConnectionPool):
    ConnectionCls = _SentConnection


class _SentTlsPool(connectionpool.HTTPSConnectionPool):
    ConnectionCls = _SentTlsConnection


class Wire:
    """Connections to servers, kept while somebody has a hold on them."""

    def __init__(self, config: RegistryConfig, origins: Origins) -> None:
        self._config = config
        self._origins = origins
        self._pools: dict[_Target, urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        self._users = 0

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: Body = None, registry: str = ""
    ) -> BaseHTTPResponse:
        """Make one request; the body of the answer is yet to be read. registry: URL of who sent us there.

        Raises Broken, and SystemFailure for what no further attempt mends.
        """
        scheme, host, _ = place(url)
        netloc = urlsplit(url).netloc
        sent = bool(registry) and not is_loopback(place(registry)[1])
        address = literal(host)
        if registry and address is not None and (address.is_link_local or (sent and is_inner(address))):
            raise SystemFailure(f"{registry} sends to {url}, where a registry may not send anybody")
        target = _Target(scheme, netloc, not self._origins.is_insecure(netloc), sent)
        agent = {"User-Agent": f"wherry/{WHERRY}", "Accept-Encoding": "identity"}
        try:
            return self._pool(target).request(
                method,
                url,
                body=body,
                headers={**agent, **headers},
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
        except exceptions.HTTPError as error:
            raise self._told(method, url, error) from error

    @staticmethod
    def _told(method: str, url: str, error: exceptions.HTTPError) -> Exception:
        shown = url.partition("?")[0]
        what = f'{method.title()} "{shown}": {reason(error)}'
        if isinstance(error, exceptions.SSLError):
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                return SystemFailure(
                    f"{what}. Put the certificate of its authority into /etc/wherry/certs.d/HOST/ca.crt, or list the "
                    "host in insecure-registries"
                )
            return Broken(what, connecting=True)
        if isinstance(error, _Refused | exceptions.LocationParseError):
            return SystemFailure(what)
        early = exceptions.NewConnectionError | exceptions.ConnectTimeoutError
        return Broken(what, connecting=isinstance(error, early))

    def _pool(self, target: _Target) -> urllib3.PoolManager:
        with self._lock:
            if target not in self._pools:
                self._pools[target] = self._make(target)
            return self._pools[target]

    def _make(self, target: _Target) -> urllib3.PoolManager:
        options: dict[str, object] = {
            "maxsize": max(self._config.downloads, self._config.uploads),
            "timeout": urllib3.Timeout(connect=CONNECT_SECONDS, read=self._config.patience),
        }
        if target.scheme == "https":
            folders = self._config.certificates
            options["ssl_context"] = certificates.context(target.netloc, folders, verified=target.verified)
            options["assert_hostname"] = None if target.verified else False
        proxy = self._proxy(target)
        if proxy:
            return _through(proxy, options)
        made = urllib3.PoolManager(**options)  # type: ignore[arg-type]
        if target.sent:
            made.pool_classes_by_scheme = {"http": _SentPool, "https": _SentTlsPool}
        return made

    def _proxy(self, target: _Target) -> str:
        proxy = self._config.https_proxy if target.scheme == "https" else self._config.http_proxy
        return "" if not proxy or bypasses(target.netloc, self._config.no_proxy) else proxy

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the connections for somebody; they end with the last one's block."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                managers = [] if self._users else list(self._pools.values())
                if managers:
                    self._pools = {}
            for manager in managers:
                _close(manager)


def _close(manager: urllib3.PoolManager) -> None:
    """Close idle connections; clear() would leave that to the garbage collector."""
    for key in manager.pools.keys():  # noqa: SIM118  a container that cannot be iterated over
        pool = manager.pools.get(key)
        if pool is not None:
            pool.close()
    manager.clear()


def _through(proxy: str, options: dict[str, object]) -> urllib3.PoolManager:
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if parts.username is not None:
        who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=who)
    return urllib3.ProxyManager(url, **options)  # type: ignore[arg-type]


def bypasses(netloc: str, rules: str) -> bool:
    """Return whether a host is reached without a proxy: this machine, and by the rules of NO_PROXY as Go reads them."""
    parts = urlsplit(f"//{netloc}")
    host = (parts.hostname or "").lower()
    if is_loopback(host):
        return True
    address = literal(host)
    for rule in (each.strip().lower() for each in rules.split(",")):
        if not rule:
            continue
        if rule == "*" or _matches(rule, host, parts.port, address):
            return True
    return False


def _matches(rule: str, host: str, port: int | None, address: Address | None) -> bool:
    if "/" in rule:
        try:
            return address is not None and address in ipaddress.ip_network(rule)
        except ValueError:
            return False
    name, _, wanted = rule.partition(":") if rule.count(":") == 1 else (rule, "", "")
    if wanted and wanted != str(port):
        return False
    name = name.removeprefix("*")
    return host == name.removeprefix(".") or host.endswith(name if name.startswith(".") else f".{name}")


def reason(error: exceptions.HTTPError) -> str:
    """Return the words in an error of urllib3, without its objects."""
    if isinstance(error, exceptions.NameResolutionError):
        cause = error.__cause__
        words = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause or error)
        return f"dial tcp: lookup: {words}"
    if isinstance(error, exceptions.NewConnectionError):
        cause = error.__cause__
        words = (cause.strerror or "").lower() if isinstance(cause, OSError) else ""
        return f"dial tcp: connect: {words or cause}"
    if isinstance(error, exceptions.ConnectTimeoutError):
        return "dial tcp: i/o timeout"
    if isinstance(error, exceptions.ReadTimeoutError):
        return "net/http: timeout awaiting response headers"
    if isinstance(error, exceptions.ProtocolError) and len(error.args) > 1:
        return str(error.args[1]) or str(error.args[0])
    return str(error)


def read_small(response: BaseHTTPResponse, limit: int = BODY_LIMIT) -> bytes:
    """Return a whole body. Raises Broken, and SystemFailure when it is more than `limit` bytes."""
    parts, total, deadline = [], 0, time.monotonic() + BODY_SECONDS
    try:
        while piece := response.read1(min(PIECE, limit + 1 - total)):
            parts.append(piece)
            total += len(piece)
            if time.monotonic() > deadline:
                response.close()
                raise Broken(f"the answer of the registry has not ended after {BODY_SECONDS:g} seconds")
            if total > limit:
                response.close()
                raise SystemFailure(f"the registry answered with more than {limit} bytes, which are not accepted here")
    except exceptions.HTTPError as error:
        response.close()
        raise Broken(f"the answer of the registry broke off: {reason(error)}") from error
    response.release_conn()
    return b"".join(parts)
