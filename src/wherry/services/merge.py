"""A container's configuration: what the client asks for on top of what the image says. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from wherry.containers import health
from wherry.errors import InvalidArgument
from wherry.models.container import ContainerConfig
from wherry.models.image import ImageRunConfig
from wherry.oci.build import replace_variables


def words(value: list[str] | str | None) -> list[str] | None:
    """Return a command as a list; some clients send one string."""
    return [value] if isinstance(value, str) else value


def environment(base: Iterable[str], over: Iterable[str]) -> list[str]:
    """Return base with the variables of over replaced or added; "NAME" without "=" removes.

    Raises InvalidArgument for an entry without a name.
    """
    entries = [*base, *over]
    for entry in entries:
        if not entry.partition("=")[0]:
            raise InvalidArgument(f"invalid environment variable: {entry}")
    return replace_variables((), entries)


def _command(config: ContainerConfig, image: ImageRunConfig) -> tuple[list[str] | None, list[str] | None]:
    entrypoint, command = words(config.entrypoint), words(config.cmd)
    if entrypoint is None:
        # an entrypoint of the client's own also discards the image's arguments, as in dockerd
        entrypoint = image.entrypoint
        command = command or image.cmd
    if entrypoint == [""]:
        entrypoint = None  # --entrypoint "" clears it
    if not entrypoint and not command:
        raise InvalidArgument("no command specified")
    return entrypoint or None, command or None


def merge(config: ContainerConfig, image: ImageRunConfig) -> ContainerConfig:
    """Return the full configuration; raises InvalidArgument ("no command specified", bad environment)."""
    entrypoint, command = _command(config, image)
    env = environment(image.env or (), config.env or ())
    return structs.replace(
        config,
        user=config.user or image.user,
        exposed_ports=({**(image.exposed_ports or {}), **(config.exposed_ports or {})}) or None,
        env=env or None,
        entrypoint=entrypoint,
        cmd=command,
        volumes=({**(image.volumes or {}), **(config.volumes or {})}) or None,
        working_dir=config.working_dir or image.working_dir,
        labels={**(image.labels or {}), **(config.labels or {})},
        stop_signal=config.stop_signal or image.stop_signal,
        healthcheck=health.merge(config.healthcheck, image.healthcheck),
        shell=config.shell or image.shell,
        on_build=None,
    )


def command_line(config: ContainerConfig) -> tuple[str, tuple[str, ...]]:
    """Return Path and Args of docker inspect."""
    line = [*(words(config.entrypoint) or ()), *(words(config.cmd) or ())]
    return line[0], tuple(line[1:])
