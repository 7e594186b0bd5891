import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Wire

/// One plugin of Docker's protocol: a POST with JSON, and JSON back, over HTTP/1.1 (RFC 9112), a connection a message.
struct PluginClient: Sendable {
  /// Bytes of an answer.
  static let maximumAnswer = 4 << 20

  let name: String
  let address: PluginAddress
  let deadlineSeconds: Int

  /// - Throws: the plugin's own words where it has some; otherwise what went wrong on the way, by plugin and message.
  func call<Answer: Decodable>(
    _ method: String, _ body: some Encodable, as type: Answer.Type
  ) throws(EngineError) -> Answer {
    let (status, answer): (Int, [UInt8])
    do throws(EngineError) {
      (status, answer) = try exchange(method, try JSON.encode(body))
    } catch {
      throw EngineError(error.code, "the volume plugin \(name) failed at \"\(method)\"", because: error)
    }
    let refusal = (try? JSON.decode(PluginRefusal.self, answer))?.Err ?? ""
    if !refusal.isEmpty {
      // The protocol has no codes; this is what every plugin's words have in common.
      let words = refusal.lowercased()
      let isUsed = method == "VolumeDriver.Remove" && (words.contains("in use") || words.contains("mounted"))
      throw EngineError(isUsed ? .inUse : .conflict, "\(method): \(refusal)")
    }
    guard status == 200 else {
      throw EngineError(
        .protocolViolation, "the volume plugin \(name) answered \"\(method)\" with the status \(status)")
    }
    do throws(EngineError) {
      return try JSON.decode(type, answer)
    } catch {
      throw EngineError(
        .protocolViolation, "the volume plugin \(name) answered \"\(method)\" with what is no answer to it",
        because: error)
    }
  }

  private func exchange(_ method: String, _ body: [UInt8]) throws(EngineError) -> (Int, [UInt8]) {
    let socket = try connect()
    let type = "application/vnd.docker.plugins.v1.2+json"
    let head =
      "POST /\(method) HTTP/1.1\r\nHost: plugin\r\nAccept: \(type)\r\nContent-Type: \(type)\r\n"
      + "Content-Length: \(body.count)\r\nConnection: close\r\n\r\n"
    do throws(SystemCallError) {
      try Files.writeAll(socket.number, Array(head.utf8) + body, subject: "the plugin's socket")
    } catch {
      throw EngineError(.unavailable, "\(error)")
    }
    var response = PluginResponse(maximum: Self.maximumAnswer)
    var limit = timespec()
    clock_gettime(CLOCK_MONOTONIC, &limit)
    let end = limit.tv_sec + deadlineSeconds
    var buffer = [UInt8](repeating: 0, count: 16 << 10)
    while !response.isComplete {
      clock_gettime(CLOCK_MONOTONIC, &limit)
      var event = pollfd(fd: socket.number, events: Int16(POLLIN), revents: 0)
      guard limit.tv_sec < end, poll(&event, 1, Int32(end - limit.tv_sec) * 1000) > 0 else {
        throw EngineError(.deadlineExceeded, "no answer within \(deadlineSeconds) s")
      }
      let count = read(socket.number, &buffer, buffer.count)
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else { throw EngineError(.unavailable, "read: \(SystemCallError.text(errno))") }
      try response.take(buffer[..<count])
    }
    return (response.status, response.body)
  }

