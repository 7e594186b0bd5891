import Contracts
import Foundation
import Testing

/// Ports that are written as runs come back one by one, and what was written one by one reads as well.
@Suite struct PortRunTests {
  private struct Holder: Codable, Equatable {
    @PortRuns var ports: [PortBinding]
  }

  private static func port(
    _ host: UInt16, _ container: UInt16, _ transport: TransportProtocol = .tcp, _ address: String = "",
    end: UInt16? = nil
  ) -> PortBinding {
    PortBinding(
      transport: transport, hostAddress: address, hostPort: host, hostPortEnd: end, containerPort: container)
  }

  private static let cases: [(ports: [PortBinding], entries: Int)] = [
    ([], 0),
    ([port(80, 80)], 1),
    ((0..<200).map { port(8000 + $0, 8000 + $0) }, 1),
    ((0..<200).map { port(9000 + $0, 80 + $0) }, 1),
    // Nothing of these goes on with the one before.
    ([port(80, 80), port(82, 82), port(81, 81)], 3),
    ([port(80, 80), port(81, 80)], 2),
    ([port(80, 80), port(81, 81, .udp)], 2),
    ([port(80, 80), port(81, 81, .tcp, "127.0.0.1")], 2),
    ([port(80, 80), port(80, 80)], 2),
    // Any free port, and any of a range.
    ([port(0, 80), port(0, 81), port(1, 82)], 3),
    ([port(8000, 80, end: 8010), port(8001, 81, end: 8011)], 2),
    ([port(8000, 80), port(8001, 81, end: 8011), port(8002, 82)], 3),
    ([port(65534, 65534), port(65535, 65535)], 1),
    ([port(65535, 1), port(1, 2)], 2),
  ]

  @Test(arguments: cases.indices) func comeBack(index: Int) throws {
    let (ports, entries) = Self.cases[index]
    let data = try JSONEncoder().encode(Holder(ports: ports))
    let object = try #require(try JSONSerialization.jsonObject(with: data) as? [String: [[String: Any]]])
    #expect(object["ports"]?.count == entries)
    #expect(try JSONDecoder().decode(Holder.self, from: data).ports == ports)
  }

  /// As records were written before there were runs.
  @Test func readsPortsOneByOne() throws {
    let ports = (0..<5).map { Self.port(8000 + $0, 80 + $0) }
    let data = try JSONEncoder().encode(["ports": ports])
    #expect(try JSONDecoder().decode(Holder.self, from: data).ports == ports)
  }

  @Test(arguments: [(65535, 2), (1, 65536), (1, 0), (1, -1), (40000, 1 << 40), (1, Int.max)])
  func refusesPortsThatThereAreNot(host: Int, count: Int) {
    let text =
      #"{"ports":[{"transport":"tcp","hostAddress":"","hostPort":\#(host),"hostPortEnd":\#(host),"#
      + #""containerPort":1,"count":\#(count)}]}"#
    #expect(throws: DecodingError.self) { try JSONDecoder().decode(Holder.self, from: Data(text.utf8)) }
  }
}
