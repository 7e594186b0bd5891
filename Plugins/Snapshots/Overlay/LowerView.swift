import Contracts
import Glibc
import LinuxSystem
import Synchronization

/// Several layers as one read-only file system that is mounted nowhere.
final class LowerView: Sendable {
  private let empty: String
  private let oneByOne = Mutex(false)

  /// - Parameter empty: an empty directory.
  init(empty: String) { self.empty = empty }

  var takesLayersOneByOne: Bool {
    get { oneByOne.withLock { $0 } }
    set { oneByOne.withLock { $0 = newValue } }
  }

  /// - Parameter trees: the topmost first.
  func open(_ trees: [String]) throws(EngineError) -> OwnedDescriptor {
    do {
      if trees.count == 1 { return try Files.open(trees[0], O_RDONLY | O_DIRECTORY) }
      return try OverlayMount.view(layers: trees.isEmpty ? [empty, empty] : trees, oneByOne: takesLayersOneByOne)
    } catch {
      throw EngineError(.internalFailure, "the layers cannot be mounted: \(error)")
    }
  }
}
