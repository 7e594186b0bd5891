import CLinux
import Glibc

enum IPv6 {
  static func isAddress(_ text: String) -> Bool {
    var address = in6_addr()
    return inet_pton(AF_INET6, text, &address) == 1
  }
}
