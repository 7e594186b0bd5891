import CLinux
import Contracts
import Glibc
import LinuxSystem
import Synchronization
import Wire

/// A driver's process as the engine would have it, for the kits.
public final class DriverSession: ConformanceSubject {
  /// How long each answer may take.
  public static let deadline: Int32 = 10_000

  /// One life of the process.
  private final class Life: @unchecked Sendable {
    // Unchecked: a kit asks one thing after the other.
    var client: Client
    let process: ChildProcess

    init(client: consuming Client, process: consuming ChildProcess) {
      self.client = client
      self.process = process
    }

    deinit {
      process.signal(SIGKILL)
      waitpid(process.pid, nil, 0)
    }
  }

  private struct State {
    var life: Life?
    var description: PluginDescribe.Reply?
  }

  private let command: [String]
  private let directory: String
  private let options: [String: String]
  private let state = Mutex(State())

  /// Starts the driver.
  ///
  /// - Parameters:
  ///   - directory: where its state is kept; it is made.
  ///   - options: as in its table of the configuration.
  public init(_ command: [String], directory: String, options: [String: String] = [:]) throws(EngineError) {
    self.command = command
    self.directory = directory
    self.options = options
    try begin()
  }

  /// What it says of itself.
  public var description: PluginDescribe.Reply? { state.withLock { $0.description } }

  /// Ends the process.
  public func end() { state.withLock { $0.life = nil } }

  private var name: String {
    let file = command.first?.split(separator: "/").last ?? ""
    return file.split(separator: ".").first.map(String.init) ?? "driver"
  }

  private func begin() throws(EngineError) {
    let (stateDirectory, runtimeDirectory) = ("\(directory)/state", "\(directory)/runtime")
    let life: Life
    do throws(SystemCallError) {
      try Files.makeDirectories(stateDirectory)
      try Files.makeDirectories(runtimeDirectory)
      let pair = try UnixSocket.pair().release()
      let theirs = OwnedDescriptor(adopting: pair.second)
      let ours = OwnedDescriptor(adopting: pair.first)
      let nothing = try Files.open("/dev/null", O_RDWR)
      let process = try ChildProcess(
        command,
        environment: [
          "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "LANG=C.UTF-8",
          "ENGINE_DRIVER_DESCRIPTOR=3", "ENGINE_DRIVER_NAME=\(name)",
        ], descriptors: [nothing.number, 2, 2, theirs.number], diesWithThread: false)
      do {
        life = Life(client: try Client(adopting: ours, agent: "conformance"), process: process)
      } catch {
        throw SystemCallError(call: "send", subject: command[0], number: EPIPE)
      }
    } catch {
      throw EngineError(.unavailable, "\(command.first ?? "") cannot be started: \(error)")
    }
    state.withLock { $0.life = life }
    let description = try exchange(
      PluginDescribe(
        plugin: name, stateDirectory: stateDirectory, runtimeDirectory: runtimeDirectory, options: options)
    ).decode(PluginDescribe.Reply.self)
    state.withLock { $0.description = description }
  }

  public func restart() async throws(EngineError) {
    end()
    try begin()
  }

  // MARK: Messages

  public func ask<R: Request>(_ request: R) async throws(EngineError) -> R.Reply {
    try exchange(request).decode(R.Reply.self)
  }

  public func ask<R: StreamRequest>(_ request: R) async throws(EngineError) -> R.Reply {
    try exchange(request).decode(R.Reply.self)
  }

  public func askAndCancel<R: Request>(_ request: R) async throws(EngineError) {
    try withLife { (life) throws(EngineError) in
      let id = try life.client.send(request, driver: description?.driver ?? "")
      try life.client.cancel(id)
    }
  }

  public func askAndKill<R: Request>(_ request: R) async throws(EngineError) {
    try withLife { (life) throws(EngineError) in
      _ = try life.client.send(request, driver: description?.driver ?? "")
    }
    // So that it is somewhere in the middle, or anywhere at all: each is allowed to happen.
    usleep(2000)
    try await restart()
  }

  private func withLife<Value>(_ body: (Life) throws(EngineError) -> Value) throws(EngineError) -> Value {
    guard let life = state.withLock({ $0.life }) else {
      throw EngineError(.unavailable, "the driver has been ended")
    }
    return try body(life)
  }

  private func exchange<M: Message>(_ message: M) throws(EngineError) -> Body {
    let driver = description?.driver ?? ""
    return try withLife { (life) throws(EngineError) in
      let id = try life.client.send(message, driver: driver, deadline: Int64(Self.deadline))
      while true {
        while let incoming = try life.client.receiveBuffered() {
          switch incoming {
          case .reply(id, let body): return body
          case .failure(id, let error): throw error
          // To something that was given up, or an element of a stream.
          case .reply, .failure, .element: continue
          }
        }
        var event = pollfd(fd: life.client.descriptor, events: Int16(POLLIN), revents: 0)
        if poll(&event, 1, Self.deadline) == 0 {
          throw EngineError(.deadlineExceeded, "no answer to \"\(M.name)\" within \(Self.deadline / 1000) s")
        }
        do throws(EngineError) {
          try life.client.receiveAvailable()
        } catch {
          throw error.code == .unavailable
            ? EngineError(.unavailable, "the driver ended before it answered \"\(M.name)\"") : error
        }
      }
    }
  }
}
