/// The flags that a command line gave, by their long names.
struct Options: Sendable, Equatable {
  private var values: [String: [String]] = [:]

  mutating func append(_ value: String, to name: String, isList: Bool) {
    if isList { values[name, default: []].append(value) } else { values[name] = [value] }
  }

  func isSet(_ name: String) -> Bool { values[name] != nil }
  func string(_ name: String) -> String? { values[name]?.last }
  func list(_ name: String) -> [String] { values[name] ?? [] }
  func boolean(_ name: String, default initial: Bool = false) -> Bool {
    string(name).map { $0 == "true" } ?? initial
  }
  /// A number that the flag's check has accepted.
  func integer(_ name: String) -> Int? { string(name).flatMap { Int($0) } }
}
