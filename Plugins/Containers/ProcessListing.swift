import Contracts
import Glibc
import LinuxSystem

/// What ps(1) shows of processes, read from /proc (proc(5)): `-ef`, `aux` and `-o` with the usual columns.
struct ProcessListing {
  /// One process as /proc has it.
  private struct Process {
    var pid: Int32
    /// The fields of /proc/PID/stat from the state on.
    var fields: [Substring]
    var name: String
    var arguments: [String]
    var user: UInt32
    var threads: Int { Int(fields[17]) ?? 1 }
    var residentPages: Int { Int(fields[21]) ?? 0 }
    var virtualBytes: Int { Int(fields[20]) ?? 0 }
    /// Ticks in user and kernel mode.
    var ticks: Int { (Int(fields[11]) ?? 0) + (Int(fields[12]) ?? 0) }
    /// Ticks since boot.
    var started: Int { Int(fields[19]) ?? 0 }

    init?(_ pid: Int32) {
      guard let line = try? Files.readText("/proc/\(pid)/stat"), let open = line.firstIndex(of: "("),
        let close = line.lastIndex(of: ")")
      else { return nil }
      self.pid = pid
      name = String(line[line.index(after: open)..<close])
      fields = line[line.index(after: close)...].split(separator: " ")
      guard fields.count > 22 else { return nil }
      let words = (try? Files.read("/proc/\(pid)/cmdline")) ?? []
      arguments = words.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
      var status = stat()
      user = stat("/proc/\(pid)", &status) == 0 ? status.st_uid : 0
    }

    var command: String { arguments.isEmpty ? "[\(name)]" : arguments.joined(separator: " ") }
  }

  private let columns: [(title: String, key: String)]

  /// - Throws: `unsupported` that names an option this engine does not read.
  init(_ arguments: [String]) throws(EngineError) {
    let full = [
      ("UID", "user"), ("PID", "pid"), ("PPID", "ppid"), ("C", "c"), ("STIME", "stime"), ("TTY", "tty"),
      ("TIME", "time"), ("CMD", "args"),
    ]
    let long = [
      ("USER", "user"), ("PID", "pid"), ("%CPU", "%cpu"), ("%MEM", "%mem"), ("VSZ", "vsz"), ("RSS", "rss"),
      ("TTY", "tty8"), ("STAT", "stat"), ("START", "stime"), ("TIME", "bsdtime"), ("COMMAND", "args"),
    ]
    var chosen: [(String, String)] = []
    var rest = arguments[...]
    while let word = rest.popFirst() {
      switch word {
      case "-ef", "-e", "-f", "-A", "-fe", "-eF": if chosen.isEmpty { chosen = full }
      case "aux", "-aux", "u", "ax", "-ax": if chosen.isEmpty { chosen = long }
      case "-o", "-eo", "o", "-efo", "-Ao", "--format":
        guard let list = rest.popFirst() else {
          throw EngineError(.invalidArgument, "error: ps: the option \(word) needs a list of columns")
        }
        chosen = try Self.columns(list)
      case _ where word.hasPrefix("-o"): chosen = try Self.columns(String(word.dropFirst(2)))
      case _ where word.hasPrefix("-eo"): chosen = try Self.columns(String(word.dropFirst(3)))
      default:
        throw EngineError(
          .unsupported, "ps: the option \"\(word)\" is not supported: use -ef, aux or -o with columns")
      }
    }
    if chosen.isEmpty { chosen = full }
    columns = chosen.map { (title: $0.0, key: $0.1) }
  }

  private static let titles = [
    "user": "USER", "uid": "UID", "pid": "PID", "ppid": "PPID", "pgid": "PGID", "sid": "SID", "c": "C",
    "stime": "STIME", "tty": "TT", "time": "TIME", "args": "COMMAND", "cmd": "CMD", "comm": "COMMAND", "%cpu": "%CPU",
    "pcpu": "%CPU", "%mem": "%MEM", "pmem": "%MEM", "vsz": "VSZ", "rss": "RSS", "stat": "STAT", "s": "S",
    "state": "S", "nlwp": "NLWP", "ni": "NI", "etime": "ELAPSED",
  ]

