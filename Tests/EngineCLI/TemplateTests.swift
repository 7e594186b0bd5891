import Contracts
import Testing

@testable import EngineCLI

@Suite struct TemplateTests {
  private static let value: JSONValue = [
    "Id": "abc", "Name": "/web",
    "State": ["Pid": 42, "Running": true, "Error": "", "Health": .null],
    "Config": ["Labels": ["a": "1", "b": "2"], "Cmd": ["sh", "-c"], "Env": ["A=1", "B=2"]],
    "Mounts": [["Source": "/x", "RW": true], ["Source": "/y", "RW": false]],
    "Ports": ["80/tcp": [["HostPort": "8080"]], "81/tcp": .null],
  ]

  private static func render(_ text: String) -> String {
    do throws(TemplateError) {
      return try Template(text).render(value, strictness: .keys(maps: ["Labels", "Ports"]))
    } catch {
      return error.description
    }
  }

  @Test(arguments: [
    ("{{.Name}}", "/web"), ("pid {{ .State.Pid }}!", "pid 42!"), ("{{.ID}}", "abc"), ("{{.State.Running}}", "true"),
    ("{{json .State}}", #"{"Pid":42,"Running":true,"Error":"","Health":null}"#),
    ("{{json .Config.Cmd}}", #"["sh","-c"]"#),
    ("{{.Config.Cmd}}", "[sh -c]"), ("{{.Config.Labels}}", "map[a:1 b:2]"),
    ("{{join .Config.Cmd \" \"}}", "sh -c"), ("{{.Config.Cmd | len}}", "2"),
    ("{{index .Config.Cmd 1}}", "-c"), ("{{(index .Mounts 0).Source}}", "/x"),
    ("{{index .Config.Labels \"a\"}}", "1"), ("{{index .Config.Labels \"none\"}}", "<no value>"),
    ("{{.Config.Labels.none}}", "<no value>"), ("{{.State.Health}}", "<no value>"),
    ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
    ("{{range .Mounts}}{{.Source}} {{end}}", "/x /y "),
    ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Source}};{{end}}", "0=/x;1=/y;"),
    ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a=1 b=2 "),
    (
      "{{range $p, $c := .Ports}}{{$p}} -> {{if $c}}{{(index $c 0).HostPort}}{{else}}none{{end}},{{end}}",
      "80/tcp -> 8080,81/tcp -> none,"
    ),
    ("{{range .State.Health}}x{{else}}empty{{end}}", "empty"),
    ("{{range .Mounts}}{{if .RW}}{{continue}}{{end}}{{.Source}}{{end}}", "/y"),
    ("{{range .Mounts}}{{.Source}}{{break}}{{end}}", "/x"),
    ("{{if .State.Error}}bad{{else if .State.Running}}up{{else}}down{{end}}", "up"),
    ("{{if not .State.Running}}a{{else}}b{{end}}", "b"), ("{{with .State}}{{.Pid}}{{end}}", "42"),
    ("{{with .State.Error}}x{{else}}none{{end}}", "none"), ("{{$p := .State.Pid}}{{$p}}", "42"),
    ("{{$p := 1}}{{if true}}{{$p = 2}}{{end}}{{$p}}", "2"), ("{{with .State}}{{$.Name}}{{end}}", "/web"),
    ("{{upper .Name}}{{lower \"ABC\"}}{{title \"a b\"}}", "/WEBabcA B"), ("{{split \"a,b\" \",\"}}", "[a b]"),
    ("{{printf \"%s-%d-%5.1f|%-4s|%q\" .Name 7 1.25 \"x\" \"y\"}}", "/web-7-  1.3|x   |\"y\""),
    ("{{.Name | printf \"<%s>\"}}", "</web>"), ("{{println 1 2}}", "1 2\n"), ("{{print \"a\" 1 2 \"b\"}}", "a1 2b"),
    ("{{eq .State.Pid 42}} {{ne 1 2}} {{lt 1 2}} {{gt 1 2}} {{eq \"a\" \"b\" \"a\"}}", "true true true false true"),
    ("{{and .State.Running .Name}} {{or .State.Error \"none\"}}", "/web none"),
    ("a {{- .Id -}} b", "aabcb"), ("a{{/* no */}}b", "ab"), ("{{`raw\\n`}}", "raw\\n"), ("{{slice .Id 1 2}}", "b"),
    ("{{len .Id}}", "3"), ("{{truncate .Id 2}}", "ab"), ("{{\"{{\"}}", "{{"),
    ("{{.Foo}}", "template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""),
    ("x\n{{.State.Foo}}", "template: :2:8: executing \"\" at <.State.Foo>: map has no entry for key \"Foo\""),
    ("{{.Name.Foo}}", "template: :1:7: executing \"\" at <.Name.Foo>: can't evaluate field Foo in type string"),
    ("{{.Foo", "template: :1: unclosed action"), ("{{foo .}}", "template: :1: function \"foo\" not defined"),
    ("{{if .Name}}", "template: :1: unexpected EOF"), ("{{end}}", "template: :1: unexpected {{end}}"),
    ("{{$x}}", "template: :1: undefined variable \"$x\""), ("{{(.Name}}", "template: :1: unclosed left paren"),
    (
      "{{index .Config.Cmd 9}}",
      "template: :1:2: executing \"\" at <index .Config.Cmd 9>: error calling index: index out of range: 9"
    ),
    ("{{| .}}", "template: :1: missing value for command"), ("{{break}}", "template: :1: {{break}} outside {{range}}"),
    ("{{\"abc}}", "template: :1: unterminated quoted string"),
  ])
  func templates(text: String, expected: String) {
    #expect(Self.render(text) == expected)
  }

  @Test func aRowWithoutTheFieldNamesTheType() throws {
    #expect(throws: TemplateError.self) {
      _ = try Template("{{.Foo}}").render(["ID": "x"], strictness: .fields(of: "*formatter.ContainerContext"))
    }
    do throws(TemplateError) {
      _ = try Template("{{.Foo}}").render(["ID": "x"], strictness: .fields(of: "*formatter.ContainerContext"))
    } catch {
      #expect(
        error.description
          == "template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.ContainerContext")
    }
  }
}
