"""TLS as the options of a database's URL ask for it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any

from pymysql.connections import Connection as DriverConnection

from cellmove import errors

OPTIONS = frozenset(
    f"ssl_{name}"
    for name in (
        *("ca", "capath", "cert", "key", "key_password", "cipher"),
        *("verify_cert", "verify_identity", "check_hostname", "disabled", "mode"),
    )
)
"""What nova's URLs may say, for PyMySQL or for mysqlclient."""

_NO = ("", "0", "false", "no", "off", "none")
_MODES = {"DISABLED": 0, "REQUIRED": 1, "VERIFY_CA": 2, "VERIFY_IDENTITY": 3}


class Connection(DriverConnection):
    """PyMySQL's. Those that verify nothing share one context, without authorities.

    PyMySQL makes one for each connection (1.2: also where the server knows no TLS) and reads all of
    the system's authorities into it: 20 ms. One that makes it elsewhere is only slower.
    """

    def _create_ssl_ctx(self, options: Mapping[str, Any] | ssl.SSLContext) -> ssl.SSLContext:
        made: ssl.SSLContext = (
            super()._create_ssl_ctx(options) if options else _unverified()  # type: ignore[misc]
        )
        return made


@cache
def _unverified() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def arguments(options: Mapping[str, str], name: str) -> dict[str, Any]:
    """What PyMySQL is to be told of TLS with the database that messages call `name`.

    Without options it encrypts where the server can, and verifies nothing. With a CA the server's
    certificate and its name are verified, as SQLAlchemy and PyMySQL do for nova; `ssl_verify_cert`
    verifies the certificate but not the name, `ssl_verify_identity` (or `ssl_check_hostname`) both.

    Raises:
        Refused: a file cannot be read, or an option is none of MySQL's.
    """
    if not options or options.get("ssl_mode", "").upper() == "PREFERRED":
        return {}
    level = _level(options, name)
    if level == 0 or _on(options, "ssl_disabled"):
        return {"ssl_disabled": True}
    return {"ssl": _context(options, level, name)}


def _context(options: Mapping[str, str], level: int, name: str) -> ssl.SSLContext:
    try:
        made = ssl.create_default_context(
            cafile=options.get("ssl_ca"), capath=options.get("ssl_capath")
        )
        # Since Python 3.13 the default is stricter than what many a site's own CA has signed.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
        made.check_hostname = level == 3
        made.verify_mode = ssl.CERT_REQUIRED if level >= 2 else ssl.CERT_NONE
        if "ssl_cert" in options:
            password = options.get("ssl_key_password")
            made.load_cert_chain(options["ssl_cert"], options.get("ssl_key"), password)
        if "ssl_cipher" in options:
            made.set_ciphers(options["ssl_cipher"])
    except OSError as error:
        raise _refused(name, f"A file of its URL cannot be used: {error}.") from None
    return made


def _level(options: Mapping[str, str], name: str) -> int:
    """0: in the clear, 1: encrypted, 2: the certificate is verified, 3: and the server's name."""
    if "ssl_mode" in options:
        mode = options["ssl_mode"].upper()
        if mode not in _MODES:
            raise _refused(name, f"Its URL has ssl_mode={options['ssl_mode']}.")
        return _MODES[mode]
    if _on(options, "ssl_verify_identity") or _on(options, "ssl_check_hostname"):
        return 3
    if "ssl_verify_cert" in options:
        return 2 if _on(options, "ssl_verify_cert") else 1
    if not {"ssl_ca", "ssl_capath"} & options.keys():
        return 1
    named = {"ssl_verify_identity", "ssl_check_hostname"} & options.keys()
    return 2 if named else 3


def _on(options: Mapping[str, str], option: str) -> bool:
    return options.get(option, "").lower() not in _NO


def _refused(name: str, seen: str) -> errors.Refused:
    return errors.Refused(
        f"There can be no TLS with {name}.", seen, "Correct the ssl_ options of its URL."
    )
