"""Execs that a waiting child becomes: the same process as from a fork, and none left behind.

They are those that no starter can start; tests/kernel/test_starters.py has the others.
"""

import asyncio
import os
import resource
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.forked import forked
from tests.kernel import yard as yards
from tests.kernel.yard import children_of, read_all, unframe, within
from wherry.oci.seccomp import default_profile, profile_for
from wherry.runtime import execspare
from wherry.runtime.execspare import ExecSpares
from wherry.runtime.filters import compile_profile
from wherry.runtime.poller import Poller
from wherry.supervision.task import LaunchFailed

pytestmark = pytest.mark.root

LOOK = """
sed -n '/^Groups\\|^Uid\\|^Gid\\|^Cap\\|^Sig[BIC]\\|^NoNew\\|^Seccomp/p' /proc/self/status
ls -l /proc/self/fd | sed 's/.* \\([0-9]* -> [a-z/]*\\).*/\\1/' | grep -v proc
for kind in pid mnt net uts ipc cgroup time; do readlink /proc/self/ns/$kind; done
cat /proc/self/cgroup /proc/self/oom_score_adj; ulimit -a; pwd; env; umask
set -- $(cat /proc/$$/stat); [ $1 = $6 ] && echo leads its session; echo child of $4
"""
PERMISSIVE = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]}


NO_STARTER = {"type": "RLIMIT_NPROC", **dict.fromkeys(("soft", "hard"), resource.getrlimit(resource.RLIMIT_NPROC)[1])}


async def exec_in(task, *args, rlimits=(), **options):
    """An exec that no starter can start, so that a spare has to."""
    return await yards.exec_in(task, *args, rlimits=[*rlimits, NO_STARTER], **options)


def supervisor_of(task):
    return int(Path(f"/proc/{task.pid}/stat").read_text().split()[3])


async def spare_of(task):
    """Return the pid of the waiting child."""
    supervisor = supervisor_of(task)
    for _ in range(300):
        found = [pid for pid in children_of(supervisor) if pid != task.pid]
        if len(found) == 1 and Path(f"/proc/{found[0]}/syscall").read_text() != "running\n":
            return found[0]
        await asyncio.sleep(0.01)
    raise AssertionError(f"no spare: {children_of(supervisor)}")


async def output_of(task, *args, **options):
    executed, client = await exec_in(task, *args, **options)
    text = unframe(await read_all(client))
    return text, (await within(executed.exited)).code


PROCESSES = [
    {},
    {"user": {"uid": 1000, "gid": 1000, "additionalGids": [10, 20]}, "cwd": "/tmp", "env": ["PATH=/bin", "A=b"]},
    {
        "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]},
        "noNewPrivileges": True,
        "oomScoreAdj": 321,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
    },
]


@pytest.mark.parametrize("described", PROCESSES)
def test_the_process_is_the_same_as_from_a_fork(run, rootfs, described):
    rootfs.chmod(0o755)  # for those who are not root

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60", seccomp=PERMISSIVE)
        forked = await output_of(task, "/bin/sh", "-c", LOOK, exec_id="forked", **described)
        spare = await spare_of(task)
        seen = unframe(await read_all((await exec_in(task, "/bin/ls", "/proc", exec_id="s"))[1]))[1].split()
        assert len([name for name in seen if name.isdigit()]) == 2  # the first process and ls: no spare in sight
        assert not Path(f"/proc/{spare}").exists()
        await spare_of(task)
        spawned = await output_of(task, "/bin/sh", "-c", LOOK, exec_id="spawned", **described)
        assert spawned == forked
        assert forked[1] == 0
        assert b"leads its session" in forked[0][1]
        assert b"Seccomp:\t2" in forked[0][1]

    run(scenario)


