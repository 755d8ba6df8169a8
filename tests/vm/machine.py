"""Virtual machines in which tests of this checkout run: a kernel of another kind, and systemd as the first process.

QEMU emulates the processor (no /dev/kvm needed), so everything takes about ten times as long. The kernel is Debian's,
unpacked by `./test full` below .venv/vm. The machine's root is this machine's, read-only over 9P, with a tmpfs on top
by overlayfs: Python, the checkout and the docker CLI are where they are here, and nothing is left behind. Between the
two is .venv/vm-tree: systemd, dbus and apparmor, as far as this machine does not have them.

    shell      the command is the first process' only child; control groups are version 2 alone
    systemd    systemd is the first process, with D-Bus, and runs the command as a service; version 2 alone
    legacy     as systemd, with control groups as systemd made them before: version 1, with nothing in version 2
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNEL = ROOT / ".venv" / "vm"
TREE = ROOT / ".venv" / "vm-tree"
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
LOADED = "loop bfq"
"""What nobody asks the kernel for by itself: udev would, and there is none."""
STATUS = "status of the machine's command: "
_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
for module in /modules/*.ko; do $b insmod $module; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,ro,msize=512000 root /host
$b mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,ro,msize=512000 tree /tree
$b mount -t tmpfs -o size=80% top /top
$b mkdir /top/upper /top/work
$b mount -t overlay -o lowerdir=/tree:/host,upperdir=/top/upper,workdir=/top/work overlay /root
$b mount -t proc proc /root/proc
$b mount -t sysfs sysfs /root/sys
$b mount -t devtmpfs dev /root/dev
$b mkdir -p /root/dev/pts /root/dev/shm /root/dev/mqueue /root/lib/modules
$b mount -t devpts devpts /root/dev/pts
$b mount -t tmpfs -o mode=1777 shm /root/dev/shm
$b mount -t tmpfs run /root/run
$b mount -o bind /root{modules} /root/lib/modules
$b mount -t securityfs securityfs /root/sys/kernel/security
$b cp /command /root/run/command
"""
_SHELL = """$b mount -t cgroup2 cgroup /root/sys/fs/cgroup
exec $b switch_root /root /bin/sh /run/command
"""
_SYSTEMD = """# what another engine leaves in its containers would tell systemd that it is in one
$b rm -rf /root/etc/systemd/system /root/.dockerenv
$b mkdir -p /root/run/systemd/system /root/etc/systemd/system
$b cp /units/* /root/run/systemd/system/
$b grep -q ^messagebus: /root/etc/passwd || $b echo messagebus:x:990:990::/nonexistent:/bin/false >> /root/etc/passwd
$b grep -q ^messagebus: /root/etc/group || $b echo messagebus:x:990: >> /root/etc/group
$b echo 0123456789abcdef0123456789abcdef > /root/etc/machine-id
exec $b switch_root /root /lib/systemd/systemd
"""
_UNITS = {
    # without the targets of a whole system: no file systems, clocks, terminals or devices are waited for
    "test.target": """[Unit]
DefaultDependencies=no
AllowIsolate=yes
Requires=dbus.socket dbus.service test.service
""",
    "dbus.socket": """[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket
""",
    "dbus.service": """[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only
""",
    "test.service": """[Unit]
DefaultDependencies=no
After=dbus.service
[Service]
Type=exec
ExecStart=/bin/sh /run/command
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
Delegate=yes
TasksMax=infinity
""",
}
_WORDS = {
    "shell": "",
    "systemd": " systemd.unit=test.target systemd.unified_cgroup_hierarchy=1",
    "legacy": " systemd.unit=test.target systemd.unified_cgroup_hierarchy=0",
}
_COMMAND = """export PATH={path} HOME=/root WHERRY_TEST_PATIENCE=240
ip link set lo up
for module in {loaded}; do modprobe $module; done
cd {root}
(
{command}
)
echo "{status}$?"
echo o > /proc/sysrq-trigger
while :; do sleep 1; done
"""


