"""What cellmove is told about the cloud it works on: a TOML file, under environment and flags."""

from __future__ import annotations

import difflib
import math
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from cellmove.choosing import Multipliers
from cellmove.errors import Refused
from cellmove.kept import Where, has_password, kept, others_may_read

SYSTEM_FILE: Final = Path("/etc/cellmove/cellmove.toml")
LEAST_LEASE_SECONDS: Final = 10
"""Less would take servers from conductors whose database paused for a moment."""
_HIDE_IT: Final = (
    "Take it out of the file, and name another that holds it (`password_file` in [database] and "
    "[journal], `transport_url_file` in [notifications]), or a command that prints it "
    "(`..._command`)."
)


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """Section `[database]`: nova's API database; the cells are read from its `cell_mappings`."""

    url: str = field(default="", repr=False)
    """SQLAlchemy URL of nova's API database, without the password."""
    password_file: str = ""
    """File whose first line is the password; nobody but owner and group may read it."""
    password_command: tuple[str, ...] = field(default=(), repr=False)
    """Program and arguments; the first line it prints is the password."""
    cell_credentials: Literal["own", "same"] = "own"
    """`own`: sign in to each cell as `cell_mappings` says; `same`: as to the API database."""

    def password(self) -> str | None:
        """The password from where it is kept; None when none is configured.

        Raises:
            Refused: the file or the command cannot be used.
        """
        where = Where("The database's password", "password", "database")
        return kept(where, self.password_file, self.password_command)


@dataclass(frozen=True, slots=True)
class CloudConfig:
    """Section `[cloud]`: how to sign in."""

    name: str | None = None
    """Name in clouds.yaml; without it, what OS_CLOUD or the OS_* variables say."""
    service_name: str | None = None
    """Another name in clouds.yaml, whose token goes along as `X-Service-Token`."""


@dataclass(frozen=True, slots=True)
class SshConfig:
    """Section `[ssh]`: the way to the hypervisors."""

    config: str = field(default_factory=lambda: str(Path("~/.ssh/config").expanduser()))
    """OpenSSH client configuration with keys, known hosts and users."""
    bastion: str = ""
    """The host all hypervisors are reached through; without it they are reached directly."""
    address: str = "{name}"
    """What to call a hypervisor in SSH; `{name}` is the name of its compute service."""
    relay: Literal["conductor", "bastion"] = "conductor"
    """Where the two ends of a copy are joined: `bastion` has to be able to sign in to both."""


@dataclass(frozen=True, slots=True)
class NovaConfig:
    """Section `[nova]`: what nova-compute's own configuration says on the hypervisors."""

    instances_path: str = "/var/lib/nova/instances"
    instance_name_template: str = "instance-%08x"
    quota_usage: Literal["cells", "placement", "none"] = "cells"
    """Where nova-api counts what a project uses; `none`: it has another quota driver."""
    quota_cores: int = 20
    quota_ram_mb: int = 50 * 1024
    nfs_mount_point_base: str = "/var/lib/nova/mnt"
    nfs_mount_options: str = ""
    cross_az_attach: bool = True
    """Whether a server may have volumes of another availability zone than its own."""
    block_storage_ips: tuple[str, ...] = ()
    """`host=address` of each whose `my_block_storage_ip` is another address than its `my_ip`."""


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """Section `[policy]`: who may move a server."""

    file: str = ""
    """nova's own policy file or one like it; without it nova's defaults: nobody may."""


@dataclass(frozen=True, slots=True)
class NotificationsConfig:
    """Section `[notifications]`: whom to tell what nova would tell; nobody by default."""

    transport_url: str = field(default="", repr=False)
    """oslo.messaging's URL of the bus, with its password."""
    transport_url_file: str = ""
    """File whose first line is that URL; nobody but owner and group may read it."""
    transport_url_command: tuple[str, ...] = field(default=(), repr=False)
    """Program and arguments; the first line it prints is that URL."""
    settings_file: str = ""
    """oslo.messaging's own settings, e.g. its section `[oslo_messaging_rabbit]` in nova.conf."""

    def url(self) -> str:
        """The URL from where it is kept; empty: nothing is sent.

        Raises:
            Refused: the file or the command cannot be used.
        """
        where = Where("The bus's URL", "transport_url", "notifications")
        found = kept(where, self.transport_url_file, self.transport_url_command)
        return self.transport_url if found is None else found


