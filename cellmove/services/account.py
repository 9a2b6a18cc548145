"""An account of the cloud: signed in for one command, or for an hour of them."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from keystoneauth1.access import AccessInfo
    from keystoneauth1.session import Session
    from openstack.config import OpenStackConfig
    from openstack.config.cloud_region import CloudRegion


class Account:
    """Who signs in by one name of clouds.yaml.

    With `cache: auth: true` there, and Python's keyring installed, openstacksdk has read the token
    of an earlier command. Another command's roles may have been taken away since, and we judge by
    them ourselves: so Keystone is asked what it says of that token now. A password is much more
    work for it.
    """

    def __init__(self, region: CloudRegion) -> None:
        """What raises here is a mistake in the configuration. Nothing is sent."""
        self.region = region
        self.auth = cast("Any", region.get_auth())
        self._kept = self.auth.get_auth_state() if self.says_who else None

    @property
    def says_who(self) -> bool:
        """Whether Keystone is asked who this is; by `none` and `admin_token` nobody is."""
        return hasattr(self.auth, "get_access")

    def access(self, session: Session) -> AccessInfo:
        """What Keystone says of the account: by its kept token if that is good, else anew."""
        from keystoneauth1.access import create

        if self._kept:
            answer = session.get(
                f"{self.auth.auth_url.rstrip('/').removesuffix('/v3')}/v3/auth/tokens",
                auth=self.auth,
                headers={"X-Subject-Token": self.auth.get_token(session)},
                allow_reauth=False,
                raise_exc=False,
            )
            if answer.ok:
                with suppress(ValueError):  # it makes no sense
                    return create(resp=answer)
            self.auth.invalidate()
        access: AccessInfo = self.auth.get_access(session)
        return access

    def keep(self) -> None:
        """Keep a new token where clouds.yaml says so; the next command signs in if that fails."""
        if self.auth.get_auth_state() != self._kept:
            with suppress(Exception):  # each of the keyring's backends has its own
                self.region.set_auth_cache()


def region_of(config: OpenStackConfig, cloud: str | None) -> CloudRegion:
    """A cloud of the configuration; without its token when that cannot be read."""
    with warnings.catch_warnings():  # openstacksdk 4.22 warns even of its own defaults (InfluxDB)
        warnings.simplefilter("ignore")
        try:
            return config.get_one(cloud=cloud)
        except Exception:
            if not config._cache_auth:  # noqa: SLF001 - it has no name for others
                raise
            # A locked keyring, one that another command is writing: no reason not to sign in.
            config._cache_auth = False  # noqa: SLF001
            return config.get_one(cloud=cloud)
