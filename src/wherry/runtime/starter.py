"""The program that waits in a container to execute what it is told: a kilobyte, and a few pages of memory.

A fork of the supervisor costs an exec or a health check five milliseconds of processor time, for Python's pages. This
program is what a child of the supervisor executes once it has made itself all that such a process shall be: user,
capabilities, namespaces, seccomp filter, environment. Then it forks, as often as it is told:

    supervisor                         starter                                       the program
       | -- words, 4 descriptors ------> |                                              |
       |                                 | -- clone(CLONE_PARENT) --------------------> |  a child of the supervisor:
       | <-- pid, over the 4th --------- |                                              |  setsid, stdio, chdir, execve
       | <-- -errno, when that failed ------------------------------------------------- |
       | <-- EOF of the 4th ----------------------------------------------------------- X  it runs, or has ended
       | -- EOF -----------------------> |  it ends

It is in the container's control group, and counted there as one process. Like the child that spawns an exec (see
`execspare`) it is outside of the container's pid namespace: no process of the container sees it or can trace it. With
execve(2) it has lost all that the interpreter had in memory, and of descriptors it holds the socket alone.

Its child is in sight of the container's processes before it executes, and may be traced by them. So the two share no
memory (vfork would be faster by a twentieth of a millisecond): through it they could steer the starter, which can send
signals to processes of the host. What a child can say to the supervisor is not believed, see `starters`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Sequence

from wherry.runtime import pathsearch, sealed
from wherry.runtime.assembler import executable

NAME = "wherry-start"  # in ps -e; the container does not see it
PLACE = 3
"""The descriptor that it finds its socket at."""
_NUMBER = struct.Struct("=q")
_CREDENTIALS = struct.Struct("=3i")  # struct ucred, unix(7)
_SCM_CREDENTIALS = 2
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size)
LIMIT, MOST = 32768, 511
"""Bytes of a request, and arguments in it."""

_SOURCE = """
    argv   = v0                 ; the argument vector of a program
    envp   = v1                 ; its environment, which is ours
    name   = v2                 ; its name
    scan   = v3                 ; a position in a string or vector
    path   = v4                 ; the working directory, then the position in PATH
    buffer = v5                 ; where the next pointer goes, then the end of the path being put together
    limit  = v6                 ; arguments still to come, then as far as the path may grow
    error  = v7                 ; why it cannot be executed: the last failure that was not "not there"

    ; The frame. sp + 0 a number to send, + 16 a struct msghdr (56 bytes), + 80 a struct iovec, + 96 a control message
    ; of four descriptors: struct cmsghdr, then the numbers at + 112, + 116, + 120, + 124, each below 256 since few are
    ; open; + 4096 the argument vector, + 8192 the path being put together, + 16384 a request (32768 bytes): how many
    ; arguments in 8 bytes, then the working directory and the arguments, each with a zero at its end

start:
    move   scan sp
    load   t scan 8             ; our name
    move   name t
    move   envp scan
    add    envp 8
    add    sp -49152
environment:
    load   t envp 0             ; envp begins after the NULL that ends argv
    add    envp 8
    ne     t 0 environment

    set    a0 1                 ; PR_SET_PDEATHSIG
    set    a1 9                 ; SIGKILL: nothing of a container outlives its supervisor
    call   prctl
    set    a0 15                ; PR_SET_NAME
    move   a1 name
    call   prctl
    call   setsid               ; no terminal and no process group of the supervisor's
    set    a0 3
    set    a1 2                 ; F_SETFD
    set    a2 1                 ; FD_CLOEXEC: the socket is not for the program
    call   fcntl

request:
    set    t 0
    store  t sp 16              ; msg_name
    store  t sp 24              ; msg_namelen
    store  t sp 64              ; msg_flags
    store  t sp 112             ; no descriptors yet
    store  t sp 120
    move   t sp
    add    t 80
    store  t sp 32              ; msg_iov
    add    t 16
    store  t sp 48              ; msg_control
    move   t sp
    add    t 16384
    store  t sp 80              ; iov_base
    set    t 32768
    store  t sp 88              ; iov_len
    set    t 1
    store  t sp 40              ; msg_iovlen
    set    t 32                 ; CMSG_SPACE(16)
    store  t sp 56              ; msg_controllen
    set    a0 3
    move   a1 sp
    add    a1 16
    set    a2 0x40000000        ; MSG_CMSG_CLOEXEC
    call   recvmsg
    eq     r -4 request         ; EINTR
    le     r 0 finish           ; the supervisor is gone
    loadb  t sp 124
    eq     t 0 finish           ; the descriptors did not come along

    move   scan sp
    add    scan 16384
    load   limit scan 0
    add    scan 8
    move   path scan            ; the working directory
