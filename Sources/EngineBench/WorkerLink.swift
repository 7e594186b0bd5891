import CLinux
import Contracts
import Glibc
import LinuxSystem

/// The other end of the worker.
final class WorkerLink {
  private let socket: OwnedDescriptor

  /// Starts the worker in the namespaces of this process; from the main thread, with which it dies.
  init(_ arguments: [String], cleanup: Cleanup) throws(SystemCallError) {
    var ends: [Int32] = [-1, -1]
    try SystemCallError.check("socketpair") {
      socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends)
    }
    socket = OwnedDescriptor(adopting: ends[0])
    let other = OwnedDescriptor(adopting: ends[1])
    let process = try Program.spawn(
      "/proc/self/exe", ["engine-bench", Worker.argument] + arguments, error: 2, connection: other.number)
    cleanup.add {
      kill(process, SIGKILL)
      Program.wait(process)
    }
  }

  /// - Returns: the nanoseconds that the worker measured.
  /// - Throws: `internalFailure` with what failed there.
  func run(_ task: Worker.Task) throws(EngineError) -> Int64 {
    let bytes = Array(task.words.joined(separator: "\0").utf8)
    var answer = [UInt8](repeating: 0, count: 4096)
    guard send(socket.number, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else {
      throw EngineError(.internalFailure, "the worker has ended")
    }
    let count = recv(socket.number, &answer, answer.count, 0)
    guard count > 0 else { throw EngineError(.internalFailure, "the worker has ended") }
    let text = String(decoding: answer[..<count], as: UTF8.self)
    guard let time = Int64(text) else { throw EngineError(.internalFailure, String(text.dropFirst())) }
    return time
  }
}
