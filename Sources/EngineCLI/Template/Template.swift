import Contracts

/// A template of Go's text/template, over JSON values: what `--format` takes.
struct Template: Sendable {
  /// One word of a command, with the fields that are taken of it: `.State.Pid`, `$name.x`, `(index . 0).y`.
  indirect enum Operand: Sendable {
    case dot
    case variable(String)
    case literal(JSONValue)
    case function(String)
    case pipeline(Pipeline)
    case fields(Operand, [String], TemplatePosition)
  }

  struct Command: Sendable {
    var operands: [Operand]
    var position: TemplatePosition
  }

  struct Pipeline: Sendable {
    var variables: [String] = []
    /// `=` rather than `:=`.
    var assigns = false
    var commands: [Command] = []
  }

  indirect enum Node: Sendable {
    case text(String)
    case action(Pipeline)
    case conditional([(Pipeline)], then: [Node], otherwise: [Node])
    case with(Pipeline, then: [Node], otherwise: [Node])
    case range(Pipeline, body: [Node], otherwise: [Node])
    case leaveLoop
    case nextRound
  }

  /// What a field that is not there means.
  enum Strictness: Sendable {
    /// An error that names the type: for rows of lists.
    case fields(of: String)
    /// An error for what has a fixed set of fields, `<no value>` for a key of one of the maps: for `inspect`.
    case keys(maps: Set<String>)
  }

  let nodes: [Node]

  /// - Throws: `TemplateError` in Go's words.
  init(_ text: String) throws(TemplateError) {
    var parser = TemplateParser(pieces: try TemplateLexer.pieces(text))
    nodes = try parser.parse()
  }

  func render(_ value: JSONValue, strictness: Strictness) throws(TemplateError) -> String {
    var evaluator = TemplateEvaluator(root: value, strictness: strictness)
    return try evaluator.render(nodes)
  }
}
