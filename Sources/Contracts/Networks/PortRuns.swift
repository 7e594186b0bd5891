/// Ports that are written as runs: `-p 8000-8199:8000-8199` is one entry with a count rather than two hundred, in a request
/// and in a record. Entries without a count, one for each port, read as well.
@propertyWrapper
public struct PortRuns: Codable, Sendable, Equatable {
  public var wrappedValue: [PortBinding]

  public init(wrappedValue: [PortBinding]) { self.wrappedValue = wrappedValue }

  /// - Throws: `DecodingError` for a run that leads beyond port 65535.
  public init(from decoder: Decoder) throws {
    wrappedValue = try [PortRun](from: decoder).flatMap(\.ports)
  }

  public func encode(to encoder: Encoder) throws { try PortRun.fold(wrappedValue).encode(to: encoder) }
}

/// Bindings that differ by their numbers alone, each one above the last.
struct PortRun: Codable, Equatable {
  private(set) var first: PortBinding
  private(set) var count = 1

  private init(first: PortBinding) { self.first = first }

  /// - Returns: nil for a run that leads beyond port 65535, or has no port.
  init?(first: PortBinding, count: Int) {
    let highest = Int(max(first.hostPort, first.hostPortEnd, first.containerPort))
    guard 1...65536 ~= count, highest + (count - 1) <= 65535 else { return nil }
    self.first = first
    self.count = count
  }

  static func fold(_ ports: [PortBinding]) -> [PortRun] {
    var runs: [PortRun] = []
    for port in ports {
      if let last = runs.indices.last, runs[last].extend(by: port) { continue }
      runs.append(PortRun(first: port))
    }
    return runs
  }

  var ports: [PortBinding] {
    (0..<count).map { offset in
      var port = first
      // What leads beyond 65535 was refused.
      port.hostPort += UInt16(offset)
      port.hostPortEnd += UInt16(offset)
      port.containerPort += UInt16(offset)
      return port
    }
  }

  /// - Returns: false where the binding does not go on with the run.
  private mutating func extend(by next: PortBinding) -> Bool {
    // Port 0 is any free one, and one of a range is not known yet: neither has a next.
    guard first.hostPort > 0, first.hostPort == first.hostPortEnd, next.hostPort == next.hostPortEnd,
      Int(next.hostPort) == Int(first.hostPort) + count, Int(next.containerPort) == Int(first.containerPort) + count,
      next.transport == first.transport, next.hostAddress == first.hostAddress
    else { return false }
    count += 1
    return true
  }

  private enum CodingKeys: String, CodingKey {
    case transport, hostAddress, hostPort, hostPortEnd, containerPort, count
  }

  init(from decoder: Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    let first = PortBinding(
      transport: try container.decode(TransportProtocol.self, forKey: .transport),
      hostAddress: try container.decode(String.self, forKey: .hostAddress),
      hostPort: try container.decode(UInt16.self, forKey: .hostPort),
      hostPortEnd: try container.decode(UInt16.self, forKey: .hostPortEnd),
      containerPort: try container.decode(UInt16.self, forKey: .containerPort))
    let count = try container.decodeIfPresent(Int.self, forKey: .count) ?? 1
    guard let run = PortRun(first: first, count: count) else {
      throw DecodingError.dataCorruptedError(
        forKey: .count, in: container, debugDescription: "there are no \(count) ports from \(first.hostPort) on")
    }
    self = run
  }

  func encode(to encoder: Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(first.transport, forKey: .transport)
    try container.encode(first.hostAddress, forKey: .hostAddress)
    try container.encode(first.hostPort, forKey: .hostPort)
    try container.encode(first.hostPortEnd, forKey: .hostPortEnd)
    try container.encode(first.containerPort, forKey: .containerPort)
    if count > 1 { try container.encode(count, forKey: .count) }
  }
}
