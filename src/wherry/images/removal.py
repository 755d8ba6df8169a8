"""What docker rmi may remove: Docker's rules and words.

- By name, the name goes; the image too when it was the last one. A container that uses the image forbids taking its
  last name, unless forced. With the last tag of a repository go the names by digest that the image has there.
- By id, all names go when they are of one repository with at most one tag; otherwise it must be forced.
- A running container and a child image forbid removing the image itself, force or not; a stopped container and
  further names forbid it unless forced. After a name has gone, the image quietly stays, without a name, where something
  still forbids removing it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from wherry.errors import Conflict
from wherry.images.api import Users
from wherry.images.references import from_stored
from wherry.images.rows import Rows

Step = dict[str, str]


@dataclass(slots=True)
class Removal:
    """One removal; runs inside a transaction and lists what it did in `steps`."""

    rows: Rows
    users: Users
    drop: Callable[[str], None]
    """Removes the rows of an image without names."""
    force: bool = False
    prune: bool = True
    steps: list[Step] = field(default_factory=list)

    def by_name(self, image_id: str, ref: str, name: str) -> None:
        """Remove a name, and the image when it was the last one. `ref` is what the user wrote."""
        names = self.rows.tags(image_id)
        users = self.users(image_id)
        if not self.force and _is_single(names) and users:
            raise Conflict(
                f'conflict: unable to remove repository reference "{ref}" (must force) - '
                f"container {users[0][0][:12]} is using its referenced image {_short(image_id)}"
            )
        self._untag(name)
        repository = from_stored(name).name
        left = [each for each in names if each != name]
        siblings = [each for each in left if from_stored(each).name == repository]
        if "@" not in name and all("@" in each for each in siblings):
            for each in siblings:
                self._untag(each)
            left = [each for each in left if each not in siblings]
        if not left:
            self._image(image_id, quiet=True)

    def by_id(self, image_id: str) -> None:
        """Remove an image with its name, if it has one; with all its names when forced."""
        names = self.rows.tags(image_id)
        if not names or _is_single(names):
            conflict = self._conflict(image_id, names=False)
            if conflict:
                raise Conflict(conflict)
            for name in names:
                self._untag(name)
        self._image(image_id, quiet=False)

    def _image(self, image_id: str, *, quiet: bool) -> None:
        conflict = self._conflict(image_id, names=True)
        if conflict:
            used = any(running or not self.force for _, running in self.users(image_id))
            if quiet and (used or self.rows.tags(image_id) or self.rows.is_child_of(image_id)):
                return
            raise Conflict(conflict)
        for name in self.rows.tags(image_id):
            self._untag(name)
        row = self.rows.image(image_id)
        self.drop(image_id)
        self.steps.append({"Deleted": image_id})
        if self.prune and row and row.parent and self.rows.image(row.parent) and not self.rows.tags(row.parent):
            Removal(self.rows, self.users, self.drop, steps=self.steps)._image(row.parent, quiet=True)

    def _untag(self, name: str) -> None:
        self.rows.drop_tag(name)
        self.steps.append({"Untagged": from_stored(name).familiar})

    def _conflict(self, image_id: str, *, names: bool) -> str:
        """Return why the image must stay, "" when nothing forbids to remove it."""
        short = _short(image_id)
        if self.rows.is_child_of(image_id):
            return f"conflict: unable to delete {short} (cannot be forced) - image has dependent child images"
        users = self.users(image_id)
        for container, running in users:
            if running:
                return (
                    f"conflict: unable to delete {short} (cannot be forced) - "
                    f"image is being used by running container {container[:12]}"
                )
        if self.force:
            return ""
        if names and self.rows.tags(image_id):
            return f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        for container, _ in users:
            return (
                f"conflict: unable to delete {short} (must be forced) - "
                f"image is being used by stopped container {container[:12]}"
            )
        return ""


def _is_single(names: list[str]) -> bool:
    """Return whether stored names are of one repository, at most one of them by a tag."""
    repositories = {from_stored(name).name for name in names}
    return len(repositories) == 1 and sum("@" not in name for name in names) <= 1


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]
