"""Connections to Kafka brokers, as kafka-python makes them but for what it leaves open.

kafka-python 3.0.12 tries again until the time is over and then says that it could not connect,
whether nobody listened, the password was wrong or the certificate not trusted. It forgets to close
the sockets of all these attempts, waits without end for a TLS handshake nobody answers, writes
passwords to its debug log, and reads sockets in pieces of 4 KiB, half the cost of large records.
`docs/kafka.md` lists what was met, and this file is the cure.
"""

from __future__ import annotations

import logging
import ssl
from typing import Any

from kafka.errors import (
    KafkaConfigurationError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket, create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

_SHOWING_REQUESTS = ("kafka.net.connection", "kafka.protocol.parser")
"""Loggers that write whole requests to the debug log; a login with PLAIN holds the password."""

_RECEIVED_BYTES = 256 * 2**10
"""Bytes asked of a socket at once, more than a kernel holds for one by default on the loopback."""


def make_client(**configs: Any) -> KafkaNetClient:
    """Make what producers, consumers and admin clients send their requests through."""
    if configs.get("sasl_mechanism"):
        for name in _SHOWING_REQUESTS:
            logging.getLogger(name).addFilter(_is_no_debugging)
    net = NetworkSelector(**configs)
    ours = {
        # The way to have kafka-python use a socket class of ours is to call it a proxy.
        "proxy_url": f"{_ClosedSocket.SCHEMES[0]}://",
        "socket_connection_setup_timeout_ms": configs["request_timeout_ms"],
        "socket_connection_setup_timeout_max_ms": configs["request_timeout_ms"],
    }
    connections = _Connections(net, **configs | ours)
    client = _Client(net, connections, **configs)
    # A mistyped topic must be an error. kafka-python has allow_auto_create_topics for this but does
    # not hand it on to the place that asks the broker.
    client.cluster.config["allow_auto_create_topics"] = False
    return client


def error_text(error: BaseException) -> str:
    """Return what an error of kafka-python says, without the names of its classes."""
    told = error.args[0] if error.args and isinstance(error.args[0], str) else ""
    return told.removeprefix(f"{type(error).__name__}: ") or str(error)


class _Client(KafkaNetClient):  # type: ignore[misc]
    """A client that closes its sockets when it is closed.

    A transport that has bytes to send waits with closing until they are sent; once the client is
    closed nobody sends them any more.
    """

    def close(self, node_id: Any = None) -> None:
        """Close the connection to a node, or with None everything."""
        super().close(node_id)
        if node_id is None:
            self._manager.close_sockets()


class _Connections(KafkaConnectionManager):  # type: ignore[misc]
    """Connections that say why they could not be made, and then leave nothing behind."""

    def __init__(self, net: Any, **configs: Any) -> None:
        super().__init__(net, **configs)
        self._last_failure = ""
        self._refusal: KafkaError | None = None
        self._transports: list[Any] = []

    def close_sockets(self) -> None:
        """Close every socket that is still open."""
        for transport in self._transports:
            if transport._sock is not None:
                transport._sock.close()
        self._transports = []

    def _remember(self, transport: Any) -> None:
        """Keep a transport until its socket is closed: one that is forgotten stays open."""
        self._transports = [one for one in self._transports if one._sock is not None]
        self._transports.append(transport)

    def maybe_raise_auth_failure(self, node_id: Any) -> None:
        """Give up on the first contact when waiting would not help.

        Later a refusal is not final: a broker may come up before the users it knows.
        """
        if self._refusal is not None and not self.bootstrapped:
            raise self._refusal
        super().maybe_raise_auth_failure(node_id)

    async def _connect(self, node: Any, conn: Any, **options: Any) -> None:
        await super()._connect(node, conn, **options)
        failure = conn.init_future.exception if conn.init_future.failed() else None
        self._last_failure = f"{node.host}:{node.port}: {error_text(failure)}" if failure else ""
        self._refusal = None if failure is None else _refusal(failure, self._last_failure)

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        sock = await create_connection(
            self._net,
            node.host,
            node.port,
            self.config["socket_options"],
            proxy_url=self.config["proxy_url"],
            timeout_at=timeout_at,
        )
        if self.ssl_enabled:
            return await self._build_tls_transport(node, sock)
        transport = _PlainTransport(self._net, sock, host=node.host)
        self._remember(transport)
        return transport

    async def _build_tls_transport(self, node: Any, sock: Any) -> Any:
        options = {name: value for name, value in self.config.items() if name.startswith("ssl_")}
        transport = KafkaSSLTransport(self._net, sock, host=node.host, **options)
        self._remember(transport)
        try:
            limit_ms = self.config["socket_connection_setup_timeout_ms"]
            await self.wait_for(self.call_soon(transport.handshake), limit_ms)
        except (OSError, KafkaError) as error:
            transport.close()
            raise KafkaConnectionError(f"TLS handshake failed: {error_text(error)}") from error
        return transport

    async def _do_bootstrap(self, deadline: float | None) -> Any:
        try:
            return await super()._do_bootstrap(deadline)
        except KafkaTimeoutError as error:
            raise KafkaTimeoutError(f"no broker answers; {self._last_failure}") from error


class _PlainTransport(KafkaTCPTransport):  # type: ignore[misc]
    """Takes what has arrived in large pieces; kafka-python asks for 4 KiB at a time.

    A fetch is megabytes: a thousand system calls, and as many objects to join, become a handful.
    """

    def _sock_recv(self) -> tuple[bytes, KafkaConnectionError | None]:
        received = []
        failure = None
        try:
            while True:
                piece = self._sock.recv(_RECEIVED_BYTES)
                if not piece:
                    failure = KafkaConnectionError("socket disconnected")
                    break
                received.append(piece)
                if len(piece) < _RECEIVED_BYTES:
                    break  # the socket is empty
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            failure = KafkaConnectionError(error)
        return b"".join(received), failure


class _ClosedSocket(KafkaNetSocket):  # type: ignore[misc]
    """Connects directly, and closes the socket when that fails."""

    SCHEMES = ("headrace-direct",)

    async def sock_connect(self, net: Any, sock: Any, sockaddr: Any, timeout_at: Any = None) -> Any:
        """Connect a socket; raises as the class above does."""
        try:
            return await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise


def _refusal(failure: BaseException, text: str) -> KafkaConfigurationError | None:
    """Return what to raise when trying again with the same settings would end the same way."""
    if isinstance(failure, SaslAuthenticationFailedError | UnsupportedSaslMechanismError):
        return KafkaConfigurationError(f"login refused by {text}")
    for cause in (failure.__cause__, *failure.args):
        # A broker that dies in the middle of a handshake looks as if the connection just ended.
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return KafkaConfigurationError(f"no TLS with {text}")
    return None


def _is_no_debugging(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
