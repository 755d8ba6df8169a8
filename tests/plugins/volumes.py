"""A volume plugin, as a process: keeps each volume in a folder of its own, bind-mounted elsewhere while it is used.

    python volumes.py SOCKET FOLDER       FOLDER/data/NAME   the content
                                          FOLDER/mnt/NAME    where it is mounted, for as long as somebody has it
                                          FOLDER/state.json  who has which volume: it survives the plugin
                                          FOLDER/calls       what it was asked, a line of JSON each
                                          FOLDER/orders      {"Mount": "hang" | "fail" | "die"}: what to do instead
"""

from __future__ import annotations

import ctypes
import http.server
import json
import os
import shutil
import socketserver
import sys
import threading
import time
from pathlib import Path

SOCKET, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
LIBC = ctypes.CDLL(None, use_errno=True)
MS_BIND, MNT_DETACH = 0x1000, 2
lock = threading.Lock()


class State:
    """Volumes, their options and who has them mounted."""

    def __init__(self) -> None:
        path = FOLDER / "state.json"
        self.volumes: dict[str, dict] = json.loads(path.read_text()) if path.exists() else {}

    def save(self) -> None:
        aside = FOLDER / "state.json.new"
        aside.write_text(json.dumps(self.volumes))
        aside.rename(FOLDER / "state.json")

    def place(self, name: str) -> str:
        return str(FOLDER / "mnt" / name) if self.volumes[name]["users"] else ""

    def create(self, request: dict) -> dict:
        if "bad" in (request.get("Opts") or {}):
            return {"Err": "this option is no good"}
        (FOLDER / "data" / request["Name"]).mkdir(parents=True, exist_ok=True)
        self.volumes.setdefault(request["Name"], {"options": request.get("Opts"), "users": []})
        return {}

    def remove(self, request: dict) -> dict:
        if self.volumes[request["Name"]]["users"]:
            return {"Err": "it is mounted"}
        shutil.rmtree(FOLDER / "data" / request["Name"])
        del self.volumes[request["Name"]]
        return {}

    def mount(self, request: dict) -> dict:
        name = request["Name"]
        target = FOLDER / "mnt" / name
        target.mkdir(parents=True, exist_ok=True)
        if not self.volumes[name]["users"]:
            source = str(FOLDER / "data" / name).encode()
            if LIBC.mount(source, str(target).encode(), None, MS_BIND, None):
                return {"Err": os.strerror(ctypes.get_errno())}
        self.volumes[name]["users"].append(request["ID"])
        return {"Mountpoint": str(target)}

    def unmount(self, request: dict) -> dict:
        name = request["Name"]
        users = self.volumes[name]["users"]
        if request["ID"] not in users:
            return {"Err": "not mounted for that one"}
        users.remove(request["ID"])
        if not users:
            LIBC.umount2(str(FOLDER / "mnt" / name).encode(), MNT_DETACH)
        return {}

    def describe(self, name: str) -> dict:
        return {"Name": name, "Mountpoint": self.place(name), "CreatedAt": "2020-01-02T03:04:05Z"}

    def get(self, request: dict) -> dict:
        if request["Name"] not in self.volumes:
            return {"Err": "no such volume"}
        status = {"options": self.volumes[request["Name"]]["options"] or {}}
        return {"Volume": self.describe(request["Name"]) | {"Status": status}}

    def answer(self, method: str, request: dict) -> dict:
        if method == "Plugin.Activate":
            return {"Implements": ["VolumeDriver"]}
        name = method.partition(".")[2]
        if name == "List":
            return {"Volumes": [self.describe(each) for each in self.volumes]}
        if name == "Capabilities":
            return {"Capabilities": {"Scope": "global"}}
        if name == "Path":
            return {"Mountpoint": self.place(request["Name"])}
        if name != "Create" and name != "Get" and request["Name"] not in self.volumes:
            return {"Err": "no such volume"}
        found = getattr(self, name.lower())(request)
        self.save()
        return found


state = State()


class Handler(http.server.BaseHTTPRequestHandler):
    """One exchange."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        method, request = self.path.strip("/"), json.loads(body or b"{}")
        with lock, (FOLDER / "calls").open("a") as calls:
            calls.write(json.dumps({"method": method, "request": request}) + "\n")
        orders = FOLDER / "orders"
        order = json.loads(orders.read_text()).get(method.partition(".")[2], "") if orders.exists() else ""
        if order == "hang":
            time.sleep(1000)
        if order == "die":
            os._exit(1)
        if order == "fail":
            answer = {"Err": "as ordered"}
        else:
            with lock:
                answer = state.answer(method, request)
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        return "engine"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves every exchange in a thread of its own."""

    daemon_threads = True
    request_queue_size = 64


FOLDER.mkdir(parents=True, exist_ok=True)
Server(str(SOCKET), Handler).serve_forever()
