import CLinux
import Contracts
import Glibc
import LinuxSystem
import Wire

/// Runs the executables of network plugins: that is the protocol itself (CNI specification 1.1, section 2).
struct PluginRunner: Sendable {
  enum Command: String {
    case add = "ADD"
    case check = "CHECK"
    case delete = "DEL"
    case collect = "GC"
  }

  /// One container's place on a network, as plugins are told it.
  struct Target: Sendable {
    var container: String
    /// A path of the network namespace; empty where it is not known any more.
    var namespace: String
    var interface: String
  }

  /// Bytes of a plugin's answer.
  private static let maximumAnswer = 1 << 20

  let directories: [String]
  let deadlineSeconds: Int

  /// Runs one plugin.
  ///
  /// - Returns: its result, or `null` where it has none.
  /// - Throws: the plugin's own words, by its type and the command.
  func run(
    _ command: Command, _ plugin: JSONValue, of list: NetworkList, _ target: Target?, additions: [JSONValue.Member]
  ) throws(EngineError) -> JSONValue {
    guard case .string(let type) = plugin["type"], case .object(var members) = plugin else { return .null }
    let added = [.init("name", .string(list.name)), .init("cniVersion", .string(list.version))] + additions
    members.removeAll { member in added.contains { $0.key == member.key } || member.key == "capabilities" }
    let input = try JSON.encode(JSONValue.object(added + members))
    guard let path = directories.map({ "\($0)/\(type)" }).first(where: { (path: String) in access(path, X_OK) == 0 })
    else {
      throw EngineError(
        .notFound, "the CNI plugin \"\(type)\" is not in \(directories.joined(separator: ", "))")
    }
    var environment = [
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND=\(command.rawValue)",
      "CNI_PATH=\(directories.joined(separator: ":"))",
    ]
    if let target {
      environment += [
        "CNI_CONTAINERID=\(target.container)", "CNI_NETNS=\(target.namespace)", "CNI_IFNAME=\(target.interface)",
      ]
    }
    let (end, output, errors) = try execute(path, environment, input)
    let answer: JSONValue? = output.isEmpty ? .null : try? JSON.parse(output)
    guard end == .exited(0) else {
      var why = String(decoding: errors.suffix(500), as: UTF8.self)
      let said: JSONValue = answer ?? .null
      if case .string(let message)? = said["msg"] {
        why = message
        if case .string(let details)? = said["details"], !details.isEmpty { why += ": \(details)" }
      }
      throw EngineError(
        .internalFailure, "the CNI plugin \"\(type)\" failed at \(command.rawValue) (\(end)): \(why)")
    }
    guard let answer else {
      throw EngineError(
        .protocolViolation, "the CNI plugin \"\(type)\" answered \(command.rawValue) with what is not JSON")
    }
    return answer
  }

  /// Input and output are memory files: nobody has to read while the other writes, and a flood ends at their size.
  private func execute(
    _ path: String, _ environment: [String], _ input: [UInt8]
  ) throws(EngineError) -> (ChildProcess.End, [UInt8], [UInt8]) {
    do throws(SystemCallError) {
      let source = try Self.memory(size: nil)
      try Files.writeAll(source.number, input)
      try SystemCallError.check("lseek") { lseek(source.number, 0, SEEK_SET) }
      let output = try Self.memory(size: Self.maximumAnswer)
      let errors = try Self.memory(size: Self.maximumAnswer)
      let process = try ChildProcess(
        [path], environment: environment, descriptors: [source.number, output.number, errors.number],
        diesWithThread: true)
      var event = pollfd(fd: process.pidfd.number, events: Int16(POLLIN), revents: 0)
      let isOver = poll(&event, 1, Int32(deadlineSeconds) * 1000) > 0
      if !isOver { process.signal(SIGKILL) }
      let end = process.wait()
      guard isOver else {
        throw SystemCallError(call: "wait", subject: path, number: ETIMEDOUT)
      }
      return (end, try Self.content(output), try Self.content(errors))
    } catch {
      throw EngineError(
        error.number == ETIMEDOUT ? .deadlineExceeded : .internalFailure,
        error.number == ETIMEDOUT
          ? "the CNI plugin \(path) did not end within \(deadlineSeconds) s" : "the CNI plugin cannot be run: \(error)")
    }
  }

  private static func memory(size: Int?) throws(SystemCallError) -> Descriptor {
    let file = Descriptor(
      adopting: try SystemCallError.check("memfd_create") {
        linux_memfd_create("cni", UInt32(MFD_CLOEXEC) | UInt32(MFD_ALLOW_SEALING))
      })
    guard let size else { return file }
    try SystemCallError.check("ftruncate") { ftruncate(file.number, size) }
    // F_ADD_SEALS with F_SEAL_GROW.
    try SystemCallError.check("fcntl") { linux_fcntl(file.number, 1033, 0x4) }
    return file
  }

  /// What was written: up to the position that this process shares with the plugin's.
  private static func content(_ file: Descriptor) throws(SystemCallError) -> [UInt8] {
    let end = try SystemCallError.check("lseek") { lseek(file.number, 0, SEEK_CUR) }
    var bytes = [UInt8](repeating: 0, count: Int(end))
    let count = try SystemCallError.check("pread") { pread(file.number, &bytes, bytes.count, 0) }
    return Array(bytes[..<count])
  }
}
