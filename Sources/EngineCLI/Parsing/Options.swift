/// The flags that a command line gave, by their long names.
struct Options: Sendable, Equatable {
  private struct Entry: Equatable {
    let name: String
    var values: [String]
  }

  /// A line, not a dictionary: there are few, and a dictionary's first use costs more than looking through them.
  private var entries: [Entry] = []

  mutating func append(_ value: String, to name: String, isList: Bool) {
    for index in entries.indices where entries[index].name == name {
      if isList { entries[index].values.append(value) } else { entries[index].values = [value] }
      return
    }
    entries.append(Entry(name: name, values: [value]))
  }

  func isSet(_ name: String) -> Bool { string(name) != nil }
  func string(_ name: String) -> String? { list(name).last }
  func list(_ name: String) -> [String] {
    for entry in entries where entry.name == name { return entry.values }
    return []
  }
  func boolean(_ name: String, default initial: Bool = false) -> Bool {
    string(name).map { $0 == "true" } ?? initial
  }
  /// A number that the flag's check has accepted.
  func integer(_ name: String) -> Int? { string(name).flatMap { Int($0) } }
}
