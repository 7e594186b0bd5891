import Contracts
import Glibc
import Kernel
import LinuxSystem
import PluginKit

/// `engine plugin verify`: the conformance kit on an executable, without an engine.
enum Verification {
  /// What ends the examination: it removes what it made, and then ends.
  private static let endings = [SIGINT, SIGTERM, SIGHUP]

  /// - Returns: the exit status: 0 when every point passes, 128 and the signal's number after a signal.
  static func run(_ path: String, _ options: DaemonOptions) -> Int32 {
    signal(SIGPIPE, SIG_IGN)
    // Before there are threads: each inherits the mask, and this one alone takes the signals.
    let signals = block(endings + [SIGUSR1])
    let directory: VerificationDirectory
    do throws(SystemCallError) {
      directory = try VerificationDirectory()
    } catch {
      DaemonOptions.print("engine: no directory can be made for the driver: \(error)", to: 2)
      return 1
    }
    let place = directory.path
    let status = run(path, options, place, signals)
    if let left = directory.remove() { DaemonOptions.print("engine: \(left)", to: 2) }
    return status
  }

  private static func run(
    _ path: String, _ options: DaemonOptions, _ directory: String, _ signals: sigset_t
  ) -> Int32 {
    let relative = path.hasPrefix("./") ? String(path.dropFirst(2)) : path
    let absolute = path.hasPrefix("/") ? path : "\(currentDirectory())/\(relative)"
    let result = Once<Result<Int, EngineError>>()
    let interruption: OneTimeEvent
    do {
      interruption = try OneTimeEvent()
    } catch {
      DaemonOptions.print("engine: \(error)", to: 2)
      return 1
    }
    Task(executorPreference: ElasticExecutor()) {
      do throws(EngineError) {
        result.resolve(.success(try await examine(absolute, directory, options, interruption)))
      } catch {
        result.resolve(.failure(error))
      }
      kill(getpid(), SIGUSR1)
    }
    let ending = wait(for: result, signals, interruption)
    switch result.resolved {
    case _ where ending != nil: return 128 + (ending ?? 0)
    case .success(let faults): return faults == 0 ? 0 : 1
    case .failure(let error):
      DaemonOptions.print("engine: \(path) is no driver: \(error)", to: 2)
      return 1
    case nil: return 1
    }
  }

  private static func block(_ numbers: [Int32]) -> sigset_t {
    var signals = sigset_t()
    sigemptyset(&signals)
    for number in numbers { sigaddset(&signals, number) }
    pthread_sigmask(SIG_BLOCK, &signals, nil)
    return signals
  }

  /// Sleeps until the examination is over. The first signal ends it in order, the second one at once: the kernel kills
  /// the driver with this process.
  ///
  /// - Returns: the signal that ended it.
  private static func wait(
    for result: Once<Result<Int, EngineError>>, _ signals: sigset_t, _ interruption: OneTimeEvent
  ) -> Int32? {
    var signals = signals
    var ending: Int32?
    while result.resolved == nil {
      let number = sigwaitinfo(&signals, nil)
      guard endings.contains(number) else { continue }
      if ending != nil { return number }
      ending = number
      DaemonOptions.print("interrupted; what the examination made is being removed", to: 2)
      interruption.raise()
    }
    return ending
  }

  private static func examine(
    _ path: String, _ directory: String, _ options: DaemonOptions, _ interruption: OneTimeEvent
  ) async throws(EngineError) -> Int {
    let session = try DriverSession(
      [path], directory: directory, options: options.driverOptions, interruption: interruption)
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
    if interruption.isRaised { return faults }
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
