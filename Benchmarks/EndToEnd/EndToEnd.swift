import BenchmarkSupport
import Glibc

/// Whole commands as a user types them, beside every peer there is, side by side in one run, hot and with pauses.
public enum EndToEnd {
  /// - Returns: the exit status.
  public static func main(_ commandLine: [String]) -> Int32 {
    let arguments = Array(commandLine.dropFirst())
    switch (arguments.first, arguments.count) {
    case (RawFloor.argument, 3): return RawFloor.serve(rootfs: arguments[1], directory: arguments[2])
    case (PingPong.server, 2): return PingPong.serve(UInt16(arguments[1]) ?? 0)
    case (PingPong.client, 3): return PingPong.measure(arguments[1], UInt16(arguments[2]) ?? 0)
    default: break
    }
    do {
      let options = try Options(arguments)
      switch options.action {
      case .measure:
        let suite = try Suite(options)
        defer { suite.tearDown() }
        try suite.run()
        return suite.hasFailed ? 1 : 0
      case .readme(let path): try Readme.update(path, from: options.output)
      case .page:
        // The targets, too, are those of today.
        var results = try Suite.Files.read(options.output)
        results.targets = Target.all(results)
        try Suite.Files.write(results, to: options.output)
      }
      return 0
    } catch {
      let line = Array("engine-benchmarks: \(error)\n".utf8)
      _ = write(2, line, line.count)
      return 1
    }
  }
}
