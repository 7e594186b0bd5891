import Contracts
import Glibc
import LinuxSystem

/// The user's credentials for registries, where Docker keeps them too: a credential helper if one is configured,
/// otherwise `config.json`.
enum Credentials {
  /// Who the user is at a registry: what `pull`, `push` and `search` send along.
  ///
  /// A helper that fails is no reason not to go on: it is told on standard error, and nobody is who asks.
  ///
  /// - Parameter registry: host and optional port as in `ImageReference.registry`, for example `docker.io`.
  /// - Returns: nil where the user has not logged in.
  /// - Throws: `corrupt` when `config.json` is there and cannot be read.
  static func credentials(for registry: String) throws(EngineError) -> RegistryCredentials? {
    let store = try CredentialStore(directory: CredentialStore.directory())
    do throws(EngineError) {
      return try store.read(registry)
    } catch {
      Console.error("WARNING: the credentials for \(registry) cannot be read, going on without: \(error)")
      return nil
    }
  }
}

/// `config.json` and the credential helpers that it names (docs.docker.com, "docker login").
struct CredentialStore {
  /// The key of Docker Hub, which is older than host names as keys.
  static let hubKey = "https://index.docker.io/v1/"

  let file: DockerConfiguration

  /// - Throws: `corrupt` when `config.json` is there and cannot be read.
  init(directory: String) throws(EngineError) {
    file = try DockerConfiguration(directory: directory)
  }

  /// `$DOCKER_CONFIG`, or `.docker` in the user's home.
  static func directory() -> String {
    if let directory = Environment.value("DOCKER_CONFIG"), !directory.isEmpty { return directory }
    if let home = Environment.value("HOME"), !home.isEmpty { return "\(home)/.docker" }
    return geteuid() == 0 ? "/root/.docker" : "/.docker"
  }

  /// The host of a registry from what people and old entries write: a URL, or a host with a path.
  static func host(_ text: String) -> String {
    var rest = text[...]
    for scheme in ["https://", "http://"] where rest.hasPrefix(scheme) { rest = rest.dropFirst(scheme.count) }
    let host = String(rest.prefix { $0 != "/" })
    return ["", "index.docker.io", "registry-1.docker.io"].contains(host) ? "docker.io" : host
  }

  /// Under which a registry's credentials are kept.
  static func key(_ registry: String) -> String { registry == "docker.io" ? hubKey : registry }

  /// - Throws: what the helper complained about.
  func read(_ registry: String) throws(EngineError) -> RegistryCredentials? {
    let key = Self.key(registry)
    if let helper = file.helper(for: key) { return try helper.read(key) }
    return file.credentials(for: registry)
  }

  /// Keeps the credentials.
  ///
  /// - Returns: the path of the file where they are readable for who can read it; nil when a helper keeps them.
  func write(_ credentials: RegistryCredentials, for registry: String) throws(EngineError) -> String? {
    let key = Self.key(registry)
    if let helper = file.helper(for: key) {
      try helper.write(credentials, key)
      // An entry without secrets, as Docker leaves it: it tells that the user is logged in.
      try file.change { auths in auths.setMember(key, .object([])) }
      return nil
    }
    try file.change { auths in
      let secret = credentials.identityToken == nil ? credentials.password : ""
      var entry = [JSONValue.Member("auth", .string(Base64.encode("\(credentials.username):\(secret)".utf8)))]
      if let token = credentials.identityToken { entry.append(JSONValue.Member("identitytoken", .string(token))) }
      auths.setMember(key, .object(entry))
    }
    return file.path
  }

  /// Forgets a registry; one that is not known is not an error.
  func erase(_ registry: String) throws(EngineError) {
    let key = Self.key(registry)
    var failure: EngineError?
    if let helper = file.helper(for: key) {
      do throws(EngineError) { try helper.erase(key) } catch { failure = error }
    }
    if file.keys(of: registry).isEmpty == false {
      try file.change { auths in
        guard case .object(let members) = auths else { return }
        auths = .object(members.filter { Self.host($0.key) != registry })
      }
    }
    if let failure { throw failure }
  }
}
