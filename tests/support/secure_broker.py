"""A broker as companies run it: SASL over TLS, client certificates, ACLs for every right."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
)

from adaptd.daemon.demo.broker import KafkaNode
from adaptd.daemon.wire.kafka import KafkaSecurity, Mechanism
from adaptd.daemon.wire.kafka_clients import connect
from tests.support.broker import JARS, Broker

USERS = {"admin": "admin-pass", "adaptd": "adaptd-pass", "gateway": "gateway-pass"}
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
_LISTENER = "listener.name.sasl_ssl"
_PROPERTIES = """
listeners=SASL_SSL://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}}
advertised.listeners=SASL_SSL://127.0.0.1:{{port}}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
inter.broker.listener.name=SASL_SSL
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
{listener}.plain.sasl.jaas.config={plain} required username="admin" password="{admin}" {users};
{listener}.scram-sha-256.sasl.jaas.config={scram} required;
{listener}.scram-sha-512.sasl.jaas.config={scram} required;
ssl.keystore.type=PEM
ssl.keystore.location={certificates}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={certificates}/ca.pem
ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:admin;User:ANONYMOUS
"""


class SecureBroker(Broker):
    """`admin` may do everything, everybody else what `allow` says. Passwords are in files."""

    def __init__(self, folder: Path) -> None:
        self._certificates = folder / "certificates"
        make_certificates(self._certificates)
        for user, password in USERS.items():
            (self._certificates / user).write_text(f"{password}\n")
        properties = _PROPERTIES.format(
            certificates=self._certificates,
            listener=_LISTENER,
            plain=_PLAIN,
            scram=_SCRAM,
            admin=USERS["admin"],
            users=" ".join(f'user_{name}="{password}"' for name, password in USERS.items()),
        )
        scram = [
            option
            for user, password in USERS.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for option in ("--add-scram", f"{mechanism}=[name={user},password={password}]")
        ]
        node = KafkaNode(folder / "data", jars=JARS, properties=properties, format_options=scram)
        super().__init__(folder, node, self.security("admin").client_options())

    def security(self, user: str, mechanism: Mechanism = "SCRAM-SHA-512") -> KafkaSecurity:
        return KafkaSecurity(
            protocol="SASL_SSL",
            mechanism=mechanism,
            username=user,
            password_path=self._certificates / user,
            ca_path=self._certificates / "ca.pem",
            certificate_path=self._certificates / "client.pem",
        )

    def allow(self, user: str, kind: ResourceType, name: str, *rights: str) -> None:
        """Give a user rights on one topic or group, e.g. "READ"."""
        acls = [
            ACL(
                principal=f"User:{user}",
                host="*",
                operation=ACLOperation[right],
                permission_type=ACLPermissionType.ALLOW,
                resource_pattern=ResourcePattern(kind, name),
            )
            for right in rights
        ]
        admin = connect(KafkaAdminClient, bootstrap_servers=self.bootstrap, **self.client)
        try:
            admin.create_acls(acls)
        finally:
            admin.close()


def make_certificates(folder: Path) -> None:
    """An authority, and what it signed for 127.0.0.1 and for a client."""
    folder.mkdir(parents=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("test authority", ca_key, ca_key, None)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(name, key, ca_key, ca)
        (folder / f"{name}.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    signing_key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(address, critical=False)
    )
    return builder.sign(signing_key, hashes.SHA256())
