import Contracts

/// Builds a template's tree.
struct TemplateParser {
  private var pieces: ArraySlice<TemplatePiece>
  private var line = 1
  private var loops = 0
  private var variables: [String] = [""]

  init(pieces: [TemplatePiece]) { self.pieces = pieces[...] }

  /// What ended a list of nodes.
  private enum Ending {
    case end
    case otherwise([TemplateToken])
  }

  mutating func parse() throws(TemplateError) -> [Template.Node] {
    let (nodes, ending) = try list()
    switch ending {
    case nil: return nodes
    case .end: throw fail("unexpected {{end}}")
    case .otherwise: throw fail("unexpected {{else}}")
    }
  }

  private func fail(_ why: String) -> TemplateError { TemplateError(line: line, why) }

  private mutating func list() throws(TemplateError) -> ([Template.Node], Ending?) {
    var nodes: [Template.Node] = []
    while let piece = pieces.popFirst() {
      guard case .action(let tokens) = piece else {
        if case .text(let text) = piece { nodes.append(.text(text)) }
        continue
      }
      line = tokens[0].position.line
      let rest = tokens.dropFirst()
      switch tokens[0].kind {
      case .identifier("end"): return (nodes, .end)
      case .identifier("else"): return (nodes, .otherwise(Array(rest)))
      case .identifier("if"), .identifier("with"), .identifier("range"):
        nodes.append(try control(tokens))
      case .identifier("break") where loops > 0: nodes.append(.leaveLoop)
      case .identifier("continue") where loops > 0: nodes.append(.nextRound)
      case .identifier("break"): throw fail("{{break}} outside {{range}}")
      case .identifier("continue"): throw fail("{{continue}} outside {{range}}")
      default: nodes.append(.action(try pipeline(tokens, context: "command")))
      }
    }
    return (nodes, nil)
  }

  /// `if`, `with` or `range` with everything up to its `end`. `else if` is an `else` with an `if` in it.
  private mutating func control(_ tokens: [TemplateToken]) throws(TemplateError) -> Template.Node {
    guard case .identifier(let keyword) = tokens[0].kind else { throw fail("unexpected token") }
    let known = variables.count
    defer { variables.removeLast(variables.count - known) }
    let condition = try pipeline(Array(tokens.dropFirst()), context: keyword)
    if keyword == "range" { loops += 1 }
    let (then, ending) = try list()
    if keyword == "range" { loops -= 1 }
    var otherwise: [Template.Node] = []
    switch ending {
    case nil: throw fail("unexpected EOF")
    case .end: break
    case .otherwise(let rest) where rest.isEmpty:
      let (nodes, second) = try list()
      switch second {
      case .end: otherwise = nodes
      case .otherwise: throw fail("unexpected {{else}}")
      case nil: throw fail("unexpected EOF")
      }
    case .otherwise(let rest):
      guard case .identifier(let word) = rest[0].kind, word == keyword, word != "range" else {
        throw fail("unexpected token in {{else}}")
      }
      otherwise = [try control(rest)]
    }
    switch keyword {
    case "if": return .conditional([condition], then: then, otherwise: otherwise)
    case "with": return .with(condition, then: then, otherwise: otherwise)
    default: return .range(condition, body: then, otherwise: otherwise)
    }
  }

  private mutating func pipeline(_ tokens: [TemplateToken], context: String) throws(TemplateError) -> Template.Pipeline
  {
    var rest = tokens[...]
    let pipeline = try pipeline(&rest, context: context)
    if !rest.isEmpty { throw fail("unexpected right paren") }
    return pipeline
  }

  private mutating func pipeline(
    _ rest: inout ArraySlice<TemplateToken>, context: String
  ) throws(TemplateError) -> Template.Pipeline {
    var pipeline = Template.Pipeline()
    if let sign = rest.firstIndex(where: { $0.kind == .declare || $0.kind == .assign }) {
      for token in rest[..<sign] {
        switch token.kind {
        case .variable(let name):
          pipeline.variables.append(name)
          if rest[sign].kind == .assign, !variables.contains(name) { throw fail("undefined variable \"$\(name)\"") }
        case .comma: continue
        default: throw fail("unexpected token in declaration")
        }
      }
      guard (1...(context == "range" ? 2 : 1)).contains(pipeline.variables.count) else {
        throw fail("too many declarations in \(context)")
      }
      pipeline.assigns = rest[sign].kind == .assign
      variables += pipeline.variables
      rest = rest[(sign + 1)...]
    }
    var operands: [Template.Operand] = []
    var start = rest.first?.position ?? TemplatePosition(line: line, column: 0)
    func close() throws(TemplateError) {
      guard !operands.isEmpty else { throw fail("missing value for \(context)") }
      pipeline.commands.append(Template.Command(operands: operands, position: start))
      operands = []
    }
    while let token = rest.first {
      if token.kind == .close { break }
      if token.kind == .pipe {
        try close()
        rest.removeFirst()
        start = rest.first?.position ?? token.position
        continue
      }
      operands.append(try operand(&rest))
    }
    try close()
    return pipeline
  }

  private mutating func operand(_ rest: inout ArraySlice<TemplateToken>) throws(TemplateError) -> Template.Operand {
    guard let token = rest.popFirst() else { throw fail("missing value for command") }
    var operand: Template.Operand
    var names: [String] = []
    var position = token.position
    switch token.kind {
    case .dot: return .dot
    case .field(let name):
      operand = .dot
      names = [name]
    case .variable(let name):
      guard variables.contains(name) else { throw fail("undefined variable \"$\(name)\"") }
      operand = .variable(name)
    case .string(let text): operand = .literal(.string(text))
    case .integer(let value): operand = .literal(.integer(value))
    case .number(let value): operand = .literal(.number(value))
    case .identifier("true"): operand = .literal(.boolean(true))
    case .identifier("false"): operand = .literal(.boolean(false))
    case .identifier("nil"): operand = .literal(.null)
    case .identifier(let name):
      guard TemplateFunctions.names.contains(name) else { throw fail("function \"\(name)\" not defined") }
      return .function(name)
    case .open:
      operand = .pipeline(try pipeline(&rest, context: "parenthesized pipeline"))
      guard rest.popFirst()?.kind == .close else { throw fail("unclosed left paren") }
    case .close: throw fail("unexpected right paren")
    case .pipe, .comma, .declare, .assign: throw fail("unexpected token in operand")
    }
    while let next = rest.first, !next.isSpaced, case .field(let name) = next.kind {
      names.append(name)
      if names.count <= 2 { position = next.position }
      rest.removeFirst()
    }
    return names.isEmpty ? operand : .fields(operand, names, position)
  }
}
