"""A firewalld that only talks: it owns the name on a bus, keeps zones and policies in memory, and says what it heard.

    python -m tests.kernel.network.firewall.fakefirewalld BUS_PATH

Lines on its output: "ready", then one for each call, as JSON. Lines on its input: "reload" (it forgets its runtime
configuration, as firewalld does, and emits Reloaded). It fails at what the real one fails at: a zone that is not there.
"""

from __future__ import annotations

import json
import select
import sys

from jeepney import DBusAddress, HeaderFields, MessageType, new_error, new_method_call, new_method_return, new_signal
from jeepney.io.blocking import open_dbus_connection

NAME = "org.fedoraproject.FirewallD1"
PATH = "/org/fedoraproject/FirewallD1"


class Fake:
    """Its state: what is permanent, and what is in use."""

    def __init__(self) -> None:
        self.zones: set[str] = set()
        self.policies: set[str] = set()
        self.used_zones: set[str] = set()
        self.used_policies: set[str] = set()
        self.interfaces: dict[str, list[str]] = {}

    def reload(self) -> None:
        self.used_zones, self.used_policies = set(self.zones), set(self.policies)
        self.interfaces = {}

    def answer(self, member: str, body: tuple) -> tuple[str, tuple]:
        """Return signature and values of the answer; raises KeyError for what is not there."""
        if member == "getZones":
            return "as", (sorted(self.used_zones),)
        if member == "getPolicies":
            return "as", (sorted(self.used_policies),)
        if member == "addZone2":
            self.zones.add(body[0])
            return "o", (f"{PATH}/config/zone/0",)
        if member == "addPolicy":
            self.policies.add(body[0])
            return "o", (f"{PATH}/config/policy/0",)
        if member == "reload":
            self.reload()
            return "", ()
        if body[0] not in self.used_zones:
            raise KeyError(body[0])
        there = self.interfaces.setdefault(body[0], [])
        if member == "getInterfaces":
            return "as", (there,)
        if member == "addInterface":
            there.append(body[1])
        if member == "removeInterface":
            there.remove(body[1])
        return "s", (body[0],)


def tell(what: object) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    fake = Fake()
    with open_dbus_connection(f"unix:path={sys.argv[1]}") as bus:
        daemon = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
        bus.send_and_get_reply(new_method_call(daemon, "RequestName", "su", (NAME, 0)))
        tell("ready")
        signals = DBusAddress(PATH, interface=NAME)
        while True:
            ready, _, _ = select.select([sys.stdin, bus.sock], [], [])
            if sys.stdin in ready:
                if sys.stdin.readline() != "reload\n":
                    return
                fake.reload()
                bus.send(new_signal(signals, "Reloaded"))
            if bus.sock not in ready:
                continue
            message = bus.receive()
            if message.header.message_type != MessageType.method_call:
                continue
            member = str(message.header.fields[HeaderFields.member])
            try:
                signature, values = fake.answer(member, message.body)
            except KeyError as error:
                bus.send(new_error(message, f"{NAME}.Exception", "s", (f"INVALID_ZONE: {error}",)))
            else:
                bus.send(new_method_return(message, signature, values))
                if member == "reload":
                    bus.send(new_signal(signals, "Reloaded"))
            tell([member, *(each for each in message.body if isinstance(each, str))])


main()
