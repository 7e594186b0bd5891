import Glibc
import LinuxSystem
import ShimProtocol

/// Why a process of the container could not be started, in words for people.
struct SetupFailure: Error {
  var kind: FailureKind
  var message: String

  init(_ kind: FailureKind, _ message: String) {
    self.kind = kind
    self.message = message
  }
}

/// Runs one stage of the set-up; a call that fails is reported with the stage's name.
@discardableResult
func stage<Value: ~Copyable>(
  _ name: @autoclosure () -> String, _ body: () throws(SystemCallError) -> Value
) throws(SetupFailure) -> Value {
  do {
    return try body()
  } catch {
    throw SetupFailure(.internalFailure, "\(name()): \(error)")
  }
}

/// What a process that is being set up tells the shim over its status socket (SOCK_SEQPACKET, one report a packet).
/// The socket is close-on-exec: its end after `ready` means that execve(2) succeeded.
enum StatusReport {
  case warning(String)
  /// The pty's master travels beside it, then its slave.
  case terminal
  /// Only execve(2) is left; the steps so far.
  case ready([StepPlan])
  case failure(FailureKind, String)

  /// - Returns: false when it could not be sent.
  @discardableResult
  static func send(_ report: StatusReport, to socket: Int32, descriptors: [Int32] = []) -> Bool {
    var bytes: [UInt8]
    switch report {
    case .warning(let text): bytes = [1] + text.utf8
    case .terminal: bytes = [2]
    case .ready(var steps):
      var writer = ByteWriter()
      try? writer.array(&steps)
      bytes = [3] + writer.bytes
    case .failure(let kind, let text): bytes = [4, kind.rawValue] + text.utf8
    }
    if bytes.count > 4096 { bytes.removeLast(bytes.count - 4096) }
    return linuxSend(socket, bytes, descriptors) >= 0
  }

  init?(_ bytes: ArraySlice<UInt8>) {
    guard let kind = bytes.first else { return nil }
    switch kind {
    case 1: self = .warning(String(decoding: bytes.dropFirst(), as: UTF8.self))
    case 2: self = .terminal
    case 3:
      // The process is the shim's own fork, so nothing but a fault of both would make this unreadable.
      var reader = ByteReader(Array(bytes.dropFirst()))
      var steps: [StepPlan] = []
      try? reader.array(&steps)
      self = .ready(steps)
    case 4:
      guard let raw = bytes.dropFirst().first, let failure = FailureKind(rawValue: raw) else { return nil }
      self = .failure(failure, String(decoding: bytes.dropFirst(2), as: UTF8.self))
    default: return nil
    }
  }
}
