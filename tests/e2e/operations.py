"""Every operation of Docker's schema 1.55 and what becomes of it here; docs/compat.md is made from this.

    python -m tests.e2e.operations             write the table into docs/compat.md
    python -m tests.e2e.operations SCHEMA      also compare the list with Docker's schema, a swagger file

For a served operation a test is named, and the fixtures of tests/engine.py see to it that the test really asks for
it. What is refused is asked for by test_operations.py, which compares the status.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- operations: made by python -m tests.e2e.operations -->", "<!-- end of operations -->"

_RUN = "tests/e2e/test_docker_run.py::"
_COPY = "tests/e2e/test_copy.py::"
_VOLUMES = "tests/e2e/test_volumes.py::"
_REGISTRY = "tests/e2e/test_registry.py::"
_NETWORKS = "tests/e2e/test_networks.py::"

SERVED = {
    "GET /containers/json": _RUN + "test_lifecycle_commands",
    "POST /containers/create": _RUN + "test_output_and_removal",
    "GET /containers/{id}/json": _RUN + "test_lifecycle_commands",
    "GET /containers/{id}/top": _RUN + "test_lifecycle_commands",
    "GET /containers/{id}/logs": _RUN + "test_logs_and_follow",
    "GET /containers/{id}/changes": _RUN + "test_diff",
    "GET /containers/{id}/export": _COPY + "test_export",
    "GET /containers/{id}/stats": "tests/e2e/test_stats.py::test_the_load_of_a_busy_and_of_an_idle_container",
    "POST /containers/{id}/resize": "tests/e2e/test_terminal.py::test_an_interactive_shell_with_resize",
    "POST /containers/{id}/start": _RUN + "test_output_and_removal",
    "POST /containers/{id}/stop": _RUN + "test_detached_named_stopped_with_137",
    "POST /containers/{id}/restart": _RUN + "test_lifecycle_commands",
    "POST /containers/{id}/kill": _RUN + "test_lifecycle_commands",
    "POST /containers/{id}/update": "tests/e2e/test_update.py::test_limits_of_a_running_container",
    "POST /containers/{id}/rename": _RUN + "test_lifecycle_commands",
    "POST /containers/{id}/pause": _RUN + "test_lifecycle_commands",
    "POST /containers/{id}/unpause": _RUN + "test_lifecycle_commands",
    "POST /containers/{id}/attach": _RUN + "test_output_and_removal",
    "GET /containers/{id}/attach/ws": "tests/e2e/test_websocket.py::test_there_and_back_until_the_container_ends",
    "POST /containers/{id}/wait": _RUN + "test_output_and_removal",
    "DELETE /containers/{id}": _RUN + "test_lifecycle_commands",
    "HEAD /containers/{id}/archive": _COPY + "test_out",
    "GET /containers/{id}/archive": _COPY + "test_out",
    "PUT /containers/{id}/archive": _COPY + "test_in",
    "POST /containers/prune": "tests/e2e/test_lists.py::test_prune",
    "POST /containers/{id}/exec": _RUN + "test_exec",
    "POST /exec/{id}/start": _RUN + "test_exec",
    "POST /exec/{id}/resize": "tests/e2e/test_terminal.py::test_exec_with_a_terminal",
    "GET /exec/{id}/json": _RUN + "test_exec",
    "GET /images/json": "tests/e2e/test_lists.py::test_the_life_of_an_image",
    "POST /images/create": "tests/e2e/test_lists.py::test_the_life_of_an_image",
    "GET /images/{name}/json": "tests/e2e/test_lists.py::test_the_life_of_an_image",
    "GET /images/{name}/history": "tests/e2e/test_lists.py::test_the_life_of_an_image",
    "POST /images/{name}/tag": "tests/e2e/test_lists.py::test_the_life_of_an_image",
    "DELETE /images/{name}": "tests/e2e/test_lists.py::test_the_life_of_an_image",
    "POST /images/load": "tests/e2e/test_lists.py::test_the_life_of_an_image",
    "GET /images/get": "tests/e2e/test_save.py::test_there_and_back",
    "GET /images/{name}/get": "tests/e2e/test_save.py::test_one_image_by_its_name",
    "POST /images/prune": "tests/e2e/test_lists.py::test_the_life_of_an_image",
    "POST /images/{name}/push": _REGISTRY + "test_there_and_back",
    "GET /images/search": _REGISTRY + "test_search",
    "GET /distribution/{name}/json": _REGISTRY + "test_manifest_inspect_by_the_engine",
    "POST /auth": _REGISTRY + "test_login_push_and_pull_with_a_password",
    "POST /commit": _COPY + "test_commit",
    "GET /info": _RUN + "test_info_version_and_ping",
    "GET /version": _RUN + "test_info_version_and_ping",
    "GET /_ping": _RUN + "test_info_version_and_ping",
    "HEAD /_ping": _RUN + "test_info_version_and_ping",
    "GET /events": _RUN + "test_events_tell_the_story_in_order",
    "POST /build/prune": "tests/e2e/test_check.py::test_prune_leaves_nothing",
    "GET /system/df": "tests/e2e/test_lists.py::test_what_takes_space",
    "GET /plugins": "tests/e2e/test_operations.py::test_lists_that_are_empty",
    "GET /volumes": _VOLUMES + "test_filters_of_the_list",
    "POST /volumes/create": _VOLUMES + "test_create_inspect_list_and_remove",
    "GET /volumes/{name}": _VOLUMES + "test_create_inspect_list_and_remove",
    "DELETE /volumes/{name}": _VOLUMES + "test_create_inspect_list_and_remove",
    "POST /volumes/prune": _VOLUMES + "test_prune_takes_unnamed_ones_unless_told_otherwise",
    "GET /networks": "tests/e2e/test_operations.py::test_the_networks_there_are",
    "GET /networks/{id}": "tests/e2e/test_operations.py::test_the_networks_there_are",
    "POST /networks/create": _NETWORKS + "test_create_look_and_remove",
    "POST /networks/prune": _NETWORKS + "test_prune",
    "DELETE /networks/{id}": _NETWORKS + "test_create_look_and_remove",
    "POST /networks/{id}/connect": _NETWORKS + "test_a_running_container_is_connected_and_disconnected",
    "POST /networks/{id}/disconnect": _NETWORKS + "test_a_running_container_is_connected_and_disconnected",
}
"""Operation -> the test that shows it at work through a real client."""

BUILD = (501, "there is no builder yet")
IMAGES = (501, "attestations of images are not there yet")
PLUGINS = (501, "managed plugins run as containers of the engine; not there yet")
NO_SWARM = (503, "this engine takes no part in a swarm, and says so in dockerd's words")

REFUSED = {
    "GET /images/{name}/attestations": IMAGES,
    "POST /build": BUILD,
    "POST /session": BUILD,
    "PUT /volumes/{name}": NO_SWARM,
    "GET /plugins/privileges": PLUGINS,
    "POST /plugins/pull": PLUGINS,
    "GET /plugins/{name}/json": (404, "no plugin is installed, so none of that name"),
    "DELETE /plugins/{name}": (404, "no plugin is installed, so none of that name"),
    "POST /plugins/{name}/enable": (404, "no plugin is installed, so none of that name"),
    "POST /plugins/{name}/disable": (404, "no plugin is installed, so none of that name"),
    "POST /plugins/{name}/upgrade": (404, "no plugin is installed, so none of that name"),
    "POST /plugins/create": PLUGINS,
    "POST /plugins/{name}/push": (404, "no plugin is installed, so none of that name"),
    "POST /plugins/{name}/set": (404, "no plugin is installed, so none of that name"),
}
"""Operation -> (status, why)."""

SWARM = """
GET /nodes GET /nodes/{id} DELETE /nodes/{id} POST /nodes/{id}/update GET /swarm POST /swarm/init POST /swarm/join
POST /swarm/leave POST /swarm/update GET /swarm/unlockkey POST /swarm/unlock GET /services POST /services/create
GET /services/{id} DELETE /services/{id} POST /services/{id}/update GET /services/{id}/logs GET /tasks GET /tasks/{id}
GET /tasks/{id}/logs GET /secrets POST /secrets/create GET /secrets/{id} DELETE /secrets/{id} POST /secrets/{id}/update
GET /configs POST /configs/create GET /configs/{id} DELETE /configs/{id} POST /configs/{id}/update
"""
_words = SWARM.split()
REFUSED |= {f"{method} {path}": NO_SWARM for method, path in zip(_words[::2], _words[1::2], strict=True)}



def of_schema(text: str) -> set[str]:
    """Return the operations of a swagger file, without reading more of it than their places."""
    found, path = set(), ""
    for line in text.splitlines():
        if match := re.match(r"  (/[^:]*):\s*$", line):
            path = match[1]
        elif re.match(r"\S", line):
            path = path if line.startswith("paths") else ""
        elif path and (match := re.match(r"    (get|post|put|delete|head):\s*$", line)):
            found.add(f"{match[1].upper()} {path}")
    return found


def table() -> str:
    """Return the section of docs/compat.md."""
    lines = ["| operation | answer | shown by, or why |", "| --- | --- | --- |"]
    for operation in sorted(SERVED | REFUSED, key=lambda each: (each.split(" ")[1], each)):
        if operation in SERVED:
            path, _, name = SERVED[operation].partition("::")
            lines.append(f"| {operation} | served | {Path(path).name} {name} |")
        else:
            status, why = REFUSED[operation]
            lines.append(f"| {operation} | {status} | {why} |")
    return "\n".join([BEGIN, *lines, END])


def main() -> int:
    """Write the table; complain about a list that is not the schema's."""
    page = ROOT / "docs/compat.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(before + table() + rest.partition(END)[2])
    if len(sys.argv) > 1:
        listed, wanted = set(SERVED | REFUSED), of_schema(Path(sys.argv[1]).read_text())
        print("missing:", sorted(wanted - listed), "too many:", sorted(listed - wanted))
        return int(listed != wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
