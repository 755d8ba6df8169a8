"""Keeps the AppArmor profile docker-default loaded: at the engine's start, and when a container needs it.

Programs that reload a machine's policy throw out what they do not know; so it is looked for before each use.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from wherry.errors import SystemFailure
from wherry.oci import apparmor
from wherry.oci.host import HostFacts

LOADED = "/sys/kernel/security/apparmor/profiles"
"""One line for each: "NAME (MODE)"."""
ABI = "/etc/apparmor.d/abi/3.0"
SECONDS = 60.0
"""Compiling takes tenths of a second, and ten times as long where the machine is emulated."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """Loads the profile. It is the machine's: it stays when the engine ends, and another engine may have loaded it."""

    facts: HostFacts

    def ensure(self, profile: str) -> None:
        """See to it that the profile, if it is ours, is loaded; raises SystemFailure in dockerd's words."""
        if profile != apparmor.NAME or self._is_loaded():
            return
        why = self._load()
        if why:
            raise SystemFailure(
                f"AppArmor enabled on system but the {apparmor.NAME} profile could not be loaded: {why}; "
                "--security-opt apparmor=unconfined starts a container without it"
            )

    def warning(self) -> str:
        """Return what an administrator should know: AppArmor is there, and nobody to load the profile; or ""."""
        if not self.facts.apparmor or self.facts.apparmor_parser:
            return ""
        return (
            f"WARNING: AppArmor is enabled, but apparmor_parser is not installed: containers run without the profile "
            f"{apparmor.NAME}; install the package apparmor and restart the engine"
        )

    def _is_loaded(self) -> bool:
        try:
            lines = Path(LOADED).read_text().splitlines()
        except FileNotFoundError:  # securityfs is not mounted here; loading says what is wrong
            return False
        return any(line.rpartition(" (")[0] == apparmor.NAME for line in lines)

    def _load(self) -> str:
        """Have the parser compile and load it; return why it could not, or ""."""
        words = [self.facts.apparmor_parser, "-Kr"]  # no cache; in place of one of the same name
        profile = apparmor.text(abi=os.path.exists(ABI), peers=_own_profile())
        try:
            ran = subprocess.run(words, input=profile, capture_output=True, text=True, env={}, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"running {' '.join(words)} failed: {error}"
        return f"running {' '.join(words)} failed: {ran.stderr.strip()}" if ran.returncode else ""


def _own_profile() -> tuple[str, ...]:
    """The profile that confines the engine itself: "NAME (MODE)", or "unconfined"."""
    try:
        current = Path("/proc/self/attr/apparmor/current").read_text().strip()
    except OSError:  # EINVAL: another module's file
        return ()
    name = current.rpartition(" (")[0]
    return (name,) if name and name not in ("unconfined", apparmor.NAME) else ()
