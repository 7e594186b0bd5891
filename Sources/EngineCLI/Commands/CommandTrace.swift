import Contracts
import Glibc
import LinuxSystem

/// `--trace FILE`: gathers what this command and the engine did for it and writes it in Chrome's trace-event format,
/// which chrome://tracing and Perfetto show.
final class CommandTrace {
  static let flag = Flag.string("trace", nil, "Write how the command went to a file in Chrome's trace format")

  /// Travels with the request, and names what is read from the engine afterwards.
  let identifier: String
  private let path: String
  private let file: OwnedDescriptor
  private var spans: [TraceSpan]
  private var mark: Int64

  /// - Parameter command: the command as the user spelled it.
  /// - Returns: nil when the command line does not ask for a trace.
  /// - Throws: `Failure` for a file that cannot be written: before anything is run.
  static func open(_ options: Options, command: String) throws -> CommandTrace? {
    guard let path = options.string("trace"), !path.isEmpty else { return nil }
    do throws(SystemCallError) {
      return CommandTrace(
        path: path, file: try Files.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644), command: command)
    } catch {
      throw Failure("the trace cannot be written: \(error)", status: 125)
    }
  }

  private init(path: String, file: consuming OwnedDescriptor, command: String) {
    self.path = path
    self.file = file
    let begin = EngineCLI.began
    identifier = "\(getpid())-\(begin)"
    spans = [TraceSpan(name: "engine \(command)", process: getpid(), program: "engine", parent: -1, begin: begin)]
    mark = begin
    finish("read the command line")
  }

  /// Ends a phase that began where the one before it ended.
  func finish(_ phase: String) {
    let now = MonotonicClock.now
    spans.append(
      TraceSpan(name: phase, process: getpid(), program: "engine", parent: 0, begin: mark, end: now))
    mark = now
  }

  /// - Parameter engine: what the engine recorded.
  func write(engine: [TraceSpan]) {
    finish("read the trace")
    spans[0].end = MonotonicClock.now
    let text = TraceText.chrome(spans + engine.map { TraceText.moved($0, by: spans.count) })
    do throws(SystemCallError) {
      try Files.writeAll(file.number, Array(text.utf8), subject: path)
    } catch {
      Console.error("WARNING: the trace cannot be written: \(error)")
    }
  }
}
