/// The name of an image as people write it, normalised: `nginx` is `docker.io/library/nginx:latest`.
///
/// The grammar is that of the distribution project's reference package: an optional registry with a port, path
/// components of `[a-z0-9]+` joined by `.`, `_`, `__` or dashes, an optional tag and an optional digest.
public struct ImageReference: Codable, Sendable, Hashable, CustomStringConvertible {
  public let registry: String
  public let repository: String
  /// Nil only where a digest is given without a tag.
  public let tag: String?
  public let digest: Digest?

  /// Reads and normalises a reference.
  ///
  /// - Throws: `invalidArgument` that quotes the text and says what is wrong.
  public init(parsing text: String) throws(EngineError) {
    func refuse(_ why: String) -> EngineError {
      EngineError(.invalidArgument, "invalid reference format: \"\(text)\": \(why)")
    }
    var rest = Substring(text)
    var digest: Digest?
    if let at = rest.firstIndex(of: "@") {
      digest = Digest(String(rest[rest.index(after: at)...]))
      guard digest != nil else { throw refuse("the digest must be sha256: and 64 hexadecimal digits") }
      rest = rest[..<at]
    }
    var tag: String?
    if let colon = rest.lastIndex(of: ":"), !rest[colon...].contains("/") {
      let candidate = rest[rest.index(after: colon)...]
      guard Self.isTag(candidate) else { throw refuse("the tag must match [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}") }
      tag = String(candidate)
      rest = rest[..<colon]
    }
    guard !rest.isEmpty else { throw refuse("the repository name is empty") }
    var registry = "docker.io"
    if let slash = rest.firstIndex(of: "/") {
      let first = rest[..<slash]
      if first.contains(".") || first.contains(":") || first == "localhost" || first.contains(where: \.isUppercase) {
        guard Self.isRegistry(first) else { throw refuse("\"\(first)\" is not a registry's host name") }
        registry = first == "index.docker.io" ? "docker.io" : String(first)
        rest = rest[rest.index(after: slash)...]
      }
    }
    guard !rest.contains(where: \.isUppercase) else { throw refuse("repository name must be lowercase") }
    for component in rest.split(separator: "/", omittingEmptySubsequences: false) where !Self.isComponent(component) {
      throw refuse("\"\(component)\" is not a path component")
    }
    var repository = String(rest)
    if registry == "docker.io" && !repository.contains("/") { repository = "library/\(repository)" }
    guard repository.utf8.count + registry.utf8.count < 255 else { throw refuse("the name is longer than 255") }
    self.registry = registry
    self.repository = repository
    self.tag = tag ?? (digest == nil ? "latest" : nil)
    self.digest = digest
  }

  /// Whether a text names a repository without a tag and without a digest.
  public static func isBare(_ text: String) throws(EngineError) -> Bool {
    let reference = try ImageReference(parsing: text)
    if reference.digest != nil || reference.tag != "latest" { return false }
    guard let colon = text.lastIndex(of: ":") else { return true }
    return text[colon...].contains("/")
  }

  /// The whole name: `docker.io/library/nginx:latest`.
  public var description: String {
    "\(registry)/\(repository)" + (tag.map { ":\($0)" } ?? "") + (digest.map { "@\($0)" } ?? "")
  }

  /// The repository as people write it: without `docker.io/` and `library/`.
  public var familiarRepository: String {
    guard registry == "docker.io" else { return "\(registry)/\(repository)" }
    return repository.hasPrefix("library/") && !repository.dropFirst(8).contains("/")
      ? String(repository.dropFirst(8)) : repository
  }

  /// The name as people write it: `nginx:latest`.
  public var familiar: String {
    familiarRepository + (tag.map { ":\($0)" } ?? "") + (digest.map { "@\($0)" } ?? "")
  }

  public init(from decoder: any Decoder) throws {
    try self.init(parsing: try decoder.singleValueContainer().decode(String.self))
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }

  private static func isTag(_ text: Substring) -> Bool {
    guard let first = text.utf8.first, first != 46, first != 45, text.utf8.count <= 128 else { return false }
    return text.utf8.allSatisfy { $0.isAlphanumeric || $0 == 46 || $0 == 45 || $0 == 95 }
  }

  private static func isComponent(_ text: Substring) -> Bool {
    guard let first = text.utf8.first, let last = text.utf8.last, first.isAlphanumeric, last.isAlphanumeric else {
      return false
    }
    var separator: [UInt8] = []
    for byte in text.utf8 {
      if byte.isAlphanumeric {
        guard separator.count <= 1 || separator == [95, 95] || separator.allSatisfy({ $0 == 45 }) else { return false }
        separator = []
      } else {
        guard byte == 46 || byte == 95 || byte == 45 else { return false }
        separator.append(byte)
      }
    }
    return true
  }

  private static func isRegistry(_ text: Substring) -> Bool {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    if parts.count == 2 {
      guard let port = UInt16(parts[1]), port > 0 else { return false }
    }
    return !parts[0].isEmpty
      && parts[0].split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
        guard let first = label.utf8.first, let last = label.utf8.last else { return false }
        return first.isAlphanumeric && last.isAlphanumeric && label.utf8.allSatisfy { $0.isAlphanumeric || $0 == 45 }
      }
  }
}

extension UInt8 {
  var isAlphanumeric: Bool { (48...57).contains(self) || (65...90).contains(self) || (97...122).contains(self) }
}
