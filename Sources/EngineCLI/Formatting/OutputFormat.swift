import Contracts

/// What `--format` asks of a list.
enum OutputFormat {
  case table
  case tableTemplate(Template)
  case json
  case template(Template)

  /// - Throws: `Failure` in Docker's words for a template that cannot be read.
  init(_ text: String?) throws {
    switch text {
    case nil, "", "table": self = .table
    case "json": self = .json
    case let text? where text.hasPrefix("table "):
      self = .tableTemplate(try Self.parse(String(text.dropFirst(6))))
    case let text?: self = .template(try Self.parse(text))
    }
  }

  private static func parse(_ text: String) throws -> Template {
    do {
      return try Template(Self.unescaped(text))
    } catch {
      throw Failure("failed to parse template: \(error)")
    }
  }

  /// `\t` and `\n` written as two characters mean the one.
  static func unescaped(_ text: String) -> String {
    var result = ""
    var isEscaped = false
    for character in text {
      if isEscaped {
        switch character {
        case "t": result.append("\t")
        case "n": result.append("\n")
        default: result += "\\\(character)"
        }
        isEscaped = false
      } else if character == "\\" {
        isEscaped = true
      } else {
        result.append(character)
      }
    }
    return isEscaped ? result + "\\" : result
  }
}

/// A list that can be shown in every output format.
struct Listing {
  struct Column {
    /// The field in templates and in JSON, for example `RunningFor`.
    let name: String
    /// The heading, for example `CREATED`.
    let heading: String

    init(_ name: String, _ heading: String) {
      self.name = name
      self.heading = heading
    }
  }

  /// What templates call the rows: `ContainerContext`.
  let rowType: String
  /// The columns of the plain table, in order.
  let columns: [String]
  /// Every field there is, with its heading.
  let fields: [Column]
  let rows: [[String: String]]

  func text(_ format: OutputFormat) throws -> String {
    switch format {
    case .table:
      let headings = columns.map { name in fields.first { $0.name == name }?.heading ?? name }
      return Table.text([headings] + rows.map { row in columns.map { row[$0] ?? "" } })
    case .tableTemplate(let template):
      let headings = Dictionary(uniqueKeysWithValues: fields.map { ($0.name, $0.heading) })
      let lines =
        try [Self.value(headings, fields)].map { try render(template, $0) }
        + rows.map { try render(template, Self.value($0, fields)) }
      return Table.text(lines.map { $0.split(separator: "\t", omittingEmptySubsequences: false).map(String.init) })
    case .json:
      return rows.map { JSONText.write(Self.value($0, fields), escapesHTML: true) + "\n" }.joined()
    case .template(let template):
      return try rows.map { try render(template, Self.value($0, fields)) + "\n" }.joined()
    }
  }

  private func render(_ template: Template, _ row: JSONValue) throws -> String {
    do {
      return try template.render(row, strictness: .fields(of: "*formatter.\(rowType)"))
    } catch {
      throw Failure("failed to execute template: \(error)")
    }
  }

  private static func value(_ row: [String: String], _ fields: [Column]) -> JSONValue {
    let members = fields.map { JSONValue.Member($0.name, .string(row[$0.name] ?? "")) }
    return .object(members.sorted { $0.key < $1.key })
  }
}
