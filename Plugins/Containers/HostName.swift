import Glibc

enum HostName {
  /// gethostname(2).
  static var current: String {
    var buffer = [UInt8](repeating: 0, count: 65)
    guard gethostname(&buffer, 64) == 0 else { return "localhost" }
    return String(decoding: buffer.prefix { $0 != 0 }, as: UTF8.self)
  }
}
