"""The page of the network."""

from __future__ import annotations

from wherry.cli.xray.page import Page, count, plain, size, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_LINKS = 4
MOST_OTHERS = 10
MOST_RULES = 12
MOST_SOCKETS = 12
COLUMN = 12


def show(page: Page, answer: dict[str, Any]) -> None:
    """The way out as a drawing, then routes, what listens, name resolution and the rules on the way."""
    found = answer["Network"]
    page.heading("NETWORK", "whom it can talk to", _mode(found["Mode"], answer))
    links = [each for each in found["Links"] if each["Kind"] != "loopback"]
    if not links:
        page.prose("There is no link but the loopback: it can talk to nobody but itself.")
    drawn = [each for each in links if each["Peer"]][:MOST_LINKS]
    for each in drawn:
        cable(page, each)
    if others := [each for each in links if each not in drawn]:
        _others(page, others)
    page.gap()
    # link-local networks of IPv6 are on every link, and reach nobody beyond it
    routes = [each for each in found["Routes"] if not each["Destination"].startswith("fe80::")]
    for number, each in enumerate(routes[:8]):
        way = f"via {each['Via']}" if each["Via"] else "directly"
        page.field("" if number else "routes", f"{each['Destination']} {way} ({plain(each['Link'])})", column=COLUMN)
    _names(page, found["Files"])
    _hosts(page, found["Files"])
    _sockets(page, found["Sockets"], answer)
    _rules(page, found)
    if found["LeftOut"]:
        page.prose(f"{found['LeftOut']} more links, routes or sockets are not shown.", 2, "yellow")


def _mode(mode: str, answer: dict[str, Any]) -> str:
    if mode == "host":
        return "the host's own network"
    if mode == "private":
        entries = (answer.get("Namespaces") or {}).get("Entries") or ()
        guests = [name for each in entries if each["Kind"] == "net" for name in each["SharedWith"]]
        return f"its own, shared by {plain(', '.join(guests), 40)}" if guests else "its own"
    return f"shared with {plain(mode.removeprefix('container:'), 40)}" if mode.startswith("container:") else "its own"


def _others(page: Page, links: list[dict[str, Any]]) -> None:
    """Links whose other end, if they have one, is not in the host's namespace."""
    rows = [
        (plain(each["Name"], 16), str(each["Index"]), each["Kind"], _state(each), " ".join(each["Addresses"]))
        for each in links[:MOST_OTHERS]
    ]
    page.table(("link", "index", "kind", "is", "addresses"), rows)
    if len(links) > MOST_OTHERS:
        page.line(f"and {count(len(links) - MOST_OTHERS, 'more link')}")


def _state(link: dict[str, Any]) -> str:
    return "up" if link["Up"] else "down"


def cable(page: Page, link: dict[str, Any], whose: str = "container") -> None:
    """Two columns, container and host, with the pair as a cable between them."""
    name = f"{plain(link['Name'], 16)} ({link['Index']})"
    left = [name, *link["Addresses"], link["Mac"], "up" if link["Up"] else "down"]
    peer = f"{plain(link['Peer'], 16)} ({link['PeerIndex']})"
    right = [peer, *[""] * len(link["Addresses"]), link["PeerMac"], "up" if link["PeerUp"] else "down"]
    bridge = [f"bridge {link['Bridge']}" if link["Bridge"] else "no bridge", *link["BridgeAddresses"]]
    bridge += [count(link["BridgePorts"], "port")] if link["Bridge"] else []
    first, second = max(20, *(len(each) + 2 for each in left)), max(18, *(len(each) + 2 for each in right))
    page.line(page.paint(whose.ljust(first + 7) + "host", "dim"))
    for at in range(max(len(left), len(right), len(bridge))):
        cells = [column[at] if at < len(column) else "" for column in (left, right, bridge)]
        pair, rail = ("═ veth ", "── ") if at == 0 else ("", "")
        start = cells[0].ljust(first, "═" if at == 0 else " ") if at else f"{cells[0]} ".ljust(first, "═")
        middle = cells[1].ljust(second) if at else f"{cells[1]} ".ljust(second, "─")
        page.line(
            f"{page.paint(start, 'bold') if at == 0 else start}{pair or ' ' * 7}{middle}{rail or '   '}{cells[2]}"
        )
    page.line(f"{size(link['RxBytes'])} in, {size(link['TxBytes'])} out, packets of at most {link['Mtu']} bytes", 2)


