import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Wire

/// What the benchmarks have on the host while they run: a directory, and groups in the cgroup hierarchies.
struct Ground {
  /// Where engine, engined and engine-shim are.
  let binaries: String
  let directory: String
  let cgroups: CgroupPlaces
  /// Held as long as anything of this run lives (flock(2)).
  private let lock: Descriptor

  init() throws(EngineError) {
    guard geteuid() == 0 else {
      throw EngineError(.permissionDenied, "the benchmarks need root: they make namespaces, mounts and cgroups")
    }
    do {
      binaries = try Self.ownDirectory()
      let base = Self.base
      cgroups = CgroupPlaces()
      Self.clearLeftovers(beneath: base, cgroups)
      directory = try Self.makeDirectory(beneath: base)
      lock = try Self.takeLock(directory)
    } catch {
      throw EngineError(.unavailable, "the benchmarks cannot run here: \(error)")
    }
  }

  /// The name of the groups that raw system calls make.
  var groupName: String { Self.name(of: directory) }

  private static func name(of directory: String) -> String {
    directory.split(separator: "/").last.map(String.init) ?? directory
  }

  /// Removes everything, also what a run left that was killed; nothing of it is in use any more.
  func clear() { Self.clear(directory, cgroups) }

  private static func clear(_ directory: String, _ cgroups: CgroupPlaces) {
    let instances = ((try? Files.list(directory)) ?? []).map { InstancePaths(root: "\(directory)/\($0)").hash }
    cgroups.restore([name(of: directory)] + instances.map { "engine-\($0)" })
    try? Files.removeTree(directory)
  }

  // MARK: Runs that were killed

  private static let prefix = "engine-bench-"
  /// Seconds before which a directory without a lock may be one that is about to get it.
  private static let youth = 60

  /// Removes what is left of runs whose processes are all gone.
  private static func clearLeftovers(beneath base: String, _ cgroups: CgroupPlaces) {
    for name in (try? Files.list(base)) ?? [] where name.hasPrefix(prefix) {
      let path = "\(base)/\(name)"
      var status = stat()
      guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR, status.st_uid == 0,
        time(nil) - status.st_mtim.tv_sec > youth, let lock = try? takeLock(path)
      else { continue }
      clear(path, cgroups)
      _ = lock
    }
  }

  private static func takeLock(_ directory: String) throws(SystemCallError) -> Descriptor {
    let file = Descriptor(adopting: try Files.open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW).release())
    try SystemCallError.check("flock", directory) { flock(file.number, LOCK_EX | LOCK_NB) }
    return file
  }

  private static func ownDirectory() throws(SystemCallError) -> String {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = try SystemCallError.check("readlink", "/proc/self/exe") {
      readlink("/proc/self/exe", &buffer, buffer.count)
    }
    let own = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return String(own.prefix(upTo: own.lastIndex(of: "/") ?? own.startIndex))
  }

  /// Where directories for a while go.
  private static var base: String {
    let base = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    // Where the benchmarks run, /run is theirs.
    return !base.hasPrefix("/") || base.hasPrefix("/run") ? "/tmp" : base
  }

  private static func makeDirectory(beneath base: String) throws(SystemCallError) -> String {
    var template = Array("\(base)/\(prefix)XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw SystemCallError(call: "mkdtemp", subject: base, number: errno) }
    return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// Where everything is measured, seen from inside: namespaces of its own, so that nothing meets the engine that the user
/// runs, and everything ends with this process.
final class Sandbox {
  let ground: Ground
  let cleanup: Cleanup

  var directory: String { ground.directory }
  var cgroups: CgroupPlaces { ground.cgroups }

  /// In a new process with new network, mount and PID namespaces, before it has threads.
  init(_ ground: Ground, cleanup: Cleanup) throws(EngineError) {
    self.ground = ground
    self.cleanup = cleanup
    do {
      try SystemCallError.check("mount", "/") { mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil) }
      let plain = UInt(MS_NOSUID | MS_NODEV | MS_NOEXEC)
      try SystemCallError.check("mount", "/proc") { mount("proc", "/proc", "proc", plain, nil) }
      // Sockets and journals of the engines that are started here.
      try SystemCallError.check("mount", "/run") { mount("tmpfs", "/run", "tmpfs", 0, "mode=755") }
      try NetworkNamespace.setLoopbackUp()
    } catch {
      throw EngineError(.unavailable, "the benchmarks cannot run here: \(error)")
    }
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
    return Instance(
      root: paths.root, runtimeDirectory: paths.runtimeDirectory, hash: paths.hash, isDefault: false,
      daemonPath: "\(ground.binaries)/engined", shimPath: "\(ground.binaries)/engine-shim", version: "bench")
  }

  /// A host for a plugin of an instance of its own.
  func host(_ manifest: PluginManifest, _ name: String, bus: Bus) throws(EngineError) -> PluginHost {
    let instance = try instance(name)
    let journal = try Journal(path: "\(instance.runtimeDirectory)/journal-\(manifest.name)")
    return PluginHost(manifest: manifest, bus: bus, instance: instance, journal: journal)
  }
}
