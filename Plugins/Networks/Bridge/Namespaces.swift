import CLinux
import Contracts
import Glibc
import LinuxSystem

/// The network namespaces the plugin works in: the one its bridges are in (its home), and containers' for a moment.
///
/// A socket, and a file of `/proc/sys/net` once opened, belong to the namespace in which the thread was that made them.
/// So a thread enters a namespace only to open something, synchronously, and is back before anything else runs on it.
final class Namespaces: Sendable {
  /// Where the process's threads are, to go back to.
  private let process: OwnedDescriptor
  /// Where the bridges are, when that is not where the threads are.
  private let home: Descriptor?

  /// - Parameter homePath: a namespace file (namespaces(7)), or nil for the process's own.
  init(homePath: String?) throws(SystemCallError) {
    process = try Files.open("/proc/thread-self/ns/net", O_RDONLY)
    home = if let homePath { Descriptor(adopting: try Files.open(homePath, O_RDONLY).release()) } else { nil }
  }

  /// Runs `body` in the home namespace; in a daemon, whose threads are all there, this is a plain call.
  func atHome<Value: ~Copyable>(_ body: () throws(SystemCallError) -> Value) throws(SystemCallError) -> Value {
    guard let home else { return try body() }
    return try inside(home.number, body)
  }

  /// Runs `body` on this thread inside `namespace` (setns(2), CLONE_NEWNET).
  ///
  /// A thread that cannot come back must not serve anybody: the process ends, and the next one adopts what runs.
  func inside<Value: ~Copyable>(
    _ namespace: Int32, _ body: () throws(SystemCallError) -> Value
  ) throws(SystemCallError) -> Value {
    try SystemCallError.check("setns", "network namespace") { setns(namespace, CLONE_NEWNET) }
    defer { if setns(process.number, CLONE_NEWNET) != 0 { abort() } }
    return try body()
  }
}
