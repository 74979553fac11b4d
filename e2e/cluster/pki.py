"""The certificates and kubeconfigs of one cluster, made anew for each: nothing of it outlives the state folder."""

import base64
import datetime as dt
import ipaddress
import json
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from e2e.cluster.layout import Layout

# Longer than a test run takes, shorter than a forgotten key is worth something.
LIFETIME = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Identity:
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        return _key_pem(self.key)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def write_pki(layout: Layout) -> None:
    """Writes every key, certificate and kubeconfig that the programs of this cluster are started with."""
    layout.pki.mkdir(parents=True, mode=0o700)
    layout.kubeconfig_of("x").parent.mkdir(mode=0o700)
    authority = _authority("spillway-e2e")
    front_proxy = _authority("spillway-e2e-front-proxy")
    _write(layout, "ca", authority)
    _write(layout, "front-proxy-ca", front_proxy)

    network = layout.network
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    addresses = ["127.0.0.1", network.kubernetes_service, layout.first_node.address]
    _write(layout, "apiserver", _issue(authority, "kube-apiserver", names=names, addresses=addresses))
    _write(layout, "apiserver-kubelet-client", _issue(authority, "kube-apiserver-kubelet-client", group="system:masters"))
    _write(layout, "front-proxy-client", _issue(front_proxy, "front-proxy-client"))
    clients = {name: _issue(authority, f"system:{name}") for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy")}
    for node in (layout.first_node, layout.second_node):
        addresses = [node.address, "127.0.0.1"]
        kubelet = _issue(authority, f"system:node:{node.name}", group="system:nodes", names=[node.name], addresses=addresses)
        _write(layout, f"kubelet-{node.name}", kubelet)
        clients[f"kubelet-{node.name}"] = kubelet

    signer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (layout.pki / "service-accounts.key").write_bytes(_key_pem(signer))
    public = signer.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (layout.pki / "service-accounts.pub").write_bytes(public)

    for component, identity in clients.items():
        layout.kubeconfig_of(component).write_text(_kubeconfig(layout, authority, identity))
    admin = _issue(authority, "e2e-admin", group="system:masters")
    _write(layout, "admin", admin)
    layout.kubeconfig.write_text(_kubeconfig(layout, authority, admin))
    layout.kubeconfig.chmod(0o600)


def _authority(name: str) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    subject = _name(name)
    builder = (
        _builder(subject, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    return Identity(key, builder.sign(key, hashes.SHA256()))


def _issue(
    authority: Identity, name: str, *, group: str | None = None, names: list[str] | None = None, addresses: list[str] | None = None
) -> Identity:
    """A certificate for clients, and for servers where it has names or addresses. The group is its organisation."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(name, group), authority.certificate.subject, key).add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
    )
    alternatives: list[x509.GeneralName] = [x509.DNSName(one) for one in names or []]
    alternatives += [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses or []]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return Identity(key, builder.sign(authority.key, hashes.SHA256()))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def _name(name: str, group: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _write(layout: Layout, name: str, identity: Identity) -> None:
    (layout.pki / f"{name}.key").write_bytes(identity.key_pem)
    (layout.pki / f"{name}.crt").write_bytes(identity.certificate_pem)


def _kubeconfig(layout: Layout, authority: Identity, identity: Identity) -> str:
    def encoded(pem: bytes) -> str:
        return base64.b64encode(pem).decode()

    name = "spillway-e2e"
    cluster = {"server": layout.api_url, "certificate-authority-data": encoded(authority.certificate_pem)}
    user = {"client-certificate-data": encoded(identity.certificate_pem), "client-key-data": encoded(identity.key_pem)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    return json.dumps(document, indent=1)  # JSON is YAML
