import Contracts

/// What one `--network` says: a name, or `name=x,alias=y,ip=1.2.3.4,mac-address=...`.
enum NetworkSpecification {
  static func parse(_ text: String) throws(EngineError) -> EndpointRequest {
    guard text.contains("=") else { return EndpointRequest(network: text) }
    var request = EndpointRequest(network: "")
    for field in try CommaSeparated.fields(text) {
      let pair = field.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard pair.count == 2 else { throw EngineError(.invalidArgument, "invalid field \(field)") }
      switch pair[0].lowercased() {
      case "name": request.network = pair[1]
      case "alias": request.aliases.append(pair[1])
      case "ip": request.address = try address(pair[1])
      case "mac-address": request.hardwareAddress = try hardwareAddress(pair[1])
      default: throw EngineError(.invalidArgument, "invalid field key \(pair[0])")
      }
    }
    guard !request.network.isEmpty else { throw EngineError(.invalidArgument, "no name set for network") }
    return request
  }

  static func address(_ text: String) throws(EngineError) -> String {
    guard IPv4.isAddress(text) else { throw EngineError(.invalidArgument, "invalid IPv4 address: \(text)") }
    return text
  }

  static func hardwareAddress(_ text: String) throws(EngineError) -> String {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 6, parts.allSatisfy({ $0.utf8.count == 2 && UInt8($0, radix: 16) != nil }) else {
      throw EngineError(.invalidArgument, "\(text) is not a valid mac address")
    }
    return text.lowercased()
  }

  /// `name:address`, also `name=address`; `host-gateway` stands for the bridge's address.
  static func extraHost(_ text: String) throws(EngineError) -> String {
    guard let separator = text.firstIndex(of: "=") ?? text.firstIndex(of: ":"), separator != text.startIndex else {
      throw EngineError(.invalidArgument, "bad format for add-host: \"\(text)\"")
    }
    let name = text[..<separator]
    var address = String(text[text.index(after: separator)...])
    if address.hasPrefix("["), address.hasSuffix("]") { address = String(address.dropFirst().dropLast()) }
    guard address == "host-gateway" || IPAddress.isAddress(address) else {
      throw EngineError(.invalidArgument, "invalid IP address in add-host: \"\(address)\"")
    }
    return "\(name):\(address)"
  }

  static func dnsServer(_ text: String) throws(EngineError) {
    guard IPAddress.isAddress(text) else {
      throw EngineError(.invalidArgument, "IP address is not correctly formatted: \(text)")
    }
  }

  static func dnsSearch(_ text: String) throws(EngineError) {
    if text == "." { return }
    let valid =
      text.utf8.count <= 253
      && text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy {
        !$0.isEmpty && $0.utf8.count <= 63
          && $0.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-_".contains($0)) }
      }
    guard valid else { throw EngineError(.invalidArgument, "\(text) is not a valid domain") }
  }
}
