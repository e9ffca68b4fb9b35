"""Two hosts train one model; then the link between them is cut, or one of them stands still. Needs root and `ip`.

    sudo python benchmarks/fault_network.py

The hosts are two network namespaces with names, addresses and a cable of their own, under `torchrun`. Runs are
deterministic: whatever happens, one host alone must be able to end them in the same weights. The table says for each
case how long after the fault each host's worker and its `torchrun` had ended, and what the workers said.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fault_scene import WORKER, Scene, fingerprint, finish, is_alive, small_corpus, start, torchrun, wait_for_step

HOSTS = {"anna": "10.77.0.1", "bert": "10.77.0.2"}
TIMEOUT_MINUTES = 0.3
STEPS = 200
PATIENCE_SECONDS = 150.0


def ip(words: str) -> None:
    """One call of ip(8)."""
    subprocess.run(["ip", *words.split()], check=True)


@contextmanager
def two_hosts() -> Iterator[None]:
    """Namespaces `anna` and `bert`, joined by a cable whose ends are called `cable`."""
    for host in HOSTS:
        ip(f"netns add {host}")
    try:
        ip("link add cable netns anna type veth peer name cable netns bert")
        for host, address in HOSTS.items():
            ip(f"-n {host} addr add {address}/24 dev cable")
            ip(f"-n {host} link set cable up")
            ip(f"-n {host} link set lo up")
        yield
    finally:
        for host in HOSTS:
            ip(f"netns del {host}")


def on_host(host: str, words: list[str], port: int, names: Path) -> list[str]:
    """The command that runs a worker on a host, under `torchrun`; `names` is what it sees as /etc/hosts."""
    launcher = (
        f"-m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-id {port} "
        f"--rdzv-endpoint {HOSTS['anna']}:{port} --local-addr {HOSTS[host]} --max-restarts 0"
    ).split()
    inside = f'hostname {host}; mount --bind {names} /etc/hosts; exec "$@"'
    outside = ["ip", "netns", "exec", host, "unshare", "--uts", "sh", "-c", inside, "sh"]
    return [*outside, "env", "GLOO_SOCKET_IFNAME=cable", sys.executable, *launcher, str(WORKER), *words]


def processes_of(group: int) -> list[int]:
    """All processes that a host's command has started, itself among them."""
    found = [group]
    for one in found:
        children = subprocess.run(["pgrep", "-P", str(one)], capture_output=True, text=True, check=False)
        found += [int(word) for word in children.stdout.split()]
    return found


def worker_of(group: int) -> int:
    """The process that trains on a host."""
    lines = {one: Path(f"/proc/{one}/cmdline").read_text() for one in processes_of(group)}
    return next(one for one, line in lines.items() if WORKER.name in line and "torch.distributed.run" not in line)


def case(scene: Scene, expected: str, name: str, number: int) -> dict[str, Any]:
    """One fault at the hundredth step or so; afterwards, if need be, one host ends the run alone."""
    run = scene.folder / name
    more = ("--deterministic", "--timeout-minutes", str(TIMEOUT_MINUTES))
    words = scene.command(run, *more, steps=STEPS)
    outputs = {host: scene.folder / f"{name}-{host}.txt" for host in HOSTS}
    fault = {"stage": "slow", "seconds": 0.05}
    running = {
        host: start(on_host(host, words, 29400 + number, scene.folder / "hosts"), fault, outputs[host])
        for host in HOSTS
    }
    wait_for_step(run, 100, running["anna"])
    if any(process.poll() is not None for process in running.values()):
        raise SystemExit(outputs["anna"].read_text() + outputs["bert"].read_text())
    watched = {host: process.pid for host, process in running.items()}
    watched |= {f"worker on {host}": worker_of(process.pid) for host, process in running.items()}
    began = time.monotonic()
    if name == "stopped":
        for process in processes_of(running["bert"].pid):
            os.kill(process, signal.SIGSTOP)
    else:
        ip("-n anna link set cable down")
    if name == "short":
        time.sleep(5)
        ip("-n anna link set cable up")
    ended: dict[str, float] = {}
    while len(ended) < len(watched) and time.monotonic() - began < PATIENCE_SECONDS:
        for who, process_id in watched.items():
            if who not in ended and not is_alive(process_id):
                ended[who] = round(time.monotonic() - began, 1)
        if name == "stopped" and "anna" in ended and "bert" not in ended:
            for process_id in processes_of(running["bert"].pid):
                os.kill(process_id, signal.SIGKILL)
        time.sleep(0.1)
    for process in running.values():
        if process.poll() is None:
            for process_id in processes_of(process.pid):
                os.kill(process_id, signal.SIGKILL)
            process.wait()
    ip("-n anna link set cable up")
    codes = {host: process.poll() for host, process in running.items()}
    told = {host: said(outputs[host]) for host in HOSTS}
    again = 0
    if any(codes.values()):
        again = finish(torchrun(words, processes=1), None, scene.folder / f"{name}.txt")
    same = not again and fingerprint(run) == expected
    return {"case": name, "seconds_to_end": ended, "codes": codes, "told": told, "same_weights": same}


def said(output: Path) -> list[str]:
    """What lambert itself said of the fault."""
    lines = [line for line in output.read_text().splitlines() if re.match(r"(\[\w+\]: ?)?lambert: ", line)]
    return [line for line in lines if "process" in line]


def main() -> None:
    """Three cases."""
    if os.geteuid() != 0:
        raise SystemExit("making network namespaces needs root")
    with tempfile.TemporaryDirectory(prefix="network-") as name, two_hosts():
        folder = Path(name)
        scene = Scene(folder, small_corpus(folder), random.Random(1))
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{a} {h}\n" for h, a in HOSTS.items()))
        alone = scene.folder / "alone"
        words = scene.command(alone, "--deterministic", steps=STEPS)
        if finish(torchrun(words, processes=1), None, folder / "alone.txt"):
            raise SystemExit((folder / "alone.txt").read_text())
        expected = fingerprint(alone)
        rows = [case(scene, expected, fault, number) for number, fault in enumerate(("short", "cut", "stopped"))]
    for row in rows:
        print(f"{row['case']:8} ended after {row['seconds_to_end']} s with {row['codes']}; same: {row['same_weights']}")
        for host, lines in row["told"].items():
            print(*(f"    {host}: {line}" for line in lines), sep="\n")
    print(json.dumps({"benchmark": "fault_network", "machine": platform.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
