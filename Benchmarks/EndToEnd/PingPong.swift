import BenchmarkSupport
import Glibc

/// A byte sent there and back over one TCP connection, again and again: what a packet's way costs.
enum PingPong {
  static let server = "--pong"
  static let client = "--ping"
  private static let trips = 3000

  /// Sends every byte back, one connection after the other.
  static func serve(_ port: UInt16) -> Int32 {
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var enabled: Int32 = 1
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &enabled, 4)
    var address = Self.address("0.0.0.0", port)
    let isBound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, __CONST_SOCKADDR_ARG(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard isBound == 0, listen(listener, 4) == 0 else { return 1 }
    while true {
      let connection = accept(listener, __SOCKADDR_ARG(__sockaddr__: nil), nil)
      guard connection >= 0 else { return 1 }
      atOnce(connection)
      var byte: UInt8 = 0
      while read(connection, &byte, 1) == 1, write(connection, &byte, 1) == 1 {}
      close(connection)
    }
  }

  /// Prints the median, the 90th and the 99th percentile in microseconds.
  static func measure(_ host: String, _ port: UInt16) -> Int32 {
    let connection = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = Self.address(host, port)
    let isConnected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(connection, __CONST_SOCKADDR_ARG(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard isConnected == 0 else { return 1 }
    atOnce(connection)
    var times: [Double] = []
    var byte: UInt8 = 7
    for trip in 0..<trips + 200 {
      let begin = Processes.microseconds()
      guard write(connection, &byte, 1) == 1, read(connection, &byte, 1) == 1 else { return 1 }
      if trip >= 200 { times.append(Processes.microseconds() - begin) }
    }
    let samples = Samples(times)
    print([0.5, 0.9, 0.99].map { Text.decimal(samples.percentile($0), 2) }.joined(separator: " "))
    return 0
  }

  private static func address(_ host: String, _ port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    let number = host.split(separator: ".").compactMap { UInt32($0) }.reduce(0) { $0 << 8 | $1 }
    address.sin_addr.s_addr = number.bigEndian
    return address
  }

  private static func atOnce(_ connection: Int32) {
    var enabled: Int32 = 1
    // IPPROTO_TCP and TCP_NODELAY (tcp(7)), whose names a release build does not find beside the headers of netlink.
    setsockopt(connection, 6, 1, &enabled, 4)
  }
}
