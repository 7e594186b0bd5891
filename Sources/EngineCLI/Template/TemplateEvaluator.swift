import Contracts

/// A value in a template: what JSON has, or nothing at all (`<no value>`).
struct TemplateValue: Equatable {
  var json: JSONValue?
  /// Whether missing keys are none of the template's mistakes: for maps, as opposed to what has fixed fields.
  var isMap = false

  static let none = TemplateValue(json: nil)

  init(json: JSONValue?, isMap: Bool = false) {
    self.json = json
    self.isMap = isMap
  }

  /// As Go's `if` judges it: false, 0, nothing and what is empty are false.
  var isTrue: Bool {
    switch json {
    case nil, .null: false
    case .boolean(let truth): truth
    case .integer(let number): number != 0
    case .unsigned(let number): number != 0
    case .number(let number): number != 0
    case .string(let text): !text.isEmpty
    case .array(let values): !values.isEmpty
    case .object(let members): !members.isEmpty
    }
  }

  /// As Go's fmt prints it with `%v`.
  var text: String {
    switch json {
    case nil, .null: "<no value>"
    case let json?: Self.text(json)
    }
  }

  private static func text(_ value: JSONValue) -> String {
    switch value {
    case .null: "<nil>"
    case .boolean(let truth): truth ? "true" : "false"
    case .integer(let number): String(number)
    case .unsigned(let number): String(number)
    case .number(let number): JSONText.number(number)
    case .string(let text): text
    case .array(let values): "[\(values.map(text).joined(separator: " "))]"
    case .object(let members):
      "map[\(members.sorted { $0.key < $1.key }.map { "\($0.key):\(text($0.value))" }.joined(separator: " "))]"
    }
  }
}

/// Executes a template's tree.
struct TemplateEvaluator {
  private enum Flow {
    case on
    case leaveLoop
    case nextRound
  }

  private let strictness: Template.Strictness
  private var output = ""
  private var variables: [(name: String, value: TemplateValue)]

  init(root: JSONValue, strictness: Template.Strictness) {
    self.strictness = strictness
    variables = [("", TemplateValue(json: root))]
  }

  mutating func render(_ nodes: [Template.Node]) throws(TemplateError) -> String {
    _ = try execute(nodes, dot: variables[0].value)
    return output
  }

  private mutating func execute(_ nodes: [Template.Node], dot: TemplateValue) throws(TemplateError) -> Flow {
    for node in nodes {
      switch node {
      case .text(let text): output += text
      case .leaveLoop: return .leaveLoop
      case .nextRound: return .nextRound
      case .action(let pipeline):
        let value = try evaluate(pipeline, dot: dot)
        if pipeline.variables.isEmpty { output += value.text }
      case .conditional(let conditions, let then, let otherwise):
        let flow = try scoped { (evaluator) throws(TemplateError) in
          let truth = try evaluator.evaluate(conditions[0], dot: dot).isTrue
          return try evaluator.execute(truth ? then : otherwise, dot: dot)
        }
        if flow != .on { return flow }
      case .with(let pipeline, let then, let otherwise):
        let flow = try scoped { (evaluator) throws(TemplateError) in
          let value = try evaluator.evaluate(pipeline, dot: dot)
          return value.isTrue
            ? try evaluator.execute(then, dot: value) : try evaluator.execute(otherwise, dot: dot)
        }
        if flow != .on { return flow }
      case .range(let pipeline, let body, let otherwise):
        let flow = try scoped { (evaluator) throws(TemplateError) in
          try evaluator.range(pipeline, body: body, otherwise: otherwise, dot: dot)
        }
        if flow != .on { return flow }
      }
    }
    return .on
  }

  /// Variables that are declared inside end there.
  private mutating func scoped(
    _ body: (inout TemplateEvaluator) throws(TemplateError) -> Flow
  ) throws(TemplateError) -> Flow {
    let known = variables.count
    let flow = try body(&self)
    variables.removeLast(variables.count - known)
    return flow
  }

  private mutating func range(
    _ pipeline: Template.Pipeline, body: [Template.Node], otherwise: [Template.Node], dot: TemplateValue
  ) throws(TemplateError) -> Flow {
    var bare = pipeline
    bare.variables = []
    let value = try evaluate(bare, dot: dot)
    let elements: [(key: JSONValue, value: JSONValue)]
    switch value.json {
    case nil, .null: elements = []
    case .array(let values): elements = values.enumerated().map { (.integer(Int64($0)), $1) }
    case .object(let members):
      elements = members.sorted { $0.key < $1.key }.map { (.string($0.key), $0.value) }
    case .integer(let count): elements = (0..<max(0, count)).map { (.integer($0), .integer($0)) }
    case .boolean, .unsigned, .number, .string:
      let position = pipeline.commands[0].position
      throw TemplateError(
        at: position, Self.source(pipeline.commands[0].operands[0]), "range can't iterate over \(value.text)")
    }
    if elements.isEmpty { return try execute(otherwise, dot: dot) }
    for element in elements {
      let known = variables.count
      let names = pipeline.variables
      if names.count == 2 { variables.append((names[0], TemplateValue(json: element.key))) }
      if let last = names.last { variables.append((last, TemplateValue(json: element.value))) }
      let flow = try execute(body, dot: TemplateValue(json: element.value))
      variables.removeLast(variables.count - known)
      if flow == .leaveLoop { break }
    }
    return .on
  }

