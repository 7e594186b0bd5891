import Contracts
import Kernel
import LinuxSystem
import Synchronization

/// Network namespaces whose containers are gone. The kernel takes a namespace down when nobody holds it any more, with the
/// lock of all links in its hand, so that the next container would wait for the last one: they are held until nobody has
/// come or gone for a moment, and then go together, which the kernel does in one.
final class RetiredNamespaces: Sendable {
  /// So many do not wait for a quiet moment.
  private static let crowd = 32

  private let replenisher: Replenisher
  private let held = Mutex<[Descriptor]>([])

  init(bus: Bus) { replenisher = Replenisher(bus) }

  func add(_ namespace: Descriptor) {
    let count = held.withLock { held in
      held.append(namespace)
      return held.count
    }
    replenisher.taken(isLast: count >= Self.crowd) { [self] in letGo() }
  }

  func letGo() {
    // Out of the lock, since closing the last descriptor of a namespace is some work.
    let gone = held.withLock { held in
      defer { held = [] }
      return held
    }
    _ = gone
  }
}
