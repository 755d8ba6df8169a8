"""What a container inherits from its image."""

import pytest

from wherry.errors import InvalidArgument
from wherry.models.container import ContainerConfig
from wherry.models.image import ImageRunConfig
from wherry.services.merge import command_line, environment, merge

IMAGE = ImageRunConfig(
    env=["PATH=/bin", "A=1"], entrypoint=["/entry"], cmd=["run"], user="web", working_dir="/srv", labels={"a": "1"}
)


def test_the_image_gives_what_the_client_leaves_open():
    merged = merge(ContainerConfig(), IMAGE)
    assert (merged.entrypoint, merged.cmd, merged.user, merged.working_dir) == (["/entry"], ["run"], "web", "/srv")
    assert command_line(merged) == ("/entry", ("run",))


def test_an_entrypoint_of_the_client_discards_the_arguments_of_the_image():
    merged = merge(ContainerConfig(entrypoint=["sh"]), IMAGE)
    assert (merged.entrypoint, merged.cmd) == (["sh"], None)


def test_a_command_of_the_client_keeps_the_entrypoint_of_the_image():
    merged = merge(ContainerConfig(cmd=["other"]), IMAGE)
    assert (merged.entrypoint, merged.cmd) == (["/entry"], ["other"])


def test_an_empty_entrypoint_clears_that_of_the_image():
    merged = merge(ContainerConfig(entrypoint=[""], cmd=["sh"]), IMAGE)
    assert command_line(merged) == ("sh", ())


def test_no_command_at_all_is_refused_with_the_text_of_dockerd():
    with pytest.raises(InvalidArgument, match=r"^no command specified$"):
        merge(ContainerConfig(), ImageRunConfig())


def test_environment_of_the_client_replaces_adds_and_removes():
    assert environment(["PATH=/bin", "A=1", "B=2"], ["A=9", "C=3", "B"]) == ["PATH=/bin", "A=9", "C=3"]


def test_an_environment_entry_without_a_name_is_refused():
    with pytest.raises(InvalidArgument, match="invalid environment variable: =x"):
        environment([], ["=x"])


def test_labels_add_up_and_the_client_wins():
    merged = merge(ContainerConfig(labels={"a": "2", "b": "3"}, cmd=["x"]), IMAGE)
    assert merged.labels == {"a": "2", "b": "3"}
