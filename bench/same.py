"""What docker says here and at a dockerd, field by field: the same commands, the answers compared.

    python -m bench.same networks|volumes --peer-host unix:///PATH/docker.sock [--only PATTERN]

The commands stand in same_networks.txt and same_volumes.txt; each script runs on both engines. Of an answer in JSON
every field that has to do with the matter is compared, of a refusal its text and exit code, of a container what a
command in it sees. What differs by nature is made alike before: ids, times, MAC addresses, paths, and addresses of
subnets that the engines chose themselves. Every difference that is left is printed; docs/compat.md gives the reason for
each that is wanted.

The dockerd may be somebody else's: what scripts make has our prefix, and nothing there is pruned but by label.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench import harness
from bench.harness import Side

MARK = "wherry-same"
_ALIKE = (
    (re.compile(r"(/[\w.-]+)+/volumes/(?=\w)"), "<volumes>/"),
    (re.compile(rf"/tmp/{MARK}/\w+"), "<dir>"),
    (re.compile(r"\b(shared|master):\d+"), r"\1:<group>"),
    (re.compile(r"(/[\w.-]+)+/netns/\w+"), "<netns>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<short id>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(Z|[+-]\d\d:\d\d)"), "<time>"),
    (re.compile(r"\b(?!02:99)[0-9a-f]{2}(:[0-9a-f]{2}){5}\b"), "<mac>"),
    (re.compile(r"\b(172\.(1[6-9]|2\d|3[01])|192\.168)\.\d+\.(?=\d)"), "<chosen>."),
    (re.compile(r"\bfd(?!99)[0-9a-f]{2}:[0-9a-f:]+"), "<chosen6>"),
    (re.compile(r"\b(3[2-9]|[45]\d|60)\d{3}\b"), "<port>"),
    (re.compile(r"docker0|whbench0"), "<bridge>"),
    (re.compile(r"br-<short id>"), "<network's bridge>"),
    (re.compile(r"failed to create shim task: OCI runtime create failed: runc create failed: "), ""),
    (re.compile(r"error during container init: "), ""),
    (re.compile(r'(error mounting "[^"]*" to rootfs at "[^"]*": )[^\n]*'), r"\1<why>"),
    (re.compile(r'Get \\?"https://registry-1[^\n]*'), "<no registry>"),
    (re.compile(r"(/[\w.-]+)+/(images/[0-9a-f]{16}|merged)(?=[/\":])"), "<image's mount>"),
    (re.compile(r"(json: cannot unmarshal )[^\"]*"), r"\1<what>"),
    (re.compile(r"(lookup nowhere.invalid)[^\n]*"), r"\1 <why>"),
)
PRIVATE = "WHERRY_SAME_PRIVATE"

_LIST = r"""$5 ~ /^\/x/ {o=""; for(i=7;$i!="-";i++)o=o" "$i; print %s}"""
"""Of each mount at /x...: $5 where it is, $6 its options, o its peer groups, $(i+1) the file system."""
_SHORT = {
    "RUN": f"run -d --name {MARK}-c",
    "TOP": f"{harness.IMAGE} sleep 1000",
    "SHOW": f"container inspect {MARK}-c",
    "IMAGE": harness.IMAGE,
    "MOUNTS": f"exec {MARK}-c awk " + shlex.quote(_LIST % "$5,$6,$(i+1)") + " /proc/self/mountinfo",
    "PEERS": f"exec {MARK}-c awk " + shlex.quote(_LIST % "$5 o") + " /proc/self/mountinfo",
    "FILES": f"exec {MARK}-c find /x -exec stat -c '%n %F %a %u %g %h' {{}} ;",
}
_NAME = re.compile(r"(?<![-\w])(?!(?<=[:,])Z)([A-Z])(?![\w=])")
"""A capital letter that is a name; Z after a colon is a word of -v."""
CLEAN = "CLEAN"
COMPARED = {
    "networks": re.compile(
        r"\[0\]\.(?!(Driver|GraphDriver|ResolvConfPath|HostnamePath|HostsPath|LogPath|Image|State|Storage|Config\.Image"
        r"|HostConfig\.(LogConfig|Cgroup|Isolation|CgroupnsMode|Runtime|Masked|Readonly|ConsoleSize)))"
    ),
    "volumes": re.compile(r"\[0\]\.(Mounts|HostConfig\.(Binds|Mounts|Tmpfs|Volume)|Config\.Volumes)"),
}
"""What is compared of a container's inspect, by what the scripts are about."""
FOLDER = Path("/tmp", MARK)
_MAKES_CONTAINER = re.compile(r"RUN |API POST \S*/containers/create")
_OF_CONTAINER = re.compile(r"SHOW|container inspect|API GET \S*/containers/[\w-]+/json")


