"""The base of the values that the API speaks and the store keeps.

One definition serves both: field names are ours (snake_case), the encoded names are Docker's. A second
set of classes for the wire would repeat some 150 fields, and each copy would be a place to forget one.
"""

from __future__ import annotations

import msgspec


class Model(msgspec.Struct, rename="pascal", frozen=True, kw_only=True):
    """A frozen value; JSON names are PascalCase unless a field says otherwise. Unknown names are ignored."""
