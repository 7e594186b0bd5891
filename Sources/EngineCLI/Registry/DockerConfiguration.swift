import Contracts
import Glibc
import LinuxSystem
import Wire

/// Docker's `config.json`. What is not about credentials is kept as it stands there.
struct DockerConfiguration {
  let path: String
  private let directory: String
  private let content: JSONValue

  /// - Throws: `corrupt` when the file is there and is not a JSON object.
  init(directory: String) throws(EngineError) {
    self.directory = directory
    path = "\(directory)/config.json"
    content = try Self.read(path)
  }

  private static func read(_ path: String) throws(EngineError) -> JSONValue {
    let bytes: [UInt8]
    do {
      bytes = try Files.read(path)
    } catch  where error.number == ENOENT || error.number == ENOTDIR {
      return .object([])
    } catch {
      throw EngineError(.corrupt, "\(path): \(error.reason.lowercasedFirst)")
    }
    if bytes.allSatisfy({ $0 == 0x20 || $0 == 0x0A || $0 == 0x0D || $0 == 0x09 }) { return .object([]) }
    do throws(EngineError) {
      let value = try JSON.parse(bytes)
      guard case .object = value else { throw EngineError(.corrupt, "it is not a JSON object") }
      return value
    } catch {
      throw EngineError(.corrupt, "\(path) cannot be read: \(error)")
    }
  }

  /// The program that keeps the credentials of a registry, or nil when the file itself does.
  func helper(for key: String) -> CredentialHelper? {
    if case .string(let name) = content["credHelpers"]?[key], !name.isEmpty { return CredentialHelper(name: name) }
    // Docker Hub's helper may stand under its host, too.
    if key == CredentialStore.hubKey, case .string(let name) = content["credHelpers"]?["docker.io"], !name.isEmpty {
      return CredentialHelper(name: name)
    }
    if case .string(let name) = content["credsStore"], !name.isEmpty { return CredentialHelper(name: name) }
    return nil
  }

  /// The keys under which a registry stands: its own first, then others that mean the same host.
  func keys(of registry: String) -> [String] {
    guard case .object(let members) = content["auths"] else { return [] }
    let own = CredentialStore.key(registry)
    let all = members.map(\.key).filter { CredentialStore.host($0) == registry }
    return all.filter { $0 == own } + all.filter { $0 != own }
  }

  /// - Returns: nil where nothing is kept, or nothing that can be used.
  func credentials(for registry: String) -> RegistryCredentials? {
    for key in keys(of: registry) {
      guard let entry = content["auths"]?[key] else { continue }
      func text(_ name: String) -> String {
        guard case .string(let text) = entry[name] else { return "" }
        return text
      }
      var (username, password) = (text("username"), text("password"))
      if let bytes = Base64.decode(text("auth")), let colon = bytes.firstIndex(of: UInt8(ascii: ":")) {
        username = String(decoding: bytes[..<colon], as: UTF8.self)
        // Old clients padded the password with NUL.
        password = String(decoding: bytes[(colon + 1)...].filter { $0 != 0 }, as: UTF8.self)
      }
      let token = text("identitytoken")
      guard !username.isEmpty || !token.isEmpty else { continue }
      return RegistryCredentials(
        username: username, password: password, identityToken: token.isEmpty ? nil : token)
    }
    return nil
  }

  /// Changes the entries of `auths` and replaces the file in one step: mode 0600, its owner kept, links followed. The
  /// file is read again under a lock on its directory (flock(2)), so that two logins at once both stay.
  func change(_ body: (inout JSONValue) -> Void) throws(EngineError) {
    let lock: OwnedDescriptor = try Self.locked(directory)
    var content = try Self.read(path)
    var auths = content["auths"] ?? .object([])
    body(&auths)
    content.setMember("auths", auths)
    try Self.replace(path, with: JSONText.write(content, indent: "\t", escapesHTML: true))
    _ = consume lock
  }

  private static func locked(_ directory: String) throws(EngineError) -> OwnedDescriptor {
    do throws(SystemCallError) {
      try Files.makeDirectories(directory)
      let descriptor = try Files.open(directory, O_RDONLY | O_DIRECTORY)
      try SystemCallError.check("flock", directory) { flock(descriptor.number, LOCK_EX) }
      return descriptor
    } catch {
      throw EngineError(.internalFailure, "the credentials cannot be kept: \(error)")
    }
  }

  private static func replace(_ path: String, with text: String) throws(EngineError) {
    var name = path
    if let target = realpath(path, nil) {
      name = String(cString: target)
      free(target)
    }
    let temporary = "\(name).\(getpid())"
    do throws(SystemCallError) {
      let file = try Files.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600)
      if let status = Files.status(name) { fchown(file.number, status.st_uid, status.st_gid) }
      try Files.writeAll(file.number, Array(text.utf8), subject: temporary)
      try SystemCallError.check("fsync", temporary) { fsync(file.number) }
      try SystemCallError.check("rename", name) { rename(temporary, name) }
    } catch {
      unlink(temporary)
      throw EngineError(.internalFailure, "the credentials cannot be kept: \(error)")
    }
  }
}

extension JSONValue {
  /// Sets a member of an object in its place, or appends it.
  mutating func setMember(_ key: String, _ value: JSONValue) {
    guard case .object(var members) = self else {
      self = .object([Member(key, value)])
      return
    }
    if let index = members.firstIndex(where: { $0.key == key }) {
      members[index].value = value
    } else {
      members.append(Member(key, value))
    }
    self = .object(members)
  }
}
