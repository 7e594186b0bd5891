import CLinux

/// The options of mount(8), as in `-o ro,size=64m`: those that are of the mount become attributes of fsmount(2), the
/// others are the file system's.
public struct MountOptions: Sendable, Equatable {
  /// `MOUNT_ATTR_*`.
  public var attributes: UInt32
  /// Options of the file system in the order given: a key, and its value or nil.
  public var fileSystem: [Entry]
  /// `bind` or `rbind` was among them.
  public var isBind = false

  public struct Entry: Sendable, Equatable {
    public var key: String
    public var value: String?

    public init(key: String, value: String?) {
      self.key = key
      self.value = value
    }
  }

  private static let flags: [String: (set: Int, clear: Int)] = [
    "defaults": (0, 0), "rw": (0, Int(MOUNT_ATTR_RDONLY)), "ro": (Int(MOUNT_ATTR_RDONLY), 0),
    "suid": (0, Int(MOUNT_ATTR_NOSUID)), "nosuid": (Int(MOUNT_ATTR_NOSUID), 0),
    "dev": (0, Int(MOUNT_ATTR_NODEV)), "nodev": (Int(MOUNT_ATTR_NODEV), 0),
    "exec": (0, Int(MOUNT_ATTR_NOEXEC)), "noexec": (Int(MOUNT_ATTR_NOEXEC), 0),
    "atime": (0, Int(MOUNT_ATTR__ATIME)), "noatime": (Int(MOUNT_ATTR_NOATIME), Int(MOUNT_ATTR__ATIME)),
    "relatime": (0, Int(MOUNT_ATTR__ATIME)),
    "strictatime": (Int(MOUNT_ATTR_STRICTATIME), Int(MOUNT_ATTR__ATIME)),
    "diratime": (0, Int(MOUNT_ATTR_NODIRATIME)), "nodiratime": (Int(MOUNT_ATTR_NODIRATIME), 0),
  ]

  /// - Parameter attributes: what holds unless an option says otherwise.
  public init(_ options: [String], attributes: UInt32 = 0) {
    self.attributes = attributes
    fileSystem = []
    for option in options where !option.isEmpty {
      if let flag = Self.flags[option] {
        self.attributes &= ~UInt32(truncatingIfNeeded: flag.clear)
        self.attributes |= UInt32(truncatingIfNeeded: flag.set)
      } else if option == "bind" || option == "rbind" {
        isBind = true
      } else if let equals = option.firstIndex(of: "=") {
        fileSystem.append(
          Entry(key: String(option[..<equals]), value: String(option[option.index(after: equals)...])))
      } else {
        fileSystem.append(Entry(key: option, value: nil))
      }
    }
  }

  /// The first option that tmpfs(5) does not have, or nil.
  public var unknownForTmpfs: String? {
    let keys: Set = ["size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "mpol", "huge"]
    for entry in fileSystem {
      if let value = entry.value {
        if !keys.contains(entry.key) || value.isEmpty { return "\(entry.key)=\(value)" }
      } else if entry.key != "noswap" && entry.key != "inode64" && entry.key != "inode32" {
        return entry.key
      }
    }
    return nil
  }

  /// The file system's options for fsconfig(2).
  public var configuration: [Mounts.Option] {
    fileSystem.map { entry in entry.value.map { .value(entry.key, $0) } ?? .flag(entry.key) }
  }
}