  private static func columns(_ list: String) throws(EngineError) -> [(String, String)] {
    var result: [(String, String)] = []
    for word in list.split(whereSeparator: { $0 == "," || $0 == " " }) {
      let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let key = parts[0].lowercased()
      guard let title = titles[key] else {
        throw EngineError(.invalidArgument, "error: ps: unknown user-defined format specifier \"\(word)\"")
      }
      result.append((parts.count == 2 ? String(parts[1]) : title, key))
    }
    return result
  }

  func table(of pids: [Int32]) -> ContainerTop.Reply {
    let users = Self.users()
    let uptime = Self.uptime
    let rows = pids.compactMap { Process($0) }.map { process in
      columns.map { Self.text($0.key, process, users, uptime) }
    }
    return ContainerTop.Reply(titles: columns.map(\.title), processes: rows)
  }

  private static func text(_ key: String, _ process: Process, _ users: [UInt32: String], _ uptime: Double) -> String {
    let rate = Double(max(1, sysconf(Int32(_SC_CLK_TCK))))
    let age = max(0, uptime - Double(process.started) / rate)
    let used = Double(process.ticks) / rate
    let share = age > 0 ? used * 100 / age : 0
    let page = sysconf(Int32(_SC_PAGESIZE))
    switch key {
    case "user": return users[process.user] ?? "\(process.user)"
    case "uid": return "\(process.user)"
    case "pid": return "\(process.pid)"
    case "ppid": return String(process.fields[1])
    case "pgid": return String(process.fields[2])
    case "sid": return String(process.fields[3])
    case "ni": return String(process.fields[16])
    case "nlwp": return "\(process.threads)"
    case "c": return "\(Int(min(99, share)))"
    case "%cpu", "pcpu": return tenths(share)
    case "%mem", "pmem":
      return tenths(Double(process.residentPages) * 100 / Double(max(1, sysconf(Int32(_SC_PHYS_PAGES)))))
    case "vsz": return "\(process.virtualBytes / 1024)"
    case "rss": return "\(process.residentPages * page / 1024)"
    case "stat", "s", "state": return String(process.fields[0])
    case "tty", "tty8": return terminal(Int(process.fields[4]) ?? 0)
    case "stime": return clock(time(nil) - Int(age))
    case "etime": return duration(Int(age))
    case "time": return "\(pad(Int(used) / 3600)):\(pad(Int(used) / 60 % 60)):\(pad(Int(used) % 60))"
    case "bsdtime": return "\(Int(used) / 60):\(pad(Int(used) % 60))"
    case "comm": return process.name
    default: return process.command
    }
  }

  private static func pad(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
  private static func tenths(_ value: Double) -> String {
    let tenths = Int((value * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)"
  }

  private static func duration(_ seconds: Int) -> String {
    let short = "\(pad(seconds / 60 % 60)):\(pad(seconds % 60))"
    return seconds < 3600 ? short : "\(pad(seconds / 3600)):\(short)"
  }

  /// `14:05` for today, `Nov21` for another day.
  private static func clock(_ seconds: Int) -> String {
    var (then, now) = (tm(), tm())
    var (start, present) = (time_t(seconds), time(nil))
    localtime_r(&start, &then)
    localtime_r(&present, &now)
    if then.tm_year == now.tm_year && then.tm_yday == now.tm_yday {
      return "\(pad(Int(then.tm_hour))):\(pad(Int(then.tm_min)))"
    }
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    return "\(months[Int(then.tm_mon) % 12])\(pad(Int(then.tm_mday)))"
  }

  /// A controlling terminal's number as its name: those of pty(7) have the majors 136 to 143.
  private static func terminal(_ number: Int) -> String {
    let major = number >> 8 & 0xfff
    let minor = number & 0xff | number >> 12 & 0xfff00
    switch major {
    case 136...143: return "pts/\((major - 136) * 256 + minor)"
    case 4: return "tty\(minor)"
    default: return "?"
    }
  }

  private static func users() -> [UInt32: String] {
    var result: [UInt32: String] = [:]
    for line in ((try? Files.readText("/etc/passwd")) ?? "").split(separator: "\n") {
      let fields = line.split(separator: ":", omittingEmptySubsequences: false)
      if fields.count > 2, let number = UInt32(fields[2]), result[number] == nil { result[number] = String(fields[0]) }
    }
    return result
  }

  /// Seconds since boot.
  private static var uptime: Double {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}