def _names(page: Page, files: list[dict[str, Any]]) -> None:
    for each in files:
        if not each["Target"].endswith("resolv.conf"):
            continue
        lines = [line.strip() for line in each["Text"].splitlines() if line.strip() and line.strip()[0] not in "#;"]
        text = "; ".join(plain(line, 100) for line in lines[:6]) or "no nameserver"
        page.field("names", text, column=COLUMN)


def _hosts(page: Page, files: list[dict[str, Any]]) -> None:
    """What /etc/hosts says beyond what it says everywhere: names of loopback and of IPv6's groups."""
    for each in files:
        if not each["Target"].endswith("/hosts"):
            continue
        lines = [line.split() for line in each["Text"].splitlines() if line.strip() and not line.startswith("#")]
        own = [words for words in lines if not words[0].startswith(("127.", "::1", "fe00:", "ff0"))]
        if own:
            text = "; ".join(plain(" ".join(words), 80) for words in own[:4])
            page.field("hosts", text + (f" and {len(own) - 4} more" if len(own) > 4 else ""), column=COLUMN)


def _sockets(page: Page, sockets: list[dict[str, Any]], answer: dict[str, Any]) -> None:
    entries = (answer.get("Processes") or {}).get("Entries") or ()
    names = {each["Pid"]: plain(each["Name"], 20) for each in entries}
    for number, each in enumerate(sockets[:MOST_SOCKETS]):
        holders = (
            ", ".join(f"{names.get(pid, 'process')} {pid}" for pid in each["Pids"][:3]) or "nobody of this container"
        )
        address = plain(each["Address"], 60)
        if each["Protocol"] != "unix":
            address = f"[{address}]:{each['Port']}" if ":" in address else f"{address}:{each['Port']}"
        page.field("" if number else "listens", f"{each['Protocol']} {address} by {holders}", column=COLUMN)
    if len(sockets) > MOST_SOCKETS:
        page.field("", f"and {len(sockets) - MOST_SOCKETS} more", column=COLUMN)
    if not sockets:
        page.field("listens", "nothing", column=COLUMN)


def _rules(page: Page, found: dict[str, Any]) -> None:
    rules = found["Rules"]
    if not rules:
        page.field("firewall", "no rule concerns it", column=COLUMN)
        return
    chains: dict[tuple[str, str, str, str, str], list[dict[str, Any]]] = {}
    for each in rules[:MOST_RULES]:
        key = (each["Where"], each["Family"], each["Table"], each["Chain"], each["Hook"])
        chains.setdefault(key, []).append(each)
    for (where, family, table, chain, hook), members in chains.items():
        place = "in the container" if where == "container" else "on the host"
        kind = "" if chain.startswith("@") else "chain "
        entry = f", entered at {hook}" if hook and hook != chain else ""
        page.part(f"Firewall {place}: {family} table {plain(table, 40)}, {kind}{plain(chain, 40)}{entry}")
        for each in members:
            _rule(page, each)
    if len(rules) > MOST_RULES:
        page.line(f"and {len(rules) - MOST_RULES} more rules")


def _rule(page: Page, rule: dict[str, Any]) -> None:
    counted = f"{count(rule['Packets'], 'packet')}, {size(rule['Bytes'])}" if rule["Packets"] >= 0 else ""
    room = page.width - 4 - (len(counted) + 2 if counted else 0)
    text = plain(rule["Text"], 300)
    style = "red" if text.endswith(("drop", "reject")) else "green" if text.endswith("accept") else ""
    for number, part in enumerate(wrap(text.split(" "), room - 2)):
        shown = (part if number == 0 else f"  {part}").ljust(room)
        page.line((page.paint(shown, style) if style else shown) + (f"  {counted}" if number == 0 else ""), 4)
