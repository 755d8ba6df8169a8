from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import pytest

from tests.kernel.isolation import inside, isolated, new_namespace
from wherry.kernel.netlink.claim import Claim

HOLDER = """
import time
from wherry.kernel.netlink.claim import Claim
held = Claim('x')
print('held', flush=True)
time.sleep(60)
"""


@pytest.mark.root
@isolated
def test_a_name_has_one_holder_per_namespace():
    with Claim("x"), Claim("y"):
        with pytest.raises(OSError, match="netlink claim x") as caught:
            Claim("x")
        assert caught.value.errno == errno.EADDRINUSE
        other = new_namespace()
        inside(other, lambda: Claim("x").close())
        os.close(other)
    Claim("x").close()


@pytest.mark.root
@isolated
def test_a_name_is_free_when_its_holder_is_killed():
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        began = time.monotonic()
        with pytest.raises(OSError, match="claim x"):
            Claim("x", wait=0.05)
        assert time.monotonic() - began >= 0.05
        holder.kill()
    Claim("x", wait=5).close()
