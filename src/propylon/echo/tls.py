"""TLS in front of the echo server: any server name gets a certificate, signed by nobody but itself."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from propylon.echo.answer import EchoIdentity, TlsInfo
from propylon.echo.channel import Channel, Speaker

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


@functools.cache
def _key() -> EllipticCurvePrivateKey:
    # Imported where it is needed: most echo servers never see TLS, and it is half of their start-up time.
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    return ec.generate_private_key(ec.SECP256R1())


def self_signed(server_name: str) -> bytes:
    """Certificate and key as PEM for a server name; for none, for `localhost`. Raises ValueError if it is no DNS
    name.
    """
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "propylon echo")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(_key().public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name or "localhost")]), critical=False)
        .sign(_key(), hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + _key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@functools.lru_cache(maxsize=256)
def server_context(server_name: str) -> ssl.SSLContext:
    """A server's context with a certificate for the name, which changes to another context if the client names
    another.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # The ssl module reads certificates from files only.
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "echo.pem"
        file.touch(mode=0o600)
        file.write_bytes(self_signed(server_name))
        context.load_cert_chain(file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = _choose
    return context


def _choose(connection: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
    if not server_name:
        return
    connection.server_name = server_name  # type: ignore[attr-defined]
    try:
        connection.context = server_context(server_name)
    except ValueError:  # not a name a certificate can have: the one we have must do
        return


class TlsLayer:
    """TLS on a channel, and a channel for what is spoken within. Handshakes by itself."""

    def __init__(self, below: Channel, choose: Callable[[Channel, str], Speaker]) -> None:
        """`choose` gives the protocol to speak, from the channel and the negotiated ALPN protocol ("" if none)."""
        self._below = below
        self._choose = choose
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = server_context("").wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._speaker: Speaker | None = None
        self._closed = False
        self.identity: EchoIdentity = below.identity
        self.client = below.client
        self.tls: TlsInfo | None = None

    def data_received(self, data: bytes) -> None:
        """Decrypt and pass on. Bytes that are no TLS end the connection."""
        if self._closed:
            return
        self._incoming.write(data)
        try:
            if self._speaker is None:
                self._tls.do_handshake()
                self._speaker = self._begin()
            while not self._closed:
                plain = self._tls.read(1 << 16)
                if not plain:
                    self._speaker.eof_received()
                    break
                self._speaker.data_received(plain)
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLZeroReturnError:
            if self._speaker is not None:
                self._speaker.eof_received()
        except ssl.SSLError:
            self._flush()  # the alert
            self._closed = True
            self._below.close()

    def eof_received(self) -> None:
        """The client is gone without a farewell."""
        self._incoming.write_eof()
        if self._speaker is not None:
            self._speaker.eof_received()
        else:
            self._below.close()

    def _begin(self) -> Speaker:
        self._flush()
        cipher = self._tls.cipher()
        alpn = self._tls.selected_alpn_protocol() or ""
        self.tls = TlsInfo(
            version=self._tls.version() or "",
            cipher=cipher[0] if cipher else "",
            server_name=getattr(self._tls, "server_name", "") or "",
            alpn=alpn,
        )
        return self._choose(self, alpn)

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._below.write(data)

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if self._closed or not data:
            return
        self._tls.write(data)
        self._flush()

    def close(self) -> None:
        """Say so, and close."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(ssl.SSLError):  # it would wait for the client's answer
            self._tls.unwrap()
        self._flush()
        self._below.close()

    def pause_reading(self) -> None:
        """See `Channel`."""
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """See `Channel`."""
        self._below.resume_reading()

    def call_later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """See `Channel`."""
        return self._below.call_later(seconds, call)
