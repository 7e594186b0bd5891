import Contracts

/// What a conformance kit examines: a driver of one role, in the engine or out of tree.
public protocol ConformanceSubject: Sendable {
  /// Sends one message and waits for its answer.
  func ask<R: Request>(_ request: R) async throws(EngineError) -> R.Reply
  /// Sends a streaming message and waits for its end.
  func ask<R: StreamRequest>(_ request: R) async throws(EngineError) -> R.Reply
  /// Sends a message and gives it up at once.
  func askAndCancel<R: Request>(_ request: R) async throws(EngineError)
  /// Sends a message, kills the driver without waiting for its answer, and starts it again.
  func askAndKill<R: Request>(_ request: R) async throws(EngineError)
  /// Ends the driver and starts it again.
  func restart() async throws(EngineError)
  /// After a point that failed: starts a driver again that has ended, hangs, or no longer speaks the protocol.
  ///
  /// - Returns: whether it was started again.
  func revive() async throws(EngineError) -> Bool
  /// Why the driver as it is now is of no more use: it has ended, hangs, or broke the protocol.
  var loss: EngineError? { get }
  /// Whether the rest of the points is not wanted any more.
  var isInterrupted: Bool { get }
  /// From now on only what a kit made is removed; an interruption does not end that.
  func beginCleanup()
}

extension ConformanceSubject {
  public func revive() async throws(EngineError) -> Bool { false }
  public var loss: EngineError? { nil }
  public var isInterrupted: Bool { false }
  public func beginCleanup() {}
}

/// How one point of a kit came out.
public struct ConformancePoint: Sendable, Equatable, CustomStringConvertible {
  public var name: String
  /// Nil where it passed.
  public var fault: String?

  public var description: String { fault.map { "FAIL  \(name): \($0)" } ?? "ok    \(name)" }
}

/// What the driver under test needs to be told beyond what every driver takes.
public struct ConformanceSettings: Sendable {
  /// Options that go with each creation, for drivers that cannot do without.
  public var options: [String: String]
  /// The name that the driver has in its role.
  public var driver: String

  public init(driver: String, options: [String: String] = [:]) {
    self.driver = driver
    self.options = options
  }
}

/// The kits: everything that the engine relies on in a driver of a role, one point after the other.
public enum Conformance {
  /// - Parameter tell: is given each point as it comes out.
  /// - Returns: every point.
  /// - Throws: `unsupported` for a role without a kit.
  public static func examine(
    _ subject: some ConformanceSubject, role: String, _ settings: ConformanceSettings,
    tell: @escaping @Sendable (ConformancePoint) -> Void = { _ in }
  ) async throws(EngineError) -> [ConformancePoint] {
    let points = Points(subject, tell: tell)
    switch role {
    case DriverRole.volume.name: await VolumeConformance(subject: subject, settings: settings, points: points).run()
    case DriverRole.network.name: await NetworkConformance(subject: subject, settings: settings, points: points).run()
    case DriverRole.log.name: await LogConformance(subject: subject, settings: settings, points: points).run()
    case DriverRole.snapshot.name: await SnapshotConformance(subject: subject, points: points).run()
    default:
      let roles = DriverRole.all.map(\.name).joined(separator: ", ")
      throw EngineError(.unsupported, "there is no role \"\(role)\" for drivers; there is: \(roles)")
    }
    await points.cleanUp()
    return points.all
  }
}

/// Why a point fails, in words.
struct Fault: Error {
  var text: String

  init(_ text: String) { self.text = text }
}

/// Runs the points of a kit and collects how they came out. Used by one task at a time.
final class Points: @unchecked Sendable {
  // Unchecked: a kit runs its points one after the other in one task.
  private(set) var all: [ConformancePoint] = []
  private let tell: @Sendable (ConformancePoint) -> Void
  private let subject: any ConformanceSubject
  /// Why the driver cannot be asked any more.
  private var loss: EngineError?
  /// What a kit has made and not removed yet, by its name for people, with how to remove it.
  private var made: [(name: String, remove: () async throws -> Void)] = []

  init(_ subject: any ConformanceSubject, tell: @escaping @Sendable (ConformancePoint) -> Void) {
    self.subject = subject
    self.tell = tell
  }

  /// One point. After one that fails, a driver that does not live any more is started again, and what the kit has made is
  /// removed, so that the next point says something about itself.
  func check(_ name: String, _ body: () async throws -> Void) async {
    if subject.isInterrupted { return }
    var point = ConformancePoint(name: name, fault: loss.map { "not examined: the driver does not start again: \($0)" })
    if loss == nil {
      point.fault = await fault(of: body)
      if subject.isInterrupted { return }
      if point.fault != nil {
        point.fault?.append(await revive())
        await sweep()
      }
    }
    all.append(point)
    tell(point)
  }

  private func fault(of body: () async throws -> Void) async -> String? {
    do {
      try await body()
    } catch let fault as Fault {
      return fault.text
    } catch {
      return "\(EngineError(wrapping: error))"
    }
    // A kit may have passed over an error that was none of the driver's words.
    return subject.loss.map(\.description)
  }

  /// - Returns: what there is to say about it.
  private func revive() async -> String {
    do throws(EngineError) {
      return try await subject.revive() ? "; it is started again" : ""
    } catch {
      loss = error
      return "; it does not start again: \(error)"
    }
  }

  // MARK: What the kit makes

  /// Said before something is made: it is removed at the end, unless `forget` says that it is gone.
  func note(_ name: String, _ remove: @escaping () async throws -> Void) {
    if !has(name) { made.append((name, remove)) }
  }

  func forget(_ name: String) { made.removeAll { $0.name == name } }

  func has(_ name: String) -> Bool { made.contains { $0.name == name } }

  /// Removes what points that failed have left in the driver.
  ///
  /// - Returns: what stays, with the reason.
  @discardableResult
  private func sweep() async -> [String] {
    var left: [String] = []
    for (name, remove) in made.reversed() {
      var reason = loss.map { "the driver does not start: \($0)" }
      if reason == nil { reason = await fault(of: remove) }
      if subject.loss != nil { _ = await revive() }
      if let reason { left.append("\(name) (\(reason))") } else { forget(name) }
    }
    return left
  }

  /// At the end of a kit. What stays is a fault of its own.
  func cleanUp() async {
    subject.beginCleanup()
    if made.isEmpty { return }
    if subject.loss != nil { _ = await revive() }
    let left = await sweep()
    if left.isEmpty { return }
    let point = ConformancePoint(name: "clean up", fault: "the driver keeps \(left.joined(separator: ", "))")
    all.append(point)
    tell(point)
  }

  /// Expects that a request is refused with one of some codes.
  func expectRefusal<Value>(
    _ what: String, _ codes: [EngineError.Code], naming word: String = "", _ body: () async throws -> Value
  ) async throws {
    let error: EngineError
    do {
      _ = try await body()
      throw Fault("\(what) is not refused")
    } catch let fault as Fault {
      throw fault
    } catch let thrown {
      if subject.loss != nil { throw thrown }
      error = EngineError(wrapping: thrown)
    }
    let wanted = codes.map(\.rawValue).joined(separator: " or ")
    guard codes.contains(error.code) else {
      throw Fault("\(what) is refused with \(error.code.rawValue) and not with \(wanted): \(error)")
    }
    if !word.isEmpty && !error.message.contains(word) {
      throw Fault("the refusal of \(what) does not name \"\(word)\": \(error)")
    }
  }
}
