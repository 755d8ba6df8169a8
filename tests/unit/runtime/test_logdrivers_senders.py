"""What the drivers that send put on the wire, against receivers on real sockets."""

import gzip
import json
import os
import ssl
import time
import zlib

import msgspec
import pytest

from tests.receivers import Datagrams, Stream, certificate, receiving, wait_for
from wherry.runtime.logdrivers import gelf, journald, syslog
from wherry.runtime.logdrivers.fluentd import Fluentd
from wherry.runtime.logdrivers.gelf import Gelf
from wherry.runtime.logdrivers.journald import Journald
from wherry.runtime.logdrivers.syslog import Syslog

AT = 1_700_000_000_123_456_789
HOST = os.uname().nodename
PID = os.getpid()


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# syslog


def syslog_options(network, address, **options):
    return {"network": network, "address": address, "tls": {}, "facility": 3, "format": "", "tag": "me"} | options


@pytest.mark.parametrize(
    ("form", "head"),
    [
        ("", b"<30>Nov 14 22:13:20 me[%d]: "),
        ("rfc3164", b"<30>Nov 14 22:13:20 HOST me[%d]: "),
        ("rfc5424", b"<30>1 2023-11-14T22:13:20Z HOST me %d me - "),
        ("rfc5424micro", b"<30>1 2023-11-14T22:13:20.123456Z HOST me %d me - "),
    ],
)
def test_syslog_formats(form, head):
    with receiving(Datagrams()) as receiver:
        sender = Syslog(syslog_options("udp", ["127.0.0.1", receiver.port], format=form))
        sender.put("stdout", AT, [b"one\n\ntwo\xff\n"])
        sender.put("stderr", AT, [b"bad\n"])
        got = receiver.receive(3)
        sender.close()
    head = head.replace(b"HOST", HOST.encode()) % PID
    assert got == [head + b"one\n", head + b"two\xff\n", head.replace(b"<30>", b"<27>") + b"bad\n"]


def test_syslog_offset_of_the_local_time(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    with receiving(Datagrams()) as receiver:
        sender = Syslog(syslog_options("udp", ["127.0.0.1", receiver.port], format="rfc5424", facility=16))
        sender.put("stdout", AT, [b"one\n"])
        assert receiver.receive(1)[0].startswith(b"<134>1 2023-11-15T03:43:20+05:30 ")
        sender.close()


@pytest.mark.parametrize("network", ["unix", "unixgram"])
def test_syslog_on_a_unix_socket(network, tmp_path):
    path = str(tmp_path / "log")
    with receiving(Datagrams(path) if network == "unixgram" else Stream(path=path)) as receiver:
        sender = Syslog(syslog_options(network, [path]))
        sender.put("stdout", AT, [b"one\n"])
        got = receiver.receive(1)[0] if network == "unixgram" else receiver.wait_for(b"one\n")
        assert got.endswith(b"me[%d]: one\n" % PID)
        sender.close()


def test_syslog_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(syslog, "LOCAL", (str(tmp_path / "none"), str(tmp_path / "log")))
    with pytest.raises(OSError, match="Unix syslog delivery error"):
        Syslog(syslog_options("", []))
    with receiving(Datagrams(str(tmp_path / "log"))) as receiver:
        sender = Syslog(syslog_options("", []))
        sender.put("stdout", AT, [b"one\n"])
        assert receiver.receive(1)[0].endswith(b": one\n")
        sender.close()


def test_syslog_over_tls_counts_and_trusts_only_who_it_should(tmp_path):
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with receiving(Stream(context=context)) as receiver:
        address = ["127.0.0.1", receiver.port]
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            Syslog(syslog_options("tcp+tls", address))
        sender = Syslog(syslog_options("tcp+tls", address, format="rfc5424", tls={"ca": str(cert), "verify": True}))
        sender.put("stdout", AT, [b"one\ntwo\n"])
        data = receiver.wait_for(b"two\n")
        sender.close()
        unchecked = Syslog(syslog_options("tcp+tls", address, tls={"verify": False}))
        unchecked.put("stdout", AT, [b"three\n"])
        receiver.wait_for(b"three\n")
        unchecked.close()
    count, _, rest = data.partition(b" ")
    first, second = rest[: int(count)], rest[int(count) :]
    assert first.endswith(b"- one\n")
    assert second.startswith(b"%d <30>1 " % (len(second) - 3))


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        ({"ca": "/nope"}, 'could not read CA certificate "/nope": open /nope: no such file or directory'),
        ({"cert": "/nope", "key": "/nope"}, "Could not load X509 key pair: open /nope: no such file or directory"),
    ],
)
def test_syslog_without_its_certificates(tls, text):
    with pytest.raises(OSError, match=text):
        Syslog(syslog_options("tcp+tls", ["127.0.0.1", 1], tls=tls))


