"""What the launcher's variables say, and where the rendezvous store of several machines listens."""

from __future__ import annotations

import socket

import pytest

from lambert.cli.main import main
from lambert.errors import LaunchError
from lambert.training.distributed import env, store

WHOLE = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE='abc'"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE=''"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0'"),
        ({"WORLD_SIZE": "9" * 5_000}, "WORLD_SIZE="),
        ({"WORLD_SIZE": "2"}, "without RANK"),
        ({"RANK": "1"}, "RANK=1 without WORLD_SIZE"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK='-1'"),
        (WHOLE | {"RANK": "2"}, "RANK=2 with WORLD_SIZE=2"),
        (WHOLE | {"MASTER_ADDR": ""}, "without MASTER_ADDR"),
        (WHOLE | {"MASTER_PORT": "http"}, "MASTER_PORT='http'"),
        (WHOLE | {"MASTER_PORT": "65536"}, "MASTER_PORT='65536'"),
        (WHOLE | {"LOCAL_RANK": "x"}, "LOCAL_RANK='x'"),
        (WHOLE | {"LOCAL_WORLD_SIZE": "-"}, "LOCAL_WORLD_SIZE='-'"),
    ],
)
def test_a_wrong_variable_is_named_by_every_rank(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variables: dict[str, str], named: str
) -> None:
    set_all(monkeypatch, variables)
    assert main(["inspect", "nowhere"]) == LaunchError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1", "RANK": "0"}, WHOLE])
def test_whole_sets_of_variables_are_taken(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    set_all(monkeypatch, variables)
    env.check()


def test_a_host_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, WHOLE | {"MASTER_ADDR": "no such host"})
    monkeypatch.setattr(store, "_NAME_SECONDS", 0)
    with pytest.raises(LaunchError, match="MASTER_ADDR=no such host has no address"):
        store.join_store(1)


def test_a_store_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        set_all(monkeypatch, WHOLE | {"MASTER_PORT": port, "RANK": "0"})
        with pytest.raises(LaunchError, match=f"MASTER_ADDR=127.0.0.1, MASTER_PORT={port} .*in use"):
            store.join_store(1)
    set_all(monkeypatch, WHOLE | {"MASTER_PORT": port})
    with pytest.raises(LaunchError, match=f"MASTER_PORT={port} .*refused"):
        store.join_store(0.1)


def test_the_first_rank_listens_on_the_address_that_the_others_are_given() -> None:
    """127.0.0.2 stands for one of several addresses of a machine; names and foreign addresses are PyTorch's to open."""
    for host, bound in (("127.0.0.2", "127.0.0.2"), ("localhost", "127.0.0.1")):
        listener = store._listener(host, 0)
        assert listener is not None
        with listener:
            assert listener.getsockname()[0] == bound
    assert store._listener("gpu-0", 0) is None
    assert store._listener("192.0.2.77", 0) is None
