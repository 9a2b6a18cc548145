"""Signing in to an OpenStack cloud, as openstacksdk does."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from cellmove.errors import CellmoveError, Refused, Unreachable
from cellmove.services.account import Account, region_of
from cellmove.services.service import Absent, HttpService, Service, causes, line, sign_in_failed

if TYPE_CHECKING:
    from keystoneauth1.plugin import BaseAuthPlugin
    from openstack.config.cloud_region import CloudRegion

__all__ = ["Identity", "Service", "Session", "begin_sign_in", "sign_in"]

T = TypeVar("T")

ANSWER_SECONDS = 60.0
"""How long a service may take to answer, unless `api_timeout` of clouds.yaml says otherwise."""
VERSION_PATHS = {"identity": "/v3", "image": "/v2", "network": "/v2.0"}
"""Service type -> path of its only version, with which catalogs name it or not."""

for _name in ("keystoneauth", "openstack"):  # what they would warn of, our errors say
    logging.getLogger(_name).addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are to the cloud: written to the records that name an actor, judged by policies."""

    user_id: str
    project_id: str
    """Empty: the token is for a domain or the whole system."""
    roles: frozenset[str]
    user_domain_id: str | None = None
    project_domain_id: str | None = None
    domain_id: str | None = None
    """Of a token for a domain."""
    system_scope: str | None = None
    """`all`: of a token for the whole system."""

    @classmethod
    def of(cls, access: Any) -> Identity:
        """What Keystone says of a token: a `keystoneauth1.access.AccessInfo`."""
        return cls(
            user_id=access.user_id,
            project_id=access.project_id or "",
            roles=frozenset(access.role_names),
            user_domain_id=access.user_domain_id,
            project_domain_id=access.project_domain_id,
            domain_id=access.domain_id,
            system_scope="all" if access.system_scoped else None,
        )

    @property
    def credentials(self) -> dict[str, Any]:
        """What oslo.policy judges: oslo.context 5, context.py:RequestContext.to_policy_values."""
        return {
            "user_id": self.user_id,
            "user_domain_id": self.user_domain_id,
            "project_id": self.project_id or None,
            "project_domain_id": self.project_domain_id,
            "domain_id": self.domain_id,
            "system_scope": self.system_scope,
            "roles": sorted(self.roles),
        }


class Session:
    """Signed in to one cloud, for one command: every call bears the same request id."""

    def __init__(self, region: CloudRegion, who: Identity) -> None:
        self.who = who
        self._region = region

    def optional(self, kind: str, microversion: str | None = None) -> Service:
        """Like `service`; one that the catalog does not have says so when it is called."""
        try:
            return self.service(kind, microversion)
        except Unreachable as error:
            return Absent(error)

    def service(self, kind: str, microversion: str | None = None) -> Service:
        """The service of this type (`network`, `placement`...) where the catalog has it.

        `microversion` is the one that every call asks for.

        Raises:
            Unreachable: the catalog does not have it.
        """
        from keystoneauth1.adapter import Adapter

        region = self._region
        adapter = Adapter(
            region.get_session(),
            service_type=region.get_service_type(kind),
            service_name=region.get_service_name(kind),
            interface=region.get_interface(kind),
            region_name=region.get_region_name(kind),
            endpoint_override=region.get_endpoint(kind),
            default_microversion=microversion,
        )
        endpoint = _signing_in(adapter.get_endpoint) or ""
        version = VERSION_PATHS.get(kind, "")
        adapter.endpoint_override = endpoint.rstrip("/").removesuffix(version) + version
        return HttpService(kind, adapter, float(region.config["api_timeout"]))


def sign_in(cloud: str | None, request_id: str, service_cloud: str | None = None) -> Session:
    """Sign in as openstacksdk does: clouds.yaml and OS_* variables.

    Args:
        cloud: name in clouds.yaml; None: what OS_CLOUD or the OS_* variables say.
        request_id: `req-<uuid>`, the global request id in every service's log.
        service_cloud: another name in clouds.yaml, whose token goes along as X-Service-Token:
            Cinder lets an attachment in use be deleted only with one (CVE-2023-2088).

    Raises:
        Refused: no such cloud, or it does not take our password.
        Unreachable: Keystone does not answer.
    """
    return begin_sign_in(cloud, request_id, service_cloud)()


