"""What a log tells of the container it came from: the fields of tags, and the attributes that options ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from wherry.logs import tags
from wherry.models.patterns import compile_pattern

DEFAULT_TAG = "{{.ID}}"
DAEMON = "docker"
"""What {{.DaemonName}} gives: receivers have rules for this word."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A container as its log tells of it. created: RFC 3339. command: the program and its arguments."""

    id: str
    name: str
    image_name: str
    image_id: str
    command: tuple[str, ...]
    created: str
    labels: Mapping[str, str]
    env: Sequence[str]

    def tag(self, options: Mapping[str, str], default: str = DEFAULT_TAG) -> str:
        """Return the tag that the options ask for; raises InvalidArgument."""
        return tags.render(options.get("tag") or default, self._fields())

    def _fields(self) -> Mapping[str, tags.Value]:
        program, *arguments = self.command or ("",)
        return {
            "ID": self.id[:12],
            "FullID": self.id,
            "Name": self.name,
            "ImageID": self.image_id[:12],
            "ImageFullID": self.image_id,
            "ImageName": self.image_name,
            "Command": self.command_line,
            "DaemonName": DAEMON,
            "ContainerID": self.id,
            "ContainerName": f"/{self.name}",
            "ContainerImageID": self.image_id,
            "ContainerImageName": self.image_name,
            "ContainerEntrypoint": program,
            "ContainerArgs": f"[{' '.join(arguments)}]",  # as Go prints a list
            "ContainerCreated": self.created,
            "ContainerLabels": self.labels,
            "ContainerEnv": dict(entry.partition("=")[::2] for entry in self.env),
        }

    @property
    def command_line(self) -> str:
        """The command in one line."""
        return " ".join(self.command)

    def attributes(
        self, options: Mapping[str, str], rename: Callable[[str], str] = lambda name: name
    ) -> dict[str, str]:
        """Return what labels, labels-regex, env and env-regex ask for; raises InvalidArgument."""
        environment = dict(entry.partition("=")[::2] for entry in self.env if "=" in entry)
        found: dict[str, str] = {}
        for option, values in (("labels", self.labels), ("env", environment)):
            wanted = [name for name in options.get(option, "").split(",") if name]
            expression = options.get(f"{option}-regex", "")
            pattern = compile_pattern(expression) if expression else None
            found |= {rename(name): values[name] for name in wanted if name in values}
            found |= {rename(name): text for name, text in values.items() if pattern and pattern.search(name)}
        return found
