"""How the daemon starts the zygote: kept apart, so that the daemon need not load what the zygote preloads."""

CONTROL = 3
BOOTSTRAP = """
import sys
sys.path.insert(0, {packages!r})
from wherry.runtime.lean import defer_inspect
defer_inspect()
from wherry.runtime.zygote import main
main()
"""
