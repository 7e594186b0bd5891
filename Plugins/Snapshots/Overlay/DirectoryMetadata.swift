import Glibc
import LinuxSystem

/// What is set on directories when everything in them is unpacked. Paths lie one after the other in one array, so that
/// a million directories cost their names and little more.
struct DirectoryMetadata {
  private struct Item {
    var end: Int
    var time: timespec
    var mode: mode_t?
  }
  private var paths: [CChar] = []
  private var items: [Item] = []

  mutating func add(_ path: EntryPath, time: timespec, mode: mode_t?) {
    paths.append(contentsOf: path.bytes)
    items.append(Item(end: paths.count, time: time, mode: mode))
  }

  /// A directory that a later entry replaced is passed over.
  func applyLast(in directory: LayerDirectory) {
    paths.withUnsafeBufferPointer { paths in
      guard let base = paths.baseAddress else { return }
      var start = 0
      for item in items {
        let path = base + start
        start = item.end
        let number =
          path.pointee == 0
          ? directory.open(".", O_RDONLY | O_DIRECTORY)
          : directory.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        guard number >= 0 else { continue }
        let opened = OwnedDescriptor(adopting: number)
        if let mode = item.mode { fchmod(opened.number, mode) }
        var times = [item.time, item.time]
        futimens(opened.number, &times)
      }
    }
  }
}

/// Paths one after the other in one array, each with its NUL.
struct PathList {
  private var bytes: [CChar] = []

  var isEmpty: Bool { bytes.isEmpty }

  mutating func add(_ path: some Collection<CChar>) { bytes.append(contentsOf: path) }

  /// Calls `body` with each path in the order they were added.
  func forEach<Failure: Error>(_ body: (UnsafePointer<CChar>) throws(Failure) -> Void) throws(Failure) {
    try bytes.withUnsafeBufferPointer { (bytes) throws(Failure) in
      guard let base = bytes.baseAddress else { return }
      var start = 0
      while start < bytes.count {
        try body(base + start)
        start += strlen(base + start) + 1
      }
    }
  }
}
