/// A container with more ports than this has told its end before they are free, which takes the kernel a while.
public let fewPorts = 16

/// What the engine says to a shim.
public enum ToShim: Sendable, Equatable {
  case start(StartPlan)
  case exec(ExecPlan)
  /// Connects a client to the container's streams.
  case attach(StreamPlan)
  /// The terminal of an exec, or of the container where `process` is empty.
  case resize(process: String, rows: UInt16, columns: UInt16)
  /// The exit is recorded: the shim may end.
  case acknowledgeExit
  /// A new engine asks how things are.
  case hello
  /// Kill the container and end without a word.
  case terminate
  /// Hold the descriptors beside this (bound sockets of ports) as long as the container lives. There is no answer.
  case hold
  /// The container is removed: a shim whose `exited` said that it can serve again becomes one that stands by, with its
  /// connection and its listening socket, and waits for `start`. There is no answer; one that cannot ends.
  case standBy
  /// To be answered with `done`: by then all that was to be done before it is, and many ports of a container that is over
  /// are free. Only for a shim whose `exited` said that it can serve again.
  case settle
}

/// What a shim says to the engine. Replies carry the number of what they answer; tidings have number 0.
public enum FromShim: Sendable, Equatable {
  /// The process runs; its pidfd travels beside it. The steps of its start are nil from a shim of a build that did not
  /// measure them.
  case started(pid: Int32, time: Int64, warnings: [String], steps: [StepPlan]?)
  case failed(FailureKind, String)
  case done
  /// The container ended; time in nanoseconds since 1970. The shim can serve another container when it has nothing left
  /// to deliver and nothing of this container left in itself; never a shim of a build that could not.
  case exited(code: Int32, time: Int64, canServeAgain: Bool)
  case execExited(process: String, code: Int32, time: Int64)
  /// A client let go of an exec, or of the container where `process` is empty.
  case detached(process: String, client: UInt32)
  /// Answer to `hello`: the shim itself, and the container's first process, whose pidfd travels beside it, or 0 when
  /// it has ended.
  case state(shim: Int32, pid: Int32)
}

public enum FailureKind: UInt8, Sendable, Equatable {
  case internalFailure
  case commandNotFound
  case notExecutable
  case invalidArgument
}

/// A message with the number that connects a reply with its request.
public struct Frame<Body: FrameBody>: Sendable {
  public var number: UInt32
  public var body: Body

  public init(number: UInt32, body: Body) {
    self.number = number
    self.body = body
  }

  /// The frame's bytes: version, kind, number, fields.
  public func encoded() throws(ProtocolError) -> [UInt8] {
    var writer = ByteWriter()
    var version = shimProtocolVersion
    var kind = body.kind
    var number = number
    writer.integer(&version)
    writer.integer(&kind)
    writer.integer(&number)
    var body = body
    try body.code(&writer)
    return writer.bytes
  }

  public init(decoding bytes: [UInt8]) throws(ProtocolError) {
    var reader = ByteReader(bytes)
    var version: UInt8 = 0
    var kind: UInt8 = 0
    var number: UInt32 = 0
    try reader.integer(&version)
    guard version == shimProtocolVersion else { throw .version(version) }
    try reader.integer(&kind)
    try reader.integer(&number)
    guard var body = Body(kind: kind) else { throw .invalid("kind") }
    try body.code(&reader)
    guard reader.remaining == 0 else { throw .trailing(reader.remaining) }
    self.init(number: number, body: body)
  }
}

/// What a frame carries; a value made from its kind is empty, and reading fills it.
public protocol FrameBody: Sendable {
  var kind: UInt8 { get }
  init?(kind: UInt8)
  mutating func code(_ coder: inout some Coder) throws(ProtocolError)
}

extension ToShim: FrameBody {
  public var kind: UInt8 {
    switch self {
    case .start: 1
    case .exec: 2
    case .attach: 3
    case .resize: 4
    case .acknowledgeExit: 5
    case .hello: 6
    case .terminate: 7
    case .hold: 8
    case .standBy: 9
    case .settle: 10
    }
  }

  public init?(kind: UInt8) {
    switch kind {
    case 1: self = .start(StartPlan())
    case 2: self = .exec(ExecPlan())
    case 3: self = .attach(StreamPlan())
    case 4: self = .resize(process: "", rows: 0, columns: 0)
    case 5: self = .acknowledgeExit
    case 6: self = .hello
    case 7: self = .terminate
    case 8: self = .hold
    case 9: self = .standBy
    case 10: self = .settle
    default: return nil
    }
  }

  public mutating func code(_ coder: inout some Coder) throws(ProtocolError) {
    switch self {
    case .start(var plan):
      try coder.value(&plan)
      self = .start(plan)
    case .exec(var plan):
      try coder.value(&plan)
      self = .exec(plan)
    case .attach(var plan):
      try coder.value(&plan)
      self = .attach(plan)
    case .resize(var process, var rows, var columns):
      try coder.text(&process)
      try coder.integer(&rows)
      try coder.integer(&columns)
      self = .resize(process: process, rows: rows, columns: columns)
    case .acknowledgeExit, .hello, .terminate, .hold, .standBy, .settle: break
    }
  }
}

extension FromShim: FrameBody {
  public var kind: UInt8 {
    switch self {
    case .started(_, _, _, let steps): steps == nil ? 1 : 8
    case .failed: 2
    case .done: 3
    case .exited(_, _, let canServeAgain): canServeAgain ? 9 : 4
    case .execExited: 5
    case .detached: 6
    case .state: 7
    }
  }

  public init?(kind: UInt8) {
    switch kind {
    case 1: self = .started(pid: 0, time: 0, warnings: [], steps: nil)
    case 8: self = .started(pid: 0, time: 0, warnings: [], steps: [])
    case 2: self = .failed(.internalFailure, "")
    case 3: self = .done
    case 4: self = .exited(code: 0, time: 0, canServeAgain: false)
    case 9: self = .exited(code: 0, time: 0, canServeAgain: true)
    case 5: self = .execExited(process: "", code: 0, time: 0)
    case 6: self = .detached(process: "", client: 0)
    case 7: self = .state(shim: 0, pid: 0)
    default: return nil
    }
  }

  public mutating func code(_ coder: inout some Coder) throws(ProtocolError) {
    switch self {
    case .started(var pid, var time, var warnings, var steps):
      try coder.integer(&pid)
      try coder.integer(&time)
      try coder.array(&warnings)
      if var measured = steps {
        try coder.array(&measured)
        steps = measured
      }
      self = .started(pid: pid, time: time, warnings: warnings, steps: steps)
    case .failed(let kind, var message):
      var raw = kind.rawValue
      try coder.integer(&raw)
      guard let kind = FailureKind(rawValue: raw) else { throw .invalid("failure") }
      try coder.text(&message)
      self = .failed(kind, message)
    case .done: break
    case .exited(var code, var time, let canServeAgain):
      try coder.integer(&code)
      try coder.integer(&time)
      self = .exited(code: code, time: time, canServeAgain: canServeAgain)
    case .execExited(var process, var code, var time):
      try coder.text(&process)
      try coder.integer(&code)
      try coder.integer(&time)
      self = .execExited(process: process, code: code, time: time)
    case .detached(var process, var client):
      try coder.text(&process)
      try coder.integer(&client)
      self = .detached(process: process, client: client)
    case .state(var shim, var pid):
      try coder.integer(&shim)
      try coder.integer(&pid)
      self = .state(shim: shim, pid: pid)
    }
  }
}
