"""Names: the grammar, and one made up for those who do not care.

The grammar is dockerd's, but for one thing: a name may be a single character. It also keeps names out of paths, rules
and hosts files (no slash, no space, no dash first).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Container

from wherry.errors import Conflict, InvalidArgument

GRAMMAR = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)
LONGEST = 255

_MOODS = """
    able agile amber blithe bold brave bright brisk calm candid clever crisp daring deft eager fair fleet fond
    gentle glad golden hardy honest humble jolly keen kind lively loyal lucid mellow merry mild neat nimble noble
    patient placid plucky polite proud quick quiet rapid ready robust sage serene sharp shy silver sleek sly snug
    spry staunch steady stout sunny swift tidy true trusty upbeat vivid warm wily wise witty zesty
"""
_CRAFT = """
    anchor barge beacon binnacle boatswain bosun bowsprit brig buoy canoe capstan caravel catboat clipper cog
    coracle corvette cutter davit dhow dinghy dory ferry fluyt frigate galley gig halyard harbor helm hull jib
    junk kayak keel ketch lateen launch lighter lugger mast mooring oar packet pinnace pram punt quay raft rigging
    rudder sail sampan schooner scow sextant skiff sloop smack spar tender thwart tiller topsail tug
    wherry xebec yacht yawl
"""
MOODS, CRAFT = _MOODS.split(), _CRAFT.split()


def check(name: str) -> str:
    """Return the name without its leading slash; raises InvalidArgument with dockerd's text."""
    bare = name.removeprefix("/")
    if len(bare) > LONGEST or not GRAMMAR.fullmatch(bare):
        raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare


def invent(taken: Container[str]) -> str:
    """Return a free name such as "brisk_cutter"."""
    for attempt in range(64):
        name = f"{secrets.choice(MOODS)}_{secrets.choice(CRAFT)}"
        if attempt >= 6:
            name += str(secrets.randbelow(10_000))
        if name not in taken:
            return name
    raise Conflict("no free container name could be made up; give one with --name")
