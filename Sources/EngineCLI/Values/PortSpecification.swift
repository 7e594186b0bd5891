import Contracts

/// What one `-p` publishes: `80`, `8080:80`, `127.0.0.1:8080:80/udp`, `127.0.0.1::80`, `8000-8010:80`,
/// `8000-8002:80-82` (the grammar of go-connections, nat.ParsePortSpec).
struct PortSpecification: Equatable, Sendable {
  let bindings: [PortBinding]

  init(parsing text: String) throws(EngineError) {
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    let transport = try Self.transport(parts.count == 2 ? parts[1] : "tcp", of: text)
    var fields = parts[0].split(separator: ":", omittingEmptySubsequences: false)
    func refuse(_ code: EngineError.Code, _ why: String) -> EngineError {
      EngineError(code, "invalid publish specification \"\(text)\": \(why)")
    }
    if parts[0].hasPrefix("[") { throw refuse(.unsupported, "publishing on an IPv6 address is not supported yet") }
    guard fields.count <= 3 else {
      throw refuse(.invalidArgument, "write [HOST_ADDRESS:][HOST_PORT:]CONTAINER_PORT[/PROTOCOL]")
    }
    let container = fields.removeLast()
    let host = fields.popLast() ?? ""
    let address = String(fields.popLast() ?? "")
    guard !container.isEmpty else { throw EngineError(.invalidArgument, "no port specified: \(text)<empty>") }
    guard let inner = PortRange(container) else {
      throw EngineError(.invalidArgument, "invalid containerPort: \(container)")
    }
    guard address.isEmpty || IPv4.isAddress(address) else {
      throw EngineError(.invalidArgument, "invalid IP address: \(address)")
    }
    guard !host.isEmpty else {
      bindings = inner.ports.map {
        PortBinding(transport: transport, hostAddress: address, hostPort: 0, containerPort: $0)
      }
      return
    }
    guard let outer = PortRange(host) else { throw EngineError(.invalidArgument, "invalid hostPort: \(host)") }
    if inner.ports.count == 1 {
      bindings = [
        PortBinding(
          transport: transport, hostAddress: address, hostPort: outer.first, hostPortEnd: outer.last,
          containerPort: inner.first)
      ]
      return
    }
    guard inner.ports.count == outer.ports.count else {
      throw EngineError(
        .invalidArgument, "invalid ranges specified for container and host Ports: \(container) and \(host)")
    }
    bindings = zip(outer.ports, inner.ports).map {
      PortBinding(transport: transport, hostAddress: address, hostPort: $0, containerPort: $1)
    }
  }

  /// The long form, `target=80,published=8080,protocol=udp`, is the same in other words.
  static func parse(_ text: String) throws(EngineError) -> [PortBinding] {
    guard text.contains("=") else { return try PortSpecification(parsing: text).bindings }
    var (target, published, transport, address) = ("", "", "tcp", "")
    for field in text.split(separator: ",", omittingEmptySubsequences: false) {
      let pair = field.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard pair.count == 2 else { throw EngineError(.invalidArgument, "invalid field: \(field)") }
      switch pair[0] {
      case "target": target = pair[1]
      case "published": published = pair[1]
      case "protocol": transport = pair[1]
      case "host_ip": address = pair[1]
      case "mode": continue
      default: throw EngineError(.invalidArgument, "invalid field key: \(pair[0])")
      }
    }
    let host = address.isEmpty ? (published.isEmpty ? "" : "\(published):") : "\(address):\(published):"
    return try PortSpecification(parsing: "\(host)\(target)/\(transport)").bindings
  }

  /// Ports that are only declared (`--expose 80`, `--expose 8000-8002/udp`), as `80/tcp`.
  static func parseExposed(_ text: String) throws(EngineError) -> [String] {
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard !text.contains(":") else { throw EngineError(.invalidArgument, "invalid port format for --expose: \(text)") }
    guard let range = PortRange(parts[0]) else {
      throw EngineError(.invalidArgument, "invalid range format for --expose: \(text)")
    }
    let transport = try transport(parts.count == 2 ? parts[1] : "tcp", of: text)
    return range.ports.map { "\($0)/\(transport.rawValue)" }
  }

  private static func transport(_ text: Substring, of whole: String) throws(EngineError) -> TransportProtocol {
    guard let transport = TransportProtocol(rawValue: text.lowercased()) else {
      throw EngineError(
        text == "sctp" ? .unsupported : .invalidArgument,
        text == "sctp" ? "invalid publish specification \"\(whole)\": sctp is not supported" : "invalid proto: \(text)")
    }
    return transport
  }
}

/// `80` or `8000-8010`, 1 to 65535.
struct PortRange: Equatable, Sendable {
  let first: UInt16
  let last: UInt16
  var ports: ClosedRange<UInt16> { first...last }

  init?(_ text: some StringProtocol) {
    let ends = text.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
    func port(_ text: some StringProtocol) -> UInt16? {
      text.utf8.allSatisfy { (0x30...0x39).contains($0) } ? UInt16(text).flatMap { $0 > 0 ? $0 : nil } : nil
    }
    guard let first = port(ends[0]), let last = ends.count == 2 ? port(ends[1]) : first, first <= last else {
      return nil
    }
    self.first = first
    self.last = last
  }
}

enum IPv4 {
  /// Four decimal numbers up to 255 without leading zeros.
  static func isAddress(_ text: some StringProtocol) -> Bool {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    return parts.count == 4
      && parts.allSatisfy { part in
        part.utf8.allSatisfy { (0x30...0x39).contains($0) } && UInt8(part) != nil && (part == "0" || part.first != "0")
      }
  }
}

enum IPAddress {
  /// Either family, as inet_pton(3) reads it.
  static func isAddress(_ text: String) -> Bool {
    IPv4.isAddress(text) || IPv6.isAddress(text)
  }
}