def test_syslog_over_tcp_comes_back_and_tells_of_what_is_lost():
    first = Stream()
    sender = Syslog(syslog_options("tcp", ["127.0.0.1", first.port]))
    port = first.port
    sender.put("stdout", AT, [b"one\n"])
    first.wait_for(b": one\n")
    first.close()
    with pytest.raises(OSError, match=f"dial tcp 127.0.0.1:{port}: connect: connection refused"):
        sender.put("stdout", AT, [b"lost\n"])
    with receiving(Stream(port=port)) as second:
        sender.put("stdout", AT, [b"two\nthree\n"])
        assert b"lost" not in second.wait_for(b": three\n")
        sender.close()


def test_a_receiver_that_is_not_there():
    with pytest.raises(OSError, match=r"dial tcp 127\.0\.0\.1:1: connect: connection refused$"):
        Syslog(syslog_options("tcp", ["127.0.0.1", 1]))
    with pytest.raises(OSError, match=r"dial udp: lookup nosuch\.invalid: no such host"):
        Syslog(syslog_options("udp", ["nosuch.invalid", 1]))


# journald


def journal_fields(datagram):
    fields, rest = {}, datagram
    while rest:
        line, _, rest = rest.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        fields[name.decode()] = value
    return fields


def test_journald_fields_parts_and_binary_values(tmp_path, monkeypatch):
    monkeypatch.setattr(journald, "SOCKET", str(tmp_path / "socket"))
    with pytest.raises(OSError, match="journald is not enabled on this host"):
        Journald({"fields": {}})
    with receiving(Datagrams(journald.SOCKET)) as receiver:
        sender = Journald({"fields": {"CONTAINER_NAME": "aa", "LABEL": "two\nlines"}})
        sender.put("stdout", AT, [b"one\n"])
        sender.put("stderr", AT, [b"x" * 16384])
        sender.put("stderr", AT, [b"y\nz\xff\n"])
        got = [journal_fields(each) for each in receiver.receive(4)]
        receiver.close()
        os.unlink(journald.SOCKET)
        with pytest.raises(OSError, match="write unixgram"):
            sender.put("stdout", AT, [b"lost\n"])
    with receiving(Datagrams(journald.SOCKET)) as again:  # a journald that was started again
        sender.put("stdout", AT, [b"back\n"])
        assert journal_fields(again.receive(1)[0])["MESSAGE"] == b"back"
        sender.close()
    assert got[0] | {"CONTAINER_LOG_EPOCH": b""} == {
        "CONTAINER_NAME": b"aa",
        "LABEL": b"two\nlines",
        "PRIORITY": b"6",
        "CONTAINER_LOG_EPOCH": b"",
        "CONTAINER_LOG_ORDINAL": b"1",
        "SYSLOG_TIMESTAMP": b"2023-11-14T22:13:20.123456789Z",
        "MESSAGE": b"one",
    }
    names = ("CONTAINER_PARTIAL_MESSAGE", "CONTAINER_PARTIAL_ORDINAL", "CONTAINER_PARTIAL_LAST")
    assert [got[1][name] for name in names] == [b"true", b"1", b"false"]
    assert [got[2][name] for name in names] == [b"true", b"2", b"true"]
    assert got[1]["CONTAINER_PARTIAL_ID"] == got[2]["CONTAINER_PARTIAL_ID"]
    assert (got[3]["MESSAGE"], got[3]["PRIORITY"]) == (b"z\xff", b"3")
    assert "CONTAINER_PARTIAL_ID" not in got[3]


# gelf


def gelf_options(network, port, **options):
    default = {"compression": "gzip", "level": 1, "fields": {"_tag": "t", "_a": "ü"}}
    delays = {"max_reconnect": 1, "reconnect_delay": 0}
    return {"network": network, "address": ["127.0.0.1", port], **default, **delays, **options}


@pytest.mark.parametrize(
    ("compression", "expand"), [("gzip", gzip.decompress), ("zlib", zlib.decompress), ("none", bytes)]
)
def test_gelf_over_udp(compression, expand):
    with receiving(Datagrams()) as receiver:
        sender = Gelf(gelf_options("udp", receiver.port, compression=compression))
        sender.put("stdout", AT, [b'on"e\n\n'])
        sender.put("stderr", AT, [b"\xff\n"])
        first, second = (json.loads(expand(each)) for each in receiver.receive(2))
        sender.close()
    assert first == {
        "version": "1.1",
        "host": HOST,
        "short_message": 'on"e',
        "timestamp": 1_700_000_000.123,
        "level": 6,
        "_tag": "t",
        "_a": "ü",
    }
    assert (second["short_message"], second["level"]) == ("\ufffd", 3)


def test_gelf_chunks():
    with receiving(Datagrams()) as receiver:
        sender = Gelf(gelf_options("udp", receiver.port, compression="none"))
        sender.put("stdout", AT, [b"z" * 16384])
        chunks = receiver.receive(12)
        sender.close()
    assert {each[:10] for each in chunks} == {chunks[0][:2] + chunks[0][2:10]}
    assert [(each[:2], each[10], each[11]) for each in chunks] == [(b"\x1e\x0f", n, 12) for n in range(12)]
    assert all(len(each) == gelf.CHUNK for each in chunks[:-1])
    assert json.loads(b"".join(each[12:] for each in chunks))["short_message"] == "z" * 16384
    with pytest.raises(OSError, match="needs 143 chunks"):
        gelf.chunks(b"x" * 200_000)


