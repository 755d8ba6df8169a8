"""Session keyrings: keyctl(2), session-keyring(7)."""

from __future__ import annotations

from wherry.kernel.const import syscall_number
from wherry.kernel.libc import bind_syscall, buffer, c_char_p, c_int, c_long, c_uint, check

_KEYCTL_JOIN_SESSION_KEYRING = 1
_KEYCTL_SETPERM = 5
_KEYCTL_DESCRIBE = 6
_KEY_USR_SEARCH = 0x00080000

_by_name = bind_syscall(c_int, c_char_p)
_by_permission = bind_syscall(c_int, c_int, c_uint)
_into_buffer = bind_syscall(c_int, c_int, c_char_p, c_long)
_KEYCTL = syscall_number("keyctl")


def join_session_keyring(name: str) -> int:
    """Leave the session keyring for the one called `name`, made if the user has none of that name; return its serial.

    Raises OSError: ENOSYS (kernel without keys), EDQUOT (/proc/sys/kernel/keys), EACCES (someone else's keyring).
    """
    return check(_by_name(_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, name.encode()), "keyctl JOIN_SESSION_KEYRING", name)


def allow_user_search(serial: int) -> None:
    """Let the owner of a keyring find it by name, which joining it once more (an exec) needs. Raises OSError."""
    text = buffer(256)  # "keyring;UID;GID;PERMISSIONS;NAME", PERMISSIONS in hexadecimal
    check(_into_buffer(_KEYCTL, _KEYCTL_DESCRIBE, serial, text, len(text)), "keyctl DESCRIBE")
    permissions = int(text.value.split(b";")[3], 16)
    check(_by_permission(_KEYCTL, _KEYCTL_SETPERM, serial, permissions | _KEY_USR_SEARCH), "keyctl SETPERM")
