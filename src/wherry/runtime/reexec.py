"""Run the interpreter from a read-only mount before it goes anywhere near a container.

The process that becomes the container's is the host's interpreter until execve, and an image can make it start that
interpreter once more ("#!/proc/self/exe"), now as a process of the container: CVE-2019-5736 overwrote the runtime
through /proc/PID/exe then. What was executed from a read-only mount cannot be opened for writing that way. The mount
is a detached copy (open_tree(2)): it is in no mount namespace and goes away with the last process that runs from it.
"""

from __future__ import annotations

import os

from wherry.kernel import const, mountapi

_START = "import sys; sys.path.insert(0, {!r}); from wherry.runtime.cli import main; sys.exit(main())"


def from_read_only_mount(arguments: list[str]) -> None:
    """Execute the command line again from a read-only mount; returns in the process that runs from one."""
    if os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY:
        return
    executable = os.readlink("/proc/self/exe")
    tree = mountapi.open_tree(const.AT_FDCWD, executable, const.OPEN_TREE_CLONE)
    mountapi.mount_setattr(tree, const.MOUNT_ATTR_RDONLY)
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # -S: no site packages, which this package does without and which cost 10 ms
    argv = [executable, "-I", "-S", "-c", _START.format(package), *arguments]
    os.execve(tree, argv, os.environ)
