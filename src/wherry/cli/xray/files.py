"""The page of the mounts."""

from __future__ import annotations

from wherry.cli.xray.page import Page, plain, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SAFE = {"nosuid": "no set-user-ID", "nodev": "no devices", "noexec": "no programs"}
MOST_LAYERS = 12


def show(page: Page, answer: dict[str, Any]) -> None:
    """The root and its layers, then what is mounted into it, by where it comes from."""
    found = answer["Mounts"]
    kinds: dict[str, list[dict[str, Any]]] = {}
    for each in found["Entries"]:
        kinds.setdefault(each["Kind"], []).append(each)
    page.heading("MOUNTS", "the tree of files it sees", f"{len(found['Entries'])} mounts")
    _root(page, found)
    _host(page, kinds.get("bind", []))
    if memory := kinds.get("tmpfs"):
        page.part("In memory, gone with the container")
        page.table(("", "", ""), [(plain(each["Target"]), _access(each), _size(each)) for each in memory])
    _system(page, kinds.get("system", []))
    page.gap()
    for kind, title in (("engine-file", "the engine's"), ("masked", "hidden"), ("read-only", "read-only")):
        if kind in kinds:
            page.field(title, " ".join(plain(each["Target"]) for each in kinds[kind]), column=14)
    if found["LeftOut"]:
        page.prose(f"{found['LeftOut']} more mounts are not shown.", 2, "yellow")


def _root(page: Page, found: dict[str, Any]) -> None:
    access = "writable" if found["Writable"] else "read-only"
    if not found["Layers"]:
        page.line(f"{page.paint('/', 'bold')} is on {found['Storage']}, without layers, {access}")
        return
    page.line(f"{page.paint('/', 'bold')} is an {found['Storage']}, {access}: the topmost copy of a file is seen")
    room = page.width - 2 - 2 - 16 - 14
    layers = found["Layers"]
    rows = [("┌", "writes go here" if found["Writable"] else "its own", "", found["Upper"])]
    rows.append(("│", "overlay's own", "", found["Work"]))
    for number, layer in enumerate(layers[:MOST_LAYERS]):
        last = number == len(layers) - 1
        name, _, command = layer["Name"].partition(": ")
        rows.append(("└" if last else "├", name or "not the image's", layer["Digest"][7:19], layer["Directory"]))
        if command:
            rows.append(("" if last else "│", "", "", plain(command, 200)))
    if len(layers) > MOST_LAYERS:
        rows.append(("└", f"{len(layers) - MOST_LAYERS} more", "", ""))
    for branch, name, digest, place in rows:
        line = f"{branch:<2}{name:<16}{digest:<14}{shorten(plain(place, 4096), room)}"
        page.line(page.paint(line, "green") if branch == "┌" else line)


def _host(page: Page, binds: list[dict[str, Any]]) -> None:
    if not binds:
        return
    page.part("From the host")
    # of a bind mount the kernel knows the part of its file system, not the path that was given
    rows = [
        (plain(each["Target"]), f"← {plain(each['Root'])}", f"{each['Type']} {plain(each['Source'])}", _access(each))
        for each in binds
    ]
    page.table(("in the container", "is, within its file system", "", ""), rows, flexible=1)


def _system(page: Page, system: list[dict[str, Any]]) -> None:
    if not system:
        return
    page.part("File systems of the kernel")
    shown = [each for each in system if each["Type"] != "cgroup"]
    rows = [(plain(each["Target"]), each["Type"], _access(each)) for each in shown]
    groups = [each for each in system if each["Type"] == "cgroup"]
    if groups:
        access = {_access(each) for each in groups}
        rows.append((f"/sys/fs/cgroup/* ({len(groups)})", "cgroup", access.pop() if len(access) == 1 else "mixed"))
    page.table(("", "", ""), rows, flexible=0)


def _access(mount: dict[str, Any]) -> str:
    words = ["writable" if mount["Writable"] else "read-only"]
    words += [word for option, word in SAFE.items() if option in mount["Options"]]
    return ", ".join(words)


def _size(mount: dict[str, Any]) -> str:
    sizes = [each for each in mount["SuperOptions"] if each.startswith("size=")]
    return f"at most {sizes[0][5:]}" if sizes else "as much as half of the memory"
