import AsyncHTTPClient
import Contracts
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Wire

/// Why an exchange with a registry failed, and whether it may go better another time.
struct Fault: Error, Sendable {
  enum Kind: Sendable, Equatable {
    /// There was no connection to speak over: refused, no such host, no TLS.
    case unreachable
    /// It may pass: a connection that broke, a server that is overloaded.
    case transient
    /// It will not pass.
    case final
    case cancelled
  }

  var kind: Kind
  var error: EngineError
  /// How long the server asks to wait.
  var retryAfter: Duration?
  /// Whether bytes arrived before, so that trying again is not the same once more.
  var madeProgress = false

  init(_ kind: Kind, _ error: EngineError, retryAfter: Duration? = nil) {
    self.kind = kind
    self.error = error
    self.retryAfter = retryAfter
  }

  init(_ kind: Kind, _ code: EngineError.Code, _ message: String) {
    self.init(kind, EngineError(code, message))
  }

  static let cancellation = Fault(.cancelled, .cancelled, "the request to the registry was cancelled")

  /// An error of the HTTP client, in words.
  init(_ error: any Error, at address: WebAddress) {
    let (kind, words) = Self.describe(error)
    self.init(
      kind, .unavailable,
      kind == .unreachable
        ? "cannot reach the registry at \(address.scheme.rawValue)://\(address.authority): \(words)"
        : "the connection to \(address.authority) broke: \(words)")
    if kind == .cancelled { self = .cancellation }
  }

  private static func describe(_ error: any Error) -> (Kind, String) {
    switch error {
    case is CancellationError: return (.cancelled, "")
    case let error as NIOConnectionError:
      if error.connectionErrors.isEmpty { return (.unreachable, "no such host") }
      let reasons = error.connectionErrors.map { describe($0.error).1 }
      return (.unreachable, reasons.first { $0.contains("refused") } ?? reasons[0])
    case let error as IOError:
      return (.transient, Self.lowercased(String(cString: strerror(error.errnoCode))))
    case let error as NIOSSLError:
      switch error {
      case .handshakeFailed(let reason): return (.unreachable, Self.describe(reason))
      case .unableToValidateCertificate, .noCertificateToValidate:
        return (.unreachable, "the certificate is not for this host")
      case .uncleanShutdown: return (.transient, "the server ended it without saying so")
      default: return (.transient, "TLS: \(error)")
      }
    case let error as BoringSSLError: return (.unreachable, Self.describe(error))
    case is NIOSSLExtraError: return (.unreachable, "the certificate is not for this host (\(error))")
    case is ChannelError: return (.unreachable, "connecting took too long")
    case let error as HTTPClientError:
      switch error {
      case .cancelled: return (.cancelled, "")
      case .remoteConnectionClosed: return (.transient, "the server closed it")
      case .connectTimeout, .getConnectionFromPoolTimeout: return (.unreachable, "connecting took too long")
      case .tlsHandshakeTimeout: return (.unreachable, "the TLS handshake took too long")
      case .proxyAuthenticationRequired: return (.unreachable, "the proxy wants credentials")
      case .invalidProxyResponse, .httpProxyHandshakeTimeout, .socksHandshakeTimeout:
        return (.unreachable, "the proxy does not answer as one")
      default: return (.transient, error.description)
      }
    case let error as HTTPParserError: return (.transient, "the answer is not HTTP (\(error))")
    default: return (.transient, "\(error)")
    }
  }

  private static func describe(_ error: BoringSSLError) -> String {
    let text = "\(error)"
    if text.contains("CERTIFICATE_VERIFY_FAILED") {
      return "its certificate is signed by an unknown authority; put that into /etc/engine/certs.d/HOST[:PORT]/ca.crt"
    }
    if text.contains("WRONG_VERSION_NUMBER") || text.contains("HTTP_REQUEST") { return "the server does not speak TLS" }
    return "the TLS handshake failed (\(Words.clean(text)))"
  }

  private static func lowercased(_ text: String) -> String { text.prefix(1).lowercased() + text.dropFirst() }
}

/// What servers say, made fit for one line.
enum Words {
  /// Without control characters and not longer than 300 characters.
  static func clean(_ text: String) -> String {
    var result = ""
    var isSpace = true
    for scalar in text.unicodeScalars.prefix(2000) {
      let blank = scalar.value <= 0x20 || scalar.value == 0x7F || (0x80..<0xA0).contains(scalar.value)
      if blank {
        if !isSpace { result.append(" ") }
      } else if scalar.properties.generalCategory != .format {
        result.unicodeScalars.append(scalar)
      }
      isSpace = blank
    }
    if isSpace, !result.isEmpty { result.removeLast() }
    return result.count > 300 ? String(result.prefix(299)) + "…" : result
  }

  /// What a registry says in the body of an error (OCI distribution specification, "Error Codes"): `code: message`.
  static func ofRegistry(_ body: [UInt8]) -> EngineError.Cause? {
    guard let value = try? JSON.parse(body) else { return nil }
    func text(_ value: JSONValue?) -> String {
      guard case .string(let text) = value else { return "" }
      return clean(text)
    }
    if case .array(let errors) = value["errors"], let first = errors.first {
      let code = text(first["code"]).split(separator: "_").joined(separator: " ").lowercased()
      let message = text(first["message"])
      let line = [code, message].filter { !$0.isEmpty }.joined(separator: ": ")
      return line.isEmpty ? nil : EngineError.Cause(code: .unavailable, message: line)
    }
    for key in ["details", "message", "error_description", "error"] {
      let line = text(value[key])
      if !line.isEmpty { return EngineError.Cause(code: .unavailable, message: line) }
    }
    return nil
  }
}
