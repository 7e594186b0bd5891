import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Wire

/// Where everything is measured: network and mount namespaces of this process's own, a directory that goes with it, and
/// groups of its own in the cgroup hierarchies. Nothing here meets the engine that the user runs.
final class Sandbox {
  /// Where engine, engined and engine-shim are.
  let binaries: String
  let directory: String
  let cleanup: Cleanup
  let cgroups: CgroupPlaces
  /// The name of the groups that raw system calls make.
  let groupName: String

  /// Before there are threads: these namespaces become those of all of them.
  init(cleanup: Cleanup) throws(EngineError) {
    self.cleanup = cleanup
    guard geteuid() == 0 else {
      throw EngineError(.permissionDenied, "the benchmarks need root: they make namespaces, mounts and cgroups")
    }
    do {
      binaries = try Self.ownDirectory()
      try SystemCallError.check("unshare(CLONE_NEWNS | CLONE_NEWNET)") { unshare(CLONE_NEWNS | CLONE_NEWNET) }
      try SystemCallError.check("mount", "/") { mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil) }
      directory = try Self.makeDirectory()
      let directory = directory
      cleanup.add { try? Files.removeTree(directory) }
      // Sockets and journals of the engines that are started here; nobody else sees it, and it goes with the namespace.
      try SystemCallError.check("mount", "/run") { mount("tmpfs", "/run", "tmpfs", 0, "mode=755") }
      try Self.setLoopbackUp()
      cgroups = CgroupPlaces()
    } catch {
      throw EngineError(.unavailable, "the benchmarks cannot run here: \(error)")
    }
    groupName = "engine-bench-\(getpid())"
    cgroups.own(groupName)
    let cgroups = cgroups
    cleanup.add { cgroups.restore() }
  }

  /// An instance of the engine whose names no other one has.
  func instance(_ name: String) throws(EngineError) -> Instance {
    let paths = InstancePaths(root: "\(directory)/\(name)")
    do {
      try Files.makeDirectories(paths.root)
      try Files.makeDirectories(paths.runtimeDirectory)
    } catch {
      throw EngineError(.internalFailure, "\(error)")
    }
    cgroups.own("engine-\(paths.hash)")
    return Instance(
      root: paths.root, runtimeDirectory: paths.runtimeDirectory, hash: paths.hash, isDefault: false,
      daemonPath: "\(binaries)/engined", shimPath: "\(binaries)/engine-shim", version: "bench")
  }

  /// A host for a plugin of an instance of its own.
  func host(_ manifest: PluginManifest, _ name: String, bus: Bus) throws(EngineError) -> PluginHost {
    let instance = try instance(name)
    let journal = try Journal(path: "\(instance.runtimeDirectory)/journal-\(manifest.name)")
    return PluginHost(manifest: manifest, bus: bus, instance: instance, journal: journal)
  }

  private static func ownDirectory() throws(SystemCallError) -> String {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = try SystemCallError.check("readlink", "/proc/self/exe") {
      readlink("/proc/self/exe", &buffer, buffer.count)
    }
    let own = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return String(own.prefix(upTo: own.lastIndex(of: "/") ?? own.startIndex))
  }

  private static func makeDirectory() throws(SystemCallError) -> String {
    var base = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    // /run is hidden in a moment.
    if !base.hasPrefix("/") || base.hasPrefix("/run") { base = "/tmp" }
    var template = Array("\(base)/engine-bench-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw SystemCallError(call: "mkdtemp", subject: base, number: errno) }
    return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  private static func setLoopbackUp() throws(SystemCallError) {
    let socket = OwnedDescriptor(
      adopting: try SystemCallError.check("socket") {
        Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
      })
    var request = ifreq()
    withUnsafeMutableBytes(of: &request.ifr_ifrn) { $0.copyBytes(from: "lo".utf8) }
    request.ifr_ifru.ifru_flags = Int16(IFF_UP)
    try SystemCallError.check("ioctl(SIOCSIFFLAGS)", "lo") {
      linux_ioctl_pointer(socket.number, UInt(SIOCSIFFLAGS), &request)
    }
  }
}
