import Contracts
import Glibc
import LinuxSystem

/// The files that the engine writes for a container: /etc/hosts, /etc/hostname and /etc/resolv.conf.
enum GeneratedFiles {
  /// The host's resolv.conf.
  private static func hostResolver() -> String {
    let stub = (try? Files.readText("/etc/resolv.conf")) ?? ""
    // systemd-resolved's stub listens on the host's loopback; its own list of servers is in another file.
    let servers = words(stub, "nameserver").flatMap { $0 }
    return servers == ["127.0.0.53"] ? (try? Files.readText("/run/systemd/resolve/resolv.conf")) ?? stub : stub
  }

  /// `name:address` or `name=address`; the address may be `host-gateway`.
  struct ExtraHost: Equatable {
    var name: String
    var address: String

    init(_ text: String) throws(EngineError) {
      guard let separator = text.firstIndex(where: { $0 == "=" || $0 == ":" }), separator != text.startIndex else {
        throw EngineError(.invalidArgument, "bad format for add-host: \"\(text)\"")
      }
      name = String(text[..<separator])
      var address = String(text[text.index(after: separator)...])
      if address.hasPrefix("["), address.hasSuffix("]") { address = String(address.dropFirst().dropLast()) }
      guard address == "host-gateway" || GeneratedFiles.isAddress(address) else {
        throw EngineError(.invalidArgument, "invalid IP address in add-host: \"\(address)\"")
      }
      self.address = address
    }
  }

  static let hostsPath = "/etc/hosts"

  /// Every file, by its path in the container. /etc/hosts is empty: it is known when the container's addresses are.
  static func make(_ configuration: ContainerConfiguration) -> [String: String] {
    let keepsLoopback = NetworkMode(configuration) == .host
    return [
      "/etc/hostname": "\(configuration.hostname)\n",
      hostsPath: "",
      "/etc/resolv.conf": resolver(configuration, host: hostResolver(), keepsLoopback: keepsLoopback),
    ]
  }

  /// /etc/hosts of a container with these endpoints.
  static func hosts(
    of configuration: ContainerConfiguration, endpoints: [Endpoint]
  ) throws(EngineError) -> String {
    let base = NetworkMode(configuration) == .host ? try? Files.readText("/etc/hosts") : nil
    return try hosts(configuration, endpoints: endpoints, base: base)
  }

  private static let localHosts = """
    127.0.0.1\tlocalhost
    ::1\tlocalhost ip6-localhost ip6-loopback
    fe00::\tip6-localnet
    ff00::\tip6-mcastprefix
    ff02::1\tip6-allnodes
    ff02::2\tip6-allrouters

    """

  /// - Parameter base: what stands at the top instead of the local names: the host's file for its network.
  static func hosts(
    _ configuration: ContainerConfiguration, endpoints: [Endpoint], base: String? = nil
  ) throws(EngineError) -> String {
    var text = base ?? localHosts
    if !text.hasSuffix("\n") { text += "\n" }
    for entry in configuration.extraHosts {
      let host = try ExtraHost(entry)
      guard host.address == "host-gateway" else {
        text += "\(host.address)\t\(host.name)\n"
        continue
      }
      let gateway = endpoints.first { !$0.gateway.isEmpty }?.gateway
      guard let address = gateway ?? (base == nil ? nil : "127.0.0.1") else {
        throw EngineError(
          .invalidArgument, "unable to derive the IP value for host-gateway: the container is on no network with one")
      }
      text += "\(address)\t\(host.name)\n"
    }
    var names = configuration.hostname
    if !configuration.domainname.isEmpty { names = "\(names).\(configuration.domainname) \(names)" }
    for endpoint in endpoints where !endpoint.address.isEmpty { text += "\(endpoint.address)\t\(names)\n" }
    return text
  }

  /// The host's resolv.conf (resolv.conf(5)) with what the user set in place of its own lines.
  ///
  /// - Parameter keepsLoopback: whether the host's loopback servers are reached from the container.
  static func resolver(_ configuration: ContainerConfiguration, host: String, keepsLoopback: Bool) -> String {
    var servers = configuration.dnsServers
    if servers.isEmpty {
      servers = words(host, "nameserver").compactMap(\.first)
      if !keepsLoopback { servers.removeAll { $0.hasPrefix("127.") || $0 == "::1" } }
      if servers.isEmpty { servers = ["8.8.8.8", "8.8.4.4"] }
    }
    var search = configuration.dnsSearch
    if search.isEmpty { search = words(host, "search").last ?? words(host, "domain").last ?? [] }
    search.removeAll { $0 == "." }
    var options = configuration.dnsOptions
    if options.isEmpty { options = words(host, "options").flatMap { $0 } }
    var text = servers.map { "nameserver \($0)\n" }.joined()
    if !search.isEmpty { text += "search \(search.joined(separator: " "))\n" }
    if !options.isEmpty { text += "options \(options.joined(separator: " "))\n" }
    return text
  }

  /// What stands behind `keyword` on each line that begins with it.
  private static func words(_ text: String, _ keyword: String) -> [[String]] {
    text.split(separator: "\n").compactMap { line in
      let words = line.split { $0 == " " || $0 == "\t" }.map(String.init)
      return words.first == keyword ? Array(words.dropFirst()) : nil
    }
  }

  /// Whether the text is an IPv4 or IPv6 address (inet_pton(3)).
  static func isAddress(_ text: String) -> Bool {
    var buffer = in6_addr()
    return inet_pton(AF_INET, text, &buffer) == 1 || inet_pton(AF_INET6, text, &buffer) == 1
  }
}
