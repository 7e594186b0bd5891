import LinuxSystem

/// Single steps of the runtime's work, for who measures them (`engine bench`).
package enum RuntimeSteps {
  /// The filter that a container gets when nobody says otherwise, as the kernel takes it.
  package static func standardFilter() throws(SystemCallError) -> [UInt8] {
    do {
      return try SeccompFilters().usual()
    } catch {
      throw SystemCallError(call: "\(error)", number: 22)
    }
  }
}
