import CLinux
import Contracts
import Glibc
import LinuxSystem
import Wire

/// A program that keeps credentials: `docker-credential-NAME` with `get`, `store` or `erase`, which reads standard input
/// and writes standard output (github.com/docker/docker-credential-helpers).
struct CredentialHelper: Equatable {
  let name: String

  private var program: String { "docker-credential-\(name)" }

  /// What helpers say, with exit status 1, of a server that they do not know.
  private static let notFound = "credentials not found in native keychain"

  /// - Returns: nil where the helper knows nothing of the server.
  func read(_ server: String) throws(EngineError) -> RegistryCredentials? {
    let (status, output) = try run("get", server)
    guard status == 0 else {
      if output.hasPrefix(Self.notFound) { return nil }
      throw failure("getting", status, output)
    }
    let value = try JSON.parse(Array(output.utf8))
    guard case .string(let username) = value["Username"], case .string(let secret) = value["Secret"] else {
      throw EngineError(.protocolViolation, "\(program) get answered without Username and Secret")
    }
    if username.isEmpty && secret.isEmpty { return nil }
    return username == "<token>"
      ? RegistryCredentials(username: "", password: "", identityToken: secret)
      : RegistryCredentials(username: username, password: secret)
  }

  func write(_ credentials: RegistryCredentials, _ server: String) throws(EngineError) {
    let entry: JSONValue = [
      "ServerURL": .string(server),
      "Username": .string(credentials.identityToken == nil ? credentials.username : "<token>"),
      "Secret": .string(credentials.identityToken ?? credentials.password),
    ]
    let (status, output) = try run("store", JSONText.write(entry))
    guard status == 0 else { throw failure("storing", status, output) }
  }

  func erase(_ server: String) throws(EngineError) {
    let (status, output) = try run("erase", server)
    guard status == 0 || output.hasPrefix(Self.notFound) else { throw failure("erasing", status, output) }
  }

  private func failure(_ doing: String, _ status: Int32, _ output: String) -> EngineError {
    EngineError(.unavailable, "error \(doing) credentials - \(program) ended with status \(status): \(output)")
  }

  /// Runs the program with `input`; its standard error is this process's own.
  private func run(_ action: String, _ input: String) throws(EngineError) -> (status: Int32, output: String) {
    do throws(SystemCallError) {
      return try spawn(action, input)
    } catch {
      let why = error.number == ENOENT ? "executable file not found in $PATH" : "\(error)"
      throw EngineError(.unavailable, "error running \(program): \(why)")
    }
  }

  private func spawn(_ action: String, _ input: String) throws(SystemCallError) -> (status: Int32, output: String) {
    var toProgram: [Int32] = [-1, -1]
    var fromProgram: [Int32] = [-1, -1]
    try SystemCallError.check("pipe2") { pipe2(&toProgram, O_CLOEXEC) }
    let inputEnd = OwnedDescriptor(adopting: toProgram[0])
    let feed = OwnedDescriptor(adopting: toProgram[1])
    try SystemCallError.check("pipe2") { pipe2(&fromProgram, O_CLOEXEC) }
    let result = OwnedDescriptor(adopting: fromProgram[0])
    let outputEnd = OwnedDescriptor(adopting: fromProgram[1])

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, inputEnd.number, 0)
    posix_spawn_file_actions_adddup2(&actions, outputEnd.number, 1)
    let words = [program, action]
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    defer { arguments.forEach { free($0) } }
    var process: pid_t = 0
    let failure = posix_spawnp(&process, program, &actions, nil, &arguments, linux_environment())
    guard failure == 0 else { throw SystemCallError(call: "posix_spawnp", subject: program, number: failure) }
    _ = consume inputEnd
    _ = consume outputEnd

    // The input is smaller than a pipe's buffer, so the program need not read before it writes; one that does not read
    // at all must not end this process.
    let before = signal(SIGPIPE, SIG_IGN)
    try? Files.writeAll(feed.number, Array(input.utf8))
    signal(SIGPIPE, before)
    _ = consume feed
    let output = try Files.readAll(result.number, subject: program, limit: 1 << 20)
    var status: Int32 = 0
    try SystemCallError.check("waitpid", program) { waitpid(process, &status, 0) }
    let text = String(decoding: output, as: UTF8.self)
    let code = linux_wait_exited(status) != 0 ? linux_wait_exit_status(status) : 128 + linux_wait_signal(status)
    return (code, String(text.drop(while: \.isWhitespace).reversed().drop(while: \.isWhitespace).reversed()))
  }
}
