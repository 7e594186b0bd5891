import LinuxSystem

/// Single steps of a start, for who measures them (`engine bench`): the same code that the shim and its child run.
package enum ShimSteps {
  /// fork(2) with the options of clone3(2); 0 in the child. Only in a single-threaded process.
  package static func clone(flags: UInt64, cgroup: Int32) throws(SystemCallError) -> (pid: Int32, pidfd: Int32) {
    try ShimCore.clone(flags: flags, cgroup: cgroup)
  }

  /// Moves the calling thread into groups of version 1, by their opened `tasks`.
  package static func enterGroups(_ entries: [Int32]) throws(SystemCallError) {
    try plain { () throws(SetupFailure) in try Child.enterGroups(entries) }
  }

  package static func loadFilter(_ program: [UInt8]) throws(SystemCallError) {
    try plain { () throws(SetupFailure) in try Privileges.load(program) }
  }

  private static func plain(_ step: () throws(SetupFailure) -> Void) throws(SystemCallError) {
    do {
      try step()
    } catch {
      throw SystemCallError(call: error.message, number: 5)
    }
  }
}
