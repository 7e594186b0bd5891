import CLinux
import Glibc

/// Detached mounts: a mount that exists as a descriptor and is attached nowhere on the host (fsopen(2), fsmount(2),
/// open_tree(2)). It is gone when the last descriptor is closed, unless move_mount(2) attached it inside a container.
public enum Mounts {
  /// One option of a new file system for fsconfig(2).
  public enum Option: Sendable {
    /// A bare word, for example `volatile` (FSCONFIG_SET_FLAG).
    case flag(String)
    /// A key with a value (FSCONFIG_SET_STRING; the kernel takes at most 255 bytes of value).
    case value(String, String)
  }

  /// Makes a new file system of `type` and a detached mount of it.
  ///
  /// - Parameters:
  ///   - attributes: `MOUNT_ATTR_*` of fsmount(2).
  /// - Throws: the failing call, with the kernel's own message from the fsopen(2) log where it left one.
  public static func make(
    _ type: String, _ options: [Option], attributes: UInt32 = 0
  ) throws(SystemCallError) -> OwnedDescriptor {
    let context = OwnedDescriptor(
      adopting: try SystemCallError.check("fsopen", type) { fsopen(type, UInt32(FSOPEN_CLOEXEC)) })
    for option in options {
      switch option {
      case .flag(let key):
        try configure(context.number, FSCONFIG_SET_FLAG, key, nil, subject: "\(type) \(key)")
      case .value(let key, let value):
        try configure(context.number, FSCONFIG_SET_STRING, key, value, subject: "\(type) \(key)=\(value)")
      }
    }
    try configure(context.number, FSCONFIG_CMD_CREATE, nil, nil, subject: type)
    return OwnedDescriptor(
      adopting: try SystemCallError.check("fsmount", type) {
        fsmount(context.number, UInt32(FSMOUNT_CLOEXEC), attributes)
      })
  }

  /// Whether the kernel's file system `type` knows an option, asked with a value that would do (fsconfig(2)).
  public static func knows(_ type: String, option: String, _ value: String) -> Bool {
    let context = OwnedDescriptor(adopting: fsopen(type, UInt32(FSOPEN_CLOEXEC)))
    guard context.number >= 0 else { return false }
    return isKnown(option, value) { key, value in
      fsconfig(context.number, FSCONFIG_SET_STRING.rawValue, key, value, 0) == 0
    }
  }

  /// A file system without a parser of its own (overlay before Linux 6.5: fs/fs_context.c, `legacy_parse_param`) takes
  /// whatever it is given, and refuses it only when it is made. So an option that nobody knows is asked for first.
  static func isKnown(_ option: String, _ value: String, takes: (String, String) -> Bool) -> Bool {
    !takes("an-option-that-nobody-knows", value) && takes(option, value)
  }

  private static func configure(
    _ context: Int32, _ command: fsconfig_command, _ key: String?, _ value: String?,
    subject: @autoclosure () -> String
  ) throws(SystemCallError) {
    do {
      try SystemCallError.check("fsconfig") { () -> Int32 in
        guard let key else { return fsconfig(context, command.rawValue, nil, nil, 0) }
        guard let value else { return fsconfig(context, command.rawValue, key, nil, 0) }
        return fsconfig(context, command.rawValue, key, value, 0)
      }
    } catch {
      throw SystemCallError(call: error.call, subject: subject() + log(of: context), number: error.number)
    }
  }

  /// The messages the kernel left in an fsopen(2) descriptor, each of the form `e overlay: ...`.
  private static func log(of context: Int32) -> String {
    var text = ""
    var buffer = [UInt8](repeating: 0, count: 1024)
    while true {
      let count = read(context, &buffer, buffer.count)
      if count <= 0 { return text }
      let line = String(decoding: buffer[..<count], as: UTF8.self)
      text += " (\(line.split(separator: "\n").joined(separator: " ")))"
    }
  }

  /// A detached copy of the mount at `path` (a bind mount that is attached nowhere), with the mounts below it when
  /// `recursive` (open_tree(2), OPEN_TREE_CLONE).
  public static func clone(
    at directory: Int32 = AT_FDCWD, _ path: String, recursive: Bool
  ) throws(SystemCallError) -> OwnedDescriptor {
    var flags = UInt32(OPEN_TREE_CLONE) | UInt32(bitPattern: O_CLOEXEC)
    if recursive { flags |= UInt32(AT_RECURSIVE) }
    if path.isEmpty { flags |= UInt32(AT_EMPTY_PATH) }
    return OwnedDescriptor(
      adopting: try SystemCallError.check("open_tree", path) { open_tree(directory, path, flags) })
  }

  /// Changes a detached or attached mount (mount_setattr(2)).
  ///
  /// - Parameters:
  ///   - set: `MOUNT_ATTR_*` to set, for example `MOUNT_ATTR_RDONLY`.
  ///   - propagation: 0, or one of `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`.
  public static func setAttributes(
    _ mount: Int32, set: UInt64, clear: UInt64 = 0, propagation: UInt64 = 0, recursive: Bool
  ) throws(SystemCallError) {
    var attributes = mount_attr()
    attributes.attr_set = set
    attributes.attr_clr = clear
    attributes.propagation = propagation
    let flags = UInt32(AT_EMPTY_PATH) | (recursive ? UInt32(AT_RECURSIVE) : 0)
    try SystemCallError.check("mount_setattr") { linux_mount_setattr(mount, "", flags, &attributes) }
  }

  /// Makes a detached mount the root of the calling thread's mount namespace, and lets go of the tree that was there
  /// (pivot_root(2)). The working directory is the new root's then. Only where the namespace is nobody else's.
  public static func pivot(to mount: Int32) throws(SystemCallError) {
    // Nothing that is let go of here may be let go of where it came from.
    try SystemCallError.check("mount", "/") { Glibc.mount(nil, "/", nil, UInt(MS_REC | MS_PRIVATE), nil) }
    try attach(mount, at: AT_FDCWD, "/")
    try SystemCallError.check("fchdir") { fchdir(mount) }
    try SystemCallError.check("pivot_root") { linux_pivot_root(".", ".") }
    // The old tree is now on top of the new root.
    try SystemCallError.check("umount2") { umount2(".", Int32(MNT_DETACH)) }
  }

  /// Makes the file system behind a mount read-only, wherever it is mounted (fspick(2)).
  public static func makeReadOnly(_ mount: Int32) throws(SystemCallError) {
    let context = OwnedDescriptor(
      adopting: try SystemCallError.check("fspick") {
        fspick(mount, "", UInt32(FSPICK_CLOEXEC) | UInt32(FSPICK_EMPTY_PATH))
      })
    try configure(context.number, FSCONFIG_SET_FLAG, "ro", nil, subject: "ro")
    try configure(context.number, FSCONFIG_CMD_RECONFIGURE, nil, nil, subject: "read-only")
  }

  /// Attaches a detached mount at `path` beneath `directory` (move_mount(2)).
  public static func attach(_ mount: Int32, at directory: Int32, _ path: String) throws(SystemCallError) {
    var flags = UInt32(MOVE_MOUNT_F_EMPTY_PATH)
    if path.isEmpty { flags |= UInt32(MOVE_MOUNT_T_EMPTY_PATH) }
    try SystemCallError.check("move_mount", path) { move_mount(mount, "", directory, path, flags) }
  }
}
