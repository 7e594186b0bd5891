import CLinux
import Contracts
import Glibc
import LinuxSystem

/// A copy of the shim's executable in memory, on a file system that nobody can write to and that is mounted nowhere: no
/// container can reach a file on disk through its /proc/<pid>/exe, or write the copy (CVE-2019-5736).
///
/// It lies in huge pages where the kernel has them (tmpfs(5), `huge`): a process that executes it then takes a page fault
/// for 2 MiB of code instead of 64 KiB, and its end unmaps as few.
enum ShimImage {
  private static let name = "engine-shim"
  /// The bytes of a huge page.
  private static let chunk = 2 << 20

  /// - Returns: the file, to be executed through its descriptor.
  static func make(_ path: String) throws(SystemCallError) -> Descriptor {
    let mount = try makeFileSystem()
    try copy(path, to: mount.number)
    try seal(mount.number)
    let file = try Files.open(at: mount.number, name, O_RDONLY | O_NOFOLLOW)
    // Above the numbers that a child is given.
    let high = try SystemCallError.check("fcntl") { linux_fcntl(file.number, F_DUPFD_CLOEXEC, 10) }
    return Descriptor(adopting: high)
  }

  /// Makes the mount and the file system read-only: whoever got another mount of it could not write either.
  ///
  /// - Throws: EBUSY when the file stays open for writing: a process that another thread starts has it from its birth until
  ///   it executes its program.
  private static func seal(_ mount: Int32) throws(SystemCallError) {
    var triesLeft = 1000
    while true {
      do throws(SystemCallError) {
        try Mounts.setAttributes(mount, set: UInt64(MOUNT_ATTR_RDONLY), recursive: false)
        return try Mounts.makeReadOnly(mount)
      } catch  where error.number == EBUSY && triesLeft > 0 {
        triesLeft -= 1
        usleep(1000)
      }
    }
  }

  private static func makeFileSystem() throws(SystemCallError) -> OwnedDescriptor {
    let options: [Mounts.Option] = [.value("source", name), .value("mode", "700")]
    do throws(SystemCallError) {
      return try Mounts.make("tmpfs", options + [.value("huge", "always")], attributes: attributes)
    } catch {
      // A kernel without transparent huge pages.
      return try Mounts.make("tmpfs", options, attributes: attributes)
    }
  }

  private static let attributes = UInt32(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

  private static func copy(_ path: String, to directory: Int32) throws(SystemCallError) {
    let source = try Files.open(path, O_RDONLY)
    let target = try Files.open(at: directory, name, O_WRONLY | O_CREAT | O_EXCL, mode: 0o500)
    var buffer = [UInt8](repeating: 0, count: chunk)
    while true {
      let count = try SystemCallError.check("read", path) { read(source.number, &buffer, chunk) }
      if count == 0 { return }
      try Files.writeAll(target.number, Array(buffer[..<count]), subject: name)
    }
  }
}
