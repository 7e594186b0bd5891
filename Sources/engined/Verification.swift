import Contracts
import Glibc
import Kernel
import LinuxSystem
import PluginKit

/// `engine plugin verify`: the conformance kit on an executable, without an engine.
enum Verification {
  /// - Returns: the exit status: 0 when every point passes.
  static func run(_ path: String, _ options: DaemonOptions) -> Int32 {
    signal(SIGPIPE, SIG_IGN)
    var template = Array("/tmp/engine-verify-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else {
      DaemonOptions.print("engine: no directory can be made in /tmp: \(SystemCallError.text(errno))", to: 2)
      return 1
    }
    let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    defer { try? Files.removeTree(directory) }
    let result = Once<Result<Int, EngineError>>()
    let absolute = path.hasPrefix("/") ? path : "\(currentDirectory())/\(path)"
    Task(executorPreference: ElasticExecutor()) {
      do throws(EngineError) {
        result.resolve(.success(try await examine(absolute, directory, options)))
      } catch {
        result.resolve(.failure(error))
      }
    }
    while result.resolved == nil { usleep(1000) }
    switch result.resolved {
    case .success(let faults): return faults == 0 ? 0 : 1
    case .failure(let error):
      DaemonOptions.print("engine: \(path) is no driver: \(error)", to: 2)
      return 1
    case nil: return 1
    }
  }

  private static func examine(
    _ path: String, _ directory: String, _ options: DaemonOptions
  ) async throws(EngineError) -> Int {
    let session = try DriverSession([path], directory: directory, options: options.driverOptions)
    defer { session.end() }
    guard let description = session.description else { return 1 }
    DaemonOptions.print(
      "\(path): driver \"\(description.driver)\" of the role \(description.role), version \(description.version)",
      to: 1)
    let points = try await Conformance.examine(
      session, role: description.role,
      ConformanceSettings(driver: description.driver, options: options.creationOptions)
    ) { DaemonOptions.print("  \($0)", to: 1) }
    let faults = points.count { $0.fault != nil }
    DaemonOptions.print(
      faults == 0
        ? "PASS: all \(points.count) points" : "FAIL: \(faults) of \(points.count) points", to: 1)
    return faults
  }

  private static func currentDirectory() -> String {
    guard let path = getcwd(nil, 0) else { return "" }
    defer { free(path) }
    return String(cString: path)
  }
}
