import Contracts
import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import Kernel

/// A server of HTTP on loopback that answers as a test says, mistakes included.
final class FakeServer: Sendable {
  struct Request: Sendable {
    var method = ""
    var target = ""
    var headers: [String: String] = [:]
    var body: [UInt8] = []
    /// How many requests for the same method and path came before.
    var count = 0

    var path: String { String(target.prefix { $0 != "?" }) }
  }

  struct Reply: Sendable {
    var status = 200
    var headers: [(String, String)] = []
    var body: [UInt8] = []
    /// `Content-Length` as it is sent; nil for none.
    var length: Int?
    /// The connection is cut after so many bytes of the body.
    var cutAfter: Int?
    /// A pause in microseconds before each byte of the body.
    var pausePerByte: UInt32 = 0
    /// How many times the body is sent.
    var repeats = 1
    /// Hangs up without a word.
    var isDropped = false
    /// Says nothing at all and keeps the connection.
    var isSilent = false

    init(_ status: Int = 200, _ headers: [(String, String)] = [], _ body: [UInt8] = []) {
      (self.status, self.headers, self.body) = (status, headers, body)
      length = body.count
    }

    init(_ status: Int = 200, _ headers: [(String, String)] = [], text: String) {
      self.init(status, headers, Array(text.utf8))
    }
  }

  typealias Handler = @Sendable (Request) -> Reply

  let port: UInt16
  private let listener: Descriptor
  private let handler: Handler
  private let hangsUpOnTLS: Bool
  private let log = Mutex<[Request]>([])
  /// Bytes that went into connections.
  let sent = Mutex(0)

  init(hangsUpOnTLS: Bool = false, _ handler: @escaping Handler) throws {
    signal(SIGPIPE, SIG_IGN)
    let number = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    listener = Descriptor(adopting: number)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let bound = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(number, __CONST_SOCKADDR_ARG(__sockaddr__: $0), size) == 0 && listen(number, 64) == 0
          && getsockname(number, __SOCKADDR_ARG(__sockaddr__: $0), &size) == 0
      }
    }
    try #require(bound)
    port = UInt16(bigEndian: address.sin_port)
    self.handler = handler
    self.hangsUpOnTLS = hangsUpOnTLS
    let listener = listener
    _ = Thread.start { [weak self] in
      while true {
        let connection = accept4(
          listener.number, __SOCKADDR_ARG(__sockaddr__: nil), nil, Int32(SOCK_CLOEXEC.rawValue))
        guard connection >= 0 else { return }
        guard self != nil else {
          close(connection)
          return
        }
        _ = Thread.start { [weak self] in
          while let server = self, server.serve(connection) {}
          close(connection)
        }
      }
    }
  }

  deinit { shutdown(listener.number, Int32(SHUT_RDWR)) }

  var host: String { "127.0.0.1:\(port)" }
  var requests: [Request] { log.withLock { $0 } }

  /// - Returns: whether the connection is kept.
  private func serve(_ connection: Int32) -> Bool {
    guard var request = Self.read(connection) else {
      // What a server of plain HTTP says to the first bytes of TLS.
      if !hangsUpOnTLS { send(connection, Array("HTTP/1.0 400 Bad Request\r\n\r\n".utf8)) }
      return false
    }
    log.withLock { log in
      request.count = log.count { $0.method == request.method && $0.path == request.path }
      log.append(request)
    }
    let reply = handler(request)
    if reply.isDropped { return false }
    if reply.isSilent {
      var byte: UInt8 = 0
      _ = Glibc.read(connection, &byte, 1)
      return false
    }
    var head = "HTTP/1.1 \(reply.status) \(Self.reasons[reply.status] ?? "Status")\r\n"
    for (name, value) in reply.headers { head += "\(name): \(value)\r\n" }
    if let length = reply.length { head += "Content-Length: \(length)\r\n" }
    guard send(connection, Array("\(head)\r\n".utf8)) else { return false }
    if request.method == "HEAD" { return true }
    let body = reply.cutAfter.map { Array(reply.body.prefix($0)) } ?? reply.body
    for _ in 0..<reply.repeats {
      if reply.pausePerByte > 0 {
        for byte in body {
          usleep(reply.pausePerByte)
          guard send(connection, [byte]) else { return false }
        }
      } else {
        guard send(connection, body) else { return false }
      }
    }
    return reply.cutAfter == nil && reply.length != nil
  }

  private static let reasons = [
    200: "OK", 206: "Partial Content", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable",
  ]

  @discardableResult
  private func send(_ connection: Int32, _ bytes: [UInt8]) -> Bool {
    guard (try? Files.writeAll(connection, bytes)) != nil else { return false }
    sent.withLock { $0 += bytes.count }
    return true
  }

  private static func read(_ connection: Int32) -> Request? {
    var bytes: [UInt8] = []
    var byte: UInt8 = 0
    while !bytes.suffix(4).elementsEqual([13, 10, 13, 10]) {
      guard bytes.count < 1 << 16, Glibc.read(connection, &byte, 1) == 1 else { return nil }
      if bytes.isEmpty, byte == 0x16 { return nil }
      bytes.append(byte)
    }
    var request = Request()
    for (index, line) in String(decoding: bytes, as: UTF8.self).split(separator: "\r\n").enumerated() {
      if index == 0 {
        let words = line.split(separator: " ")
        guard words.count == 3 else { return nil }
        (request.method, request.target) = (String(words[0]), String(words[1]))
      } else if let colon = line.firstIndex(of: ":") {
        let name = line[..<colon].lowercased()
        let value = String(line[line.index(after: colon)...].drop { $0 == " " })
        request.headers[name] = request.headers[name].map { "\($0), \(value)" } ?? value
      }
    }
    var rest = request.headers["content-length"].flatMap { Int($0) } ?? 0
    var chunk = [UInt8](repeating: 0, count: 65536)
    while rest > 0 {
      let count = Glibc.read(connection, &chunk, min(rest, chunk.count))
      guard count > 0 else { return nil }
      request.body += chunk[..<count]
      rest -= count
    }
    return request
  }
}
