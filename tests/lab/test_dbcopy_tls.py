"""TLS to a database, with a MariaDB of our own that has a certificate."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cellmove import errors
from cellmove.dbcopy.database import Database

pytestmark = pytest.mark.lab

START_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A MariaDB whose certificate is `localhost`'s, and an account that must use TLS."""

    port: int
    password: str
    ca: Path
    other_ca: Path

    def opened(self, options: str, host: str = "localhost") -> Database:
        account = f"mysql+pymysql://us:{self.password}@{host}:{self.port}/mysql"
        return Database(f"{account}?{options}", name="cell c")

    def cipher(self, options: str, host: str = "localhost") -> str:
        """What the connection is encrypted with."""
        database = self.opened(options, host)
        try:
            with database.read() as rows:
                status = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"
                return str(rows._connection.exec_driver_sql(status).one()[1])
        finally:
            database.close()


def openssl(*argv: str | Path) -> None:
    subprocess.run(["openssl", *argv], check=True, capture_output=True)


def authority(folder: Path, name: str) -> Path:
    """A CA's certificate; its key is beside it."""
    made = folder / f"{name}.pem"
    key = ("-newkey", "rsa:2048", "-nodes", "-keyout", folder / f"{name}.key")
    openssl("req", "-x509", *key, "-out", made, "-subj", f"/CN={name}", "-days", "2")
    return made


def certify(folder: Path, ca: Path) -> None:
    """`server.pem` and `server.key`, for the name `localhost` only."""
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    key = ("-newkey", "rsa:2048", "-nodes", "-keyout", folder / "server.key")
    openssl("req", "-new", *key, "-out", folder / "server.csr", "-subj", "/CN=localhost")
    signer = ("-CA", ca, "-CAkey", ca.with_suffix(".key"), "-set_serial", "7", "-days", "2")
    files = ("-in", folder / "server.csr", "-out", folder / "server.pem")
    openssl("x509", "-req", *files, *signer, "-extfile", folder / "names")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mariadb")
    ca = authority(folder, "ca")
    certify(folder, ca)
    data, password = folder / "data", secrets.token_hex(12)
    own = ["--no-defaults", "--user=root", f"--datadir={data}"]
    install = ["mariadb-install-db", *own, "--auth-root-authentication-method=normal"]
    subprocess.run(install, check=True, capture_output=True)
    account = f"CREATE USER us IDENTIFIED BY '{password}' REQUIRE SSL;\n"
    (folder / "init.sql").write_text(account + "GRANT SELECT ON mysql.* TO us;\n")
    with socket.socket() as free:  # the last thing before it is taken: others look for one, too
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [shutil.which("mariadbd") or "/usr/sbin/mariadbd", *own]
    argv += [f"--socket={folder / 'socket'}", f"--init-file={folder / 'init.sql'}"]
    # By name it would take us for the anonymous account of localhost.
    argv += ["--skip-name-resolve", "--bind-address=127.0.0.1", f"--port={port}", f"--ssl-ca={ca}"]
    argv += [f"--ssl-cert={folder / 'server.pem'}", f"--ssl-key={folder / 'server.key'}"]
    with (folder / "log").open("w") as log, subprocess.Popen(argv, stderr=log) as started:
        try:
            made = Server(port, password, ca, authority(folder, "other"))
            _wait(made, folder / "log")
            yield made
        finally:
            started.terminate()


def _wait(server: Server, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"mariadbd did not start: {log.read_text()[-2000:]}")


@pytest.mark.parametrize(
    "options", ["ssl_ca={ca}", "ssl_ca={ca}&ssl_verify_cert=true", "ssl_verify_cert=false", ""]
)
def test_a_database_that_demands_tls_gets_it(server: Server, options: str) -> None:
    assert server.cipher(options.format(ca=server.ca)).startswith("TLS_")


def test_an_account_that_must_use_tls_is_not_let_in_without(server: Server) -> None:
    with pytest.raises(errors.Unreachable, match="Access denied"):
        server.cipher("ssl_disabled=true")


@pytest.mark.parametrize("options", ["ssl_ca={ca}", "ssl_ca={ca}&ssl_verify_cert=true"])
def test_a_certificate_of_another_authority_is_not_accepted(server: Server, options: str) -> None:
    with pytest.raises(errors.Unreachable, match="certificate verify failed"):
        server.cipher(options.format(ca=server.other_ca))


def test_a_certificate_of_another_name_is_accepted_only_where_the_url_says_so(
    server: Server,
) -> None:
    with pytest.raises(errors.Unreachable, match="certificate verify failed"):
        server.cipher(f"ssl_ca={server.ca}", "127.0.0.1")
    options = f"ssl_ca={server.ca}&ssl_verify_cert=true"
    assert server.cipher(options, "127.0.0.1").startswith("TLS_")
    with pytest.raises(errors.Unreachable, match="certificate verify failed"):
        server.cipher(f"{options}&ssl_verify_identity=true", "127.0.0.1")
