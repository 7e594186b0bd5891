import Contracts
import LinuxSystem
import Wire

/// Makes sure that two roots whose paths hash alike never share a runtime directory.
enum InstanceOwner {
  /// Writes the root's path into the runtime directory, or compares it with the one that is there.
  ///
  /// - Throws: `conflict` that names both roots.
  static func claim(_ paths: InstancePaths) throws(EngineError) {
    let file = "\(paths.runtimeDirectory)/root"
    do {
      guard Files.exists(file) else {
        try Files.replace(file, with: Array(paths.root.utf8), durable: false)
        return
      }
      let other = try Files.readText(file)
      guard other == paths.root else {
        throw EngineError(
          .conflict,
          "the roots \(paths.root) and \(other) have the same hash \(paths.hash); choose another path for one of them")
      }
    } catch {
      throw (error as? EngineError) ?? EngineError(.internalFailure, "the instance cannot be claimed: \(error)")
    }
  }
}
