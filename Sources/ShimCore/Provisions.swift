import CLinux
import Glibc
import LinuxSystem

/// What no plan decides and every container has: made by a shim while it stands by, as mounts that are attached nowhere,
/// so that the start has only to attach them.
///
/// Each is -1 where it is not to be had; then the start makes it, or says what is in the way.
struct Provisions {
  /// The tmpfs of /dev, with its nodes, links and directories.
  var devices: Int32 = -1
  /// A devpts of its own.
  var terminals: Int32 = -1
  var sharedMemory: Int32 = -1
  /// The message queues of the shim's own IPC namespace, which becomes the container's (mq_overview(7)).
  var queues: Int32 = -1
  /// Empty and read-only, to hide directories.
  var cover: Int32 = -1
  /// The IPC namespace of the host, for a container that shares it; the shim's own for all its containers. -1 where the
  /// shim is in it itself.
  var hostIPC: Int32 = -1

  /// The bytes that `sharedMemory` may hold: Docker's default.
  static let sharedMemorySize: UInt64 = 64 << 20
  /// Nothing made: for who has no need of it.
  static let none = Provisions()

  /// Moves this process into a fresh IPC namespace and makes everything. Only in a shim: it has no System V objects and
  /// no queues.
  ///
  /// - Parameter hostIPC: the host's IPC namespace; -1 where it cannot be opened, and then the shim stays in it.
  /// - Throws: what setns(2) throws; the IPC namespace of a container before must not be left to the next one.
  static func make(hostIPC: Int32) throws(SystemCallError) -> Provisions {
    var made = Provisions()
    if let devices = try? makeDevices(), (try? Devices.populate(devices.number)) != nil {
      made.devices = devices.release()
    }
    made.terminals = (try? makeTerminals().release()) ?? -1
    made.sharedMemory = (try? makeSharedMemory(sharedMemorySize).release()) ?? -1
    made.cover = (try? makeCover().release()) ?? -1
    if hostIPC >= 0 {
      if unshare(CLONE_NEWIPC) == 0 {
        made.hostIPC = hostIPC
        made.queues = (try? makeQueues().release()) ?? -1
      } else {
        try SystemCallError.check("setns") { setns(hostIPC, CLONE_NEWIPC) }
      }
    }
    return made
  }

  /// Lets go of what the container has by now, or does not want.
  mutating func close() {
    for number in [devices, terminals, sharedMemory, queues, cover] where number >= 0 { Glibc.close(number) }
    self = .none
  }

  // MARK: One by one, also for a start that finds nothing made

  private static let noNodes = UInt32(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

  static func makeDevices() throws(SystemCallError) -> OwnedDescriptor {
    try Mounts.make(
      "tmpfs", [.value("source", "tmpfs"), .value("mode", "755"), .value("size", "65536k")],
      attributes: UInt32(MOUNT_ATTR_NOSUID))
  }

  static func makeTerminals() throws(SystemCallError) -> OwnedDescriptor {
    try Mounts.make(
      "devpts",
      [.value("source", "devpts"), .value("mode", "0620"), .value("gid", "5"), .value("ptmxmode", "0666")],
      attributes: UInt32(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC))
  }

  static func makeSharedMemory(_ size: UInt64) throws(SystemCallError) -> OwnedDescriptor {
    try Mounts.make(
      "tmpfs", [.value("source", "shm"), .value("mode", "1777"), .value("size", "\(size)")], attributes: noNodes)
  }

  /// ENODEV from a kernel without POSIX message queues.
  static func makeQueues() throws(SystemCallError) -> OwnedDescriptor {
    try Mounts.make("mqueue", [.value("source", "mqueue")], attributes: noNodes)
  }

  static func makeCover() throws(SystemCallError) -> OwnedDescriptor {
    try Mounts.make(
      "tmpfs", [.value("source", "tmpfs"), .value("nr_inodes", "2")], attributes: UInt32(MOUNT_ATTR_RDONLY))
  }
}