def scripts(matter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield names and docker commands of the file of scripts."""
    for part in Path(__file__).with_name(f"same_{matter}.txt").read_text().split("\n[")[1:]:
        name, _, lines = part.partition("]\n")
        yield name, [line for line in lines.splitlines() if line]


def words_of(line: str, side: Side) -> list[str]:
    """Return the words of a command, its short words written out."""
    found: list[str] = []
    for word in line.split(maxsplit=3) if line.startswith("API ") else shlex.split(line):
        if word in _SHORT:
            found += shlex.split(_SHORT[word])
        else:
            long = word.replace("PREFIX", MARK).replace("DIR", str(folder(side))).replace("IMAGE", harness.IMAGE)
            found.append(_NAME.sub(lambda match: f"{MARK}-{match[1].lower()}", long))
    return found


def folder(side: Side) -> Path:
    """Return the directory of the host that a side's commands are about."""
    return FOLDER / ("one" if side.name == "wherry" else "two")


def furnish(side: Side) -> None:
    """Make a directory with a bit of everything that may be mounted, where the engine sees it and where docker does."""
    place = folder(side)
    script = f"""
        rm -rf {place}; mkdir -p {place}/d/e; cd {place}
        printf deep >d/e/f; printf file >f; ln -s d link; ln -s nowhere dangling; mkfifo fifo
    """
    side.run("run", "--rm", "--network", "none", "-v", f"{FOLDER}:{FOLDER}", harness.IMAGE, "sh", "-c", script)
    subprocess.run(["sh", "-c", script], check=True)


def alike(text: str) -> str:
    """Return a text in which what differs by nature is the same."""
    for pattern, word in _ALIKE:
        text = pattern.sub(word, text)
    return text


def ask(side: Side, method: str, path: str, body: str = "") -> Any:
    """Make a request of the API; return status and answer, of a container that is looked at as its inspect does."""
    connection = http.client.HTTPConnection("engine", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(side.host.removeprefix("unix://"))
    headers = {"Content-Type": "application/json"} if body else {}
    connection.request(method, quote(path, safe="/?=&"), body or None, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    try:
        found = json.loads(text)
    except ValueError:
        found = text.strip()
    if answer.status == 200 and path.endswith("/json") and "/containers/" in path:
        return ordered([found])
    return {"status": answer.status, "answer": found}


def run(side: Side, line: str) -> Any:
    """Run a docker command; return its JSON, or its texts and exit code. API METHOD PATH BODY is a request."""
    words = words_of(line, side)
    if words[0] == "API":
        return ask(side, *words[1:])
    command = ["timeout", "120", *side.docker(*words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and (line == "SHOW" or " inspect " in f" {line} ") and "--format" not in line:
        return ordered(json.loads(done.stdout))
    lines = Counter(alike(done.stdout).split("\n"))
    return {"code": done.returncode, "lines": dict(lines), "err": alike(done.stderr.strip())}


def ordered(answer: Any) -> Any:
    """Put the mounts of containers in an order: docker and dockerd have none."""
    for each in answer:
        if isinstance(each.get("Mounts"), list):
            each["Mounts"].sort(key=lambda mount: str(mount["Destination"]))
            (each["HostConfig"].get("Binds") or []).sort()
    return answer


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the fields of a JSON value: path, and the value as text."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from flat(each, f"{path}.{alike(str(key))}")
    elif isinstance(value, list) and value:
        for number, each in enumerate(value):
            yield from flat(each, f"{path}[{number}]")
    else:
        yield path, alike(json.dumps(value))


def compare(script: list[str], ours: Side, peer: Side, compared: re.Pattern[str]) -> list[str]:
    """Run a script on both and return the differences."""
    found = []
    for side in (ours, peer):
        furnish(side)
    began, before = time.time(), ""
    for line in script:
        if line == CLEAN:
            for side in (ours, peer):
                clean(side)
            before = ""
            continue
        if _MAKES_CONTAINER.match(line) and _MAKES_CONTAINER.match(before):
            for side in (ours, peer):  # one of them may have it from a line that the other refused
                subprocess.run(side.docker("rm", "-fv", f"{MARK}-c"), capture_output=True, check=False)
        before = line
        of_container = _OF_CONTAINER.match(line)
        timed = line.replace("SINCE", f"{began:.3f}").replace("NOW", f"{time.time() + 0.2:.3f}")
        with ThreadPoolExecutor(2) as both:
            results = list(both.map(run, (ours, peer), (timed, timed)))
        answers = [dict(flat(each)) for each in results]
        for path in dict.fromkeys((*answers[0], *answers[1])):
            one, other = (each.get(path, "(missing)") for each in answers)
            if one != other and (not of_container or compared.match(path)):
                found.append(f"{line}\n        {path}\n            ours {one}\n            peer {other}")
    return found


def clean(side: Side) -> None:
    """Remove what a script made."""
    containers = side.run("ps", "-aq", "--filter", f"name={MARK}").split()
    containers += side.run("ps", "-aq", "--filter", f"ancestor={harness.IMAGE}").split()
    if containers:
        subprocess.run(side.docker("rm", "-fv", *dict.fromkeys(containers)), capture_output=True, check=False)
    volumes = side.run("volume", "ls", "-q", "--filter", f"name={MARK}").split()
    if volumes:
        subprocess.run(side.docker("volume", "rm", "-f", *volumes), capture_output=True, check=False)
    networks = side.run("network", "ls", "--filter", f"name={MARK}", "--format", "{{.Name}}").split()
    for each in (*networks, *networks):  # a second time those that others were made from
        subprocess.run(side.docker("network", "rm", each), capture_output=True, check=False)


def main() -> None:
    """Print the differences of all scripts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("matter", choices=sorted(COMPARED))
    parser.add_argument("--peer-host", default=os.environ.get("WHERRY_BENCH_PEER_HOST", ""))
    parser.add_argument("--host", default="")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if not options.peer_host:
        raise SystemExit("a dockerd's socket is needed: --peer-host")
    if PRIVATE not in os.environ:  # dockerd's root is shared where systemd runs; an engine of ours is to find the same
        command = ["unshare", "--mount", "--propagation", "shared", sys.executable, "-m", "bench.same", *sys.argv[1:]]
        os.execvpe(command[0], command, {**os.environ, PRIVATE: "1"})
    options.rounds, options.peer_exec, options.shared_dir = 1, "", ""
    total = 0
    with harness.sides(options) as (ours, peer):
        assert peer is not None
        for name, script in scripts(options.matter):
            if not re.search(options.only, name):
                continue
            found = compare(script, ours, peer, COMPARED[options.matter])
            for side in (ours, peer):
                clean(side)
            total += len(found)
            print(f"{name}: {'the same' if not found else f'{len(found)} differences'}", flush=True)
            for each in found:
                print(f"    {each}")
        peer.run("run", "--rm", "-v", "/tmp:/tmp", harness.IMAGE, "rm", "-rf", str(FOLDER))
    shutil.rmtree(FOLDER, ignore_errors=True)
    print(f"{total} differences")
    sys.exit(bool(total))


if __name__ == "__main__":
    main()
