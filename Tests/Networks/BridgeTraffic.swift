import Glibc
import LinuxSystem

/// A TCP or UDP service in a namespace that answers each client with the address it sees it come from.
final class AddressEcho: Sendable {
  private let listener: Int32

  init(_ namespace: TestNamespace, address: String = "0.0.0.0", port: UInt16, udp: Bool = false) throws {
    let number = try namespace.inside { () throws -> Int32 in
      try Traffic.bound(udp ? SOCK_DGRAM : SOCK_STREAM, address, port)
    }
    listener = number
    if !udp { try SystemCallError.check("listen") { listen(number, 16) } }
    var thread = pthread_t()
    let argument = UnsafeMutablePointer<(Int32, Bool)>.allocate(capacity: 1)
    argument.initialize(to: (number, udp))
    pthread_create(
      &thread, nil,
      { argument in
        guard let pointer = argument?.assumingMemoryBound(to: (Int32, Bool).self) else { return nil }
        let (listener, udp) = pointer.move()
        pointer.deallocate()
        AddressEcho.serve(listener, udp: udp)
        close(listener)
        return nil
      }, argument)
    pthread_detach(thread)
  }

  deinit { shutdown(listener, Int32(SHUT_RDWR)) }

  private static func serve(_ listener: Int32, udp: Bool) {
    while true {
      var name = sockaddr_in()
      var length = socklen_t(MemoryLayout<sockaddr_in>.size)
      if udp {
        var byte: UInt8 = 0
        let count = withUnsafeMutablePointer(to: &name) {
          recvfrom(listener, &byte, 1, 0, __SOCKADDR_ARG(__sockaddr_in__: $0), &length)
        }
        // shutdown(2) wakes the reader with an empty datagram.
        if count <= 0 { return }
        let text = Array(Traffic.text(name).utf8)
        _ = withUnsafePointer(to: &name) {
          sendto(listener, text, text.count, 0, __CONST_SOCKADDR_ARG(__sockaddr_in__: $0), length)
        }
      } else {
        let client = withUnsafeMutablePointer(to: &name) {
          accept(listener, __SOCKADDR_ARG(__sockaddr_in__: $0), &length)
        }
        if client < 0 { return }
        let text = Array(Traffic.text(name).utf8)
        send(client, text, text.count, Int32(MSG_NOSIGNAL))
        close(client)
      }
    }
  }
}

enum Traffic {
  static func text(_ name: sockaddr_in) -> String {
    let address = UInt32(bigEndian: name.sin_addr.s_addr)
    return "\(address >> 24).\(address >> 16 & 255).\(address >> 8 & 255).\(address & 255)"
  }

  static func name(_ address: String, _ port: UInt16) -> sockaddr_in {
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_port = port.bigEndian
    inet_pton(AF_INET, address, &name.sin_addr)
    return name
  }

  static func bound(_ type: __socket_type, _ address: String, _ port: UInt16) throws -> Int32 {
    let number = try SystemCallError.check("socket") {
      socket(AF_INET, Int32(type.rawValue | SOCK_CLOEXEC.rawValue), 0)
    }
    var name = name(address, port)
    try SystemCallError.check("bind") {
      withUnsafePointer(to: &name) {
        bind(number, __CONST_SOCKADDR_ARG(__sockaddr_in__: $0), socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    return number
  }

  /// What the service at `address` says, or nil when there is no answer within `milliseconds`.
  static func ask(
    from namespace: TestNamespace, _ address: String, _ port: UInt16, udp: Bool = false, socket given: Int32? = nil,
    milliseconds: Int = 1000
  ) throws -> String? {
    let number: Int32
    if let given {
      number = given
    } else {
      number = try namespace.inside {
        try SystemCallError.check("socket") {
          socket(AF_INET, Int32((udp ? SOCK_DGRAM : SOCK_STREAM).rawValue | SOCK_CLOEXEC.rawValue), 0)
        }
      }
    }
    defer { if given == nil { close(number) } }
    var limit = timeval(tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000)
    setsockopt(number, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    setsockopt(number, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    var name = name(address, port)
    let result = withUnsafePointer(to: &name) {
      connect(number, __CONST_SOCKADDR_ARG(__sockaddr_in__: $0), socklen_t(MemoryLayout<sockaddr_in>.size))
    }
    if result != 0 { return nil }
    if udp { send(number, "x", 1, 0) }
    var buffer = [UInt8](repeating: 0, count: 64)
    let count = recv(number, &buffer, buffer.count, 0)
    return count <= 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
  }
}
