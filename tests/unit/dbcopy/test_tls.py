"""What the options of a database's URL mean for TLS."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from cellmove import errors
from cellmove.dbcopy import tls
from cellmove.dbcopy.database import Database

NOTHING, CHAIN, NAME = (
    (ssl.CERT_NONE, False),
    (ssl.CERT_REQUIRED, False),
    (ssl.CERT_REQUIRED, True),
)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate's file; its key is `key.pem` beside it."""
    folder = tmp_path_factory.mktemp("tls")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    files = ("-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem"))
    argv = ["openssl", "req", "-x509", *key, *files, "-subj", "/CN=ca", "-days", "2"]
    subprocess.run(argv, check=True, capture_output=True)
    return str(folder / "ca.pem")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("ssl_verify_cert=false", NOTHING),
        ("ssl_cipher=HIGH", NOTHING),
        ("ssl_mode=required", NOTHING),
        ("ssl_ca={ca}", NAME),
        ("ssl_ca={ca}&ssl_check_hostname=false", CHAIN),
        ("ssl_ca={ca}&ssl_verify_identity=false", CHAIN),
        ("ssl_ca={ca}&ssl_verify_cert=true", CHAIN),
        ("ssl_ca={ca}&ssl_verify_cert=true&ssl_verify_identity=true", NAME),
        ("ssl_ca={ca}&ssl_verify_cert=0", NOTHING),
        ("ssl_verify_cert=1", CHAIN),
        ("ssl_ca={ca}&ssl_mode=VERIFY_CA", CHAIN),
        ("ssl_ca={ca}&ssl_mode=VERIFY_IDENTITY", NAME),
    ],
)
def test_what_is_verified(ca: str, options: str, expected: tuple[ssl.VerifyMode, bool]) -> None:
    parsed = dict(each.split("=") for each in options.format(ca=ca).split("&"))
    context = tls.arguments(parsed, "cell c")["ssl"]
    assert (context.verify_mode, context.check_hostname) == expected


def test_tls_can_be_forbidden_or_left_to_the_driver() -> None:
    assert tls.arguments({"ssl_disabled": "true"}, "c") == {"ssl_disabled": True}
    assert tls.arguments({"ssl_mode": "DISABLED"}, "c") == {"ssl_disabled": True}
    assert tls.arguments({"ssl_mode": "preferred"}, "c") == {}
    assert tls.arguments({}, "c") == {}


def test_our_own_certificate_is_shown_with_its_key(ca: str) -> None:
    key = str(Path(ca).with_name("key.pem"))
    made = tls.arguments({"ssl_ca": ca, "ssl_cert": ca, "ssl_key": key}, "cell c")["ssl"]
    assert made.verify_mode == ssl.CERT_REQUIRED
    with pytest.raises(errors.Refused, match="no TLS with cell c"):
        tls.arguments({"ssl_ca": ca, "ssl_cert": ca, "ssl_key": ca}, "cell c")


@pytest.mark.parametrize("option", ["ssl_ca=/no/such/file", "ssl_mode=SOMETIMES"])
def test_an_option_that_cannot_be_honoured_is_refused_and_no_password_shown(option: str) -> None:
    with pytest.raises(errors.Refused, match="no TLS with cell c") as caught:
        Database(f"mysql+pymysql://nova:s3cret@127.0.0.1/nova?{option}", name="cell c")
    assert "s3cret" not in str(caught.value)


def test_connections_that_verify_nothing_share_a_context_without_authorities() -> None:
    first, second = (vars(tls.Connection(defer_connect=True))["ctx"] for _ in range(2))
    assert first is second
    assert first.verify_mode is ssl.CERT_NONE
    assert first.get_ca_certs() == []


def test_a_context_of_the_options_is_that_of_the_connection(ca: str) -> None:
    made = tls.arguments({"ssl_ca": ca}, "cell c")["ssl"]
    assert vars(tls.Connection(defer_connect=True, ssl=made))["ctx"] is made
