"""Options and tags of log drivers: dockerd's answers, recorded from 28.5.2, and what is ours."""

from pathlib import Path

import pytest

from wherry.errors import InvalidArgument
from wherry.logs import drivers, tags, targets
from wherry.logs.origin import Origin
from wherry.models import sizes

ID = "0123456789ab" + "c" * 52
ORIGIN = Origin(
    id=ID,
    name="aa",
    image_name="busybox",
    image_id="sha256:" + "d" * 64,
    command=("sh", "-c", "true"),
    created="2026-01-01T00:00:00Z",
    labels={"a": "1", "b.c": "2"},
    env=("FOO=1", "BAR=2", "BARE"),
)
UDP = {"syslog-address": "udp://127.0.0.1:1"}
GELF = {"gelf-address": "udp://127.0.0.1:1"}
GELF_TCP = {"gelf-address": "tcp://127.0.0.1:1"}
BAD = [
    ("nope", {}, 'error looking up logging plugin nope: plugin "nope" not found'),
    ("json-file", {"x": "y"}, "unknown log opt 'x' for json-file log driver"),
    ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
    ("json-file", {"max-file": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
    ("json-file", {"max-size": "x"}, "invalid size: 'x'"),
    ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
    ("json-file", {"max-size": "-5"}, "invalid size: '-5'"),
    ("json-file", {"max-size": "10q"}, "invalid suffix: 'q'"),
    ("json-file", {"max-size": " 1k"}, 'strconv.ParseFloat: parsing " 1": invalid syntax'),
    ("json-file", {"compress": "x"}, 'strconv.ParseBool: parsing "x": invalid syntax'),
    ("json-file", {"compress": "true", "max-size": "1k", "max-file": "1"}, "compress cannot be true when max-file is"),
    ("json-file", {"mode": "x"}, "logger: logging mode not supported: x"),
    ("json-file", {"max-buffer-size": "1m"}, "max-buffer-size option is only supported with 'mode=non-blocking'"),
    ("json-file", {"mode": "non-blocking", "max-buffer-size": "x"}, "error parsing option max-buffer-size: invalid"),
    ("json-file", {"labels-regex": "["}, "error parsing regexp: "),
    ("json-file", {"tag": "{{"}, "template: log-tag:1: unclosed action"),
    ("json-file", {"cache-disabled": "x"}, "invalid value for option cache-disabled: x"),
    ("json-file", {"max-age": "soon"}, 'invalid value for max-age: time: invalid duration "soon"'),
    ("local", {"labels": "a"}, "unknown log opt 'labels' for log driver local"),
    ("local", {"max-size": "x"}, "invalid value for max-size: x: invalid size: 'x'"),
    ("local", {"max-file": "1"}, "compression cannot be enabled when max file count is 1"),
    ("local", {"max-file": "-1"}, "max file count cannot be less than 0"),
    ("local", {"compress": "x"}, 'error reading compress log option: strconv.ParseBool: parsing "x"'),
    ("syslog", {"syslog-address": "foo"}, "unsupported scheme: ''"),
    ("syslog", {"syslog-address": "unix:///nonexist"}, "stat /nonexist: no such file or directory"),
    ("syslog", {**UDP, "syslog-facility": "30"}, "invalid syslog facility"),
    ("syslog", {**UDP, "syslog-format": "x"}, "Invalid syslog format"),
    ("syslog", {**UDP, "max-size": "1m"}, "unknown log opt 'max-size' for syslog log driver"),
    ("gelf", {"x": "y"}, "gelf-address is a required parameter"),
    ("gelf", {"gelf-address": "http://127.0.0.1:1"}, "gelf: endpoint needs to be TCP or UDP"),
    ("gelf", {"gelf-address": "udp://127.0.0.1"}, "gelf: please provide gelf-address as proto://host:port"),
    ("gelf", {**GELF, "gelf-compression-type": "x"}, 'unknown value "x" for log opt "gelf-compression-type" for gelf'),
    ("gelf", {**GELF, "gelf-compression-level": "10"}, 'unknown value "10" for log opt "gelf-compression-level"'),
    ("gelf", {**GELF, "gelf-tcp-max-reconnect": "3"}, '"gelf-tcp-max-reconnect" is only valid for TCP'),
    ("gelf", {**GELF_TCP, "gelf-tcp-reconnect-delay": "x"}, '"gelf-tcp-reconnect-delay" must be a positive integer'),
    ("gelf", {**GELF_TCP, "gelf-compression-level": "1"}, "compression is only supported on UDP"),
    ("fluentd", {"fluentd-address": "unix://"}, "invalid fluentd-address (unix://): path is empty"),
    ("fluentd", {"fluentd-address": "a:1/p"}, "invalid fluentd-address (a:1/p): should not contain a path element"),
    ("fluentd", {"fluentd-address": "127.0.0.1:x"}, 'parse "tcp://127.0.0.1:x": invalid port ":x" after host'),
    ("fluentd", {"fluentd-retry-wait": "3"}, 'time: missing unit in duration "3"'),
    ("fluentd", {"fluentd-max-retries": "-1"}, 'strconv.ParseUint: parsing "-1": invalid syntax'),
    ("fluentd", {"fluentd-async-reconnect-interval": "11s"}, 'value ("11s") must be between 100ms and 10s'),
    ("fluentd", {"fluentd-write-timeout": "-1s"}, "value must be a duration that is non-negative"),
]


def built(driver, options):
    drivers.check(driver, options)
    return targets.build(driver, options, ORIGIN, Path("/c"))


@pytest.mark.parametrize(("driver", "options", "text"), BAD)
def test_bad_options_are_refused_in_dockerds_words(driver, options, text):
    with pytest.raises(InvalidArgument) as caught:
        built(driver, options)
    assert text in caught.value.message


def test_defaults():
    json_file, local = built("json-file", {}), built("local", {})
    assert (json_file.max_size, json_file.max_file, json_file.compress, json_file.buffer) == (20 << 20, 5, False, 0)
    assert (local.max_size, local.max_file, local.compress, local.path) == (
        *(20 << 20, 5, True),
        "/c/local-logs/container.log",
    )
    syslog = built("syslog", UDP)
    assert (syslog.path, syslog.compress, syslog.options["tag"]) == ("/c/container-cached.log", True, ID[:12])
    assert built("syslog", {**UDP, "cache-disabled": "true"}).path == ""
    assert built("json-file", {"mode": "non-blocking"}).buffer == 1 << 20
    assert built("json-file", {"max-size": "-1"}).max_size == 0
    assert built("none", {"x": "y"}).driver == "none"
    assert built("json-file", {"max-age": "7d"}).max_age == 7 * 86_400 * 10**9


def test_attributes_and_their_names_by_driver():
    wanted = {"labels": "a,none", "env": "FOO", "labels-regex": r"\.", "env-regex": "^BA"}
    assert built("json-file", wanted).attrs == {"a": "1", "b.c": "2", "FOO": "1", "BAR": "2"}
    assert built("json-file", {"tag": "{{.Name}}"}).attrs == {"tag": "aa"}
    assert built("json-file", {"tag": '{{index .ContainerLabels "none"}}'}).attrs == {}
    fields = built("journald", wanted).options["fields"]
    assert (fields["A"], fields["B_C"], fields["FOO"], fields["CONTAINER_ID_FULL"]) == ("1", "2", "1", ID)
    assert built("gelf", {**GELF, **wanted}).options["fields"]["_b.c"] == "2"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.Name}}/{{.ID}}", "aa/0123456789ab"),
        ("{{ .ImageName }}|{{.ImageID}}|{{.DaemonName}}|{{.Command}}", "busybox|sha256:ddddd|docker|sh -c true"),
        ('{{index .ContainerLabels "b.c"}}', "2"),
        ("{{.ContainerEntrypoint}} {{.ContainerArgs}}", "sh [-c true]"),
        ("{{upper .Name}}{{.Name | upper | lower}}", "AAaa"),
        ("{{truncate .FullID 3}}", "012"),
        ('{{printf "%s-%v%%" .Name .ID}}', "aa-0123456789ab%"),
    ],
)
def test_tags(template, text):
    assert ORIGIN.tag({"tag": template}) == text


@pytest.mark.parametrize(
    "template",
    [
        *("{{", "{{.Nope}}", "{{nope .ID}}", "{{}}", "{{.ID |}}", "{{.ContainerLabels}}", "{{range .X}}"),
        *('{{printf "%d" .ID}}', '{{printf "%s"}}', "{{truncate .ID .Name}}", "{{.ID .Name}}", "{{index .ID}}"),
        "x" * 5000,
    ],
)
def test_tags_that_are_none(template):
    with pytest.raises(InvalidArgument, match="template: log-tag"):
        tags.render(template, {"ID": "1", "Name": "x", "ContainerLabels": {}})


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("10kb", 10240), ("1.5k", 1536), ("10KiB", 10240), ("2 g", 2 << 30), ("1tb", 1 << 40)]
)
def test_sizes_as_docker_reads_them(text, size):
    assert sizes.positive(text) == size


@pytest.mark.parametrize("text", ["", "x", "1kk", "1bb", "1e400k", "nan", "inf", "--1"])
def test_sizes_that_are_none(text):
    with pytest.raises((ValueError, OverflowError)):
        sizes.positive(text)
