import Contracts
import Glibc

/// An http or https address, taken apart. There is no user in it: such an address is refused.
struct WebAddress: Hashable, Sendable, CustomStringConvertible {
  enum Scheme: String, Sendable {
    case http
    case https

    var port: UInt16 { self == .http ? 80 : 443 }
  }

  var scheme: Scheme
  /// In lower case; an IPv6 address without brackets.
  var host: String
  var port: UInt16
  /// Path and query; begins with a slash.
  var target: String

  init(scheme: Scheme, host: String, port: UInt16?, target: String) {
    self.scheme = scheme
    self.host = host
    self.port = port ?? scheme.port
    self.target = target
  }

  /// - Returns: nil for anything but an absolute http or https address of printable ASCII.
  init?(_ text: String) {
    guard text.utf8.count <= 8192, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return nil }
    let lower = text.prefix(8).lowercased()
    let scheme: Scheme = lower.hasPrefix("https://") ? .https : .http
    guard lower.hasPrefix("\(scheme.rawValue)://") else { return nil }
    let rest = text.dropFirst(scheme.rawValue.count + 3)
    let authority = rest.prefix { $0 != "/" && $0 != "?" && $0 != "#" }
    guard let (host, port) = Self.split(String(authority)) else { return nil }
    let target = rest[authority.endIndex...].prefix { $0 != "#" }
    self.init(
      scheme: scheme, host: host, port: port, target: target.hasPrefix("/") ? String(target) : "/\(target)")
  }

  /// `host`, `host:port` or `[v6]:port`.
  static func split(_ authority: String) -> (host: String, port: UInt16?)? {
    var host = authority[...]
    var port: UInt16?
    if host.hasPrefix("[") {
      guard let end = host.firstIndex(of: "]") else { return nil }
      let tail = host[host.index(after: end)...]
      host = host[host.index(after: host.startIndex)..<end]
      if !tail.isEmpty {
        guard tail.hasPrefix(":"), let number = UInt16(tail.dropFirst()), number > 0 else { return nil }
        port = number
      }
      guard host.allSatisfy({ $0.isHexDigit || $0 == ":" || $0 == "." }) else { return nil }
    } else if let colon = host.firstIndex(of: ":") {
      guard let number = UInt16(host[host.index(after: colon)...]), number > 0 else { return nil }
      port = number
      host = host[..<colon]
    }
    let isName = host.utf8.allSatisfy {
      (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 45 || $0 == 46 || $0 == 95
        || $0 == 58
    }
    guard !host.isEmpty, isName else { return nil }
    return (host.lowercased(), port)
  }

  /// A reference as a `Location` or `Link` header gives it: absolute, or with only a path (RFC 3986, 5.2).
  func resolving(_ reference: String) -> WebAddress? {
    if let absolute = WebAddress(reference) { return absolute }
    guard reference.utf8.count <= 8192, reference.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return nil }
    if reference.hasPrefix("//") { return WebAddress("\(scheme.rawValue):\(reference)") }
    var result = self
    if reference.hasPrefix("/") {
      result.target = String(reference.prefix { $0 != "#" })
    } else if reference.hasPrefix("?") {
      result.target = String(target.prefix { $0 != "?" }) + reference
    } else if reference.firstIndex(of: ":") == nil, !reference.isEmpty {
      let path = target.prefix { $0 != "?" }
      result.target = path[...(path.lastIndex(of: "/") ?? path.startIndex)] + reference
    } else {
      return nil
    }
    return result
  }

  func adding(query items: [(String, String)]) -> WebAddress {
    var result = self
    for (name, value) in items {
      result.target += (result.target.contains("?") ? "&" : "?") + "\(name)=\(Self.encoded(value))"
    }
    return result
  }

  /// Percent-encoding of all but the unreserved characters (RFC 3986, 2.3).
  static func encoded(_ text: String) -> String {
    var result = ""
    for byte in text.utf8 {
      switch byte {
      case 48...57, 65...90, 97...122, 45, 46, 95, 126: result.unicodeScalars.append(Unicode.Scalar(byte))
      default:
        let digits = String(byte, radix: 16, uppercase: true)
        result += digits.utf8.count == 1 ? "%0\(digits)" : "%\(digits)"
      }
    }
    return result
  }

  /// Scheme, host and port, which is what credentials are bound to.
  func hasSameOrigin(as other: WebAddress) -> Bool {
    scheme == other.scheme && host == other.host && port == other.port
  }

  /// Host and port as people write them.
  var authority: String {
    let name = host.contains(":") ? "[\(host)]" : host
    return port == scheme.port ? name : "\(name):\(port)"
  }

  var description: String { "\(scheme.rawValue)://\(authority)\(target)" }

  static func isLoopback(_ host: String) -> Bool {
    if host == "localhost" || host == "::1" { return true }
    return IPv4Network.address(host).map { $0 >> 24 == 127 } ?? false
  }
}
