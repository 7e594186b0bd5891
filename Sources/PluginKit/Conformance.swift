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
    let points = Points(tell: tell)
    switch role {
    case DriverRole.volume.name: await VolumeConformance(subject: subject, settings: settings, points: points).run()
    case DriverRole.network.name: await NetworkConformance(subject: subject, settings: settings, points: points).run()
    case DriverRole.log.name: await LogConformance(subject: subject, settings: settings, points: points).run()
    default: throw EngineError(.unsupported, "there is no conformance kit for the role \"\(role)\"")
    }
    return points.all
  }
}

/// Why a point fails, in words.
struct Fault: Error {
  var text: String

  init(_ text: String) { self.text = text }
}

/// Collects points. Used by one task at a time.
final class Points: @unchecked Sendable {
  // Unchecked: a kit runs its points one after the other in one task.
  private(set) var all: [ConformancePoint] = []
  private let tell: @Sendable (ConformancePoint) -> Void

  init(tell: @escaping @Sendable (ConformancePoint) -> Void) { self.tell = tell }

  func check(_ name: String, _ body: () async throws -> Void) async {
    var point = ConformancePoint(name: name, fault: nil)
    do {
      try await body()
    } catch let fault as Fault {
      point.fault = fault.text
    } catch {
      point.fault = "\(EngineError(wrapping: error))"
    }
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
