import Contracts
import Kernel
import Wire

/// What is written when a container is created, and never changed.
struct StoredContainer: Codable, Sendable, Equatable {
  var record: ContainerRecord
  /// Made by `run`: until its state is stored too, the run has not succeeded and everything of it is undone.
  var isRun: Bool
}

/// What changes in a container's life: a small record of its own, because the other one is long.
struct StoredState: Codable, Sendable, Equatable {
  enum Phase: String, Codable, Sendable {
    /// Something of it may be on the host, but nobody was told yet that it runs.
    case starting
    case running
    case stopped
    /// It is being removed: this is to be completed.
    case removing
  }
  var phase: Phase
  var state: ContainerState
  var endpoints: [Endpoint] = []
  @PortRuns var publishedPorts: [PortBinding] = []
  var cgroupPaths: [String: String] = [:]
  var generatedPaths: [String: String]?
  /// With `removing`: the anonymous volumes go too.
  var removesVolumes = false

  init(_ phase: Phase, _ record: ContainerRecord) {
    self.phase = phase
    state = record.state
    endpoints = record.endpoints
    publishedPorts = record.publishedPorts
    cgroupPaths = record.cgroupPaths
    generatedPaths = record.generatedPaths
  }

  func apply(to record: inout ContainerRecord) {
    record.state = state
    record.endpoints = endpoints
    record.publishedPorts = publishedPorts
    record.cgroupPaths = cgroupPaths
    record.generatedPaths = generatedPaths
  }
}

/// Reads and writes the records of containers.
enum Storage {
  static let containers = "container"
  static let states = "container-state"

  /// - Parameter state: is stored in the same step.
  static func create(
    _ record: ContainerRecord, isRun: Bool, state: StoredState? = nil, _ call: Call
  ) async throws(EngineError) {
    let value = try encode(StoredContainer(record: record, isRun: isRun))
    let durability: Durability = record.configuration.removesItself ? .process : .power
    var put = [Record(kind: containers, key: record.id.text, value: value)]
    if let state { put.append(Record(kind: states, key: record.id.text, value: try encode(state))) }
    _ = try await call.request(RecordWrite(put: put, durability: durability))
  }

  static func write(
    _ state: StoredState, _ id: ObjectID, durability: Durability = .process, _ call: Call
  ) async throws(EngineError) {
    let put = [Record(kind: states, key: id.text, value: try encode(state))]
    _ = try await call.request(RecordWrite(put: put, durability: durability))
  }

  static func delete(_ id: ObjectID, durability: Durability = .process, _ call: Call) async throws(EngineError) {
    let keys = [RecordWrite.Key(kind: containers, key: id.text), RecordWrite.Key(kind: states, key: id.text)]
    _ = try await call.request(RecordWrite(delete: keys, durability: durability))
  }

  struct Found: Sendable {
    var stored: StoredContainer
    var state: StoredState?
  }

  /// A record that does not read, or that contradicts another one.
  struct Unreadable: Sendable {
    /// What is wrong, for people.
    var line: String
    /// The record to be dropped when the user wants it; nil for one that reads.
    var key: RecordWrite.Key?
    /// Whose it is, as far as its key tells: what is on the system for it is not to be removed unasked.
    var container: ObjectID?
    var isRunning = false
  }

  /// Every container, and each record that does not read.
  static func read(_ call: Call) async throws(EngineError) -> (found: [Found], unreadable: [Unreadable]) {
    var corrupt: [Unreadable] = []
    func add(_ kind: String, _ key: String, _ problem: String) {
      corrupt.append(
        Unreadable(
          line: "the record \(kind)/\(key) \(problem)", key: RecordWrite.Key(kind: kind, key: key),
          container: ObjectID(key)))
    }
    var states: [String: StoredState] = [:]
    var unreadable: Set<String> = []
    for record in try await call.request(RecordRead(kind: Self.states)) {
      do throws(EngineError) {
        states[record.key] = try JSON.decode(StoredState.self, record.value.utf8)
      } catch {
        unreadable.insert(record.key)
        add(record.kind, record.key, "is corrupt: \(error)")
      }
    }
    var found: [Found] = []
    for record in try await call.request(RecordRead(kind: containers)) {
      do throws(EngineError) {
        let stored = try JSON.decode(StoredContainer.self, record.value.utf8)
        guard stored.record.id.text == record.key else {
          throw EngineError(.corrupt, "it is that of the container \(stored.record.id)")
        }
        var state = states.removeValue(forKey: record.key)
        // Whether it runs is not known: ask the runtime, as for one that ran.
        if state == nil, unreadable.contains(record.key) { state = StoredState(.running, stored.record) }
        found.append(Found(stored: stored, state: state))
      } catch {
        states[record.key] = nil
        add(record.kind, record.key, "is corrupt: \(error)")
      }
    }
    for key in states.keys.sorted() {
      add(Self.states, key, "belongs to no container")
    }
    return (found, corrupt)
  }

  /// Drops a record that does not read.
  static func discard(_ key: RecordWrite.Key, _ call: Call) async throws(EngineError) {
    _ = try await call.request(RecordWrite(delete: [key], durability: .power))
  }

  private static func encode(_ value: some Encodable) throws(EngineError) -> String {
    String(decoding: try JSON.encode(value), as: UTF8.self)
  }
}