directory:
    loadb  t scan 0
    add    scan 1
    ne     t 0 directory
    move   argv sp
    add    argv 4096
    move   buffer argv
argument:
    eq     limit 0 arguments
    store  scan buffer 0
    add    buffer 8
    add    limit -1
letter:
    loadb  t scan 0
    add    scan 1
    ne     t 0 letter
    jump   argument
arguments:
    set    t 0
    store  t buffer 0

    set    a0 0x8011            ; CLONE_PARENT, SIGCHLD
    set    a1 0
    set    a2 0
    set    a3 0
    call   clone
    eq     r 0 child
    store  r sp 0               ; its number, or why there is none
    loadb  a0 sp 124
    move   a1 sp
    set    a2 8
    call   write
    loadb  a0 sp 112
    call   close
    loadb  a0 sp 116
    call   close
    loadb  a0 sp 120
    call   close
    loadb  a0 sp 124
    call   close
    jump   request
finish:
    set    a0 0
    call   exit_group

child:
    set    a0 3
    call   close
    call   setsid
    loadb  a0 sp 112
    set    a1 0
    set    a2 0
    call   dup3
    loadb  a0 sp 116
    set    a1 1
    set    a2 0
    call   dup3
    loadb  a0 sp 120
    set    a1 2
    set    a2 0
    call   dup3
    move   a0 path
    call   chdir
    move   error r
    lt     r 0 failed

    load   name argv 0
{variable}
{elements}
nopath:
    jump   failed               ; with ENOENT
script:
    move   error r
    jump   failed               ; no shell is tried
direct:
    move   a0 name
    move   a1 argv
    move   a2 envp
    call   execve
    move   error r
failed:
    store  error sp 0
    loadb  a0 sp 124
    move   a1 sp
    set    a2 8
    call   write
    set    a0 127
    call   exit_group
"""
PROGRAM = _SOURCE.format(variable=pathsearch.variable(), elements=pathsearch.elements(8192))

_program: list[int] = []


def image(machine: str) -> bytes:
    """Return the executable for a machine, named as uname(2) names it; raises OSError for an unknown one."""
    return executable(machine, PROGRAM)


def provide() -> None:
    """Keep the program ready to be executed by this process and those that it forks; without it there are no starters.

    There is none on a machine that is unknown or lets no memory be executed.
    """
    try:
        _program.append(sealed.keep(NAME, image(os.uname().machine)))
    except OSError:
        return


def program() -> int | None:
    """Return the descriptor of what `provide` keeps."""
    return _program[0] if _program else None


def execute(requests: int, environment: dict[str, str]) -> None:
    """Become a starter; raises OSError, when the caller's descriptors are no longer what they were."""
    kept = fcntl.fcntl(_program[0], fcntl.F_DUPFD_CLOEXEC, PLACE + 1)
    os.dup2(requests, PLACE)
    os.execve(kept, (NAME,), environment)


def pack(arguments: Sequence[str], directory: str) -> bytes | None:
    """Return a request to execute a program in a working directory; None when it cannot be put into one."""
    words = [os.fsencode(word) for word in (directory, *arguments)]
    text = _NUMBER.pack(len(arguments)) + b"\0".join(words) + b"\0"
    fits = 0 < len(arguments) <= MOST and len(text) <= LIMIT and not any(b"\0" in word for word in words)
    return text if fits else None


def request(sock: socket.socket, packed: bytes, stdio: tuple[int, int, int], sync: int) -> None:
    """Have a starter execute a program; raises OSError when it is gone, or does not keep up (EAGAIN)."""
    socket.send_fds(sock, [packed], [*stdio, sync], socket.MSG_NOSIGNAL)


def told(sync: socket.socket) -> tuple[int, int] | None:
    """Return the next number that comes back, a pid or a negative errno, and before it who says so; None at the end.

    The kernel tells who it is when SO_PASSCRED is set, else it is 0: a process of the container may have come by the
    other end. A number is 0 when it is none. Raises BlockingIOError when there is none yet.
    """
    try:
        data, ancillary, _, _ = sync.recvmsg(_NUMBER.size, _ROOM)
    except ConnectionResetError:
        return None
    sender = 0
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == _SCM_CREDENTIALS:
            sender = _CREDENTIALS.unpack(content)[0]
    if not data and not ancillary:
        return None
    return sender, int(_NUMBER.unpack(data)[0]) if len(data) == _NUMBER.size else 0
