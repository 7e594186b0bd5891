import Glibc
import LinuxSystem

/// What was measured on.
package struct Machine: Codable, Equatable {
  package var date: String
  package var kernel: String
  package var system: String
  package var processor: String
  package var cpus: Int
  package var memoryMegabytes: Int

  package init(date: String, kernel: String, system: String, processor: String, cpus: Int, memoryMegabytes: Int) {
    self.date = date
    self.kernel = kernel
    self.system = system
    self.processor = processor
    self.cpus = cpus
    self.memoryMegabytes = memoryMegabytes
  }

  /// The machine in one line.
  package var line: String {
    "\(date), \(cpus) x \(processor), \(memoryMegabytes) MB, \(system), Linux \(kernel)"
  }

  package static func current() -> Self {
    var name = utsname()
    uname(&name)
    func text<Tuple>(_ field: Tuple) -> String {
      withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    func line(_ path: String, _ key: String, _ separator: Character) -> String {
      let lines = ((try? Files.readText(path)) ?? "").split(separator: "\n")
      guard let line = lines.first(where: { $0.hasPrefix(key) }) else { return "" }
      let value = line.split(separator: separator, maxSplits: 1).last ?? ""
      return String(value.drop { $0 == " " || $0 == "\"" || $0 == "\t" }.prefix { $0 != "\"" })
    }
    var now = time(nil)
    var parts = tm()
    gmtime_r(&now, &parts)
    var buffer = [CChar](repeating: 0, count: 32)
    let count = strftime(&buffer, buffer.count, "%Y-%m-%d", &parts)
    return Self(
      date: String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self),
      kernel: text(name.release), system: line("/etc/os-release", "PRETTY_NAME", "="),
      processor: line("/proc/cpuinfo", "model name", ":"), cpus: sysconf(Int32(_SC_NPROCESSORS_ONLN)),
      memoryMegabytes: sysconf(Int32(_SC_PHYS_PAGES)) / 1024 * sysconf(Int32(_SC_PAGESIZE)) / 1024)
  }
}
