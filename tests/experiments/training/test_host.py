"""What the machine can hold."""

from __future__ import annotations

from experiments.training import host


def write_files(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_free_memory_is_the_least_of_all_limits(tmp_path):
    assert host.free_memory(tmp_path) is None
    write_files(tmp_path, {"proc/meminfo": "MemTotal:  9000 kB\nMemAvailable:    5000 kB\n"})
    assert host.free_memory(tmp_path) == 5000 * 1024
    group = "sys/fs/cgroup/jobs/mine/"
    write_files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/jobs/mine\n",
            group + "memory.max": "max\n",
            group + "memory.current": "1\n",
            "sys/fs/cgroup/jobs/memory.max": "4000000\n",
            "sys/fs/cgroup/jobs/memory.current": "1000000\n",
            "sys/fs/cgroup/jobs/memory.stat": "anon 900000\ninactive_file 30000\n",
        },
    )
    assert host.free_memory(tmp_path) == 3_030_000
    group = "sys/fs/cgroup/memory/"
    write_files(
        tmp_path,
        {
            "proc/self/cgroup": "3:cpuset:/x\n4:cpu,memory:/elsewhere\n0::/\n",
            group + "memory.limit_in_bytes": "2000000\n",
            group + "memory.usage_in_bytes": "1500000\n",
            group + "memory.stat": "total_inactive_file 20000\n",
        },
    )
    assert host.free_memory(tmp_path) == 520_000
    write_files(tmp_path, {group + "memory.usage_in_bytes": "3000000\n"})
    assert host.free_memory(tmp_path) == 0
