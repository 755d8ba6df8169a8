"""xray network: what of a network is in the kernel, and the way of a packet through the rules, as pages or as JSON."""

from __future__ import annotations

from wherry.cli import engine
from wherry.cli.failures import UsageError
from wherry.cli.flags import Command, Flag, Parsed
from wherry.cli.http import quote
from wherry.cli.xray.command import colours, print_data, width
from wherry.cli.xray.page import Page, count, plain, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SECTIONS = ("summary", "containers", "ports", "ways", "settings", "differences")
NETWORK = Command(
    "xray network",
    "NETWORK [NETWORK...]",
    "Show what of a network is in the kernel, and how packets pass the rules",
    "xray.networks:xray",
    (
        Flag("-f --format", "Format output using a Go template or 'json'", "text"),
        Flag("--json", "Print the answer as indented JSON"),
        Flag("-s --section", f"Show only these sections ({', '.join(SECTIONS)})", "list"),
    ),
    (1, -1),
)

WHAT = {
    "bridge": "A bridge is a switch made of software. Every container has a cable to it: a pair of links, one end in "
    "the container and called eth0 there, the other end on the host as a port of the bridge. What is for elsewhere "
    "goes to the address of the bridge, which is the host's, and the host passes it on as a router does.",
    "macvlan": "The containers have links of their own on one link of the host, its parent, each with a MAC address: "
    "to whatever is behind the parent they look like machines beside the host. The host itself cannot reach them.",
    "ipvlan": "The containers have links of their own on one link of the host, its parent, and share its MAC address; "
    "the kernel tells them apart by their IP addresses. The host itself cannot reach them.",
    "host": "The containers have no network of their own: they see the host's links and addresses, and a port that "
    "they listen at is the host's. There is no rule between.",
    "null": "The containers have a network of their own with a loopback and nothing else: they talk to nobody, until "
    "somebody puts a link into it.",
}
REMOTE = "A program outside of the engine makes this network. What it made in the containers is seen here, no more."
MOST_CABLES, MOST_ROWS, COLUMN = 8, 20, 12
KINDS = {
    "published": "In, to a published port",
    "out": "Out, from a container",
    "answer": "Back, the answer to it",
    "foreign": "In, without a published port",
    "among": "From one container to another",
}
ENDS = {"drop": "red", "policy": "red", "accept": "green", "dnat": "cyan", "masquerade": "cyan", "snat": "cyan"}


def xray(host: str, flags: Parsed) -> int:
    """Ask for each network and show it."""
    names = [each.strip() for given in flags["section"] for each in given.split(",") if each.strip()]
    for name in names:
        if name not in SECTIONS:
            raise UsageError(f"no section is called '{name}': choose of {', '.join(SECTIONS)}", 1)
    client = engine.client(host)
    for number, ref in enumerate(flags.words):
        answer = client.get(f"/wherry/v1/networks/{quote(ref)}/xray")
        if flags["json"] or flags["format"]:
            print_data(answer, flags["format"])
        else:
            chosen = [each for each in SECTIONS if not names or each in names]
            print(("\n" if number else "") + text(answer, chosen, width(), colour=colours()))
    return 0


def text(answer: dict[str, Any], names: list[str], columns: int, *, colour: bool = False) -> str:
    """The pages of a network, one after the other; those that have nothing to say are left out."""
    pages = []
    for name in names:
        page = Page(columns, colour=colour)
        _SHOW[name](page, answer)
        if shown := page.text():
            pages.append(shown)
    return "\n\n".join(pages)


def _summary(page: Page, answer: dict[str, Any]) -> None:
    driver = plain(answer["Driver"], 40)
    kind = f"network of the driver {driver}" + (", internal" if answer["Internal"] else "")
    page.heading(plain(answer["Name"], 60), kind, f"Linux {answer['Kernel']}")
    page.prose(WHAT.get(answer["Driver"], REMOTE))
    page.gap()
    if device := answer["Bridge"] or answer["Parent"]:
        kind = "bridge" if answer["Bridge"] else "parent"
        page.field(kind, f"{_named(device)}, {'up' if device['Up'] else 'down'}", column=COLUMN)
        page.field("addresses", ", ".join(device["Addresses"]) or "none", column=COLUMN)
        page.field("packets", f"of at most {device['Mtu']} bytes", column=COLUMN)
    if answer["Outside"]:
        page.field("way out", f"by {', '.join(answer['Outside'])}, where the host's default route goes", column=COLUMN)
    _problems(page, answer)
    for note in answer["Notes"]:
        page.field("note", plain(note), column=COLUMN, style="yellow")


def _problems(page: Page, answer: dict[str, Any]) -> None:
    for number, each in enumerate(answer["Problems"], 1):
        page.gap()
        page.field(f"problem {number}", plain(each["What"], 300), column=COLUMN, style="red")
        page.field("", f"Because {plain(each['Why'], 500)}.", column=COLUMN)
        page.field("", f"What helps: {plain(each['Advice'], 300)}", column=COLUMN, style="yellow")
    if not answer["Problems"] and answer["Driver"] == "bridge":
        page.field("problems", "none that the kernel shows", column=COLUMN, style="green")


def _named(device: dict[str, Any]) -> str:
    return f"{plain(device['Name'], 16)} ({device['Index']}), {plain(device['Kind'], 20)}"