def begin_sign_in(
    cloud: str | None, request_id: str, service_cloud: str | None = None
) -> Callable[[], Session]:
    """Like `sign_in`, but answers at once: what it answers waits for Keystone, and raises.

    Keystone takes a third of a second for each password; both are asked at the same time.
    """

    def attempt() -> Callable[[], Session]:
        user = _configured(lambda: _account(cloud))
        region = user.region
        session = _configured(region.get_session)
        session.additional_headers["X-Openstack-Request-Id"] = request_id
        service = _configured(lambda: _account(service_cloud)) if service_cloud else None
        access = _begun(lambda: user.access(session))
        second = _begun(lambda: service.access(session)) if service else None

        def signed_in() -> Session:
            who = Identity.of(access())
            user.keep()
            if service and second:
                second()
                service.keep()  # not beside the user's: a keyring may be one file
                session.auth = _with_service_token(user.auth, service.auth)
            return Session(region, who)

        return signed_in

    try:
        begun = _signing_in(attempt)
    except CellmoveError as error:
        failed = error  # told when the session is wanted

        def fail() -> Session:
            raise failed

        return fail
    return lambda: _signing_in(begun)


def _begun(work: Callable[[], T]) -> Callable[[], T]:
    """Begin this in a thread; what is answered waits for it, and raises what it raised."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - whoever waits raises it
            future.set_exception(error)

    # Not an executor's: the interpreter's end would wait for those.
    threading.Thread(target=run, name="sign-in", daemon=True).start()
    return future.result


def _configured(work: Callable[[], T]) -> T:
    """Do what only reads the configuration: openstacksdk believes whatever stands in it.

    Raises:
        Refused: it stumbled. What it says then may quote the file, and so a password.
    """
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        return work()
    except (AttributeError, LookupError, OSError, TypeError, ValueError, YAMLError) as error:
        raise Refused(
            "The cloud to sign in to is not configured.",
            f"openstacksdk cannot make sense of clouds.yaml or OS_*: {type(error).__name__}.",
            "Mend it; `openstack token issue` fails as well until then.",
        ) from None


def _account(cloud: str | None) -> Account:
    """Read the configuration only: nothing is sent.

    Raises:
        Refused: nobody would know who that is.
    """
    with _WithoutConnection():
        from openstack.config import OpenStackConfig

    region = region_of(OpenStackConfig(app_name="cellmove"), cloud)
    if region.config.get("api_timeout") is None:
        region.config["api_timeout"] = ANSWER_SECONDS
    account = Account(region)
    if not account.says_who:
        raise Refused(
            "This way of signing in cannot be used.",
            f"auth_type is {region.config.get('auth_type')!r}: it does not say who we are.",
            "Sign in to Keystone: with a password, an application credential, a token...",
        )
    return account


class _WithoutConnection:
    """While `openstack` is imported, an empty module in the place of `openstack.connection`.

    That one imports all services' classes, 440 modules: longer than the rest of a sign-in, and
    nothing of it is used here. Whoever imports it later gets the real one. What counts its calls
    for others is as if it were not installed.
    """

    NAME = "openstack.connection"
    OPTIONAL = ("prometheus_client", "statsd")
    """openstack/config/cloud_region.py does without them."""

    def find_spec(self, name: str, _path: object, _target: object = None) -> ModuleSpec | None:
        if name in self.OPTIONAL:
            raise ModuleNotFoundError(f"{name} is not wanted here", name=name)
        return ModuleSpec(name, self) if name == self.NAME else None  # type: ignore[arg-type]

    def create_module(self, _spec: ModuleSpec) -> None:
        """The usual kind."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["Connection"] = None  # named in annotations

    def __enter__(self) -> None:
        if "openstack" not in sys.modules:
            sys.meta_path.insert(0, self)

    def __exit__(self, *_: object) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            sys.modules.pop(self.NAME, None)


def _with_service_token(user: BaseAuthPlugin, service: BaseAuthPlugin) -> BaseAuthPlugin:
    from keystoneauth1.service_token import ServiceTokenAuthWrapper

    return ServiceTokenAuthWrapper(user_auth=user, service_auth=service)


def _signing_in(attempt: Callable[[], T]) -> T:
    """Run what may read clouds.yaml or ask Keystone; its failures as cellmove's errors."""
    from keystoneauth1 import exceptions as ks

    with _WithoutConnection():
        from openstack.exceptions import SDKException

    try:
        return attempt()
    except ks.CatalogException as error:
        raise Unreachable(
            "The cloud's catalog does not have a service that we need.",
            f"{line(error)}.",
            "Check region_name and interface of the cloud in clouds.yaml.",
        ) from error
    except ks.ClientException as error:
        away = (ks.ConnectionError, ks.HttpServerError, ks.InvalidResponse)
        if not any(isinstance(cause, away) for cause in causes(error)):
            raise Refused(*sign_in_failed(error)) from error
        raise Unreachable(
            "Keystone cannot be reached.",
            f"{line(error)}.",
            "Check auth_url in clouds.yaml and the way to it from this machine.",
        ) from error
    except SDKException as error:
        raise Refused(
            "The cloud to sign in to is not configured.",
            f"{line(error)}.",
            "Name a cloud of clouds.yaml, or set the OS_* variables.",
        ) from error
