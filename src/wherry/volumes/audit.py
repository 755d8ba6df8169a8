"""Volumes: records and folders compared with each other. From the event loop only, as all that writes records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from wherry.models.check import Problem, problem
from wherry.volumes import names
from wherry.volumes.local import DATA, TRASH, UNSETTLED, Volumes


def problems(volumes: Volumes) -> Iterator[Problem]:
    """Yield what is wrong. Work that is under way looks the same as what was cut off: look twice."""
    folders = sorted(os.listdir(volumes.folder("")))
    for name in folders:
        folder = volumes.folder(name)
        if name.startswith(TRASH):
            mend = partial(volumes.delete_trash, name)
            yield problem("volume trash", name, "what is left of a removed volume", "it is deleted", mend=mend)
        elif name in volumes:
            if (folder / UNSETTLED).exists():
                text = "it has a record, and the mark of a creation or removal that was cut off"
                yield problem("volume mark", name, text, "the mark goes", mend=partial(volumes.settle, name))
        elif (folder / UNSETTLED).exists():
            text = "it has no record, and the mark of a creation or removal that was cut off"
            mend = partial(volumes.discard, name)
            yield problem("unfinished volume", name, text, "it is deleted", mend=mend)
        elif names.NAME.match(name) and (folder / DATA).is_dir():
            text = "it holds somebody's data, and its record is lost"
            yield problem("lost volume", name, text, "it becomes a volume again", mend=partial(volumes.take_up, name))
        else:
            yield problem("unknown file", str(folder), "it is not the engine's", "look at it, and delete it yourself")
    for volume in volumes:
        if volume.local and volume.name not in folders:
            text = "it has a record and no folder: its data is lost"
            yield problem("missing volume", volume.name, text, f"docker volume rm {volume.name}, or restore its folder")