def run(command: str, seconds: float, kind: str = "shell") -> tuple[int, str]:
    """Boot, run a shell command as root in the checkout, switch off; return its exit status and all output.

    kind: of the machine, as listed above. Raises AssertionError when the command does not end in time.
    """
    with tempfile.TemporaryDirectory(prefix="wherry-vm-") as folder:
        initrd = Path(folder, "initrd")
        initrd.write_bytes(_archive(command, systemd=kind != "shell"))
        with open(Path(folder, "console"), "w+b") as console:
            try:
                argv = _qemu(initrd, kind)
                subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console, timeout=seconds)
            except subprocess.TimeoutExpired:
                pass  # the status line is missing then, which is told below
            console.seek(0)
            text = console.read().decode(errors="replace").replace("\r", "")
    output, found, status = text.rpartition(STATUS)
    assert found, f"the machine did not finish within {seconds:.0f} s:\n{text[-4000:]}"
    number = re.match(r"\d+", status)  # the kernel may write into the line
    assert number, text[-4000:]
    return int(number[0]), output


def _qemu(initrd: Path, kind: str) -> list[str]:
    kernel = next((KERNEL / "boot").glob("vmlinuz-*"))
    return [
        *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3072"),
        *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"),
        *("-virtfs", f"local,path={TREE},mount_tag=tree,security_model=none,readonly=on"),
        *("-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check" + _WORDS[kind]),
    ]


def _archive(command: str, *, systemd: bool) -> bytes:
    """Return an initial RAM file system: busybox, the kernel modules for the root, what to do."""
    version = next((KERNEL / "lib" / "modules").iterdir())
    archive = _Archive()
    for folder in ("bin", "proc", "modules", "units", "tree", "host", "top", "root"):
        archive.add(folder, 0o40755)
    archive.add("dev", 0o40755)
    archive.add("dev/console", 0o20600, device=os.makedev(5, 1))
    busybox = shutil.which("busybox")
    assert busybox, "busybox is not installed"
    archive.add("bin/busybox", 0o100755, Path(busybox).read_bytes())
    for number, module in enumerate(_in_order(version)):
        archive.add(f"modules/{number:02}.ko", 0o100644, (version / module).read_bytes())
    for name, unit in _UNITS.items():
        archive.add(f"units/{name}", 0o100644, unit.encode())
    script = _INIT.replace("{modules}", str(version.parent))
    archive.add("init", 0o100755, (script + (_SYSTEMD if systemd else _SHELL)).encode())
    text = _COMMAND.format(path=os.environ["PATH"], root=ROOT, loaded=LOADED, command=command, status=STATUS)
    archive.add("command", 0o100644, text.encode())
    return archive.end()


def _in_order(version: Path) -> list[str]:
    """Return the files of the modules and of those that they need, what is needed first (modules.dep(5))."""
    needs = {}
    for line in (version / "modules.dep").read_text().splitlines():
        module, _, others = line.partition(":")
        needs[module] = others.split()
    found: list[str] = []

    def add(module: str) -> None:
        for other in reversed(needs[module]):
            add(other)
        if module not in found:
            found.append(module)

    for name in MODULES:
        add(next(module for module in needs if module.endswith(f"/{name}.ko")))
    return found


class _Archive:
    """A cpio archive of the kernel's form "newc", Documentation/driver-api/early-userspace/buffer-format.rst."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._entries = 0

    def add(self, name: str, mode: int, data: bytes = b"", *, device: int = 0) -> None:
        """Add one file, directory or device node."""
        self._entries += 1
        path = name.encode() + b"\0"
        numbers = (
            *(self._entries, mode, 0, 0, 1, 0, len(data)),
            *(0, 0, os.major(device), os.minor(device), len(path), 0),
        )
        self._write(b"070701" + b"".join(b"%08X" % number for number in numbers) + path)
        self._write(data)

    def _write(self, data: bytes) -> None:
        self._bytes.write(data)
        self._bytes.write(b"\0" * (-self._bytes.tell() % 4))

    def end(self) -> bytes:
        """Return the whole archive."""
        self.add("TRAILER!!!", 0)
        return self._bytes.getvalue()
