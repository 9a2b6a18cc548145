"""What the configuration takes, and what it says of what it does not take."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest

from cellmove.config import SECTIONS, Config, find, load, require_database, variable
from cellmove.errors import Refused

URL = "mysql+pymysql://cellmove@10.0.0.1/nova_api"
WHOLE = f"""
[database]
url = "{URL}"
password_file = "password"
cell_credentials = "same"

[cloud]
name = "prod"
service_name = "prod-service"

[ssh]
config = "ssh_config"
bastion = "gate"
address = "{{name}}.mgmt"

[nova]
instances_path = "/srv/instances"
instance_name_template = "vm-%x"
quota_usage = "placement"
quota_cores = 40
quota_ram_mb = -1
cross_az_attach = false

[policy]
file = "nova-policy.yaml"

[notifications]
transport_url_file = "bus.url"

[journal]
url = "/var/lib/cellmove/journal.db"
"""


def written(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / "cellmove.toml"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def refusal(folder: Path, text: str, mode: int = 0o600, **environ: str) -> Refused:
    with pytest.raises(Refused) as refused:
        load(written(folder, text, mode), environ)
    return refused.value


def test_every_key_is_read(tmp_path: Path) -> None:
    config = load(written(tmp_path, WHOLE), {})
    assert config.database.url == URL
    assert config.database.cell_credentials == "same"
    assert (config.cloud.name, config.cloud.service_name) == ("prod", "prod-service")
    assert (config.ssh.bastion, config.ssh.address) == ("gate", "{name}.mgmt")
    assert config.nova.instances_path == "/srv/instances"
    assert config.nova.instance_name_template == "vm-%x"
    quota = (config.nova.quota_usage, config.nova.quota_cores, config.nova.quota_ram_mb)
    assert quota == ("placement", 40, -1)
    assert config.nova.cross_az_attach is False
    assert config.policy.file == str(tmp_path / "nova-policy.yaml")
    assert config.notifications.transport_url_file == str(tmp_path / "bus.url")
    assert config.journal.url == "/var/lib/cellmove/journal.db"


def test_paths_are_meant_from_the_file_that_names_them(tmp_path: Path) -> None:
    config = load(written(tmp_path, WHOLE), {})
    assert config.database.password_file == str(tmp_path / "password")
    assert config.ssh.config == str(tmp_path / "ssh_config")


def test_a_tilde_is_the_home_directory(tmp_path: Path) -> None:
    config = load(written(tmp_path, '[ssh]\nconfig = "~/elsewhere"\n'), {})
    assert config.ssh.config == str(Path("~/elsewhere").expanduser())


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    environ = {
        "CELLMOVE_CLOUD_NAME": "test",
        "CELLMOVE_DATABASE_PASSWORD_FILE": "",
        "CELLMOVE_DATABASE_PASSWORD_COMMAND": "pass show 'nova api'",
    }
    config = load(written(tmp_path, WHOLE), environ)
    assert config.cloud.name == "test"
    assert config.cloud.service_name == "prod-service"
    assert config.database.password_command == ("pass", "show", "nova api")


def test_without_a_file_the_environment_is_enough(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "CELLMOVE_DATABASE_URL": URL}
    config = load(None, environ)
    require_database(config, environ)
    assert config.database.url == URL


def test_without_anything_it_says_where_it_looked(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    with pytest.raises(Refused) as refused:
        require_database(load(None, environ), environ)
    assert f"{tmp_path}/.config/cellmove/cellmove.toml" in refused.value.seen
    assert "/etc/cellmove/cellmove.toml" in refused.value.seen


def test_the_flag_goes_over_the_variable_over_the_users_file(tmp_path: Path) -> None:
    (tmp_path / "cellmove").mkdir()
    users = tmp_path / "cellmove" / "cellmove.toml"
    flag, variables = tmp_path / "flag.toml", tmp_path / "variable.toml"
    for path in (users, flag, variables):
        path.write_text("")
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "CELLMOVE_CONFIG": str(variables)}
    assert find(str(flag), environ) == flag
    assert find(None, environ) == variables
    assert find(None, {"XDG_CONFIG_HOME": str(tmp_path)}) == users


def test_a_file_that_was_named_and_is_not_there_is_no_reason_to_take_another(
    tmp_path: Path,
) -> None:
    with pytest.raises(Refused) as refused:
        find(None, {"CELLMOVE_CONFIG": str(tmp_path / "no.toml"), "HOME": str(tmp_path)})
    assert "$CELLMOVE_CONFIG" in refused.value.seen


@pytest.mark.parametrize(
    ("text", "seen", "do"),
    [
        ('[database]\nurll = "x"\n', "`urll` in [database]", "`url`"),
        ('[databse]\nurl = "x"\n', "[databse]", "[database]"),
        ('[ssh]\nbastoin = "x"\n', "`bastoin` in [ssh]", "`bastion`"),
        ('[cloud]\nqqq = "x"\n', "`qqq` in [cloud]", "Known are `name`, `service_name`"),
    ],
)
def test_an_unknown_key_is_refused_naming_the_nearest(
    tmp_path: Path, text: str, seen: str, do: str
) -> None:
    refused = refusal(tmp_path, text)
    assert seen in refused.seen
    assert do in refused.do


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("[database]\nurl = 7\n", "`url` in [database]"),
        ("database = 7\n", "`database`"),
        ('[database]\ncell_credentials = "mine"\n', '"own" or "same"'),
        ('[database]\npassword_command = "pass"\n', "list of texts"),
        ("[database]\npassword_command = [7]\n", "list of texts"),
        ('[ssh]\naddress = "host"\n', "{name}"),
        ('[ssh]\nbastion = "b"\nrelay = "b"\n', '"conductor" or "bastion"'),
        ('[ssh]\nrelay = "bastion"\n', "names no `bastion`"),
        ('[nova]\ninstance_name_template = "vm"\n', "instance-%08x"),
        ('[nova]\nblock_storage_ips = "cmp1=192.0.2.1"\n', "list of texts"),
        ('[nova]\nblock_storage_ips = ["192.0.2.1"]\n', "host=192.0.2.1"),
        ('[nova]\nblock_storage_ips = ["cmp1=san"]\n', "host=192.0.2.1"),
        ('[nova]\ninstance_name_template = "%(uuid)s"\n', "instance-%08x"),
        ('[database]\npassword_file = "a"\npassword_command = ["b"]\n', "both"),
        ('[journal]\npassword_file = "a"\npassword_command = ["b"]\n', "both"),
        ("[journal]\nlease_seconds = 9\n", "a whole number from 10 on"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(tmp_path: Path, text: str, seen: str) -> None:
    refused = refusal(tmp_path, text)
    assert seen in refused.seen


def test_a_file_that_is_no_toml_is_refused_with_the_place(tmp_path: Path) -> None:
    refused = refusal(tmp_path, "[database\n")
    assert "line 1" in refused.seen


def test_a_password_in_the_url_of_a_readable_file_is_refused_without_showing_it(
    tmp_path: Path,
) -> None:
    text = '[database]\nurl = "mysql+pymysql://me:hunter2@db/nova_api"\n'
    refused = refusal(tmp_path, text, mode=0o644)
    assert "password_file" in refused.do
    assert "hunter2" not in str(refused)
    assert load(written(tmp_path, text, mode=0o640), {}).database.url


def test_the_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\nnot this\n")
    (tmp_path / "password").chmod(0o600)
    assert load(written(tmp_path, WHOLE), {}).database.password() == "hunter2"


def test_a_password_file_that_everybody_reads_is_refused(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "password").chmod(0o644)
    with pytest.raises(Refused) as refused:
        load(written(tmp_path, WHOLE), {}).database.password()
    assert "chmod o=" in refused.value.do
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_password_file_without_a_password_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "password").write_bytes(content)
        (tmp_path / "password").chmod(0o600)
    with pytest.raises(Refused) as refused:
        load(written(tmp_path, WHOLE), {}).database.password()
    assert str(tmp_path / "password") in refused.value.seen


def test_the_password_is_the_first_line_a_command_prints(tmp_path: Path) -> None:
    text = '[database]\npassword_command = ["printf", "hunter2\\nnot this\\n"]\n'
    assert load(written(tmp_path, text), {}).database.password() == "hunter2"


@pytest.mark.parametrize(
    "command", ['["false", "s3cret"]', '["no-such-program", "s3cret"]', '["true", "s3cret"]']
)
def test_a_command_that_gives_no_password_is_named_without_its_arguments(
    tmp_path: Path, command: str
) -> None:
    config = load(written(tmp_path, f"[database]\npassword_command = {command}\n"), {})
    with pytest.raises(Refused) as refused:
        config.database.password()
    assert command.split('"')[1] in refused.value.seen
    assert "s3cret" not in str(refused.value)


def test_without_a_source_there_is_no_password(tmp_path: Path) -> None:
    assert load(written(tmp_path, ""), {}).database.password() is None


def test_a_configuration_shows_no_secret_when_printed(tmp_path: Path) -> None:
    text = (
        '[database]\nurl = "mysql+pymysql://me:hunter2@db/nova_api"\n'
        'password_command = ["echo", "hunter3"]\n[journal]\nurl = "postgresql://me:hunter4@db/j"\n'
    )
    shown = repr(load(written(tmp_path, text), {}))
    assert not [secret for secret in ("hunter2", "hunter3", "hunter4") if secret in shown]


def test_every_key_is_documented_with_its_variable() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "configuration.rst").read_text()
    for section, kind in SECTIONS.items():
        assert f"[{section}]" in docs
        for key in fields(kind):
            assert f"``{key.name}``" in docs
            assert variable(section, key.name) in docs


def test_the_example_in_the_docs_can_be_loaded(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "configuration.rst").read_text()
    block = docs.split(".. code-block:: toml\n\n", 1)[1]
    lines = []
    for line in block.splitlines():
        if line and not line.startswith("   "):
            break
        lines.append(line[3:])
    config = load(written(tmp_path, "\n".join(lines)), {})
    assert config.database.url
    assert isinstance(config, Config)


def test_nothing_of_the_real_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLMOVE_CLOUD_NAME", "real")
    assert load(None, {"HOME": "/nonexistent"}).cloud.name is None
    assert os.environ["CELLMOVE_CLOUD_NAME"] == "real"


@pytest.mark.parametrize("value", ['"many"', "-2", "1.5", "true", '""'])
def test_a_quota_is_a_whole_number(tmp_path: Path, value: str) -> None:
    refused = refusal(tmp_path, f"[nova]\nquota_cores = {value}\n")
    assert "`quota_cores` in [nova]" in refused.seen


@pytest.mark.parametrize("value", ['"yes"', "1", '""'])
def test_a_flag_is_true_or_false(tmp_path: Path, value: str) -> None:
    refused = refusal(tmp_path, f"[nova]\ncross_az_attach = {value}\n")
    assert "`cross_az_attach` in [nova]" in refused.seen
    assert "is not true or false" in refused.seen


def test_a_flag_may_come_from_the_environment(tmp_path: Path) -> None:
    config = load(written(tmp_path, ""), {"CELLMOVE_NOVA_CROSS_AZ_ATTACH": "False"})
    assert config.nova.cross_az_attach is False


def test_a_quota_may_come_from_the_environment(tmp_path: Path) -> None:
    config = load(written(tmp_path, ""), {"CELLMOVE_NOVA_QUOTA_RAM_MB": "-1"})
    assert config.nova.quota_ram_mb == -1


def test_usage_is_counted_in_places_that_nova_knows(tmp_path: Path) -> None:
    assert "placement" in refusal(tmp_path, '[nova]\nquota_usage = "x"\n').seen


def test_the_buss_url_comes_from_a_file_a_command_or_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "bus.url").write_text("rabbit://a:b@c/\nmore\n")
    (tmp_path / "bus.url").chmod(0o600)
    for key, value in {
        "transport_url_file": '"bus.url"',
        "transport_url_command": '["echo", "rabbit://a:b@c/"]',
        "transport_url": '"rabbit://a:b@c/"',
    }.items():
        config = load(written(tmp_path, f"[notifications]\n{key} = {value}\n"), {})
        assert config.notifications.url() == "rabbit://a:b@c/"
        assert "a:b" not in repr(config)
    assert Config().notifications.url() == ""


def test_a_bus_url_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    url = '[notifications]\ntransport_url = "rabbit://a:b@c/"\n'
    assert "bares a password" in refusal(tmp_path, url, mode=0o644).what
    (tmp_path / "bus.url").write_text("rabbit://a:b@c/\n")
    (tmp_path / "bus.url").chmod(0o644)
    config = load(written(tmp_path, '[notifications]\ntransport_url_file = "bus.url"\n'), {})
    with pytest.raises(Refused, match="The bus's URL cannot be read"):
        config.notifications.url()
