"""How execvp(3) looks for a program, as a part of the programs that we assemble.

Used by name, it comes where a program is to be executed, with these registers: argv, envp, name (of the program), and
scan, path, buffer, limit, error to work with. It goes on at one of these labels, which the program has:

    direct    the name is no matter of PATH: execute it as it is
    nopath    the environment has no PATH; from there, or with another path in `path`, on to "element"
    script    execve said ENOEXEC; the file is where `scan` points
    failed    it is nowhere, or cannot be executed: why is in `error`
"""

from __future__ import annotations

_VARIABLE = """
    move   scan name
    loadb  t scan 0
    eq     t 0 direct           ; an empty name is not searched for: execve says ENOENT
slash:
    eq     t 47 direct          ; a name with a slash is not searched for
    add    scan 1
    loadb  t scan 0
    ne     t 0 slash

    set    error -2             ; ENOENT until something worse happens
    move   scan envp
variable:
    load   path scan 0
    add    scan 8
    eq     path 0 nopath        ; the environment has no PATH
    loadb  t path 0
    ne     t 80 variable        ; P
    loadb  t path 1
    ne     t 65 variable        ; A
    loadb  t path 2
    ne     t 84 variable        ; T
    loadb  t path 3
    ne     t 72 variable        ; H
    loadb  t path 4
    ne     t 61 variable        ; =
    add    path 5
"""

_ELEMENTS = """
element:
    move   buffer sp
    add    buffer {place}
    move   limit buffer
    add    limit 4096           ; PATH_MAX: a path cut off here is answered ENAMETOOLONG
folder:
    loadb  t path 0
    eq     t 0 joint
    eq     t 58 joint           ; a colon
    add    path 1
    eq     buffer limit folder
    storeb t buffer 0
    add    buffer 1
    jump   folder
joint:
    move   t sp
    add    t {place}
    move   scan name
    eq     buffer t file        ; an empty element means the current directory
    eq     buffer limit file
    set    t 47                 ; a slash
    storeb t buffer 0
    add    buffer 1
file:
    loadb  t scan 0
    add    scan 1
    eq     t 0 try
    eq     buffer limit file
    storeb t buffer 0
    add    buffer 1
    jump   file
try:
    storeb t buffer 0           ; the zero at the end
    move   a0 sp
    add    a0 {place}
    move   a1 argv
    move   a2 envp
    call   execve
    move   scan sp              ; for "script": the file that was tried
    add    scan {place}
    eq     r -8 script          ; ENOEXEC
    eq     r -2 next            ; ENOENT
    eq     r -20 next           ; ENOTDIR
    move   error r              ; EACCES and the like: perhaps a later one can be run
next:
    loadb  t path 0
    add    path 1
    eq     t 58 element         ; a colon: there is another directory
    jump   failed
"""


def variable() -> str:
    """The source that finds PATH; "element" is to come after it."""
    return _VARIABLE


def elements(place: int) -> str:
    """The source that tries one element of PATH after the other. place: of 4097 bytes, as a distance from sp."""
    return _ELEMENTS.format(place=place)
