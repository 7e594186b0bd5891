import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// Detached overlayfs mounts (Documentation/filesystems/overlayfs.rst of the kernel).
enum OverlayMount {
  /// OVL_MAX_STACK of the kernel is 500; Docker's own limit is kept, so that an image that runs here runs there.
  static let maximumLayers = 128

  /// Whether the kernel takes layers one by one (`lowerdir+`, since 6.8), so that their paths are not limited to the 256
  /// bytes that one option may have.
  static func takesLayersOneByOne(probing directory: String) -> Bool {
    Mounts.knows("overlay", option: "lowerdir+", directory)
  }

  /// - Parameters:
  ///   - layers: trees of the layers, the topmost first; at least one.
  ///   - isVolatile: nothing is synced, and the upper directory cannot be mounted again (`volatile`).
  static func make(
    layers: [String], upper: String, work: String, isVolatile: Bool, oneByOne: Bool
  ) throws(SystemCallError) -> OwnedDescriptor {
    guard oneByOne else { return try makeOfOneList(layers, upper, work, isVolatile) }
    var options: [Mounts.Option] = []
    options.reserveCapacity(layers.count + 7)
    for layer in layers { options.append(.value("lowerdir+", layer)) }
    options.append(.value("upperdir", upper))
    options.append(.value("workdir", work))
    for option in fixedOptions { options.append(.value(option.key, option.value)) }
    if isVolatile { options.append(.flag("volatile")) }
    return try Mounts.make("overlay", options)
  }

  /// Layers as one read-only file system.
  ///
  /// - Parameter layers: at least two trees, the topmost first.
  static func view(layers: [String], oneByOne: Bool) throws(SystemCallError) -> OwnedDescriptor {
    guard oneByOne else { return try makeOfOneList(layers, nil, nil, false) }
    var options: [Mounts.Option] = layers.map { .value("lowerdir+", $0) }
    for option in fixedOptions { options.append(.value(option.key, option.value)) }
    return try Mounts.make("overlay", options, attributes: UInt32(MOUNT_ATTR_RDONLY))
  }

  /// Said aloud because a kernel may be configured with other defaults: inode numbers of the layers as they are, no index
  /// (which would refuse layers that are mounted twice), and no redirects, which only a kernel could have written.
  private static let fixedOptions: [(key: String, value: String)] = [
    ("xino", "off"), ("index", "off"), ("redirect_dir", "off"), ("metacopy", "off"),
  ]

  /// For kernels without `lowerdir+`, whose layers are one option.
  private static func makeOfOneList(
    _ layers: [String], _ upper: String?, _ work: String?, _ isVolatile: Bool
  ) throws(SystemCallError) -> OwnedDescriptor {
    if let made = try makeOfDescriptors(layers, upper, work, isVolatile) { return made }
    return try makeByMountCall(layers, upper, work, isVolatile)
  }

  /// As many layers as the 255 bytes that fsconfig(2) takes name by descriptors, which are a dozen.
  ///
  /// - Returns: nil for more.
  static func makeOfDescriptors(
    _ layers: [String], _ upper: String?, _ work: String?, _ isVolatile: Bool
  ) throws(SystemCallError) -> OwnedDescriptor? {
    if layers.count > 24 { return nil }
    var held: [Descriptor] = []
    func name(_ path: String) throws(SystemCallError) -> String {
      let directory = Descriptor(adopting: try Files.open(path, O_PATH | O_DIRECTORY).release())
      held.append(directory)
      return "/proc/self/fd/\(directory.number)"
    }
    var names: [String] = []
    for layer in layers { names.append(try name(layer)) }
    let list = names.joined(separator: ":")
    if list.utf8.count > 255 { return nil }
    var options: [Mounts.Option] = [.value("lowerdir", list)]
    if let upper, let work {
      options.append(.value("upperdir", try name(upper)))
      options.append(.value("workdir", try name(work)))
    }
    for option in fixedOptions { options.append(.value(option.key, option.value)) }
    if isVolatile { options.append(.flag("volatile")) }
    let attributes = upper == nil ? UInt32(MOUNT_ATTR_RDONLY) : 0
    return try withExtendedLifetime(held) { () throws(SystemCallError) in
      try Mounts.make("overlay", options, attributes: attributes)
    }
  }

  /// For more layers than that: mount(2) takes one page of options, which 128 paths do not fit, so a thread with a
  /// mount namespace of its own gives each layer a short name on a tmpfs and mounts there. Its namespace goes with it;
  /// the detached copy stays.
  private static func makeByMountCall(
    _ layers: [String], _ upper: String?, _ work: String?, _ isVolatile: Bool
  ) throws(SystemCallError) -> OwnedDescriptor {
    let number = try DetachedThread.run { () throws(SystemCallError) in
      try mountInOwnNamespace(layers, upper, work, isVolatile).release()
    }
    return OwnedDescriptor(adopting: number)
  }

  /// Runs on a thread that ends afterwards: it leaves the namespaces and the working directory of the process.
  private static func mountInOwnNamespace(
    _ layers: [String], _ upper: String?, _ work: String?, _ isVolatile: Bool
  ) throws(SystemCallError) -> OwnedDescriptor {
    try SystemCallError.check("unshare") { unshare(CLONE_FS | CLONE_NEWNS) }
    try SystemCallError.check("mount", "/") { mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil) }
    // Any directory will do, but one that hides neither the layers nor the root.
    let place = "/proc"
    try SystemCallError.check("mount", "tmpfs") { mount("tmpfs", place, "tmpfs", 0, "mode=700") }
    try SystemCallError.check("chdir", place) { chdir(place) }
    var names: [String] = []
    for (index, layer) in layers.enumerated() {
      let name = String(index, radix: 36)
      try SystemCallError.check("symlink", layer) { symlink(layer, name) }
      names.append(name)
    }
    var text = "lowerdir=\(names.joined(separator: ":"))"
    if let upper, let work {
      try SystemCallError.check("symlink", upper) { symlink(upper, "upper") }
      try SystemCallError.check("symlink", work) { symlink(work, "work") }
      text += ",upperdir=upper,workdir=work"
    }
    try SystemCallError.check("mkdir") { mkdir("merged", 0o700) }
    for option in fixedOptions { text += ",\(option.key)=\(option.value)" }
    if isVolatile { text += ",volatile" }
    try SystemCallError.check("mount", "overlay \(text)") { mount("overlay", "merged", "overlay", 0, text) }
    return try Mounts.clone("merged", recursive: false)
  }
}