def test_gelf_over_tcp_ends_with_zeros_and_comes_back():
    first = Stream()
    port = first.port
    sender = Gelf(gelf_options("tcp", port))
    sender.put("stdout", AT, [b"one\n"])
    data = first.wait_for(b"\0")
    assert json.loads(data[:-1])["short_message"] == "one"
    first.close()
    with pytest.raises(OSError, match="connection refused"):
        sender.put("stdout", AT, [b"lost\n"])
    with receiving(Stream(port=port)) as second:
        sender.put("stdout", AT, [b"two\n"])
        second.wait_for(b'"two"')
        sender.close()
    with pytest.raises(OSError, match=r"gelf: cannot connect to GELF endpoint: 127\.0\.0\.1:1 dial tcp "):
        Gelf(gelf_options("tcp", 1))


# fluentd


def fluentd_options(address, **options):
    default = {"network": "tcp", "tls": {"verify": False}, "tag": "t.x", "fields": {"container_name": "/aa"}}
    default |= {"connect": True, "max_retries": 200, "retry_wait": 0.01, "precise": False, "ack": False}
    return default | {"address": address, "write_timeout": 0.0, "reconnect_interval": 0.0} | options


def unpacked(data):
    """Return the messages of a stream of msgpack; the event time is an extension of type 0."""
    messages = []
    while data:
        message, used = _first(data)
        messages.append(message)
        data = data[used:]
    return messages


def _first(data):
    for end in range(1, len(data) + 1):
        if data[end - 1 : end] == b"\x80" or end == len(data):
            try:
                return msgspec.msgpack.decode(data[:end]), end
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
    raise AssertionError(data)


@pytest.mark.parametrize("network", ["tcp", "unix"])
def test_fluentd_messages(network, tmp_path):
    path = str(tmp_path / "fluentd")
    with receiving(Stream(path=path if network == "unix" else "")) as receiver:
        address = [path] if network == "unix" else ["127.0.0.1", receiver.port]
        sender = Fluentd(fluentd_options(address, network=network))
        sender.put("stdout", AT, [b"one\n\n"])
        sender.put("stderr", AT, [b"x" * 16384])
        sender.put("stderr", AT, [b"y\n"])
        messages = wait_for(lambda: (found := unpacked(receiver.data)) and len(found) == 4 and found)
        sender.close()
    assert messages[0] == [
        *("t.x", AT // 10**9, {"container_name": "/aa", "source": "stdout", "log": "one"}, {}),
    ]
    assert messages[1][2]["log"] == ""
    part, last = messages[2][2], messages[3][2]
    assert (part["partial_ordinal"], part["partial_last"], part["log"]) == ("1", "false", "x" * 16384)
    assert (last["partial_ordinal"], last["partial_last"], last["log"]) == ("2", "true", "y")
    assert part["partial_id"] == last["partial_id"]
    assert last["partial_message"] == "true"


def test_fluentd_precise_times_and_bytes_as_they_are():
    with receiving(Stream()) as receiver:
        sender = Fluentd(fluentd_options(["127.0.0.1", receiver.port], precise=True))
        sender.put("stdout", AT, [b"\xff\n"])
        data = receiver.wait_for(b"log")
        sender.close()
    assert b"\xd7\x00" + (AT // 10**9).to_bytes(4, "big") + (AT % 10**9).to_bytes(4, "big") in data
    assert data.endswith(b"\xa3log\xa1\xff\x80")


def test_fluentd_waits_for_its_answer_and_sends_again_without_one():
    seen = []

    def answer(data):
        seen.append(data)
        if len(seen) == 1:
            raise OSError("the first is not answered")
        chunk = msgspec.msgpack.decode(data)[3]["chunk"]
        return msgspec.msgpack.encode({"ack": chunk})

    with receiving(Stream(answer=answer)) as receiver:
        options = fluentd_options(["127.0.0.1", receiver.port], ack=True, write_timeout=0.3)
        sender = Fluentd(options)
        sender.put("stdout", AT, [b"one\n"])
        assert len(seen) == 2
        assert msgspec.msgpack.decode(seen[0])[2] == msgspec.msgpack.decode(seen[1])[2]
        sender.close()


def test_fluentd_waits_for_a_receiver_that_went_away():
    first = Stream()
    port = first.port
    sender = Fluentd(fluentd_options(["127.0.0.1", port]))
    sender.put("stdout", AT, [b"one\n"])
    first.wait_for(b"one")
    first.close()
    impatient = Fluentd(fluentd_options(["127.0.0.1", port], connect=False, max_retries=2))
    with pytest.raises(OSError, match="connection refused"):
        impatient.put("stdout", AT, [b"lost\n"])
    with receiving(Stream(port=port)) as second:
        sender.put("stdout", AT, [b"two\n"])
        second.wait_for(b"two")
        sender.close()
