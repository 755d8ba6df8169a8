"""How the daemon starts the zygote: kept apart, so that the daemon need not load what the zygote preloads."""

CONTROL = 3
LAYERS = 4
"""Where the zygote finds the mount namespace of the layers, if there is one: then LAYERS_MARK is in its environment."""
LAYERS_MARK = "WHERRY_LAYER_MOUNTS"
BOOTSTRAP = """
import sys
sys.path.insert(0, {packages!r})
from wherry.runtime.lean import defer_inspect
defer_inspect()
from wherry.runtime.zygote import main
main()
"""
