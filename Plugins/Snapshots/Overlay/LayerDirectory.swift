import CLinux
import Contracts
import Glibc
import LinuxSystem

/// The tree a layer is unpacked into. Every path is resolved by openat2(2) as if the tree's root were `/`, so that no
/// entry, link or race can lead out of it, and absolute links lead where they will in a container; the last component is
/// never followed.
final class LayerDirectory {
  /// The mode of a directory that no entry has described yet, by which it is told when everything is unpacked; no
  /// archive has it, and one that does gets its parent's mode for that directory.
  static let impliedMode: mode_t = 0o5701

  let root: Int32
  private var parentPath: [CChar] = []
  /// Paths of directories that were made because something lies in them.
  private(set) var implied = PathList()
  private var parentDescriptor = OwnedDescriptor(adopting: -1)

  /// - Parameter root: borrowed, an open directory.
  init(root: Int32) { self.root = root }

  /// Opens a directory of the tree; symbolic links are followed within it.
  func open(_ path: UnsafePointer<CChar>, _ flags: Int32) -> Int32 {
    var how = open_how()
    how.flags = UInt64(UInt32(bitPattern: flags | O_CLOEXEC))
    how.resolve = UInt64(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    return Self.open(root, path, &how)
  }

  /// openat2(2) cannot tell where `..` leads while anything is renamed on the system, and says so.
  static func open(_ root: Int32, _ path: UnsafePointer<CChar>, _ how: inout open_how) -> Int32 {
    while true {
      let number = linux_openat2(root, path, &how)
      if number >= 0 || (errno != EAGAIN && errno != EINTR) { return number }
    }
  }

  /// The descriptor of the directory that holds an entry; missing directories are made with mode 0755 when `making`.
  /// It stays valid until the next call.
  func parent(of path: EntryPath, making: Bool = true, entry: UnsafePointer<CChar>) throws(EngineError) -> Int32 {
    let wanted = path.parent
    if wanted.isEmpty { return root }
    if parentPath.elementsEqual(wanted) { return parentDescriptor.number }
    var prefix = Array(wanted) + [0]
    var descriptor = open(prefix, O_RDONLY | O_DIRECTORY)
    if descriptor < 0 && errno == ENOENT && making {
      descriptor = try makeParents(&prefix, entry: entry)
    }
    guard descriptor >= 0 else { throw failure(errno, entry) }
    parentDescriptor = OwnedDescriptor(adopting: descriptor)
    parentPath = Array(wanted)
    return descriptor
  }

  private func makeParents(_ path: inout [CChar], entry: UnsafePointer<CChar>) throws(EngineError) -> Int32 {
    let slash = CChar(bitPattern: UInt8(ascii: "/"))
    var above = OwnedDescriptor(adopting: -1)
    var start = 0
    for index in path.indices where path[index] == slash || path[index] == 0 {
      let saved = path[index]
      path[index] = 0
      var descriptor = open(path, O_RDONLY | O_DIRECTORY)
      if descriptor < 0 && errno == ENOENT {
        let holder = start == 0 ? root : above.number
        let made = Array(path[start...]).withUnsafeBufferPointer { buffer in
          buffer.baseAddress.map { mkdirat(holder, $0, 0o755) } ?? -1
        }
        if made < 0 && errno != EEXIST { throw failure(errno, entry) }
        descriptor = open(path, O_RDONLY | O_DIRECTORY)
        if made == 0 && descriptor >= 0 {
          fchmod(descriptor, Self.impliedMode)
          implied.add(path[...index])
        }
      }
      guard descriptor >= 0 else { throw failure(errno, entry) }
      above = OwnedDescriptor(adopting: descriptor)
      path[index] = saved
      start = index + 1
    }
    return above.release()
  }

  /// Forgets the cached directory when `path`, which is about to be replaced, is that or above it. The descriptor that
  /// `parent` returned for `path` itself stays valid.
  func forgetParentIfBeneath(_ path: EntryPath) {
    guard parentPath.starts(with: path.bytes.dropLast()) else { return }
    parentDescriptor = OwnedDescriptor(adopting: -1)
    parentPath = []
  }

  /// An errno as the one error for an entry.
  func failure(_ number: Int32, _ entry: UnsafePointer<CChar>) -> EngineError {
    switch number {
    case EXDEV, ELOOP: return EntryPath.refusal(entry, "its path leads in a ring of links, or out of the layer")
    case ENOENT: return EntryPath.refusal(entry, "its path leads through a link to nothing in this layer")
    case ENOTDIR: return EntryPath.refusal(entry, "its path leads through something that is not a directory")
    case EFBIG: return EntryPath.refusal(entry, "it says that it is larger than any file can be here")
    case ENOSPC, EDQUOT:
      return EngineError(
        .resourceExhausted, "no space left on device while unpacking \"\(String(cString: entry))\"")
    default:
      return EngineError(
        .internalFailure, "\"\(String(cString: entry))\" cannot be unpacked: \(SystemCallError.text(number))")
    }
  }
}
