"""Where objects lie after the allocator's holes were filled; in an interpreter whose heap nobody else uses."""

import subprocess
import sys

CODE = """
from wherry.runtime.compaction import fill_holes
for size in (320, 448, 512):
    spread = [bytes(size - 33) for _ in range(2000)]
    del spread[::97]
    if {fill}:
        fill_holes()
    print(len({{id(each) >> 14 for each in [bytes(size - 33) for _ in range(20)]}}))
"""


def pools(*, fill):
    ran = subprocess.run([sys.executable, "-c", CODE.format(fill=fill)], capture_output=True, text=True, check=True)
    return [int(line) for line in ran.stdout.split()]


def test_new_objects_lie_together():
    assert sum(pools(fill=True)) * 2 < sum(pools(fill=False))
