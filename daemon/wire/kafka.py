"""TLS and SASL settings, the same for every Kafka client of adaptd."""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from adaptd.daemon.wire.errors import SettingsError
from adaptd.daemon.wire.files import open_regular, read_regular

PASSWORD_VARIABLE = "ADAPTD_KAFKA_PASSWORD"  # noqa: S105 - its name, not the password

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class KafkaSecurity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths of the secrets, never the secrets: safe in a file, a log or a status page.

    The password comes from `password_path`, else from ADAPTD_KAFKA_PASSWORD. Each connection reads
    it again, so that a new one needs no restart. `ca_path` None: the system's authorities.
    """

    protocol: SecurityProtocol = "PLAINTEXT"
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str | None = None
    password_path: Path | None = None
    ca_path: Path | None = None
    certificate_path: Path | None = None  # the client's own, where the broker asks for one
    key_path: Path | None = None  # None: the key is in the certificate's file

    def client_options(self, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return arguments for clients of aiokafka and kafka-python. They hold the password.

        Raises:
            SettingsError: a setting is missing, or a file cannot be read.
        """
        if self.protocol == "PLAINTEXT":
            return {}
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol in ("SSL", "SASL_SSL"):
            options["ssl_context"] = self._make_ssl_context()
        if self.protocol.startswith("SASL_"):
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self._require_username()
            options["sasl_plain_password"] = self._read_password(environment)
        return options

    def _require_username(self) -> str:
        if not self.username:
            raise SettingsError(
                "kafka_username", f"{self.protocol} needs one", "Set ADAPTD_KAFKA_USERNAME"
            )
        return self.username

    def _read_password(self, environment: Mapping[str, str] | None) -> str:
        remedy = f"Set ADAPTD_KAFKA_PASSWORD_PATH to a file with it, or {PASSWORD_VARIABLE}"
        if self.password_path is None:
            found = (os.environ if environment is None else environment).get(PASSWORD_VARIABLE)
        else:
            try:
                found = read_regular(self.password_path).decode().rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                problem = f"the password cannot be read ({type(error).__name__})"
                raise SettingsError(str(self.password_path), problem, remedy) from error
        if not found:
            raise SettingsError("kafka_password", f"{self.protocol} needs one", remedy)
        return found

    def _make_ssl_context(self) -> ssl.SSLContext:
        # The broker's certificate and name are always checked: no setting turns that off.
        remedy = "Give PEM files: ADAPTD_KAFKA_CA_PATH, _CERTIFICATE_PATH, _KEY_PATH"
        try:
            for path in filter(None, (self.ca_path, self.certificate_path, self.key_path)):
                open_regular(path).close()  # OpenSSL would wait at a pipe for ever
            context = ssl.create_default_context(cafile=self.ca_path)
            if self.certificate_path is not None:
                context.load_cert_chain(
                    self.certificate_path, self.key_path, password=_refuse_passphrase
                )
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise SettingsError(
                "kafka TLS", f"the certificates cannot be used ({error})", remedy
            ) from error
        return context


def _refuse_passphrase() -> bytes:
    # An encrypted key would make OpenSSL ask on the terminal.
    raise ValueError("the key is encrypted: give one without a passphrase, readable only by adaptd")