@dataclass(frozen=True, slots=True)
class JournalConfig:
    """Section `[journal]`: where moves are written down."""

    url: str = field(default="", repr=False)
    """A path, or a SQLAlchemy URL; without it a file under $XDG_STATE_HOME/cellmove."""
    password_file: str = ""
    """File whose first line is the password; nobody but owner and group may read it."""
    password_command: tuple[str, ...] = field(default=(), repr=False)
    """Program and arguments; the first line it prints is the password."""
    lease_seconds: int = 60
    """For how long a process of another machine is believed alive after it was last heard of."""

    def password(self) -> str | None:
        """The password from where it is kept; None when none is configured.

        Raises:
            Refused: the file or the command cannot be used.
        """
        where = Where("The journal's password", "password", "journal")
        return kept(where, self.password_file, self.password_command)


@dataclass(frozen=True, slots=True)
class Config:
    """All of it; an attribute a section, a field a key."""

    database: DatabaseConfig = field(default_factory=DatabaseConfig)
    cloud: CloudConfig = field(default_factory=CloudConfig)
    ssh: SshConfig = field(default_factory=SshConfig)
    nova: NovaConfig = field(default_factory=NovaConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    notifications: NotificationsConfig = field(default_factory=NotificationsConfig)
    scheduler: Multipliers = field(default_factory=Multipliers)
    journal: JournalConfig = field(default_factory=JournalConfig)
    path: Path | None = None
    """The file it was read from."""


SECTIONS: Final[Mapping[str, type]] = {
    "database": DatabaseConfig,
    "cloud": CloudConfig,
    "ssh": SshConfig,
    "nova": NovaConfig,
    "policy": PolicyConfig,
    "notifications": NotificationsConfig,
    "scheduler": Multipliers,
    "journal": JournalConfig,
}
_CHOICES: Final = {
    "database.cell_credentials": ("own", "same"),
    "ssh.relay": ("conductor", "bastion"),
    "nova.quota_usage": ("cells", "placement", "none"),
}
_LISTS: Final = {
    "database.password_command",
    "journal.password_command",
    "notifications.transport_url_command",
    "nova.block_storage_ips",
    *("scheduler.isolated_hosts", "scheduler.isolated_images"),
}
_FLAGS: Final = {"nova.cross_az_attach"}
_NUMBERS: Final = {"nova.quota_cores", "nova.quota_ram_mb", "journal.lease_seconds"}
_FACTORS: Final = {f"scheduler.{each.name}" for each in fields(Multipliers)} - _LISTS
_PATHS: Final = {
    *("database.password_file", "journal.password_file", "ssh.config", "policy.file"),
    *("notifications.transport_url_file", "notifications.settings_file"),
}


def variable(section: str, key: str) -> str:
    """The environment variable that overrides this key of the file."""
    return f"CELLMOVE_{section}_{key}".upper()


def find(flag: str | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: --config, $CELLMOVE_CONFIG, the user's, the machine's; None: there is none.

    Raises:
        Refused: a file was named and is not there.
    """
    for named, source in ((flag, "--config"), (environ.get("CELLMOVE_CONFIG"), "$CELLMOVE_CONFIG")):
        if named:
            if not _is_file(Path(named)):
                raise Refused(
                    "There is no configuration to read.",
                    f"{source} names {named}, which is no file.",
                    "Name another one.",
                )
            return Path(named)
    return next((path for path in _usual_places(environ) if path.is_file()), None)


def _is_file(path: Path) -> bool:
    """Whether it is; what no file can be called is none either."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def load(flag: str | None, environ: Mapping[str, str]) -> Config:
    """Read the configuration; `flag` is the value of --config.

    Raises:
        Refused: it cannot be read, names unknown keys, or bares a password.
    """
    path = find(flag, environ)
    values = _from_file(path) if path else {}
    for section, kind in SECTIONS.items():
        for key in (each.name for each in fields(kind)):
            if (text := environ.get(variable(section, key))) is not None:
                name = f"{section}.{key}"
                values[section, key] = shlex.split(text) if name in _LISTS else text
    base = path.parent if path else Path()
    config = _built(values, base, path)
    _check(config)
    return config


def require_database(config: Config, environ: Mapping[str, str]) -> None:
    """Every command that looks at the cloud needs one.

    Raises:
        Refused: it is not configured.
    """
    if not config.database.url:
        places = ", ".join(map(str, _usual_places(environ)))
        raise Refused(
            "cellmove does not know the cloud's databases.",
            f"{config.path} lacks `url` in [database]."
            if config.path
            else f"No configuration was found: looked at {places}.",
            "Write one as docs/configuration.rst shows, or name it with --config.",
        )


def _usual_places(environ: Mapping[str, str]) -> tuple[Path, ...]:
    home = Path(environ.get("HOME", "/"))
    base = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return (base / "cellmove" / "cellmove.toml", SYSTEM_FILE)


def _from_file(path: Path) -> dict[tuple[str, str], Any]:
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise Refused(
            "The configuration cannot be read.", f"{path}: {said}.", "Mend it, or name another one."
        ) from None
    values: dict[tuple[str, str], Any] = {}
    for section, content in data.items():
        if section not in SECTIONS:
            raise _unknown(path, f"[{section}]", (f"[{name}]" for name in SECTIONS))
        if not isinstance(content, dict):
            raise _wrong(path, section, "a section")
        known = [each.name for each in fields(SECTIONS[section])]
        for key, value in content.items():
            if key not in known:
                raise _unknown(path, f"`{key}` in [{section}]", (f"`{name}`" for name in known))
            values[section, key] = value
    return values


def _built(values: Mapping[tuple[str, str], Any], base: Path, path: Path | None) -> Config:
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for (section, key), value in values.items():
        sections[section][key] = _typed(f"{section}.{key}", value, base, path)
    return Config(
        **{name: SECTIONS[name](**content) for name, content in sections.items()}, path=path
    )


def _typed(
    name: str, value: object, base: Path, path: Path | None
) -> str | float | bool | tuple[str, ...]:
    if name in _FACTORS:
        return _factor(name, value, path)
    if name in _FLAGS:
        return _flag(name, value, path)
    if name in _NUMBERS:
        return _number(name, value, path)
    if name in _LISTS:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise _wrong(path, name, 'a list of texts: ["one", "another"]')
        return tuple(value)
    if not isinstance(value, str):
        raise _wrong(path, name, "a text")
    return str(base.absolute() / Path(value).expanduser()) if name in _PATHS and value else value


def _factor(name: str, value: object, path: Path | None) -> float:
    """Of the file, or as a text of the environment."""
    try:
        factor = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor):
        raise _wrong(path, name, "a number")
    return factor


def _flag(name: str, value: object, path: Path | None) -> bool:
    """Of the file, or as a text of the environment."""
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise _wrong(path, name, "true or false")


def _number(name: str, value: object, path: Path | None) -> int:
    """Of the file, or as a text of the environment."""
    if re.fullmatch(r"-1|\d+", str(value)) and not isinstance(value, bool):
        return int(str(value))
    raise _wrong(path, name, "a whole number from -1 on")


def _check(config: Config) -> None:
    _check_choices(config)
    if config.ssh.relay == "bastion" and not config.ssh.bastion:
        raise _wrong(config.path, "ssh.relay", '"conductor" where [ssh] names no `bastion`')
    _check_sources(config)
    if config.journal.lease_seconds < LEAST_LEASE_SECONDS:
        wanted = f"a whole number from {LEAST_LEASE_SECONDS} on"
        raise _wrong(config.path, "journal.lease_seconds", wanted)
    if "{name}" not in config.ssh.address:
        raise _wrong(config.path, "ssh.address", 'a text with {name} in it, like "{name}.example"')
    if not _names_guests(config.nova.instance_name_template):
        raise _wrong(config.path, "nova.instance_name_template", 'a text like "instance-%08x"')
    if not all(re.fullmatch("[^=]+=[0-9a-fA-F.:]+", ip) for ip in config.nova.block_storage_ips):
        raise _wrong(config.path, "nova.block_storage_ips", 'a list like ["host=192.0.2.1"]')
    urls = (config.database.url, config.journal.url, config.notifications.transport_url)
    bare = [url for url in urls if has_password(url)]
    if bare and config.path and others_may_read(config.path):
        raise Refused(
            "The configuration bares a password.",
            f"{config.path} has a URL with a password in it, and everybody may read it.",
            _HIDE_IT,
        )


def _check_choices(config: Config) -> None:
    for name, choices in _CHOICES.items():
        section, _, key = name.partition(".")
        if getattr(getattr(config, section), key) not in choices:
            *others, last = (f'"{choice}"' for choice in choices)
            raise _wrong(config.path, name, f"{', '.join(others)} or {last}")


def _check_sources(config: Config) -> None:
    for name, section in (("database", config.database), ("journal", config.journal)):
        if section.password_file and section.password_command:
            raise Refused(
                "The configuration names two sources of one password.",
                f"[{name}] has both password_file and password_command.",
                "Keep one of them.",
            )


def _names_guests(template: str) -> bool:
    try:
        return template % 1 != template % 2
    except (TypeError, ValueError):
        return False


def _unknown(path: Path, key: str, known: Iterable[str]) -> Refused:
    names = list(known)
    near = difflib.get_close_matches(key.partition(" in ")[0], names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(names)}."
    what = "The configuration has a key that cellmove does not know."
    return Refused(what, f"{path}: {key}.", hint)


def _wrong(path: Path | None, name: str, wanted: str) -> Refused:
    section, _, key = name.partition(".")
    where = f"`{key}` in [{section}] (${variable(section, key)})" if key else f"`{section}`"
    return Refused(
        "The configuration has a value that cellmove cannot use.",
        f"{where} is not {wanted}.",
        f"Mend it in {path}." if path else "Mend it.",
    )
