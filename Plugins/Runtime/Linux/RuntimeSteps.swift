import LinuxSystem

/// Single steps of the runtime's work, for who measures them (`engine bench`).
package enum RuntimeSteps {
  /// Docker's fourteen default capabilities, one bit each (capabilities(7)).
  private static let standardCapabilities: UInt64 = 0xa804_25fb

  /// The filter that a container gets when nobody says otherwise, as the kernel takes it.
  package static func standardFilter() throws(SystemCallError) -> [UInt8] {
    do {
      return try SeccompFilters().program(.standard, capabilities: standardCapabilities, isPrivileged: false)
    } catch {
      throw SystemCallError(call: "\(error)", number: 22)
    }
  }
}
