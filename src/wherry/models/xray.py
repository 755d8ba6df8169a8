"""What `wherry xray` answers: a container as the kernel has it. docs/protocol/xray.md is the schema in words.

Stable: a field may be added within one SCHEMA number, never renamed or given another meaning. Numbers are bytes,
nanoseconds, microseconds where a name says so, else counts. Text that a container decides (names and arguments of
processes, paths, labels) is passed on as it is: whoever prints it neutralises it.
"""

from __future__ import annotations

from wherry.models.base import Model

SCHEMA = 1
"""Changes when a reader of the older one would misunderstand the newer one."""


class Namespace(Model, frozen=True):
    """One namespace of the first process.

    inode: as in readlink /proc/PID/ns/*. shared_with_host: the engine's own one. shared_with: names of other running
    containers in it. owner: inode of the user namespace whose capabilities count in it; 0: not to be seen from here.
    asked: what the engine was told, "private", "host" or "container:NAME"; "" when that cannot be said.
    """

    kind: str
    inode: int
    shared_with_host: bool
    shared_with: tuple[str, ...] = ()
    owner: int = 0
    asked: str = ""


class IdRange(Model, frozen=True):
    """A line of uid_map or gid_map: `count` ids from `inside` on are those from `outside` on."""

    inside: int
    outside: int
    count: int


class ClockOffset(Model, frozen=True):
    """By how much a clock of the time namespace is ahead of the machine's."""

    clock: str
    nanoseconds: int


class Namespaces(Model, frozen=True):
    """All of them. user_owner: uid that made the user namespace."""

    entries: tuple[Namespace, ...]
    user_owner: int = 0
    uid_map: tuple[IdRange, ...] = ()
    gid_map: tuple[IdRange, ...] = ()
    clock_offsets: tuple[ClockOffset, ...] = ()


class GroupPath(Model, frozen=True):
    """Where the first process is in one hierarchy. version: 1 or 2. directory: as the engine sees it, "" unmounted."""

    version: int
    controllers: tuple[str, ...]
    path: str
    directory: str


class Limit(Model, frozen=True):
    """One limit of the control group, and how much of it is used.

    name: in plain words. unit: bytes, processes, shares, weight, percent (of one CPU), cpus, nodes, or "" for
    what `text` alone can say. value: -1 without a limit, or where text alone says it. set: whether something other
    than the kernel's default is there. used: -1 when the kernel keeps no such figure. file: absolute path; text: its
    content (the first line).
    """

    controller: str
    name: str
    unit: str
    value: int
    set: bool
    used: int
    file: str
    text: str


class Event(Model, frozen=True):
    """How often the kernel had to act on a limit."""

    name: str
    count: int


class ControlGroup(Model, frozen=True):
    """version: whose limits the engine sets. frozen: all its processes are stopped (docker pause)."""

    version: int
    paths: tuple[GroupPath, ...]
    limits: tuple[Limit, ...]
    events: tuple[Event, ...] = ()
    frozen: bool = False


class Layer(Model, frozen=True):
    """One directory below an overlay, the topmost first. name: the image layer in words, "" when it is none of them."""

    directory: str
    name: str = ""
    digest: str = ""


class Mount(Model, frozen=True):
    """One mount. kind: root, system, masked, read-only, bind, engine-file, tmpfs. root: the part mounted.

    options: of the mount; writable: rw in the mount and in its file system.
    """

    id: int
    parent: int
    target: str
    kind: str
    type: str
    source: str
    root: str
    device: str
    options: tuple[str, ...]
    super_options: tuple[str, ...]
    propagation: tuple[str, ...]
    writable: bool


class Mounts(Model, frozen=True):
    """storage: type of the root file system. layers, upper, work: of an overlay. left_out: mounts beyond the bound."""

    storage: str
    writable: bool
    layers: tuple[Layer, ...]
    upper: str
    work: str
    entries: tuple[Mount, ...]
    left_out: int = 0


class DeviceRule(Model, frozen=True):
    """A line of devices.list. type: a, b or c; major, minor: -1 is any. name: of a device that everybody knows."""

    type: str
    major: int
    minor: int
    access: str
    name: str = ""


class DeviceProgram(Model, frozen=True):
    """A BPF program that is the device filter of a version 2 group. tag: a hash of it, as bpftool shows it."""

    id: int
    tag: str
    instructions: int


class Devices(Model, frozen=True):
    """Which devices may be used. version: of the control group; 1 has rules, 2 programs."""

    version: int
    rules: tuple[DeviceRule, ...] = ()
    programs: tuple[DeviceProgram, ...] = ()


class Capabilities(Model, frozen=True):
    """The five sets of the first process, by name."""

    bounding: tuple[str, ...]
    effective: tuple[str, ...]
    permitted: tuple[str, ...]
    inheritable: tuple[str, ...]
    ambient: tuple[str, ...]
    known: int


