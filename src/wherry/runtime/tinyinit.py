"""The first process of a container that was started with ``--init``: a program of less than two kilobytes.

It runs the command after ``--``, hands every signal on to it, reaps whatever the container leaves behind and
ends with the command's status. It is assembled here, so nothing compiled is shipped and no compiler is needed:

    docker-init -- command arg...
        block all signals, clone ---------> child: own process group, in the foreground of the terminal
        wait for a signal                          the old signal mask again
          SIGCHLD: reap all; ended when            execve, looking through PATH as execvp(3) does
                   the command is among them       failed: says so; 127 not found, 126 otherwise
          other:   kill(command, signal)
        exit with the command's status, or 128 + its signal

SIGTTIN and SIGTTOU stay blocked and are not handed on: they concern the process the terminal is kept from,
which is this one, in the background. The kernel kills the rest of the PID namespace when its first process
ends (pid_namespaces(7)), so nothing is left to do then.
"""

from __future__ import annotations

import os

from wherry.runtime import pathsearch
from wherry.runtime.assembler import executable

_SOURCE = """
    argv   = v0                 ; the command's argument vector; the slot before it is ours to overwrite
    envp   = v1
    child  = v2                 ; parent: the command's process
    name   = v2                 ; child: what to run
    scan   = v3                 ; a position in a string or vector
    path   = v4                 ; the position in PATH
    buffer = v5                 ; the end of the path being put together
    limit  = v6                 ; as far as it may grow
    error  = v7                 ; why the command cannot be run: the last failure that was not "not there"

    ; The frame. Nothing but the stack is writable.
    ; sp + 0 the mask we were started with, + 8 the signals to wait for, + 16 a struct sigaction of zeros (32
    ; bytes), + 48 a wait status or a process group, + 64 the path being put together (4097 bytes)

start:
    move   argv sp              ; argc, argv[0], argv[1] ... NULL, envp[0] ... NULL
    add    argv 16              ; &argv[1]
    add    sp -8192
    load   scan argv 0
    eq     scan 0 usage         ; no arguments at all
    loadb  t scan 0             ; is it "--"?
    ne     t 45 command
    loadb  t scan 1
    ne     t 45 command
    loadb  t scan 2
    ne     t 0 command
    add    argv 8               ; then the command comes after it
command:
    load   scan argv 0
    eq     scan 0 usage
    move   envp argv
environment:
    load   t envp 0             ; envp begins after the NULL that ends argv
    add    envp 8
    ne     t 0 environment

    set    t 0                  ; SIGCHLD to its default: were it ignored, the kernel would reap for us
    store  t sp 16              ; sa_handler SIG_DFL
    store  t sp 24              ; sa_flags
    store  t sp 32              ; sa_restorer, sa_mask
    store  t sp 40              ; sa_mask
    set    a0 17                ; SIGCHLD
    move   a1 sp
    add    a1 16
    set    a2 0                 ; the old action is of no interest
    set    a3 8                 ; the size of a signal set
    call   rt_sigaction

    set    t -1                 ; every signal
    store  t sp 8
    set    a0 2                 ; SIG_SETMASK
    move   a1 sp
    add    a1 8
    move   a2 sp                ; the old mask, for the child
    set    a3 8
    call   rt_sigprocmask

    set    a0 17                ; clone with SIGCHLD as the only flag is fork
    set    a1 0
    set    a2 0
    set    a3 0
    call   clone
    eq     r 0 run
    lt     r 0 nofork
    move   child r
    set    t -0x300001          ; all but SIGTTIN (bit 20) and SIGTTOU (bit 21)
    store  t sp 8

wait:
    move   a0 sp
    add    a0 8                 ; the signals to wait for
    set    a1 0                 ; no siginfo
    set    a2 0                 ; no timeout
    set    a3 8
    call   rt_sigtimedwait
    le     r 0 wait             ; EINTR, after a stop and continue
    eq     r 17 reap
    move   a1 r                 ; before a0, which may be the same register as r
    move   a0 child
    call   kill                 ; the child is there until we reap it, so its number is still its own
    jump   wait

reap:
    set    a0 -1                ; any child
    move   a1 sp
    add    a1 48                ; its status
    set    a2 1                 ; WNOHANG
    set    a3 0                 ; no usage
    call   wait4
    le     r 0 wait             ; no more of them
    ne     r child reap         ; an orphan
    loadb  t sp 48              ; low byte: the signal, + 128 when there was a core dump
    eq     t 0 exited
    bit    t 7                  ; killed: 128 + signal
    move   a0 t
    jump   exit
exited:
    loadb  a0 sp 49             ; second byte: what it gave to exit
exit:
    call   exit_group

run:
    set    a0 0                 ; this process
    set    a1 0                 ; becomes the leader of a group of its own
    call   setpgid
    call   getpid
    store  r sp 48
    set    a0 0                 ; stdin, when it is a terminal: else this fails and nothing is lost
    set    a1 0x5410            ; TIOCSPGRP, which stops nobody while SIGTTOU is blocked
    move   a2 sp
    add    a2 48
    call   ioctl
    set    a0 2                 ; SIG_SETMASK
    move   a1 sp                ; the mask we were started with
    set    a2 0
    set    a3 8
    call   rt_sigprocmask

    load   name argv 0
{variable}
    jump   element
nopath:
    address path default
{elements}
direct:
    move   scan name
    move   a0 name
    move   a1 argv
    move   a2 envp
    call   execve
    move   error r
    ne     r -8 failed          ; ENOEXEC
script:
    store  scan argv 0          ; a text without #! is read by the shell, as execvp(3) does
    add    argv -8              ; the slot of "--" or of our own name
    address a0 shell
    store  a0 argv 0
    move   a1 argv
    move   a2 envp
    call   execve
    move   error r
failed:
    set    a0 2                 ; stderr
    address a1 refused
    set    a2 28                ; its length
    call   write
    move   scan name
    set    a2 0                 ; the length of the name
measure:
    loadb  t scan 0
    eq     t 0 measured
    add    scan 1
    add    a2 1
    jump   measure
measured:
    move   a1 name
    set    a0 2
    call   write
    eq     error -2 missing     ; ENOENT
    eq     error -20 missing    ; ENOTDIR
    set    a0 2
    address a1 denied
    set    a2 20
    call   write
    set    a0 126
    call   exit_group
missing:
    set    a0 2
    address a1 absent
    set    a2 12
    call   write
    set    a0 127
    call   exit_group
usage:
    address a1 syntax
    set    a2 41
    jump   complain
nofork:
    address a1 crowded
    set    a2 35
complain:
    set    a0 2
    call   write
    set    a0 1
    call   exit_group

shell:
    "/bin/sh"
default:
    "/usr/local/bin:/bin:/usr/bin"
refused:
    "docker-init: cannot execute "
absent:
    ": not found\\n"
denied:
    ": permission denied\\n"
syntax:
    "usage: docker-init -- command [argument]\\n"
crowded:
    "docker-init: cannot make a process\\n"
"""

PROGRAM = _SOURCE.format(variable=pathsearch.variable(), elements=pathsearch.elements(64))


def image(machine: str) -> bytes:
    """Return the executable for a machine, named as uname(2) names it; raises OSError for an unknown one."""
    return executable(machine, PROGRAM)


def write(path: str) -> None:
    """Put the executable for this machine at `path`, whole or not at all."""
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
    try:
        os.write(descriptor, image(os.uname().machine))
        os.fchmod(descriptor, 0o755)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
