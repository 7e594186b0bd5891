import CLinux
import Contracts
import Glibc
import LinuxSystem

/// A mount namespace with an empty, read-only file system and nothing else. A container's is a copy of it: copying the
/// host's, whose every mount is taken out again, takes longer the more mounts the host has, and for a moment the process
/// would have them all.
enum EmptyTree {
  /// - Returns: the namespace, for setns(2).
  static func make() throws(SystemCallError) -> Descriptor {
    try DetachedThread.run { () throws(SystemCallError) in
      try SystemCallError.check("unshare") { unshare(CLONE_FS | CLONE_NEWNS) }
      // Before /proc is out of reach.
      let namespace = try Files.open("/proc/thread-self/ns/mnt", O_RDONLY)
      let empty = try Mounts.make(
        "tmpfs", [.value("source", "none"), .value("nr_inodes", "2"), .value("mode", "555")],
        attributes: UInt32(MOUNT_ATTR_RDONLY))
      try Mounts.pivot(to: empty.number)
      return Descriptor(adopting: namespace.release())
    }
  }
}
