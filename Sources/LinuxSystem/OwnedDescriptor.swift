import CLinux
import Glibc

/// A file descriptor with exactly one owner, closed when the owner goes out of scope.
///
/// Where a descriptor has to travel in a message, which can be copied, `Contracts.Descriptor` holds it instead.
public struct OwnedDescriptor: ~Copyable, Sendable {
  /// The number the kernel gave; valid as long as this value lives.
  public let number: Int32

  /// Takes ownership of an open descriptor.
  public init(adopting number: Int32) {
    self.number = number
  }

  deinit {
    if number >= 0 { close(number) }
  }

  /// Gives up ownership: the caller closes the number that is returned.
  public consuming func release() -> Int32 {
    let number = number
    discard self
    return number
  }

  /// A second descriptor of the same open file, close-on-exec (`F_DUPFD_CLOEXEC`, fcntl(2)).
  public borrowing func duplicate() throws(SystemCallError) -> OwnedDescriptor {
    OwnedDescriptor(
      adopting: try SystemCallError.check("fcntl(F_DUPFD_CLOEXEC)") {
        linux_fcntl(number, F_DUPFD_CLOEXEC, 3)
      })
  }
}
