"""TLS contexts from files that may be renewed at any time, and sentences for TLS errors."""

import ssl
from pathlib import Path

from oneweb_bridge.files import refusal_of

MIN_VERSION = ssl.TLSVersion.TLSv1_2


class BadFile(OSError):
    """A file for TLS that cannot be used: one sentence that names its key, the file, and why."""


class TrustedCas:
    """A TLS context for the system's CAs or `ca_file`, built anew when the file changes.

    `key` is the name of the file's key in the configuration.
    """

    def __init__(self, key: str, ca_file: str | None) -> None:
        self._key = key
        self._file = ca_file
        self._loaded_version: tuple[int, ...] | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The context to connect with. Raises BadFile."""
        version = self._file_version()
        if self._context is None or version != self._loaded_version:
            self._context = client_context(self._key.removesuffix(".ca_file"), self._file)
            self._context.set_alpn_protocols(["http/1.1"])
            self._loaded_version = version
        return self._context

    def _file_version(self) -> tuple[int, ...] | None:
        if self._file is None:
            return None
        try:
            status = Path(self._file).stat()
        except (OSError, ValueError) as error:
            raise BadFile(f"{self._key}: {self._file} cannot be read: {refusal_of(error)}") from None
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


def client_context(
    section: str,
    ca_file: str | None,
    cert_file: str | None = None,
    key_file: str | None = None,
    *,
    insecure: bool = False,
) -> ssl.SSLContext:
    """A new context, from the files as they are now. `section` holds their keys. Raises BadFile."""
    for name, file in (("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)):
        _check_readable(f"{section}.{name}", file)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise BadFile(f"{section}.ca_file: {ca_file} has no certificate in PEM form") from None
    context.minimum_version = MIN_VERSION
    if cert_file:
        _load_client_certificate(context, section, cert_file, key_file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _check_readable(key: str, file: str | None) -> None:
    try:
        if file:
            Path(file).open("rb").close()
    except (OSError, ValueError) as error:
        raise BadFile(f"{key}: {file} cannot be read: {refusal_of(error)}") from None


def _load_client_certificate(context: ssl.SSLContext, section: str, cert_file: str, key_file: str | None) -> None:
    try:
        # Without a password OpenSSL would ask for one at the terminal, and wait.
        context.load_cert_chain(cert_file, key_file, password="")
    except ssl.SSLError as error:
        subject = f"{section}.cert_file: {cert_file}"
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadFile(f"{subject} does not belong to the key in {key_file or 'it'}") from None
        raise BadFile(
            f"{subject} and {key_file or 'itself'}: expected a certificate and its key, in PEM form, without a password"
        ) from None


_VERIFY_ERRORS = {
    9: "its certificate is not valid yet, or the clock of this host is wrong",
    10: "its certificate has expired",
    18: "its certificate is signed by nobody but itself; name it or its CA in ca_file",
    19: "its certificate comes from a CA that is not known here; name that CA in ca_file",
    20: "its certificate comes from a CA that is not known here; name that CA in ca_file",
    21: "its certificate comes from a CA that is not known here; name that CA in ca_file",
    62: "its certificate is for another name",
    64: "its certificate is for another address",
}
"""X509_V_ERR_… -> what it means. Source: OpenSSL, x509_vfy.h."""
_REFUSALS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a client certificate; name one in cert_file",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refused the handshake; it may ask for a client certificate (cert_file)",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the CA of the client certificate (cert_file)",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that the client certificate (cert_file) has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it says that the client certificate (cert_file) is revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refuses the client certificate (cert_file)",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it refuses the client certificate (cert_file): not one for clients",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses the client certificate (cert_file)",
    "TLSV1_ALERT_ACCESS_DENIED": "it refuses the client certificate (cert_file)",
    "TLSV1_ALERT_DECRYPT_ERROR": "it refuses the client certificate (cert_file)",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no TLS that both sides accept; 1.2 is the oldest",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS that both sides accept; 1.2 is the oldest",
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port",
    "RECORD_LAYER_FAILURE": "it does not speak TLS on this port",
    "HTTP_REQUEST": "it does not speak TLS on this port",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection during the handshake; is TLS spoken on this port?",
}
"""Reasons of OpenSSL, alerts of the other side among them -> what they mean."""


def describe_tls_error(error: BaseException | None) -> str | None:
    """Why TLS failed, of the other side or a file here; None when something else did."""
    if isinstance(error, BadFile):
        return str(error)
    # aiohttp's errors are TLS errors by name only: what happened is in their os_error.
    while error is not None and (hasattr(error, "os_error") or not isinstance(error, ssl.SSLError)):
        error = getattr(error, "os_error", None) or error.__cause__ or error.__context__
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_ERRORS.get(error.verify_code, f"its certificate is not accepted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return _REFUSALS.get(error.reason or "", f"TLS failed: {error.reason or 'for no stated reason'}")
    return None
