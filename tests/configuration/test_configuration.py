"""The configuration: every key of the manual with its default, and every fault with its line and its cure."""

from pathlib import Path
from typing import NoReturn

import pytest

from appliance.configuration import (
    Configuration,
    ConfigurationError,
    IpVersion,
    ListenAddress,
    MailProvider,
    SmarthostAddress,
    find,
    load,
    retention_ms,
)
from appliance.configuration.settings import PLAN_SETTINGS
from appliance.configuration.unbuilt import UNBUILT, without_effect
from appliance.configuration.values import LONGEST_ADDRESS, LONGEST_SRS_DOMAIN
from appliance.forwarding.srs import SenderRewriter
from appliance.model.account import Plan
from appliance.model.domain import DeliveryMode, LogLevel
from appliance.model.time import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

MIB = 1 << 20

# As the manual shows it: every key there is, with its default.
MANUAL = """
hostname = "mx.example.org"
data_dir = "/var/lib/onward"
[smtp]
listen = ["127.0.0.1:2525"]          # "0.0.0.0:25", "[::]:25", or "fd" for sockets handed over by systemd
max_message_size = "50 MiB"
max_recipients = 100
max_connections = 1000
max_connections_per_client = 20
max_header_size = "512 KiB"
max_in_flight = "256 MiB"
max_unknown_recipients = 50
minimum_rate = "256 B"
trusted_proxies = []
command_timeout = "5m"
transaction_timeout = "30m"
[http]
listen = ["127.0.0.1:8025"]
public_url = "http://127.0.0.1:8025"
listen_tls = []
trusted_proxies = []
[store]
url = "sqlite:"
ephemeral = "memory:"
[dns]
nameservers = []
timeout = "5s"
[delivery]
mode = "spool"
port = 25
smarthost = ""
retry = ["1m", "5m", "15m", "30m", "1h", "2h", "4h"]
give_up_after = "5d"
delay_notice_after = "4h"
max_per_destination = 20
source_addresses = []
ip = "both"
loopback_destinations = false
[forwarding]
srs_domain = ""
arc = false
[log]
level = "events"
delivery_retention = "7d"
error_retention = "7d"
http_retention = "30d"
[mail]
from = ""
postmaster = ""
provider = "self"
[tls]
certificate = ""
key = ""
acme_directory = ""
acme_email = ""
[plans.free]
max_message_size = "25 MiB"
max_domains = 5
max_aliases_per_domain = 50
max_messages_per_day = 500
priority = 0
[plans.premium]
max_message_size = "50 MiB"
max_domains = 100
max_aliases_per_domain = 1000
max_messages_per_day = 15000
priority = 10
"""


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without a word about us, in an empty directory."""
    monkeypatch.delenv("ONWARD_CONFIG", raising=False)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setattr("socket.gethostname", lambda: "mx.example.org")
    monkeypatch.chdir(tmp_path)


def read(text: str) -> Configuration:
    file = Path("onward.toml")
    file.write_text(text)
    return load(file)


def fault(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    return str(caught.value)


# ------------------------------------------------------------------ what is read


def test_the_manual_is_the_defaults() -> None:
    assert read(MANUAL) == read('data_dir = "/var/lib/onward"')


def test_every_default_is_what_it_is_in_the_manual() -> None:
    config = load(None)
    assert config.hostname == "mx.example.org"
    assert config.data_dir == Path.cwd() / "var"
    smtp = config.smtp
    assert smtp.listen == (ListenAddress("127.0.0.1", 2525),)
    assert (smtp.max_message_size, smtp.max_recipients) == (50 * MIB, 100)
    assert (smtp.max_connections, smtp.max_connections_per_client, smtp.trusted_proxies) == (1000, 20, ())
    assert (smtp.command_timeout, smtp.transaction_timeout) == (5 * MINUTE_MS, 30 * MINUTE_MS)
    assert config.http.listen == (ListenAddress("127.0.0.1", 8025),)
    assert config.http.public_url == "http://127.0.0.1:8025"
    assert (config.store.url, config.store.ephemeral) == ("sqlite:", None)
    assert (config.dns.nameservers, config.dns.timeout) == ((), 5 * SECOND_MS)
    delivery = config.delivery
    assert (delivery.mode, delivery.port, delivery.smarthost) == (DeliveryMode.SPOOL, 25, None)
    assert delivery.retry == tuple(m * MINUTE_MS for m in (1, 5, 15, 30, 60, 120, 240))
    assert (delivery.give_up_after, delivery.delay_notice_after) == (5 * DAY_MS, 4 * HOUR_MS)
    assert (delivery.max_per_destination, delivery.source_addresses) == (20, ())
    assert (delivery.ip, delivery.loopback_destinations) == (IpVersion.BOTH, False)
    assert (config.forwarding.srs_domain, config.forwarding.arc) == ("srs.mx.example.org", False)
    assert config.log.level is LogLevel.EVENTS
    assert (config.mail.from_, config.mail.postmaster) == ("postmaster@mx.example.org", "")
    assert config.mail.provider is MailProvider.SELF
    assert config.tls.certificate == config.tls.key == config.tls.acme_directory == config.tls.acme_email == ""
    assert config.plans == {
        "free": Plan("free", 25 * MIB, 5, 50, 500, 0),
        "premium": Plan("premium", 50 * MIB, 100, 1000, 15000, 10),
    }


def test_what_is_written_is_what_it_says() -> None:
    config = read(
        """
        hostname = "MX.Example.NET"
        smtp.listen = ["0.0.0.0:25", "[::]:25"]
        smtp.max_message_size = "25 kB"
        dns.nameservers = ["127.0.0.1:5353", "192.0.2.1", "[::1]:54", "2001:db8::1"]
        delivery = { retry = ["90s", "1h30m"], delay_notice_after = "", ip = "4" }
        forwarding.srs_domain = "back.example.net"
        log.level = "none"
        mail.from = "robot@example.net"
        [plans.gold]
        max_domains = 7
        [plans.free]
        max_aliases_per_domain = 9
        [http]
        listen = []
        public_url = "http://127.0.0.1:8025/"
        """
    )
    assert config.hostname == "mx.example.net"
    assert config.smtp.listen == (ListenAddress("0.0.0.0", 25), ListenAddress("::", 25))
    assert [str(address) for address in config.smtp.listen] == ["0.0.0.0:25", "[::]:25"]
    assert config.smtp.max_message_size == 25_000
    nameservers = (("127.0.0.1", 5353), ("192.0.2.1", 53), ("::1", 54), ("2001:db8::1", 53))
    assert config.dns.nameservers == nameservers
    assert config.delivery.retry == (90 * SECOND_MS, 90 * MINUTE_MS)
    assert config.delivery.delay_notice_after is None
    assert config.delivery.ip is IpVersion.FOUR
    assert config.forwarding.srs_domain == "back.example.net"
    assert config.log.level is LogLevel.NONE
    assert config.mail.from_ == "robot@example.net"
    assert config.plans["gold"] == Plan("gold", 25 * MIB, 7, 50, 500, 0)
    assert config.plans["free"] == Plan("free", 25 * MIB, 5, 9, 500, 0)
    assert config.plans["premium"].max_domains == 100
    assert config.http.listen == ()
    assert config.http.public_url == "http://127.0.0.1:8025"


@pytest.mark.parametrize(
    ("written", "octets"),
    [("1000", 1000), ('"1000"', 1000), ('"1 B"', 1), ('"2KiB"', 2048), ('"3 MB"', 3_000_000), ('"1 GiB"', 1 << 30)],
)
def test_sizes(written: str, octets: int) -> None:
    assert read(f"smtp.max_message_size = {written}").smtp.max_message_size == octets


@pytest.mark.parametrize(
    ("written", "host", "port", "user"),
    [
        ("smtp://user@relay.example:587", "relay.example", 587, "user"),
        ("smtp://user@relay.example", "relay.example", 587, "user"),
        ("smtp://relay.example", "relay.example", 25, ""),
        ("SMTP://Relay.Example.:2525/", "relay.example", 2525, ""),
        ("smtp://me@example.org@relay.example", "relay.example", 587, "me@example.org"),
        ("smtp://me%40example.org@relay.example", "relay.example", 587, "me@example.org"),
        ("smtp://192.0.2.1:26", "192.0.2.1", 26, ""),
        ("smtp://user@[2001:DB8::1]:26", "2001:db8::1", 26, "user"),
        ("smtp://[::1]", "::1", 25, ""),
        ("smtps://user@relay.example", "relay.example", 465, "user"),
    ],
)
def test_a_smarthost_is_a_host_a_port_and_perhaps_a_user(written: str, host: str, port: int, user: str) -> None:
    smarthost = read(f'delivery.smarthost = "{written}"').delivery.smarthost
    assert smarthost == SmarthostAddress(host, port, user, implicit_tls=written.startswith("smtps"))


def test_source_addresses_are_written_in_one_form() -> None:
    sources = read('delivery.source_addresses = ["192.0.2.1", "2001:DB8:0::1"]').delivery.source_addresses
    assert sources == ("192.0.2.1", "2001:db8::1")


def test_the_state_directory_of_systemd_is_the_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/onward:/var/lib/other")
    assert load(None).data_dir == Path("/var/lib/onward")
    assert read('data_dir = "here"').data_dir == Path.cwd() / "here"


@pytest.mark.parametrize(
    ("machine", "hosts", "hostname"),
    [
        ("mx.example.org", "192.0.2.1 other.example.org mx.example.org", "mx.example.org"),
        ("mx", "127.0.0.1 localhost\n127.0.1.1\tmx.example.org mx\n", "mx.example.org"),
        ("MX", "192.0.2.1 mx mx.example.org # our own", "mx.example.org"),
        ("mx", "192.0.2.1 box.example.org box\n#192.0.2.2 mx.example.org mx\n192.0.2.3", "mx"),
        ("debian", "127.0.0.1 localhost.localdomain localhost debian", "debian"),
        ("debian", None, "debian"),
    ],
)
def test_the_hostname_is_the_machine_s_and_nobody_is_asked_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, hosts: str | None, hostname: str
) -> None:
    def asked(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a resolver was asked")

    for function in ("getfqdn", "getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo"):
        monkeypatch.setattr(f"socket.{function}", asked)
    monkeypatch.setattr("socket.gethostname", lambda: machine)
    monkeypatch.setattr("appliance.configuration.reading.HOSTS", tmp_path / "hosts")
    if hosts is not None:
        (tmp_path / "hosts").write_text(hosts)
    assert load(None).hostname == hostname


def test_a_machine_whose_name_is_none_has_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "my_box.")
    with pytest.raises(ConfigurationError) as caught:
        load(None)
    assert str(caught.value) == (
        'hostname: the machine\'s own name will not do: "my_box." is not a domain name; write one like "mx.example.org"'
    )


def test_retention_by_the_name_of_its_key() -> None:
    config = read('log.error_retention = "3d"')
    assert retention_ms(config, "log.error_retention") == 3 * DAY_MS
    assert retention_ms(config, "21d") == 21 * DAY_MS
    for unknown in ("log.nothing", "nothing.error_retention", "log.level"):
        with pytest.raises(KeyError):
            retention_ms(config, unknown)


# ------------------------------------------------------------------ where it is looked for


def test_the_order_of_the_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("appliance.configuration.reading.SEARCHED", (Path("onward.toml"), tmp_path / "etc.toml"))
    assert find(None) is None
    (tmp_path / "etc.toml").touch()
    assert find(None) == tmp_path / "etc.toml"
    (tmp_path / "onward.toml").touch()
    assert find(None) == Path("onward.toml")
    (tmp_path / "named.toml").touch()
    monkeypatch.setenv("ONWARD_CONFIG", "named.toml")
    assert find(None) == Path("named.toml")
    assert find("etc.toml") == Path("etc.toml")


def test_a_file_that_is_named_has_to_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("onward.toml").touch()
    with pytest.raises(ConfigurationError, match=r"^a.toml: --config names this file, and it does not exist$"):
        find("a.toml")
    monkeypatch.setenv("ONWARD_CONFIG", "b.toml")
    with pytest.raises(ConfigurationError, match=r"^b.toml: \$ONWARD_CONFIG names this file, and it does not exist$"):
        find(None)


# ------------------------------------------------------------------ what is wrong


def _cases() -> list[tuple[str, str]]:
    cases = Path(__file__).with_name("faults.txt").read_text("utf-8").split("---\n")[1:]
    return [(text, message.strip()) for text, _, message in (case.partition("\n=> ") for case in cases)]


@pytest.mark.parametrize(("text", "message"), _cases())
def test_a_fault_has_its_line_its_key_and_its_cure(text: str, message: str) -> None:
    assert fault(text) == message


def test_a_number_beyond_all_numbers() -> None:
    assert fault("smtp.max_connections = 0x" + "f" * 5000).startswith(
        "onward.toml:1: smtp.max_connections: a number as large as this is out of range; "
    )
    assert fault("smtp.max_connections = " + "9" * 5000).endswith("of a kind that no configuration is made of")


@pytest.mark.parametrize(
    "written",
    [
        *(
            "25",
            ":25",
            "localhost:25",
            "*:25",
            "127.1:25",
            "::1:25",
            "[::1]",
            "[::1]:25]",
            "[127.0.0.1]:25",
            "127.0.0.1",
        ),
        *("127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+5", "127.0.0.1:٥", "127.0.0.1:25 ", ""),
    ],
)
def test_no_address_to_listen_on(written: str) -> None:
    message = fault(f'[smtp]\nlisten = ["{written}"]')
    assert message.startswith(f'onward.toml:2: smtp.listen: "{written}"')
    assert message.endswith(
        ('write an IP address and a port, like "127.0.0.1:2525" or "[::1]:2525"', "to 65535 behind the last colon")
    )


def test_every_fault_is_told_at_once_in_the_order_of_the_file() -> None:
    assert [line.split(" ")[0] for line in fault("[log]\nlevel = 1\n[smtp]\nlisten = 1\nx = 1\n").splitlines()] == [
        "onward.toml:2:",
        "onward.toml:4:",
        "onward.toml:5:",
    ]


@pytest.mark.parametrize("unbuilt", UNBUILT, ids=lambda unbuilt: ".".join(unbuilt.key))
def test_what_cannot_be_done_yet_is_refused(unbuilt: object) -> None:
    values = {
        ("http", "listen_tls"): '["127.0.0.1:8443"]',
        ("store", "url"): '"mongodb://secret@host/onward"',
        ("forwarding", "arc"): "true",
    }
    key = unbuilt.key  # type: ignore[attr-defined]
    written = fault(f"{'.'.join(key)} = {values.get(key, chr(34) + 'x' + chr(34))}")
    assert written.startswith(f"onward.toml:1: {'.'.join(key)}: this version of Onward cannot do ")
    assert "secret" not in written


def test_what_is_not_missed_is_taken_and_told() -> None:
    told = without_effect(read('delivery.delay_notice_after = "1h"'))
    assert [found for found, _ in told] == [("delivery", "delay_notice_after")]


@pytest.mark.parametrize("key", PLAN_SETTINGS)
def test_nothing_of_a_plan_is_without_effect(key: str) -> None:
    assert list(without_effect(read(f"[plans.free]\n{key} = 7\n[plans.gold]\n{key} = 7"))) == []


def test_the_defaults_ask_for_nothing_that_is_not_there() -> None:
    assert list(without_effect(read(""))) == []
    # "" asks for no notices, and gets none.
    assert list(without_effect(read('delivery.delay_notice_after = ""'))) == []


def name_of(length: int) -> str:
    """A domain name of so many characters."""
    return ".".join(["a" * 49] * 5)[-length:].strip(".").rjust(length, "b")


def test_the_longest_domain_for_rewritten_senders_is_what_rewriting_can_do() -> None:
    longest = read(f'forwarding.srs_domain = "{name_of(LONGEST_SRS_DOMAIN)}"').forwarding.srs_domain
    assert len(longest) == LONGEST_SRS_DOMAIN
    SenderRewriter(longest, [bytes(16)])
    too_long = name_of(LONGEST_SRS_DOMAIN + 1)
    with pytest.raises(ValueError, match="too long"):
        SenderRewriter(too_long, [bytes(16)])
    assert fault(f'forwarding.srs_domain = "{too_long}"') == (
        f"onward.toml:1: forwarding.srs_domain: has {LONGEST_SRS_DOMAIN + 1} characters; "
        f"rewritten senders have room for {LONGEST_SRS_DOMAIN}; write a shorter one"
    )


def test_a_hostname_must_leave_room_for_what_is_made_of_it() -> None:
    own = name_of(LONGEST_SRS_DOMAIN - len("srs.") + 1)
    assert fault(f'hostname = "{own}"').startswith("onward.toml:1: hostname: srs.<hostname> has 212 characters; ")
    assert read(f'hostname = "{own}"\nforwarding.srs_domain = "b.example"').hostname == own
    longer = name_of(LONGEST_ADDRESS - len("postmaster@") + 1)
    said = fault(f'hostname = "{longer}"\nforwarding.srs_domain = "b.example"')
    assert said.startswith("onward.toml:1: hostname: postmaster@<hostname> has 255 characters; ")
    assert fault(f'mail.from = "ab@{name_of(252)}"').startswith("onward.toml:1: mail.from: has 255 characters; ")


def test_what_is_no_text_at_all(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"# a\n# b\xfc\n")
    with pytest.raises(ConfigurationError, match=r"latin:2: this is not UTF-8; save the file in that encoding"):
        load(tmp_path / "latin")
    (tmp_path / "large").write_bytes(b"#" * (1 << 21))
    with pytest.raises(ConfigurationError, match="too large for a configuration"):
        load(tmp_path / "large")
    (tmp_path / "deep").write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigurationError, match="of a kind that no configuration is made of"):
        load(tmp_path / "deep")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be read: No such file or directory"):
        load(tmp_path / "nothing")


def test_lines_end_as_they_like(tmp_path: Path) -> None:
    (tmp_path / "crlf").write_bytes(b"[log]\r\n# and\r\nlevel = 1\r\n")
    with pytest.raises(ConfigurationError, match=r"crlf:3: log\.level: "):
        load(tmp_path / "crlf")


def test_a_certificate_has_a_key_and_both_have_a_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A path that is not absolute is seen from where the appliance was started, whatever happens after."""
    monkeypatch.chdir(tmp_path)
    tls = read('[tls]\ncertificate = "mx.pem"\nkey = "/etc/onward/mx.key"').tls
    assert (tls.certificate, tls.key) == (str(tmp_path / "mx.pem"), "/etc/onward/mx.key")


def test_proxies_are_taken() -> None:
    assert read('smtp.trusted_proxies = ["10.0.0.0/8", "2001:db8::1"]').smtp.trusted_proxies == (
        "10.0.0.0/8",
        "2001:db8::1/128",
    )
