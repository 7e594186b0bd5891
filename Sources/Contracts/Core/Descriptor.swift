import Glibc

/// An open file descriptor inside a message. It is closed when the last copy of the message is gone.
///
/// On the wire it is the index of a descriptor that travels beside the frame (`SCM_RIGHTS`, unix(7)), which is why it
/// can only be encoded by a coder that carries a `DescriptorTable` in its `userInfo`.
public final class Descriptor: Codable, Sendable {
  /// The number in this process; valid as long as this object lives.
  public let number: Int32

  /// Takes ownership of an open descriptor.
  public init(adopting number: Int32) {
    self.number = number
  }

  deinit {
    close(number)
  }

  public convenience init(from decoder: any Decoder) throws {
    let index = try decoder.singleValueContainer().decode(Int.self)
    guard let table = decoder.userInfo[.descriptorTable] as? DescriptorTable else {
      throw EngineError(.protocolViolation, "a descriptor cannot be read outside a frame")
    }
    self.init(adopting: try table.take(index))
  }

  public func encode(to encoder: any Encoder) throws {
    guard let table = encoder.userInfo[.descriptorTable] as? DescriptorTable else {
      throw EngineError(.protocolViolation, "a descriptor cannot be written outside a frame")
    }
    var container = encoder.singleValueContainer()
    try container.encode(table.add(self))
  }
}

/// The descriptors that travel beside one frame, in order. Used by one coder on one thread.
public final class DescriptorTable {
  /// Descriptors to be sent, kept alive until the frame is written.
  public private(set) var outgoing: [Descriptor] = []
  /// Descriptor numbers that arrived; -1 once taken.
  private var incoming: [Int32]

  public init(incoming: [Int32] = []) {
    self.incoming = incoming
  }

  deinit {
    for number in incoming where number >= 0 { close(number) }
  }

  func add(_ descriptor: Descriptor) -> Int {
    outgoing.append(descriptor)
    return outgoing.count - 1
  }

  func take(_ index: Int) throws -> Int32 {
    guard incoming.indices.contains(index), incoming[index] >= 0 else {
      throw EngineError(.protocolViolation, "the message names descriptor \(index), which the frame does not carry")
    }
    defer { incoming[index] = -1 }
    return incoming[index]
  }
}

extension CodingUserInfoKey {
  /// Where a coder finds its `DescriptorTable`.
  public static var descriptorTable: CodingUserInfoKey {
    guard let key = CodingUserInfoKey(rawValue: "engine.descriptorTable") else { fatalError("not a key") }
    return key
  }
}