  private func connect() throws(EngineError) -> OwnedDescriptor {
    switch address {
    case .unix(let path):
      do throws(SystemCallError) {
        return try UnixSocket.connect(path)
      } catch {
        throw EngineError(.unavailable, "cannot connect to \(path): \(error.reason)")
      }
    case .tcp(let host, let port):
      var hints = addrinfo()
      hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
      var list: UnsafeMutablePointer<addrinfo>?
      let failure = getaddrinfo(host, String(port), &hints, &list)
      defer { if let list { freeaddrinfo(list) } }
      guard failure == 0, let first = list?.pointee else {
        throw EngineError(.unavailable, "\(host) cannot be resolved: \(String(cString: gai_strerror(failure)))")
      }
      do throws(SystemCallError) {
        let socket = OwnedDescriptor(
          adopting: try SystemCallError.check("socket") {
            Glibc.socket(first.ai_family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
          })
        try SystemCallError.check("connect", "\(host):\(port)") {
          Glibc.connect(socket.number, __CONST_SOCKADDR_ARG(__sockaddr__: first.ai_addr), first.ai_addrlen)
        }
        return socket
      } catch {
        throw EngineError(.unavailable, "\(error)")
      }
    }
  }
}

/// Every answer may say instead why not.
struct PluginRefusal: Codable {
  var Err: String?
}

/// Puts an HTTP response together as its bytes come in.
struct PluginResponse {
  private(set) var status = 0
  private(set) var body: [UInt8] = []
  private(set) var isComplete = false

  private let maximum: Int
  private var raw: [UInt8] = []
  private var hasHead = false
  private var length: Int?
  private var isChunked = false

  init(maximum: Int) { self.maximum = maximum }

  /// - Parameter bytes: what arrived; nothing at the end of the stream.
  mutating func take(_ bytes: ArraySlice<UInt8>) throws(EngineError) {
    raw += bytes
    guard raw.count <= maximum else {
      throw EngineError(.protocolViolation, "the answer is longer than the \(maximum) bytes that are allowed")
    }
    if !hasHead { try readHead() }
    if hasHead { try readBody(isEnd: bytes.isEmpty) }
    if bytes.isEmpty && !isComplete { throw EngineError(.protocolViolation, "the connection ended inside the answer") }
  }

  private mutating func readHead() throws(EngineError) {
    guard let end = Self.index(of: [13, 10, 13, 10], in: raw) else { return }
    let lines = String(decoding: raw[..<end], as: UTF8.self).split(separator: "\r\n")
    let words = lines.first?.split(separator: " ") ?? []
    guard words.count >= 2, words[0].hasPrefix("HTTP/1."), let code = Int(words[1]) else {
      throw EngineError(.protocolViolation, "the answer is not HTTP/1.1")
    }
    status = code
    for line in lines.dropFirst() {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2 else { continue }
      let value = parts[1].filter { $0 != " " && $0 != "\t" }
      switch parts[0].lowercased() {
      case "content-length":
        guard let count = Int(value), count >= 0 else {
          throw EngineError(.protocolViolation, "the answer's length is \"\(value)\"")
        }
        length = count
      case "transfer-encoding": isChunked = value.lowercased().hasSuffix("chunked")
      default: break
      }
    }
    raw.removeFirst(end + 4)
    hasHead = true
  }

  private mutating func readBody(isEnd: Bool) throws(EngineError) {
    if isChunked {
      while !isComplete, let line = Self.index(of: [13, 10], in: raw) {
        let text = String(decoding: raw[..<line], as: UTF8.self).prefix { $0 != ";" }
        guard let size = Int(text.filter { $0 != " " }, radix: 16), size >= 0, size <= maximum else {
          throw EngineError(.protocolViolation, "the size of a chunk is \"\(text)\"")
        }
        if size == 0 {
          isComplete = true
        } else {
          guard raw.count >= line + 2 + size + 2 else { return }
          body += raw[(line + 2)..<(line + 2 + size)]
          raw.removeFirst(line + 2 + size + 2)
        }
      }
    } else if let length {
      guard raw.count >= length else { return }
      body = Array(raw[..<length])
      isComplete = true
    } else if isEnd {
      body = raw
      isComplete = true
    }
  }

  private static func index(of pattern: [UInt8], in bytes: [UInt8]) -> Int? {
    guard bytes.count >= pattern.count else { return nil }
    return (0...(bytes.count - pattern.count)).first { bytes[$0..<$0 + pattern.count].elementsEqual(pattern) }
  }
}
