"""Who may move a server: nova's own rules, read from nova's own kind of policy file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import LazyLoader, find_spec, module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from cellmove.errors import Refused

if TYPE_CHECKING:
    from oslo_policy.policy import Enforcer

CROSS_CELL: Final = "compute:servers:resize:cross_cell"
"""Nobody may, by default: nova 26, policies/servers.py."""
RESIZE: Final = "os_compute_api:servers:resize"
MIGRATE: Final = "os_compute_api:os-migrate-server:migrate"
CONFIRM: Final = "os_compute_api:servers:confirm_resize"
REVERT: Final = "os_compute_api:servers:revert_resize"

ADMIN: Final = "rule:context_is_admin"
MEMBER_OR_ADMIN: Final = "rule:project_member_or_admin"
DEFAULTS: Final[Mapping[str, str]] = {
    "context_is_admin": "role:admin",
    "admin_or_owner": "is_admin:True or project_id:%(project_id)s",
    "admin_api": "is_admin:True",
    "project_member_api": "role:member and project_id:%(project_id)s",
    "project_reader_api": "role:reader and project_id:%(project_id)s",
    "project_member_or_admin": f"rule:project_member_api or {ADMIN}",
    "project_reader_or_admin": f"rule:project_reader_api or {ADMIN}",
    CROSS_CELL: "!",
    RESIZE: MEMBER_OR_ADMIN,
    MIGRATE: ADMIN,
    CONFIRM: MEMBER_OR_ADMIN,
    REVERT: MEMBER_OR_ADMIN,
}
"""Rule -> nova's default of it, and of those that a file may name: nova 26, policies/base.py."""
_HOW_TO_ALLOW: Final[Mapping[str, str]] = {CROSS_CELL: "rule:admin_api", MIGRATE: ADMIN}
"""Rule -> what to write for it; for others nova's default. Never more than administrators."""


class Policy(Protocol):
    """What somebody may do to a server."""

    def refusals(self, rule: str, project_id: str, user_id: str) -> Iterator[Refused]:
        """One when the rule does not allow it to a server of this project and user."""
        ...


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """oslo.policy over nova's defaults and a file that overrides them.

    A rule that nobody can read allows nobody.
    """

    credentials: Mapping[str, Any] = field(default_factory=dict)
    """Who asks, as nova makes it of a token: `services.session.Identity.credentials`."""
    file: str = ""
    """YAML or JSON, rule -> check; without one the defaults hold."""

    def refusals(self, rule: str, project_id: str, user_id: str) -> Iterator[Refused]:
        """One when the rule does not allow it to a server of this project and user.

        Raises:
            Refused: the file cannot be used.
        """
        enforcer = _enforcer(self.file)
        target = {"project_id": project_id, "user_id": user_id}
        # As nova's context does: whether somebody is an administrator is itself a rule.
        own = {key: self.credentials.get(key) for key in ("project_id", "user_id")}
        is_admin = enforcer.authorize("context_is_admin", own, self._credentials(is_admin=False))
        if not enforcer.authorize(rule, target, self._credentials(is_admin=bool(is_admin))):
            yield self._refused(rule, enforcer)

    def _credentials(self, *, is_admin: bool) -> dict[str, Any]:
        """A fresh one: oslo.policy writes into it."""
        return {"roles": [], **self.credentials, "is_admin": is_admin}

    def _refused(self, rule: str, enforcer: Enforcer) -> Refused:
        who = self.credentials
        roles = ", ".join(sorted(who.get("roles", ()))) or "no role"
        where = self.file if rule in enforcer.file_rules else "nova's default"
        seen = f"Rule {rule} is `{enforcer.rules[rule]}` ({where}); you are user "
        seen += f"{who.get('user_id')} with {roles} in "
        if who.get("project_id"):
            seen += f"project {who['project_id']}."
            wanted = f'"{rule}": "{_HOW_TO_ALLOW.get(rule, DEFAULTS[rule])}"'
            file = self.file or "a policy file, named as `file` in [policy]"
            do = f"To allow it to administrators, write {wanted} into {file}."
        else:
            seen += "no project."
            do = "Sign in to a project: nova takes no other tokens for this."
        return Refused("The policy does not allow you to do this to the server.", seen, do)


def prepare() -> None:
    """Import what judging by rules needs, while there is nothing to judge yet: it takes long."""
    _put_off("oslo_utils", "strutils")
    import oslo_policy.policy  # noqa: F401


def _put_off(package: str, name: str) -> None:
    """Load this module when something of it is used, for others may import it and use nothing.

    oslo.policy 6 uses `oslo_utils.strutils` only to write its debug log (policy.py), and that
    module compiles its patterns for as long as all else of oslo.policy takes.
    """
    full = f"{package}.{name}"
    if full in sys.modules:  # to ask for its spec would load it
        return
    spec = find_spec(full)  # which imports the package
    if spec is None or spec.loader is None:
        return
    spec.loader = LazyLoader(spec.loader)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[full] = module
    # Else `from package import name` would look the module up, and so use something of it.
    setattr(sys.modules[package], name, module)


@cache
def _enforcer(file: str) -> Enforcer:
    """Rules read once a process.

    Raises:
        Refused: the file cannot be used.
    """
    from oslo_config.cfg import ConfigOpts
    from oslo_policy import opts
    from oslo_policy.policy import Enforcer, RuleDefault

    if file and not Path(file).is_file():
        raise _unusable(file, "there is no such file")
    settings = ConfigOpts()
    # No project, no files: what is configured for other programs here is not meant for us.
    settings([], default_config_files=[], default_config_dirs=[])
    opts.set_defaults(settings, policy_file=file or None)
    settings.set_override("policy_dirs", [], group="oslo_policy")
    enforcer = Enforcer(settings, policy_file=file or None, use_conf=bool(file))
    scoped = {name: ["project"] for name in (CROSS_CELL, RESIZE, MIGRATE, CONFIRM, REVERT)}
    enforcer.register_defaults(
        [RuleDefault(name, check, scope_types=scoped.get(name)) for name, check in DEFAULTS.items()]
    )
    try:
        enforcer.load_rules(force_reload=bool(file))
    except (OSError, ValueError, AttributeError, TypeError) as error:  # no mapping, no texts
        raise _unusable(file, " ".join(str(error).split())[:200]) from None
    if not file:  # loading is what merges the defaults in, and without a file does nothing
        enforcer.rules.update(
            {name: each.check for name, each in enforcer.registered_rules.items()}
        )
    return enforcer


def _unusable(file: str, seen: str) -> Refused:
    return Refused(
        "The policy cannot be read.",
        f"{file}: {seen}.",
        "Mend the file, or name another one as `file` in [policy].",
    )