  private mutating func evaluate(_ pipeline: Template.Pipeline, dot: TemplateValue) throws(TemplateError)
    -> TemplateValue
  {
    var value: TemplateValue?
    for command in pipeline.commands { value = try evaluate(command, dot: dot, piped: value) }
    let result = value ?? .none
    for name in pipeline.variables {
      if pipeline.assigns, let index = variables.lastIndex(where: { $0.name == name }) {
        variables[index].value = result
      } else {
        variables.append((name, result))
      }
    }
    return result
  }

  private mutating func evaluate(
    _ command: Template.Command, dot: TemplateValue, piped: TemplateValue?
  ) throws(TemplateError) -> TemplateValue {
    guard case .function(let name) = command.operands[0] else {
      guard command.operands.count == 1, piped == nil else {
        throw TemplateError(
          at: command.position, Self.source(command.operands[0]),
          "can't give argument to non-function \(Self.source(command.operands[0]))")
      }
      return try evaluate(command.operands[0], dot: dot)
    }
    if name == "and" || name == "or" {
      var last = TemplateValue.none
      for operand in command.operands.dropFirst() {
        last = try evaluate(operand, dot: dot)
        if last.isTrue == (name == "or") { return last }
      }
      return piped ?? last
    }
    var arguments: [TemplateValue] = []
    for operand in command.operands.dropFirst() { arguments.append(try evaluate(operand, dot: dot)) }
    if let piped { arguments.append(piped) }
    do {
      return try TemplateFunctions.call(name, arguments)
    } catch {
      let source = command.operands.map(Self.source).joined(separator: " ")
      throw TemplateError(at: command.position, source, "error calling \(name): \(error.message)")
    }
  }

  private mutating func evaluate(_ operand: Template.Operand, dot: TemplateValue) throws(TemplateError) -> TemplateValue
  {
    switch operand {
    case .dot: return dot
    case .literal(let value): return TemplateValue(json: value)
    case .variable(let name): return variables.last { $0.name == name }?.value ?? .none
    case .pipeline(let pipeline): return try evaluate(pipeline, dot: dot)
    case .function(let name):
      do { return try TemplateFunctions.call(name, []) } catch {
        throw TemplateError(
          at: TemplatePosition(line: 1, column: 0), name, "error calling \(name): \(error.message)")
      }
    case .fields(let base, let names, let position):
      var value = try evaluate(base, dot: dot)
      for name in names {
        value = try field(name, of: value, at: position, Self.source(operand))
      }
      return value
    }
  }

  private func field(
    _ name: String, of value: TemplateValue, at position: TemplatePosition, _ source: String
  ) throws(TemplateError) -> TemplateValue {
    switch (value.json, strictness) {
    case (.object, .fields(let type)):
      if let found = value.json?[name] { return TemplateValue(json: found) }
      throw TemplateError(at: position, source, "can't evaluate field \(name) in type \(type)")
    case (.object, .keys(let maps)):
      if let found = value.json?[name] ?? Self.otherSpelling(name).flatMap({ value.json?[$0] }) {
        return TemplateValue(json: found, isMap: maps.contains(name))
      }
      if value.isMap { return .none }
      throw TemplateError(at: position, source, "map has no entry for key \"\(name)\"")
    case (nil, _), (.null, _):
      if value.isMap || value.json == nil { return .none }
      throw TemplateError(at: position, source, "nil data; no entry for key \"\(name)\"")
    case (let json?, _):
      throw TemplateError(at: position, source, "can't evaluate field \(name) in type \(Self.type(of: json))")
    }
  }

  /// Go's names of fields whose JSON names differ, which Docker's `inspect` understands too.
  private static func otherSpelling(_ name: String) -> String? {
    switch name {
    case "ID": "Id"
    case "NanoCPUs": "NanoCpus"
    case "CPUShares": "CpuShares"
    case "CPUPeriod": "CpuPeriod"
    case "CPUQuota": "CpuQuota"
    case "SandboxID": "SandboxId"
    case "Os", "OS": name == "Os" ? "OS" : "Os"
    default: nil
    }
  }

  private static func type(of value: JSONValue) -> String {
    switch value {
    case .null: "interface {}"
    case .boolean: "bool"
    case .integer, .unsigned: "int"
    case .number: "float64"
    case .string: "string"
    case .array: "[]interface {}"
    case .object: "map[string]interface {}"
    }
  }

  /// The operand as it was written, for messages.
  private static func source(_ operand: Template.Operand) -> String {
    switch operand {
    case .dot: "."
    case .variable(let name): "$\(name)"
    case .literal(.string(let text)): HumanText.quoted(text)
    case .literal(let value): TemplateValue(json: value).text
    case .function(let name): name
    case .pipeline(let pipeline):
      "("
        + pipeline.commands.map { $0.operands.map(source).joined(separator: " ") }.joined(separator: " | ") + ")"
    case .fields(.dot, let names, _): names.map { ".\($0)" }.joined()
    case .fields(let base, let names, _): source(base) + names.map { ".\($0)" }.joined()
    }
  }
}