def _containers(page: Page, answer: dict[str, Any]) -> None:
    from wherry.cli.xray.network import cable

    members = answer["Containers"]
    page.heading("CONTAINERS", "whose cables end here", count(len(members), "container"))
    for number, each in enumerate(members[:MOST_CABLES]):
        if number:
            page.gap()
        if each["Link"] and each["Link"]["Peer"]:
            cable(page, each["Link"], f"{plain(each['Name'], 40)} (process {each['Pid']})")
        else:
            _plainly(page, each)
        for route in [each for each in each["Routes"] if not each["Destination"].startswith("fe80::")][:4]:
            via = f"via {route['Via']}" if route["Via"] else "directly"
            page.line(f"route {route['Destination']} {via} ({plain(route['Link'], 16)})")
    if len(members) > MOST_CABLES:
        page.gap()
        rows = [(plain(each["Name"], 40), *_ends(each["Link"])) for each in members[MOST_CABLES:]]
        page.table(("container", "inside", "addresses", "on the host"), rows, flexible=2)
    loose = [each for each in (answer["Bridge"] or {}).get("Ports", ()) if not each["Container"]]
    if loose:
        page.gap()
        names = ", ".join(f"{plain(each['Name'], 16)} ({each['Index']})" for each in loose[:8])
        page.field("other ports", f"{names}: of no container that runs; the engine keeps some ready", column=COLUMN)
    if not members:
        page.prose("No container that runs is in it.")
    if answer["LeftOut"]:
        page.prose(f"{answer['LeftOut']} more containers or ports are not shown.", 2, "yellow")


def _ends(link: dict[str, Any] | None) -> tuple[str, str, str]:
    if not link:
        return "", "", ""
    return f"{link['Name']} ({link['Index']})", " ".join(link["Addresses"]), f"{link['Peer']} ({link['PeerIndex']})"


def _plainly(page: Page, member: dict[str, Any]) -> None:
    """A container whose link has no other end on the host, or that has none."""
    own = member["Link"]
    page.line(page.paint(f"{plain(member['Name'], 40)} (process {member['Pid']})", "dim"))
    if own:
        state = "up" if own["Up"] else "down"
        page.line(f"{page.paint(_named(own), 'bold')}, {own['Mac']}, {state}, {' '.join(own['Addresses'])}")


def _ports(page: Page, answer: dict[str, Any]) -> None:
    ports = answer["Published"]
    if not ports:
        return
    page.heading("PUBLISHED PORTS", "what of the host leads to a container", count(len(ports), "port"))
    rows = []
    for each in ports[:MOST_ROWS]:
        address = each["Address"] or "every address"
        target = f"[{each['ToAddress']}]" if ":" in each["ToAddress"] else each["ToAddress"]
        led = "lead there" if each["Mapped"] else "DO NOT lead there"
        rows.append((f"{address}, {each['Port']}/{each['Protocol']}", plain(each["Container"], 40),
                     f"{target}:{each['ToPort']}", led))  # fmt: skip
    page.table(("on the host", "container", "at", "the rules"), rows, flexible=1)
    if len(ports) > MOST_ROWS:
        page.line(f"and {len(ports) - MOST_ROWS} more")


def _ways(page: Page, answer: dict[str, Any]) -> None:
    """One way of each kind, and every other one that is interrupted though it should not be."""
    shown: list[dict[str, Any]] = []
    for each in answer["Paths"]:
        alike = [(path["Kind"], path["Family"], path["FromLink"]) for path in shown]
        stuck = each["Kind"] == "published" and not each["Arrives"]
        if (each["Kind"], each["Family"], each["FromLink"]) not in alike or (stuck and len(shown) < MOST_ROWS):
            shown.append(each)
    if not shown:
        return
    page.heading("WAYS", "which rules a packet meets, in their order", "no packet is sent for this")
    for each in shown:
        _way(page, each)


def _way(page: Page, path: dict[str, Any]) -> None:
    page.part(f"{KINDS[path['Kind']]}: {path['Protocol']} from {path['Source']} to {path['Destination']}")
    local = path["Source"].startswith(("127.", "[::1]"))
    begins = f"comes in by {path['FromLink'] or 'a link to the outside'}" if not local else "begins on this host"
    page.field("", begins, column=2)
    for step in path["Steps"]:
        counted = f"  ({count(step['Packets'], 'packet')} so far)" if step["Packets"] >= 0 else ""
        unsure = "" if step["Certain"] else "perhaps: "
        says = f"{unsure}{plain(step['Says'], 300)}{counted}"
        page.field(f"  {step['Hook']}", says, column=15, style=ENDS.get(step["Effect"], ""))
        place = f"{step['Family']} table {plain(step['Table'], 40)}, chain {plain(step['Chain'], 40)}: "
        for line in wrap(f"{place if step['Table'] else ''}{plain(step['Text'], 300)}".split(), page.width - 17):
            page.line(page.paint(line, "dim"), 17)
    if path["Kind"] == "among" and not path["Steps"]:
        page.field("", "meets no rule: the bridge hands it over as a switch does", column=2)
    if path["Arrives"]:
        page.field("", f"leaves by {path['ToLink'] or 'no link'}, as {path['EndsAs']}", column=2, style="green")
    else:
        ends = "ends there" if path["StoppedBy"] >= 0 else "is for the host itself and goes no further"
        page.field("", ends, column=2)


def _settings(page: Page, answer: dict[str, Any]) -> None:
    if not answer["Sysctls"]:
        return
    page.heading("SETTINGS", "of the kernel, that decide as well", "sysctl -a")
    for each in answer["Sysctls"]:
        page.line(f"{plain(each['Name'], 60)} = {plain(each['Value'], 10)}")
        for line in wrap(each["Meaning"].split(), page.width - 4):
            page.line(page.paint(line, "dim"), 4)


def _differences(page: Page, answer: dict[str, Any]) -> None:
    if answer["Differences"]:
        from wherry.cli.xray.differences import show

        show(page, answer)


_SHOW: dict[str, Callable[[Page, dict[str, Any]], None]] = {
    "summary": _summary,
    "containers": _containers,
    "ports": _ports,
    "ways": _ways,
    "settings": _settings,
    "differences": _differences,
}
