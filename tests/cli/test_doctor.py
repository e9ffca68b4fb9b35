"""`lambert doctor` on other machines: what it prints, returns and exits with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from lambert.cli.doctor import Doctor
from lambert.optim.kernels import gpu
from lambert.planning import hardware, network
from lambert.planning.hardware import CudaDevice, GpuTraces, Hardware


def on(machine: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "inspect_hardware", lambda folder: machine)


@pytest.fixture
def well(tmp_path: Path) -> Hardware:
    """This machine, with whatever could disturb a test put right."""
    return dataclasses.replace(
        hardware.inspect_hardware(tmp_path),
        traces=GpuTraces(),
        memory_bytes=2**35,
        memory_available_bytes=2**34,
        disk_free_bytes=2**40,
        load=0.1,
        visible_devices=None,
        public_addresses=(),
    )


def test_a_machine_that_is_well(
    well: Hardware, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    on(well, monkeypatch)
    results = Doctor(folder=tmp_path).run()
    assert (results["healthy"], results["exit_code"]) == (True, 0)
    assert {finding["level"] for finding in results["findings"]} == {"ok"}
    assert results["hardware"]["disk"] == str(tmp_path)
    assert json.loads(json.dumps(results))["hardware"]["torch"]["build"] == well.torch.build
    assert "Nothing stands in the way of a run." in capsys.readouterr().out


def test_a_kernel_cache_that_others_can_write_is_a_warning(
    well: Hardware, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    on(well, monkeypatch)
    tmp_path.chmod(0o777)
    for value, level in ((str(tmp_path), "warning"), (str(tmp_path / "own"), "ok"), ("off", "ok")):
        monkeypatch.setenv("LAMBERT_KERNEL_CACHE", value)
        finding = Doctor().run()["findings"][-1]
        assert finding["level"] == level
        assert value in finding["text"]


def test_a_gpu_left_idle_is_loud(
    well: Hardware, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    idle = GpuTraces(nvidia=("nvidia-smi",), nvidia_names=("Tesla T4 [odd name]",), nvidia_driver="535.129.03")
    facts = dataclasses.replace(well.torch, cuda="13.0", devices=())
    on(dataclasses.replace(well, traces=idle, torch=facts), monkeypatch)
    results = Doctor().run()
    assert (results["healthy"], results["exit_code"]) == (False, 1)
    printed = capsys.readouterr().out
    assert "PROBLEM  the NVIDIA driver 535.129.03 is too old" in printed
    assert "[odd name]" in printed
    assert "         -> Update the driver to 580 or newer" in printed
    assert "1 problem found." in printed


def test_a_public_address_is_a_warning(
    well: Hardware, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """127.0.0.1, private networks, link-local addresses and names are none; 8.8.8.8 is."""
    for host in ("127.0.0.1", "10.0.0.1", "fe80::1", "gpu-0"):
        monkeypatch.setenv("MASTER_ADDR", host)
        assert host not in network.public_addresses()
    monkeypatch.setenv("MASTER_ADDR", "8.8.8.8")
    on(dataclasses.replace(well, public_addresses=network.public_addresses()), monkeypatch)
    (finding,) = [one for one in Doctor().run()["findings"] if "public address" in one["text"]]
    assert finding["level"] == "warning"
    assert "8.8.8.8" in finding["text"] and "firewall" in finding["remedy"]


@pytest.mark.parametrize("why", ["", "Triton cannot compile or launch its kernels (RuntimeError: no C compiler)"])
def test_whether_lambs_kernels_run_on_the_gpus_is_one_line(
    why: str, well: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = CudaDevice("NVIDIA A100", 2**36, (8, 0))
    facts = dataclasses.replace(well.torch, cuda="13.0", devices=(device, device), nccl="2.27.5")
    on(dataclasses.replace(well, torch=facts), monkeypatch)
    monkeypatch.setattr(gpu, "load", lambda device: (None, why))
    (finding,) = [found for found in Doctor().run()["findings"] if "LAMB on the GPU" in found["text"]]
    if why:
        assert finding["level"] == "warning" and why in finding["text"] and "C compiler" in finding["remedy"]
    else:
        assert finding["level"] == "ok" and "untested on GPU" in finding["text"]
