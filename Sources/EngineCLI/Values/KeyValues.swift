import Contracts

/// `KEY=value` pairs from flags and from files.
enum KeyValues {
  static func checkEnvironment(_ text: String) throws(EngineError) {
    guard !text.isEmpty, !text.hasPrefix("=") else {
      throw EngineError(.invalidArgument, "invalid environment variable: \(text)")
    }
  }

  static func checkLabel(_ text: String) throws(EngineError) {
    guard !text.isEmpty, !text.hasPrefix("=") else {
      throw EngineError(.invalidArgument, "invalid label '\(text)': empty name")
    }
  }

  /// A dictionary of `key=value` or `key` texts; the last one of a key counts.
  static func dictionary(_ texts: [String]) -> [String: String] {
    var result: [String: String] = [:]
    for text in texts {
      let pair = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      result[String(pair[0])] = pair.count == 2 ? String(pair[1]) : ""
    }
    return result
  }

  /// An environment of flags: a name without `=` takes the client's own value, and where there is none it stays a
  /// name, which removes the image's.
  static func resolve(_ texts: [String], from environment: (String) -> String?) -> [String] {
    texts.map { text in
      guard !text.contains("="), let value = environment(text) else { return text }
      return "\(text)=\(value)"
    }
  }

  /// The lines of an `--env-file` or a `--label-file`: blank lines and those that begin with `#` say nothing.
  ///
  /// - Parameter environment: gives the value of a name without `=`, which is left out where there is none; nil keeps
  ///   such names as they are.
  static func parseFile(
    _ bytes: [UInt8], path: String, environment: ((String) -> String?)?
  ) throws(EngineError) -> [String] {
    var result: [String] = []
    let content = bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? bytes.dropFirst(3) : bytes[...]
    for (index, line) in content.split(separator: 0x0A, omittingEmptySubsequences: false).enumerated() {
      func refuse(_ why: String) -> EngineError {
        EngineError(.invalidArgument, "invalid env file (\(path)): \(why)")
      }
      guard let text = String(validating: line, as: UTF8.self) else {
        throw refuse("env file contains invalid utf8 bytes at line \(index + 1)")
      }
      var trimmed = text.drop { $0 == " " || $0 == "\t" }
      if trimmed.last == "\r" { trimmed.removeLast() }
      if trimmed.isEmpty || trimmed.first == "#" { continue }
      let pair = trimmed.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let name = pair[0]
      guard !name.isEmpty else { throw refuse("no variable name on line '\(trimmed)'") }
      guard !name.contains(where: { $0 == " " || $0 == "\t" }) else {
        throw refuse("variable '\(name)' contains whitespaces")
      }
      if pair.count == 2 || environment == nil {
        result.append(String(trimmed))
      } else if let value = environment?(String(name)) {
        result.append("\(name)=\(value)")
      }
    }
    return result
  }
}
