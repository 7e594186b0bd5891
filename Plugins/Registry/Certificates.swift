import Contracts
import Glibc
import LinuxSystem
import NIOSSL
import Synchronization

/// Whom TLS trusts: the system's authorities, and what the administrator put into a directory named after the registry
/// (docs.docker.com, "Verify repository client with certificates").
final class Certificates: Sendable {
  private struct Entry {
    /// Names, sizes and times of the files that it was made of.
    let signature: [String]
    let configuration: TLSConfiguration
  }

  private let directories: [String]
  private let cache = Mutex<[String: Entry]>([:])

  init(_ directories: [String]) {
    self.directories = directories
  }

  private func files(_ host: String, _ port: UInt16, _ suffix: String) -> [String] {
    let name = host.contains(":") ? "[\(host)]" : host
    var names = ["\(name):\(port)"]
    if port == 443 { names.append(name) }
    return directories.flatMap { directory in
      names.flatMap { name in
        let path = "\(directory)/\(name)"
        return ((try? Files.list(path)) ?? []).filter { $0.hasSuffix(suffix) }.sorted().map { "\(path)/\($0)" }
      }
    }
  }

  func hasAuthorities(_ host: String, _ port: UInt16) -> Bool { !files(host, port, ".crt").isEmpty }

  /// - Throws: `corrupt` that names the file which is no certificate or key.
  func configuration(for address: WebAddress, verifies: Bool) throws(EngineError) -> TLSConfiguration {
    let authorities = files(address.host, address.port, ".crt")
    let clients = files(address.host, address.port, ".cert")
    let isVerified = verifies || !authorities.isEmpty
    let key = "\(address.authority) \(isVerified)"
    let signature = (authorities + clients).map { path in
      let status = Files.status(path)
      return "\(path) \(status?.st_size ?? 0) \(status?.st_mtim.tv_sec ?? 0).\(status?.st_mtim.tv_nsec ?? 0)"
    }
    if let entry = cache.withLock({ $0[key] }), entry.signature == signature { return entry.configuration }
    var configuration = TLSConfiguration.makeClientConfiguration()
    configuration.minimumTLSVersion = .tlsv12
    if !isVerified { configuration.certificateVerification = .none }
    for path in authorities {
      let certificates: [NIOSSLCertificate] = try Self.load(path) { try NIOSSLCertificate.fromPEMFile(path) }
      configuration.additionalTrustRoots.append(.certificates(certificates))
    }
    if let path = clients.first {
      let chain: [NIOSSLCertificate] = try Self.load(path) { try NIOSSLCertificate.fromPEMFile(path) }
      let keyPath = String(path.dropLast(5)) + ".key"
      configuration.certificateChain = chain.map { .certificate($0) }
      configuration.privateKey = .privateKey(
        try Self.load(keyPath) { try NIOSSLPrivateKey(file: keyPath, format: .pem) })
    }
    let made = Entry(signature: signature, configuration: configuration)
    cache.withLock { cache in
      if cache.count > 64 { cache = [:] }
      cache[key] = made
    }
    return configuration
  }

  private static func load<Value>(_ path: String, _ body: () throws -> Value) throws(EngineError) -> Value {
    do {
      return try body()
    } catch {
      throw EngineError(.corrupt, "\(path) is not a certificate or key in PEM form")
    }
  }
}
