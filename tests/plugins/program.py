"""A plugin as others would write one: a process with an HTTP server on a socket, which makes bridges and veth pairs.

    python program.py SOCKET FOLDER [KIND ...]

It implements NetworkDriver and IpamDriver, or the kinds given. What it was asked is in FOLDER/calls, a line of JSON
each, {"method": ..., "request": ...}. FOLDER/orders says how to behave, and is read for each call:
{"METHOD": "hang" | "drip" | "err TEXT" | "status 500 TEXT" | "JSON"}. What it has given out is in FOLDER/pools, so it
can be killed and started again.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

SOCKET, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
KINDS = sys.argv[3:] or ["NetworkDriver", "IpamDriver"]
LOCK = threading.Lock()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)


def bridge(request: dict) -> str:
    return f"pb-{request['NetworkID'][:10]}"


def ends(request: dict) -> tuple[str, str]:
    return f"ph-{request['EndpointID'][:10]}", f"pc-{request['EndpointID'][:10]}"


def create_network(request: dict) -> dict:
    name = bridge(request)
    ip("link", "add", name, "type", "bridge")
    ip("link", "set", name, "up")
    for family in ("IPv4Data", "IPv6Data"):
        for data in request.get(family) or []:
            if data.get("Gateway"):
                ip("addr", "add", data["Gateway"], "dev", name)
    (FOLDER / f"network-{request['NetworkID']}").write_text(json.dumps(request))
    return {}


def delete_network(request: dict) -> dict:
    ip("link", "del", bridge(request))
    (FOLDER / f"network-{request['NetworkID']}").unlink()
    return {}


def create_endpoint(request: dict) -> dict:
    host, inner = ends(request)
    ip("link", "add", host, "type", "veth", "peer", "name", inner)
    ip("link", "set", host, "master", bridge(request), "up")
    given = request["Interface"]
    return {"Interface": {} if given.get("MacAddress") else {"MacAddress": "02:99:" + os.urandom(4).hex(":")}}


def delete_endpoint(request: dict) -> dict:
    subprocess.run(["ip", "link", "del", ends(request)[0]], capture_output=True, timeout=20)
    return {}


def join(request: dict) -> dict:
    network = json.loads((FOLDER / f"network-{request['NetworkID']}").read_text())
    options = network["Options"].get("com.docker.network.generic") or {}
    answer: dict = {"InterfaceName": {"SrcName": ends(request)[1], "DstPrefix": options.get("prefix", "eth")}}
    gateways = [data["Gateway"].split("/")[0] for data in network["IPv4Data"] or [] if data.get("Gateway")]
    if gateways and options.get("gateway") != "none":
        answer["Gateway"] = gateways[0]
    if "routes" in options:
        answer["StaticRoutes"] = json.loads(options["routes"])
    answer["DisableGatewayService"] = options.get("gateway") == "none"
    return answer


def pools() -> dict:
    path = FOLDER / "pools"
    return json.loads(path.read_text()) if path.exists() else {}


def keep(found: dict) -> None:
    (FOLDER / "pools").write_text(json.dumps(found))


def request_pool(request: dict) -> dict:
    found = pools()
    pool = request["Pool"] or f"10.20{len(found)}.0.0/24"
    found[f"pool/{pool}"] = []
    keep(found)
    return {"PoolID": f"pool/{pool}", "Pool": pool, "Data": {}}


def release_pool(request: dict) -> dict:
    found = pools()
    del found[request["PoolID"]]
    keep(found)
    return {}


def request_address(request: dict) -> dict:
    found = pools()
    used, subnet = found[request["PoolID"]], ipaddress.ip_network(request["PoolID"].removeprefix("pool/"))
    wanted = request["Address"]
    if wanted and wanted in used:
        return {"Err": f"{wanted} is somebody's"}
    if not wanted:  # from the end, which no other would do
        wanted = next(str(each) for each in reversed(list(subnet.hosts())) if str(each) not in used)
    used.append(wanted)
    keep(found)
    return {"Address": f"{wanted}/{subnet.prefixlen}", "Data": {}}


def release_address(request: dict) -> dict:
    found = pools()
    found[request["PoolID"]].remove(request["Address"])
    keep(found)
    return {}


METHODS = {
    "Plugin.Activate": lambda request: {"Implements": KINDS},
    "NetworkDriver.GetCapabilities": lambda request: {"Scope": "local", "ConnectivityScope": "global"},
    "NetworkDriver.CreateNetwork": create_network,
    "NetworkDriver.DeleteNetwork": delete_network,
    "NetworkDriver.CreateEndpoint": create_endpoint,
    "NetworkDriver.DeleteEndpoint": delete_endpoint,
    "NetworkDriver.EndpointOperInfo": lambda request: {"Value": {}},
    "NetworkDriver.Join": join,
    "NetworkDriver.Leave": lambda request: {},
    "NetworkDriver.ProgramExternalConnectivity": lambda request: {},
    "NetworkDriver.RevokeExternalConnectivity": lambda request: {},
    "NetworkDriver.DiscoverNew": lambda request: {},
    "NetworkDriver.DiscoverDelete": lambda request: {},
    "IpamDriver.GetDefaultAddressSpaces": lambda request: {
        "LocalDefaultAddressSpace": "here",
        "GlobalDefaultAddressSpace": "everywhere",
    },
    "IpamDriver.RequestPool": request_pool,
    "IpamDriver.ReleasePool": release_pool,
    "IpamDriver.RequestAddress": request_address,
    "IpamDriver.ReleaseAddress": release_address,
}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        method = self.path.removeprefix("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = json.loads(body) if body else None
        with LOCK, (FOLDER / "calls").open("a") as calls:
            calls.write(json.dumps({"method": method, "request": request, "headers": dict(self.headers)}) + "\n")
        path = FOLDER / "orders"
        order = json.loads(path.read_text()).get(method, "") if path.exists() else ""
        if order == "hang":
            time.sleep(600)
        if order == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(6000):
                self.wfile.write(b" ")
                time.sleep(0.1)
        if order.startswith("err "):
            return self.answer(200, json.dumps({"Err": order[4:]}))
        if order.startswith("status "):
            _, status, text = order.split(" ", 2)
            return self.answer(int(status), text)
        if order:
            return self.answer(200, order)
        if method not in METHODS:
            return self.answer(404, "404 page not found\n")
        try:
            with LOCK:
                done = METHODS[method](request)
        except Exception as error:
            done = {"Err": f"{type(error).__name__}: {error}"}
        return self.answer(200, json.dumps(done))

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def address_string(self) -> str:
        return "engine"

    def log_message(self, *_: object) -> None:
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


if __name__ == "__main__":
    SOCKET.unlink(missing_ok=True)
    with Server(str(SOCKET), Handler) as server:
        server.serve_forever()
