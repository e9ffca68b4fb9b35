"""The rendezvous store, in which ranks find each other: it listens on no more addresses than they need.

Whoever reaches it may write into it, without a password. PyTorch's own listens on all interfaces.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

from torch import distributed
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

from lambert.errors import LaunchError
from lambert.training.distributed import env

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

LOOPBACK = "127.0.0.1"
LOOPBACK_RENDEZVOUS = "lambert-loopback"
"""Name of `_LoopbackRendezvous` in PyTorch's registry."""
_NAME_SECONDS = 20.0
"""How long a host may have no address: names of new containers take some seconds."""
_LAUNCHER_SECONDS = 30.0
"""Longest wait for a store that the launcher started before this process."""
_SAY_AFTER_SECONDS = 10.0


def join_store(timeout_seconds: float) -> Any:
    """A `torch.distributed.Store` of the ranks: rank 0 hosts it, unless the launcher does; the others connect.

    Args:
        timeout_seconds: longest wait for the other ranks.

    Raises:
        LaunchError: MASTER_ADDR has no address, or no store answers there; the store's port is taken.
    """
    host, port = env.store_address()
    hosts = env.process_rank() == 0 and not env.launcher_hosts_store()
    timeout = timedelta(seconds=timeout_seconds)
    _await_address(host, port)
    listener = _listener(host, port) if hosts else None
    if not hosts:
        most = min(timeout_seconds, _LAUNCHER_SECONDS) if env.launcher_hosts_store() else timeout_seconds
        _await_store(host, port, most)
    try:
        return distributed.TCPStore(  # type: ignore[attr-defined]
            host,
            port,
            env.process_count(),
            hosts,
            timeout,
            multi_tenant=listener is None,
            master_listen_fd=None if listener is None else listener.detach(),
        )
    except RuntimeError as error:  # torch's DistNetworkError and DistStoreError are RuntimeErrors
        raise _unreachable(host, port, str(error).partition("\n")[0]) from None


def connect_sparingly() -> None:
    """Let Gloo connect a rank to those that it sends to, when it first does, and this process open what it may.

    By default Gloo connects every rank to every other: at 1,024 ranks 1,023 sockets and 2,049 questions of the store a
    rank, some 9 GB of addresses, and more sockets than the usual limit of 1,024 open files.
    """
    os.environ.setdefault("TORCH_GLOO_LAZY_INIT", "1")
    if resource is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):  # macOS allows fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def stay_on_loopback() -> None:
    """Let Gloo and NCCL listen and connect on the loopback interface, unless the environment names another."""
    interface = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


class _LoopbackRendezvous(RendezvousHandler):
    """The rendezvous of one launcher: nobody else can join, and nothing is unpickled."""

    def __init__(self, parameters: RendezvousParameters) -> None:
        self._run_id = parameters.run_id
        listener = socket.create_server((LOOPBACK, 0), backlog=socket.SOMAXCONN)
        self._port = listener.getsockname()[1]
        self._store = distributed.TCPStore(  # type: ignore[attr-defined]
            LOOPBACK, self._port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )

    def get_backend(self) -> str:
        return LOOPBACK_RENDEZVOUS

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        own = distributed.PrefixStore(self._run_id, self._store)  # type: ignore[attr-defined]
        return RendezvousInfo(own, 0, 1, RendezvousStoreInfo(LOOPBACK, self._port))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        return

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        return True


rendezvous_handler_registry.register(LOOPBACK_RENDEZVOUS, _LoopbackRendezvous)


def _listener(host: str, port: int) -> socket.socket | None:
    """A socket that listens on `host` alone; None for a name, or an address behind which this machine stands."""
    try:
        address = ipaddress.IPv4Address(LOOPBACK if host == "localhost" else host)
    except ValueError:
        return None
    try:
        return socket.create_server((str(address), port), backlog=socket.SOMAXCONN)
    except OSError as error:
        if address.is_loopback:
            raise _unreachable(host, port, error.strerror or str(error)) from None
        return None


def _await_address(host: str, port: int) -> None:
    """Wait until the name has an address."""
    last = time.monotonic() + _NAME_SECONDS
    while True:
        try:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return
        except (OSError, UnicodeError) as error:
            if time.monotonic() > last:
                why = getattr(error, "strerror", None) or str(error)
                raise LaunchError(
                    f"MASTER_ADDR={host} has no address ({why})", remedy="Give the name or address of rank 0's machine"
                ) from None
        time.sleep(1)


def _await_store(host: str, port: int, seconds: float) -> None:
    """Wait until something listens there."""
    begin, said = time.monotonic(), False
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            waited = time.monotonic() - begin
            if waited > seconds:
                raise _unreachable(host, port, error.strerror or str(error)) from None
            if waited > _SAY_AFTER_SECONDS and not said:
                said = True
                logging.getLogger("lambert").warning(f"waiting for rank 0 at MASTER_ADDR={host}, MASTER_PORT={port}")
        time.sleep(0.5)


def _unreachable(host: str, port: int, why: str) -> LaunchError:
    return LaunchError(
        f"no rendezvous with the other processes at MASTER_ADDR={host}, MASTER_PORT={port} ({why})",
        remedy="Check that both variables name rank 0's machine and a free port, and that all processes were started",
    )
