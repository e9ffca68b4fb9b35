"""The addresses under which other machines may reach this one."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from pathlib import Path

from lambert.training.distributed import env

_LOCAL_IPV4 = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")
"""An address of this machine in Linux's /proc/net/fib_trie."""


def public_addresses() -> tuple[str, ...]:
    """Addresses of this machine, and of MASTER_ADDR if it is set, that are not private; nothing is sent."""
    return tuple(sorted({address for address in (*_own(), env.master_host()) if _is_public(address)}))


def _own() -> Iterable[str]:
    try:
        ipv4 = _LOCAL_IPV4.findall(Path("/proc/net/fib_trie").read_text())
        ipv6 = [line.split()[0] for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    except OSError:  # not Linux
        return _resolved(socket.gethostname())
    return [*ipv4, *(str(ipaddress.IPv6Address(int(digits, 16))) for digits in ipv6)]


def _resolved(name: str) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(name, None)]
    except OSError:
        return []


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:  # a name
        return False
