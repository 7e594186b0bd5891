import CLinux
import Contracts
import Glibc
import LinuxSystem

/// The options of Docker's local driver: `type`, `device` and `o`, as of mount(8).
struct LocalMount: Sendable, Equatable {
  var type: String
  var device: String
  var options: MountOptions

  /// - Returns: nil without options: a plain directory.
  /// - Throws: `invalidArgument` in Docker's words, and `unsupported` for what is not mounted yet.
  init?(_ options: [String: String]) throws(EngineError) {
    if options.isEmpty { return nil }
    for key in options.keys.sorted() where !["type", "device", "o"].contains(key) {
      throw EngineError(.invalidArgument, "invalid option: \"\(key)\"; there is: type, device, o")
    }
    self.options = MountOptions((options["o"] ?? "").split(separator: ",").map(String.init))
    for key in ["type", "device"] where options[key, default: ""].isEmpty && !(key == "type" && self.options.isBind) {
      throw EngineError(.invalidArgument, "missing required option: \"\(key)\"")
    }
    type = options["type"] ?? "none"
    device = options["device"] ?? ""
    if type == "nfs" || type == "nfs4" {
      throw EngineError(.unsupported, "the local driver cannot mount volumes of type \"\(type)\"")
    }
    if self.options.isBind && !device.hasPrefix("/") {
      throw EngineError(.invalidArgument, "invalid option: the device of a bind must be an absolute path: \(device)")
    }
    if type == "tmpfs", let unknown = self.options.unknownForTmpfs {
      throw EngineError(.invalidArgument, "invalid option: \"\(unknown)\" is not an option of tmpfs")
    }
  }

  /// Mounts it at `path`, in one step.
  func attach(at path: String) throws(EngineError) {
    do throws(SystemCallError) {
      let mount: OwnedDescriptor
      if options.isBind {
        mount = try Mounts.clone(device, recursive: true)
        try Mounts.setAttributes(
          mount.number, set: UInt64(options.attributes), propagation: UInt64(MS_PRIVATE), recursive: true)
      } else {
        mount = try Mounts.make(
          type, [.value("source", device)] + options.configuration, attributes: options.attributes)
      }
      try Mounts.attach(mount.number, at: AT_FDCWD, path)
    } catch {
      throw EngineError(.invalidArgument, "\(error)")
    }
  }
}
