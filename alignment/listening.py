"""Serves an ASGI application on a port of this machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any


def is_loopback(host: str) -> bool:
    """Whether a host name or address is reachable from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve_application(application: Any, host: str, port: int, ready: Callable[[int], None] | None = None) -> None:
    """Serve until the process is stopped.

    Args:
        application: the ASGI application.
        host: the address to listen on.
        port: the port. 0 selects any free port.
        ready: called with the port number as soon as the port is open.

    Raises:
        ValueError: the port is in use, or this machine does not have the address.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"cannot listen on {host}, port {port}: {error.strerror}; choose another one with --port"
            ) from None
        if ready is not None:
            ready(listening.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=5))
        server.run(sockets=[listening])
