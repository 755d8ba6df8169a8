"""The program that waits in a container to execute its health check: some five hundred bytes, of a few pages in memory.

A fork of the supervisor costs a health check five milliseconds of processor time, for Python's pages. This program is
what a child of the supervisor executes in place of the check, once it has made itself all that the check shall be:
user, capabilities, namespaces, seccomp filter. Then it does one thing, as often as it is told:

    supervisor                      starter                                     the check
       | -- 8 bytes, descriptor -----> |                                            |
       |                               | -- vfork, 1 and 2 from the descriptor ---> |  setsid, execve
       | <-- wait status, -errno ----- |  <------------------------- its end ------ |
       | -- EOF ---------------------> |  it ends

It is in the container's control group, and counted there as one process. Like the child that spawns an exec (see
`execspare`) it is outside of the container's pid namespace: no process of the container sees it or can trace it. With
execve(2) it has lost all that the interpreter had in memory, and of descriptors it holds the socket alone.

vfork is clone(2) with CLONE_VM and CLONE_VFORK: no page tables are copied, and the parent waits until the child has
executed. Both run on one stack, which is safe because the child only writes one word to it: why execve failed.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from wherry.runtime.assembler import executable

NAME = "wherry-start"  # in ps -e; the container does not see it
PLACE = 3
"""The descriptor that it finds its socket at."""
_MFD_EXEC = 0x10  # linux/memfd.h, 6.3
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_ANSWER = struct.Struct("=qq")

PROGRAM = """
    argv   = v0                 ; our argument vector: our name, the file to execute, then its argv
    envp   = v1
    given  = v2                 ; the descriptor of a request
    child  = v3

    ; The frame. sp + 0 a wait status, + 8 what execve said, + 16 a struct msghdr (56 bytes), + 80 a struct iovec,
    ; + 96 the bytes of a request, + 112 a control message of one descriptor: struct cmsghdr, then the number at + 128

start:
    move   argv sp
    add    argv 8
    add    sp -256
    move   envp argv
environment:
    load   t envp 0             ; envp begins after the NULL that ends argv
    add    envp 8
    ne     t 0 environment

    set    a0 1                 ; PR_SET_PDEATHSIG
    set    a1 9                 ; SIGKILL: nothing of a container outlives its supervisor
    call   prctl
    set    a0 15                ; PR_SET_NAME
    load   a1 argv 0
    call   prctl
    call   setsid               ; no terminal and no process group of the supervisor's
    set    a0 3
    set    a1 2                 ; F_SETFD
    set    a2 1                 ; FD_CLOEXEC: the socket is not for the check
    call   fcntl

request:
    set    t 0
    store  t sp 0
    store  t sp 8
    store  t sp 16              ; msg_name
    store  t sp 24              ; msg_namelen
    store  t sp 64              ; msg_flags
    store  t sp 112
    store  t sp 120
    store  t sp 128             ; the kernel fills in four of these eight bytes
    move   t sp
    add    t 80
    store  t sp 32              ; msg_iov
    add    t 16
    store  t sp 80              ; iov_base
    add    t 16
    store  t sp 48              ; msg_control
    set    t 1
    store  t sp 40              ; msg_iovlen
    set    t 8
    store  t sp 88              ; iov_len
    set    t 24                 ; CMSG_SPACE(4)
    store  t sp 56              ; msg_controllen
    set    a0 3
    move   a1 sp
    add    a1 16
    set    a2 0x40000000        ; MSG_CMSG_CLOEXEC
    call   recvmsg
    eq     r -4 request         ; EINTR
    le     r 0 finish           ; the supervisor is gone
    load   given sp 128
    eq     given 0 finish       ; no descriptor came along

    set    a0 0x4111            ; CLONE_VM, CLONE_VFORK, SIGCHLD
    set    a1 0
    set    a2 0
    set    a3 0
    call   clone
    eq     r 0 check
    move   child r
    lt     child 0 refused
wait:
    move   a0 child
    move   a1 sp                ; the status
    set    a2 0
    set    a3 0
    call   wait4
    eq     r -4 wait
    jump   answer
refused:
    store  child sp 8
answer:
    move   a0 given
    call   close
    set    a0 3
    move   a1 sp
    set    a2 16
    call   write
    jump   request
finish:
    set    a0 0
    call   exit_group

check:
    call   setsid
    move   a0 given
    set    a1 1
    set    a2 0
    call   dup3
    move   a0 given
    set    a1 2
    set    a2 0
    call   dup3
    load   a0 argv 8
    move   a1 argv
    add    a1 16
    move   a2 envp
    call   execve
    store  r sp 8               ; in our parent's memory too
    set    a0 127
    call   exit_group
"""

_program: list[int] = []


def image(machine: str) -> bytes:
    """Return the executable for a machine, named as uname(2) names it; raises OSError for an unknown one."""
    return executable(machine, PROGRAM)


def provide() -> None:
    """Keep the program ready to be executed by this process and those that it forks; without it there are no starters.

    In memory and sealed: nobody can change it, and no file system has to allow that programs are run from it.
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        data = image(os.uname().machine)
        try:
            memory = os.memfd_create(NAME, flags | _MFD_EXEC)
        except OSError:  # EINVAL before 6.3, EACCES where vm.memfd_noexec is 2
            memory = os.memfd_create(NAME, flags)
    except OSError:
        return
    os.write(memory, data)
    os.fchmod(memory, 0o555)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    _program.append(memory)


def program() -> int | None:
    """Return the descriptor of what `provide` keeps."""
    return _program[0] if _program else None


def execute(requests: int, path: str, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    """Become the starter of a program; raises OSError, when the caller's descriptors are no longer what they were."""
    kept = fcntl.fcntl(_program[0], fcntl.F_DUPFD_CLOEXEC, PLACE + 1)
    os.dup2(requests, PLACE)
    os.execve(kept, (NAME, path, *arguments), environment)


def request(sock: socket.socket, output: int) -> None:
    """Have the program executed, with its output going to a descriptor; raises OSError when the starter is gone."""
    socket.send_fds(sock, [bytes(8)], [output], socket.MSG_NOSIGNAL)


def answer(sock: socket.socket) -> tuple[int, int] | None:
    """Return the wait status and the errno of an execve that failed, 0 else; None when the starter is gone.

    Raises BlockingIOError while there is no answer.
    """
    try:
        data = sock.recv(_ANSWER.size)
    except ConnectionResetError:
        return None
    if len(data) < _ANSWER.size:
        return None
    status, failure = _ANSWER.unpack(data)
    return int(status) & 0xFFFF, -int(failure)
