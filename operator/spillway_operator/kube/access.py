"""Where the API server is, and how we show who we are.

`kubernetes` reads the kubeconfig or the service account of the pod, with everything that goes with it (contexts, exec plug-ins,
client certificates, tokens that are renewed). What it found is turned into plain aiohttp sessions, so that every request of ours,
kopf's included, is one that we can see and give a deadline.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration

USER_AGENT = "spillway-operator"

Handler = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]
Middleware = Callable[[aiohttp.ClientRequest, Handler], Awaitable[aiohttp.ClientResponse]]


class AccessError(Exception):
    """There is no kubeconfig and no service account, or they cannot be used."""


class KubeAccess:
    """Credentials for one API server. Sessions may be opened on any event loop."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._tls = _tls(configuration)

    @classmethod
    async def load(cls, kubeconfig: Path | None = None, context: str | None = None) -> KubeAccess:
        """From the file, else the pod's service account, else where kubectl looks. Raises `AccessError`."""
        configuration = Configuration()
        try:
            if kubeconfig is None and context is None:
                try:
                    kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
                    return cls(configuration)
                except kube_config.ConfigException:
                    pass
            await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=None if kubeconfig is None else str(kubeconfig),
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
        except (kube_config.ConfigException, OSError, ValueError) as error:
            where = kubeconfig or "no --kubeconfig, no service account in this pod, no kubeconfig of kubectl"
            raise AccessError(f"{where}: {error}") from error
        return cls(configuration)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._configuration.host).rstrip("/")

    async def authorization(self) -> str | None:
        """The Authorization header, renewed where it runs out; None where a client certificate speaks for us."""
        token = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            return str(token)
        if self._configuration.username:
            return str(self._configuration.get_basic_auth_token())
        return None

    def session(self, middlewares: Sequence[Middleware] = ()) -> aiohttp.ClientSession:
        """A session on the running loop. `middlewares` see each request before it is authorised."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls if self._tls is not None else True),
            middlewares=(*middlewares, self._authorise),
            headers={"User-Agent": USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            proxy=self._configuration.proxy or None,
        )

    async def _authorise(self, request: aiohttp.ClientRequest, handler: Handler) -> aiohttp.ClientResponse:
        header = await self.authorization()
        if header is not None:
            request.headers["Authorization"] = header
        return await handler(request)

    def info(self) -> dict[str, Any]:
        """Where it goes; never how."""
        return {"server": self.server, "tls": self._tls is not None}


def _tls(configuration: Configuration) -> ssl.SSLContext | None:
    if not str(configuration.host).startswith("https://"):
        return None
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    # Clusters' own authorities often lack what RFC 5280 asks of a certificate; kubectl does not mind either.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
