import CNetlink
import Glibc

/// The one transaction of nf_tables that the raw floor needs, written out: elements for a map of published ports
/// (linux/netfilter/nf_tables.h).
package struct Netfilter: ~Copyable {
  private let number: Int32

  /// - Returns: nil when the kernel has no nf_tables.
  package init?() {
    let opened = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 12)  // NETLINK_NETFILTER
    guard opened >= 0 else { return nil }
    number = opened
  }

  deinit { close(number) }

  /// A transaction that publishes ports as port 80 of 10.99.0.2.
  package static func publishing(_ ports: ClosedRange<UInt16>, table: String, map: String) -> [UInt8] {
    func message(_ type: UInt16, _ flags: Int32, _ family: UInt8, _ resource: UInt16, isAcknowledged: Bool)
      -> Netlink.Message
    {
      var message = Netlink.Message(type, flags, isAcknowledged: isAcknowledged)
      message.append(family)
      message.append(UInt8(0))
      message.append(resource.bigEndian)
      return message
    }
    let nested = 0x8000  // NLA_F_NESTED
    var begin = message(0x10, 0, 0, 10, isAcknowledged: false)  // NFNL_MSG_BATCH_BEGIN, NFNL_SUBSYS_NFTABLES
    var end = message(0x11, 0, 0, 10, isAcknowledged: false)
    // NFT_MSG_NEWSETELEM of NFPROTO_INET
    var elements = message(10 << 8 | 12, NLM_F_CREATE, 1, 0, isAcknowledged: true)
    elements.attribute(1, table)
    elements.attribute(2, map)
    elements.nest(nested | 3) { list in
      for port in ports {
        list.nest(nested | 1) { element in
          element.nest(nested | 1) { $0.attribute(1, [6, 0, 0, 0, UInt8(port >> 8), UInt8(port & 255), 0, 0]) }
          element.nest(nested | 2) { $0.attribute(1, [10, 99, 0, 2, 0, 80, 0, 0]) }
        }
      }
    }
    begin.finish()
    elements.finish()
    end.finish()
    return begin.bytes + elements.bytes + end.bytes
  }

  /// Sends a transaction and reads its acknowledgement.
  ///
  /// - Returns: 0, or the errno of what failed.
  package borrowing func commit(_ bytes: [UInt8]) -> Int32 {
    guard send(number, bytes, bytes.count, 0) == bytes.count else { return errno }
    return withUnsafeTemporaryAllocation(byteCount: 16384, alignment: 16) { buffer in
      let count = recv(number, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT))
      guard count >= 20 else { return count < 0 ? errno : EPROTO }
      return -buffer.load(fromByteOffset: 16, as: Int32.self)
    }
  }
}
