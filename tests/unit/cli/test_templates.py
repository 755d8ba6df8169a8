"""--format: the expected texts were read off docker 28.2 where it was given the same data."""

from __future__ import annotations

import pytest

from wherry.cli.failures import TemplateError
from wherry.cli.templates import Template

DATA = {
    "Name": "/a",
    "State": {"ExitCode": 137, "Running": False, "Error": ""},
    "Env": ["A=1", "B=2"],
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "443/tcp": None},
    "Nothing": None,
    "Empty": [],
    "Html": "<a>&",
}

GOOD = [
    ("plain", "plain"),
    ("{{.Name}}", "/a"),
    ("{{ .State.ExitCode }}", "137"),
    ("{{.State.Running}} {{.State.Error}}.", "false ."),
    ("{{.Env}}", "[A=1 B=2]"),
    ("{{.Nothing}}", "<no value>"),
    ("{{.State}}", "map[Error: ExitCode:137 Running:false]"),
    ("{{json .State}}", '{"ExitCode":137,"Running":false,"Error":""}'),
    ("{{json .Html}}", '"\\u003ca\\u003e\\u0026"'),
    ("{{.State.ExitCode | json}}", "137"),
    ("{{index .Env 1}}", "B=2"),
    ('{{index .Ports "80/tcp"}}', "[map[HostPort:8080]]"),
    ('{{with index .Ports "80/tcp"}}{{with index . 0}}{{.HostPort}}{{end}}{{end}}', "8080"),
    ("{{len .Env}}", "2"),
    ("{{range .Env}}<{{.}}>{{end}}", "<A=1><B=2>"),
    ("{{range .Empty}}x{{else}}none{{end}}", "none"),
    ("{{range $i, $e := .Env}}{{$i}}={{$e}};{{end}}", "0=A=1;1=B=2;"),
    ("{{range $k, $v := .Ports}}{{$k}} {{end}}", "443/tcp 80/tcp "),
    ("{{range .Env}}{{$.Name}}{{end}}", "/a/a"),
    ("{{if .State.Running}}up{{else}}down{{end}}", "down"),
    ("{{if .State.Running}}up{{else if .Name}}named{{else}}x{{end}}", "named"),
    ("{{if and .Name .Env}}both{{end}}", "both"),
    ("{{if or .Nothing .Name}}one{{end}}", "one"),
    ("{{if not .Nothing}}no{{end}}", "no"),
    ("{{if eq .State.ExitCode 137}}killed{{end}}", "killed"),
    ("{{if ne .Name `/b`}}other{{end}}", "other"),
    ("{{if gt .State.ExitCode 128}}signal{{end}}", "signal"),
    ("{{with .Nothing}}x{{else}}nothing{{end}}", "nothing"),
    ("{{$x := .Name}}{{$x}}!", "/a!"),
    ('{{join .Env ", "}}', "A=1, B=2"),
    ('{{split .Name "/"}}', "[ a]"),
    ("{{upper .Name}} {{lower `ABC`}} {{title `abc`}}", "/A abc Abc"),
    ('{{printf "%s-%d-%v" .Name .State.ExitCode .State.Running}}', "/a-137-false"),
    ("{{println .Name}}", "/a\n"),
    ("a {{- .Name -}} b", "a/ab"),
    ("{{/* comment */}}x", "x"),
    ("{{truncate .Name 1}}", "/"),
    ('{{"quoted"}} {{`raw`}} {{3}} {{true}}', "quoted raw 3 true"),
    ("{{len (index .Env 0)}}", "3"),
    ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
    ('{{len (index (index .Ports "80/tcp") 0).HostPort}}', "4"),
]

BAD = [
    ("{{.Foo}}", 'template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
    ("{{.Name.Foo}}", "can't evaluate field Foo"),
    ("{{foo .Name}}", 'function "foo" not defined'),
    ("{{.Name", "unclosed action"),
    ("{{if .Name}}x", "unexpected EOF"),
    ("{{end}}", "unexpected {{end}}"),
    ("{{$x}}", 'undefined variable "$x"'),
    ("{{index .Env 7}}", "index out of range"),
    ("{{len .Nothing}}", "len of untyped nil"),
    ("{{range .Name}}x{{end}}", "range can't iterate over /a"),
    ("{{(.Name}}", "unclosed left paren"),
    ("{{|}}", "missing value"),
]


@pytest.mark.parametrize(("source", "text"), GOOD)
def test_what_a_template_makes_of_data(source: str, text: str) -> None:
    assert Template(source).render(DATA) == text


@pytest.mark.parametrize(("source", "reason"), BAD)
def test_what_does_not_fit_is_an_error_with_its_reason(source: str, reason: str) -> None:
    with pytest.raises(TemplateError) as raised:
        Template(source).render(DATA)
    assert reason in str(raised.value)
