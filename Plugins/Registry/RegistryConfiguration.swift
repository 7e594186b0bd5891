import Contracts
import Glibc

/// How registries are spoken to.
public struct RegistryConfiguration: Sendable, Equatable {
  /// Addresses to ask first when something is pulled, by registry: `["docker.io": ["https://mirror.example"]]`.
  public var mirrors: [String: [String]] = [:]
  /// Registries (host with optional port, or an IPv4 network as `10.0.0.0/8`) whose certificates are not verified and
  /// that may be spoken to over plain HTTP. Loopback always may.
  public var insecure: [String] = []
  /// Directories with a directory `HOST[:PORT]` each: `*.crt` are authorities, `NAME.cert` with `NAME.key` is a client's.
  public var authorities = ["/etc/docker/certs.d", "/etc/engine/certs.d"]
  /// After so long without a byte (or with fewer than `minimumRate` allows) a transfer counts as broken.
  public var stallTimeout: Duration = .seconds(30)
  /// Bytes that must arrive within one `stallTimeout`.
  public var minimumBytes = 1024
  /// How long making a connection may take.
  public var connectTimeout: Duration = .seconds(10)
  /// How often something is tried again after a failure that may pass.
  public var retries = 5
  /// The first pause before trying again; it doubles each time, up to 64 times.
  public var retryPause: Duration = .milliseconds(250)
  /// A registry that asks (`Retry-After`) to wait longer is an error at once.
  public var longestPause: Duration = .seconds(60)
  /// Blobs that are fetched at once; more wait for their turn in the order they came.
  public var maxConcurrentDownloads = 32
  public var proxies = ProxySettings()

  public init() {}

  /// The plugin's keys of the configuration, over the defaults: `mirrors` (for Docker Hub) and `mirrors.HOST`, `insecure`,
  /// `authorities` (lists), `stall-timeout` (seconds), `retries`, `max-concurrent-downloads`.
  ///
  /// - Throws: `invalidArgument` that names the key.
  public init(_ keys: [String: String], environment: (String) -> String?) throws(EngineError) {
    proxies = ProxySettings(environment: environment)
    for (key, value) in keys.sorted(by: { $0.key < $1.key }) {
      let list = value.split { $0 == "," || $0 == " " || $0 == "\n" }.map(String.init)
      switch key {
      case "mirrors": mirrors["docker.io"] = list
      case "insecure": insecure = list
      case "authorities": authorities = list
      case "stall-timeout": stallTimeout = .seconds(try Self.number(key, value, 1...86_400))
      case "retries": retries = try Self.number(key, value, 0...100)
      case "max-concurrent-downloads": maxConcurrentDownloads = try Self.number(key, value, 1...1000)
      default:
        guard key.hasPrefix("mirrors.") else {
          throw EngineError(.invalidArgument, "the registry plugin knows no key \"\(key)\"")
        }
        mirrors[String(key.dropFirst(8))] = list
      }
    }
    for (registry, addresses) in mirrors {
      for address in addresses where WebAddress(address) == nil {
        throw EngineError(.invalidArgument, "the mirror \"\(address)\" of \(registry) is not an http or https address")
      }
    }
  }

  private static func number(
    _ key: String, _ value: String, _ range: ClosedRange<Int>
  ) throws(EngineError) -> Int {
    guard let number = Int(value), range.contains(number) else {
      throw EngineError(
        .invalidArgument, "\(key) must be a number from \(range.lowerBound) to \(range.upperBound), not \"\(value)\"")
    }
    return number
  }

  /// Whether a host may be spoken to without a verified certificate.
  func isInsecure(host: String, port: UInt16) -> Bool {
    if WebAddress.isLoopback(host) { return true }
    return insecure.contains { entry in
      if entry == host || entry == "\(host):\(port)" || entry == "[\(host)]:\(port)" { return true }
      return IPv4Network(entry).map { $0.contains(host) } ?? false
    }
  }
}

/// An IPv4 network as `10.0.0.0/8`.
struct IPv4Network {
  private let base: UInt32
  private let mask: UInt32

  init?(_ text: String) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, let bits = UInt32(parts[1]), bits <= 32, let base = Self.address(String(parts[0])) else {
      return nil
    }
    mask = bits == 0 ? 0 : UInt32.max << (32 - bits)
    self.base = base & mask
  }

  func contains(_ host: String) -> Bool { Self.address(host).map { $0 & mask == base } ?? false }

  /// inet_pton(3), in the host's byte order.
  static func address(_ text: String) -> UInt32? {
    var address = in_addr()
    guard inet_pton(AF_INET, text, &address) == 1 else { return nil }
    return UInt32(bigEndian: address.s_addr)
  }
}

/// The proxies that the environment names, as curl(1) and Go read it: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`, or the
/// same in lower case.
public struct ProxySettings: Sendable, Equatable {
  public var http = ""
  public var https = ""
  public var exceptions: [String] = []

  public init() {}

  public init(environment: (String) -> String?) {
    func value(_ name: String) -> String {
      if let value = environment(name), !value.isEmpty { return value }
      return environment(name.lowercased()) ?? ""
    }
    http = value("HTTP_PROXY")
    https = value("HTTPS_PROXY")
    exceptions = value("NO_PROXY").split { $0 == "," || $0 == " " }.map { $0.lowercased() }
  }

  /// The proxy for an address, or nil where it is reached without one. Loopback never goes through a proxy.
  func proxy(for address: WebAddress) -> String? {
    let proxy = address.scheme == .https ? https : http
    guard !proxy.isEmpty, !WebAddress.isLoopback(address.host), !isException(address) else { return nil }
    return proxy
  }

  private func isException(_ address: WebAddress) -> Bool {
    exceptions.contains { entry in
      if entry == "*" { return true }
      if let network = IPv4Network(entry) { return network.contains(address.host) }
      var name = entry[...]
      if let colon = entry.lastIndex(of: ":"), let port = UInt16(entry[entry.index(after: colon)...]),
        entry.firstIndex(of: ":") == colon
      {
        guard port == address.port else { return false }
        name = entry[..<colon]
      }
      if name.hasPrefix("*") { name = name.dropFirst() }
      if name.hasPrefix(".") { return address.host.hasSuffix(name) }
      return address.host == name || address.host.hasSuffix(".\(name)")
    }
  }
}
