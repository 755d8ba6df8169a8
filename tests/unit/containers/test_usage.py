"""The kernel's figures in docker's words."""

from wherry.containers import usage

V1 = {
    "cpuacct.usage": "8649427844\n",
    "cpuacct.usage_percpu": "4526980419 4122447425 \n",
    "cpuacct.stat": "user 625\nsystem 239\n",
    "cpu.stat": "nr_periods 7\nnr_throttled 2\nthrottled_time 900\nwait_sum 4\n",
    "memory.usage_in_bytes": "1765376\n",
    "memory.max_usage_in_bytes": "6311936\n",
    "memory.limit_in_bytes": "67108864\n",
    "memory.failcnt": "3\n",
    "memory.stat": "cache 1429504\ntotal_inactive_file 81920\n",
    "pids.current": "2\n",
    "pids.max": "max\n",
    "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 512\n8:0 Total 4608\nTotal 4608\n",
    "blkio.throttle.io_serviced_recursive": "8:0 Read 1\nTotal 1\n",
    "net/dev": "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
    "  eth0:   50114    1177    1    2    0     0      0     0   126    3    4    5    0    0    0    0\n",
}
V2 = {
    "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 7\nnr_throttled 2\nthrottled_usec 9\n",
    "memory.current": "5000\n",
    "memory.max": "max\n",
    "memory.stat": "anon 100\ninactive_file 30\n",
    "pids.current": "1\n",
    "pids.max": "50\n",
    "io.stat": "8:0 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=0\n",
}


def read(texts, version):
    return usage.reading(texts, version=version, at=1_500_000_000, cpus=2, uptime=10**9, machine_memory=1 << 30)


def test_version_1():
    found = read(V1, 1)
    assert found["read"] == "1970-01-01T00:00:01.5Z"
    assert found["cpu_stats"] == {
        "cpu_usage": {
            "total_usage": 8649427844,
            "percpu_usage": [4526980419, 4122447425],
            "usage_in_kernelmode": 2_390_000_000,
            "usage_in_usermode": 6_250_000_000,
        },
        "throttling_data": {"periods": 7, "throttled_periods": 2, "throttled_time": 900},
        "system_cpu_usage": 2 * 10**9,
        "online_cpus": 2,
    }
    memory = found["memory_stats"]
    assert (memory["usage"], memory["max_usage"], memory["limit"], memory["failcnt"]) == (1765376, 6311936, 67108864, 3)
    assert memory["stats"]["total_inactive_file"] == 81920
    assert found["pids_stats"] == {"current": 2}
    block = found["blkio_stats"]["io_service_bytes_recursive"]
    assert block[0] == {"major": 8, "minor": 0, "op": "Read", "value": 4096}
    assert [entry["op"] for entry in block] == ["Read", "Write", "Total"]
    assert found["networks"] == {
        "eth0": {
            "rx_bytes": 50114, "rx_packets": 1177, "rx_errors": 1, "rx_dropped": 2,
            "tx_bytes": 126, "tx_packets": 3, "tx_errors": 4, "tx_dropped": 5,
        }
    }  # fmt: skip


def test_version_2():
    found = read(V2, 2)
    assert found["cpu_stats"]["cpu_usage"] == {
        "total_usage": 1_500_000, "usage_in_kernelmode": 500_000, "usage_in_usermode": 1_000_000,
    }  # fmt: skip
    assert found["cpu_stats"]["throttling_data"]["throttled_time"] == 9000
    assert found["memory_stats"] == {"usage": 5000, "stats": {"anon": 100, "inactive_file": 30}, "limit": 1 << 30}
    assert found["pids_stats"] == {"current": 1, "limit": 50}
    assert found["blkio_stats"]["io_serviced_recursive"][1] == {"major": 8, "minor": 0, "op": "write", "value": 2}
    assert "networks" not in found


def test_no_limit_is_the_machines_memory():
    found = read({**V1, "memory.limit_in_bytes": "9223372036854771712\n"}, 1)
    assert found["memory_stats"]["limit"] == 1 << 30


def test_files_that_are_not_there_are_noughts():
    for version in (1, 2):
        found = read({}, version)
        assert found["cpu_stats"]["cpu_usage"]["total_usage"] == 0
        assert found["memory_stats"]["usage"] == 0
        assert found["pids_stats"] == {}


def test_the_answer_joins_two_samples():
    early, late = read(V1, 1), {**read(V1, 1), "read": "later"}
    found = usage.answer(late, early, name="aa", container_id="f" * 64)
    assert (found["name"], found["id"], found["read"]) == ("/aa", "f" * 64, "later")
    assert (found["preread"], found["precpu_stats"]) == (early["read"], early["cpu_stats"])
    alone = usage.answer(early, None, name="aa", container_id="f")
    assert (alone["preread"], alone["precpu_stats"]["cpu_usage"]["total_usage"]) == ("0001-01-01T00:00:00Z", 0)
    resting = usage.answer(None, None, name="aa", container_id="f")
    assert (resting["read"], resting["memory_stats"], resting["pids_stats"]) == ("0001-01-01T00:00:00Z", {}, {})