def test_an_exec_that_runs_is_a_child_of_the_supervisor(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        await output_of(task, "/bin/true", exec_id="first")
        spare = await spare_of(task)
        executed, client = await exec_in(task, "/bin/sleep", "60", exec_id="second")
        for _ in range(200):
            if supervisor_of(executed) == supervisor_of(task):
                break
            await asyncio.sleep(0.01)
        assert supervisor_of(executed) == supervisor_of(task)
        assert executed.pid != spare
        await task.signal(signal.SIGTERM, "second")
        assert (await within(executed.exited)).signal == signal.SIGTERM
        client.close()

    run(scenario)


def test_what_fails_fails_in_the_same_words(run, rootfs):
    (rootfs / "bin/odd").write_bytes(b"\x7fNOT a program")
    (rootfs / "bin/odd").chmod(0o755)

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")

        async def both_failures():
            with pytest.raises(LaunchFailed) as caught:
                await exec_in(task, "nothing-there", exec_id="n")
            return caught.value.failure, await output_of(task, "/bin/odd", exec_id="o")

        forked = await both_failures()
        await spare_of(task)
        with pytest.raises(LaunchFailed) as caught:
            await exec_in(task, "nothing-there", exec_id="m")
        await spare_of(task)
        assert caught.value.failure == forked[0]
        assert await output_of(task, "/bin/odd", exec_id="p") == forked[1]
        assert forked[1] == ({1: b"", 2: b"exec /bin/odd: exec format error\n"}, 255)

    run(scenario)


def test_a_spare_that_is_killed_is_not_missed(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        await output_of(task, "/bin/true", exec_id="a")
        os.kill(await spare_of(task), signal.SIGKILL)
        await asyncio.sleep(0.1)
        assert await output_of(task, "/bin/echo", "b", exec_id="b") == ({1: b"b\n", 2: b""}, 0)
        os.kill(await spare_of(task), signal.SIGSTOP)
        os.kill(await spare_of(task), signal.SIGKILL)
        await asyncio.sleep(0.1)
        assert await output_of(task, "/bin/echo", "c", exec_id="c") == ({1: b"c\n", 2: b""}, 0)

    run(scenario)


def test_a_child_that_cannot_fork_says_so(run):
    """With room for one more process only: the child is in the control group too while it forks."""

    async def scenario(yard):
        resources = {"devices": [{"allow": True, "access": "rwm"}], "pids": {"limit": 2}}
        task = await yard.start("/bin/sleep", "60", resources=resources)
        for name in ("a", "b", "c"):
            with pytest.raises(LaunchFailed, match="temporarily unavailable"):
                await exec_in(task, "/bin/echo", name, exec_id=name)
            await asyncio.sleep(0.1)
        await task.signal(signal.SIGKILL)
        await within(task.gone)

    run(scenario)


def test_what_a_killed_child_has_forked_is_followed(run):
    """As if the OOM killer had come between the fork and the word of it: the program is waited for."""

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        await output_of(task, "/bin/true", exec_id="first")
        for number in range(30):
            spare = await spare_of(task)
            start = asyncio.ensure_future(output_of(task, "/bin/sh", "-c", "exit 4", exec_id=f"e{number}"))
            await asyncio.sleep(0.0005 * (number % 10))
            try:
                os.kill(spare, signal.SIGKILL)
            except ProcessLookupError:
                pass
            try:
                assert (await start)[1] in (4, 137)
            except LaunchFailed:
                continue  # it was killed before it had forked
        await task.signal(signal.SIGKILL)
        await within(task.gone)  # no zombie of ours keeps its pid namespace

    run(scenario)


def test_a_supervisor_without_descriptors_keeps_its_container(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        supervisor = supervisor_of(task)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (40, 40))
        clients = []

        async def use_them_up():
            for number in range(30):
                _, client = await exec_in(task, "/bin/sleep", "50", exec_id=f"e{number}")
                clients.append(client)

        with pytest.raises(LaunchFailed, match=r"[Tt]oo many open files"):
            await use_them_up()
        await asyncio.sleep(0.2)
        for client in clients:
            client.close()
        assert supervisor_of(task) == supervisor
        assert not task.exited.done()

    run(scenario)


def test_paths_through_proc_self_lead_to_the_program_itself(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        for number in range(3):
            seen, code = await output_of(task, "/bin/sh", "-c", "pwd", cwd="/proc/self", exec_id=f"a{number}")
            assert code == 0
            seen, code = await output_of(task, "/proc/self/root/bin/echo", "x", exec_id=f"b{number}")
            assert (seen[1], code) == (b"x\n", 0)
            with pytest.raises(LaunchFailed, match="no such file"):
                await exec_in(task, "/bin/true", cwd="/nowhere", exec_id=f"c{number}")
            await spare_of(task)

    run(scenario)


ONLY_PTRACE = ["CAP_SYS_PTRACE", "CAP_CHOWN"]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_tracer_inside_meets_nothing_but_what_the_program_has(run, terminal):
    """Whatever it sees of a process on its way in has no more rights than the program, and no view of the host."""

    async def scenario(yard):
        watch = (
            "while :; do for p in /proc/[0-9]*; do"
            " [ ${p##*/} -gt 1 ] && [ ${p##*/} != $$ ] && [ $(readlink $p/exe) != /bin/busybox ]"
            " && echo \"$(grep -h CapPrm $p/status) $(ls -l $p/fd 2>/dev/null | sed 's/.*-> //' | tr '\\n' ' ')\";"
            " done; done 2>/dev/null"
        )
        task = await yard.start("/bin/sleep", "60")
        caps = {"bounding": ONLY_PTRACE, "permitted": ONLY_PTRACE, "effective": ONLY_PTRACE}
        _, client = await exec_in(task, "/bin/sh", "-c", watch, exec_id="watch", capabilities=caps)
        for number in range(60):
            executed, stream = await exec_in(task, "/bin/true", exec_id=f"e{number}", terminal=terminal)
            await within(executed.exited)
            stream.close()
        await task.signal(signal.SIGKILL, "watch")
        seen = unframe(await read_all(client))[1].decode().splitlines()
        for line in seen:
            if "CapPrm" in line:
                assert "CapPrm:\t0000000000000000" in line, line
                assert "zygote.log" not in line, line

    run(scenario)


def test_the_spare_ends_with_the_container(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        await output_of(task, "/bin/true", exec_id="a")
        spare = await spare_of(task)
        await task.signal(signal.SIGKILL)
        await within(task.gone)
        for _ in range(200):
            if not Path(f"/proc/{spare}").exists():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the spare is still there")

    run(scenario)


def test_a_container_in_the_hosts_pid_namespace_has_none(run):
    """Its orphans would become the supervisor's children."""

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60", host_pid=True)
        await output_of(task, "/bin/true", exec_id="a")
        await asyncio.sleep(0.3)
        assert children_of(supervisor_of(task)) == [task.pid]

    run(scenario)


def forbidding(*names):
    return {**PERMISSIVE, "syscalls": [{"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}


@pytest.mark.parametrize(
    ("profile", "works"),
    [
        (PERMISSIVE, True),
        (forbidding("clone", "clone3", "vfork", "fork"), False),
        (forbidding("sendmsg"), False),
        (forbidding("setsid"), False),
        (forbidding("mount", "ptrace"), True),
    ],
)
def test_a_filter_is_tried_out(profile, works):
    assert compile_profile(profile).can_spawn is works


@pytest.mark.parametrize("names", [("rt_sigprocmask", "rt_sigaction"), ("wait4", "waitid")])
def test_a_filter_that_forbids_what_goes_around_a_fork(run, rootfs, names):
    (rootfs / "bin/odd").write_bytes(b"\x7fNOT a program")
    (rootfs / "bin/odd").chmod(0o755)

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60", seccomp=forbidding(*names))
        for number in range(3):
            text, _ = await output_of(task, "/bin/grep", "^Sig[BI]", "/proc/self/status", exec_id=f"a{number}")
            blocked, ignored = (int(line.split()[1], 16) for line in text[1].splitlines())
            assert (blocked, ignored & ~0x180000000) == (0, 0)  # 32 and 33 are the C library's own
            assert (await output_of(task, "/bin/odd", exec_id=f"b{number}"))[1] == 255
            await asyncio.sleep(0.1)
        await task.signal(signal.SIGKILL)
        await within(task.gone)

    run(scenario)


def test_the_default_filter_lets_spawn():
    facts = os.uname()
    profile = profile_for(default_profile(), frozenset({"CAP_CHOWN"}), facts.machine, facts.release)
    assert compile_profile(profile).can_spawn


def test_an_unused_spare_is_dropped(monkeypatch):
    monkeypatch.setattr(execspare, "KEEP", 0.2)

    def work():
        poller = Poller()
        spares = ExecSpares(poller, lambda *args: SimpleNamespace(init_pidfd=os.pidfd_open(os.getpid())))
        spares.enable()
        spares.plan(0.002)
        poller.run_for(5, until=lambda: bool(children_of(os.getpid())))
        made = children_of(os.getpid())
        poller.run_for(5, until=lambda: not children_of(os.getpid()))
        return f"{len(made)} {children_of(os.getpid())}"

    assert forked(work) == "1 []"
