"""What the stand-alone runtime says when it does not do what it was asked."""

from __future__ import annotations


class Refused(Exception):
    """The request cannot be carried out; the text is the whole answer, in runc's words where callers match on them."""
