import CLinux
import Glibc

/// A system call that failed: which one, on what, and the errno(3) it left.
public struct SystemCallError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The call's name as in section 2 of the manual, for example `openat2`.
  public let call: String
  /// What the call was made on (a path, a link name), or empty where there is nothing to name.
  public let subject: String
  /// The errno value.
  public let number: Int32

  public init(call: String, subject: String = "", number: Int32) {
    self.call = call
    self.subject = subject
    self.number = number
  }

  /// The C library's words for `number`, for example `No such file or directory`.
  public var reason: String { Self.text(number) }

  public var description: String {
    subject.isEmpty ? "\(call): \(reason)" : "\(call) \(subject): \(reason)"
  }

  /// strerrordesc_np(3): a static text, safe in any thread.
  public static func text(_ number: Int32) -> String {
    guard let text = strerrordesc_np(number) else { return "error \(number)" }
    return String(cString: text)
  }

  /// Runs a call that returns -1 on failure, again while it is interrupted (EINTR).
  @inline(__always)
  @discardableResult
  public static func check<Value: SignedInteger>(
    _ call: @autoclosure () -> String, _ subject: @autoclosure () -> String = "", _ body: () -> Value
  ) throws(SystemCallError) -> Value {
    while true {
      let result = body()
      if result >= 0 { return result }
      let number = errno
      if number != EINTR { throw SystemCallError(call: call(), subject: subject(), number: number) }
    }
  }
}