class Seccomp(Model, frozen=True):
    """mode: disabled, strict or filter; filters: how many. These two are the kernel's.

    The kernel does not show a filter without stopping the process. So the rest is what the engine's profile says:
    default: its action for a call that it does not name; blocked: calls that fail or kill; conditional: calls whose
    arguments decide; allowed: how many pass.
    """

    mode: str
    filters: int
    default: str = ""
    blocked: tuple[str, ...] = ()
    conditional: tuple[str, ...] = ()
    allowed: int = 0


class ResourceLimit(Model, frozen=True):
    """One of getrlimit(2), in the kernel's words."""

    name: str
    soft: str
    hard: str
    unit: str


class Security(Model, frozen=True):
    """What the first process may do. uids, gids: real, effective, saved, file system. label: of an LSM, "" for none."""

    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    capabilities: Capabilities
    seccomp: Seccomp
    no_new_privileges: bool
    label: str
    resource_limits: tuple[ResourceLimit, ...]
    oom_score: int
    oom_score_adjust: int


class Link(Model, frozen=True):
    """A network interface. peer: name of a veth's other end, "" when it is nowhere to be seen; peer_inside: of ours.

    bridge: the bridge that the other end is a port of.
    """

    name: str
    index: int
    kind: str
    mac: str
    mtu: int
    up: bool
    addresses: tuple[str, ...]
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    peer: str = ""
    peer_index: int = 0
    peer_mac: str = ""
    peer_up: bool = False
    bridge: str = ""
    bridge_addresses: tuple[str, ...] = ()
    bridge_ports: int = 0


class Route(Model, frozen=True):
    """A route of the main table. destination: "default" or a network; via: "" for a directly connected one."""

    destination: str
    via: str
    link: str


class FileText(Model, frozen=True):
    """A file that the engine wrote for the container and mounted into it; the container may have changed it."""

    target: str
    path: str
    text: str


class Rule(Model, frozen=True):
    """A firewall rule in the words of nft. where: "container" or "host". packets, bytes: -1 without a counter.

    hook: where the kernel enters its chain, "" for a chain that is jumped to. why: what of it concerns the container.
    """

    where: str
    family: str
    table: str
    chain: str
    hook: str
    text: str
    packets: int
    bytes: int
    why: str


class ListeningSocket(Model, frozen=True):
    """A socket that waits for others. pids: the container's processes that hold it, outside numbers."""

    protocol: str
    address: str
    port: int
    uid: int
    pids: tuple[int, ...]


class Network(Model, frozen=True):
    """mode: private, host or container:NAME. sockets: of the container's own network namespace."""

    mode: str
    links: tuple[Link, ...]
    routes: tuple[Route, ...]
    files: tuple[FileText, ...]
    rules: tuple[Rule, ...]
    sockets: tuple[ListeningSocket, ...]
    left_out: int = 0


class Process(Model, frozen=True):
    """role: first, init (put before the command by --init), exec, member, supervisor, spare, starter.

    pid: outside; inside: in the container's pid namespace, 0 when it is not in it. state: a letter of ps. effective:
    mask of its effective capabilities; seccomp: 0, 1 or 2; parent: outside. exec_id: of an exec. cpu_ms: used so far.
    memory: resident; of the engine's processes, which share theirs with each other, their part of it (PSS).
    """

    pid: int
    inside: int
    parent: int
    role: str
    name: str
    arguments: tuple[str, ...]
    state: str
    threads: int
    uid: int
    memory: int
    cpu_ms: int
    effective: str
    seccomp: int
    exec_id: str = ""


class Processes(Model, frozen=True):
    """count: in the control group; the entries may be fewer, left_out says how many were not looked at."""

    count: int
    entries: tuple[Process, ...]
    left_out: int = 0


class Phase(Model, frozen=True):
    """A phase of the start. began: ns after the first one."""

    name: str
    began: int
    lasted: int


class Start(Model, frozen=True):
    """The last start. at: when the program ran (RFC 3339); lasted: ns from the request to that."""

    at: str
    lasted: int
    phases: tuple[Phase, ...]


class Difference(Model, frozen=True):
    """What the engine was asked for and what the kernel has are not the same."""

    section: str
    what: str
    asked: str
    found: str
    where: str = ""


class Remains(Model, frozen=True):
    """A container that does not run: how it ended and what is left of it. Times are RFC 3339, sizes bytes.

    size: of what it wrote itself, -1 when that cannot be said. left_behind: what should be gone and is not.
    """

    exit_code: int
    signal: int
    oom_killed: bool
    error: str
    started_at: str
    finished_at: str
    lasted: int
    layers: tuple[Layer, ...]
    upper: str
    size: int
    log: str
    log_size: int
    files: tuple[str, ...]
    left_behind: tuple[str, ...]


class Xray(Model, frozen=True):
    """The whole answer. A section is null when there is nothing of it, or when reading it failed: see notes."""

    schema: int
    id: str
    name: str
    image: str
    status: str
    taken_at: str
    took: int
    kernel: str
    pid: int
    namespaces: Namespaces | None = None
    control_group: ControlGroup | None = None
    mounts: Mounts | None = None
    devices: Devices | None = None
    security: Security | None = None
    network: Network | None = None
    processes: Processes | None = None
    start: Start | None = None
    remains: Remains | None = None
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
