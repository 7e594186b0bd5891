/// Why bytes are not a message of this protocol.
public enum ProtocolError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The bytes end within a field, or a length says more than there is.
  case truncated
  /// Bytes are left after the last field.
  case trailing(Int)
  /// A field has a value that means nothing.
  case invalid(String)
  /// The other side speaks a version of the protocol that this one does not know.
  case version(UInt8)

  public var description: String {
    switch self {
    case .truncated: "the message is cut short"
    case .trailing(let count): "the message has \(count) bytes too many"
    case .invalid(let field): "the message's field \(field) has no meaning"
    case .version(let version): "the message is of version \(version), this side speaks \(shimProtocolVersion)"
    }
  }
}

/// The version of everything in this module, the first byte of every message. An engine may adopt the shim of an older
/// build, so a change that an older shim would misread takes a new number.
public let shimProtocolVersion: UInt8 = 2

/// Reads or writes fields in order: a value describes itself once (`Coded.code`), for both directions, so that the two
/// can't disagree. Integers are little-endian; texts and arrays start with their length in 32 bits.
public protocol Coder {
  mutating func integer<T: FixedWidthInteger>(_ value: inout T) throws(ProtocolError)
  mutating func bytes(_ value: inout [UInt8]) throws(ProtocolError)
  mutating func text(_ value: inout String) throws(ProtocolError)
  mutating func array<T: Coded>(_ value: inout [T]) throws(ProtocolError)
}

/// A value that a `Coder` can read and write.
public protocol Coded: Sendable {
  /// An empty value, which reading fills.
  init()
  mutating func code(_ coder: inout some Coder) throws(ProtocolError)
}

extension Coder {
  public mutating func flag(_ value: inout Bool) throws(ProtocolError) {
    var byte: UInt8 = value ? 1 : 0
    try integer(&byte)
    guard byte < 2 else { throw .invalid("flag") }
    value = byte == 1
  }

  public mutating func value<T: Coded>(_ value: inout T) throws(ProtocolError) {
    try value.code(&self)
  }
}

extension String: Coded {
  public mutating func code(_ coder: inout some Coder) throws(ProtocolError) { try coder.text(&self) }
}

/// Writes fields into `bytes`.
public struct ByteWriter: Coder {
  public private(set) var bytes: [UInt8] = []

  public init() { bytes.reserveCapacity(1024) }

  public mutating func integer<T: FixedWidthInteger>(_ value: inout T) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }

  public mutating func bytes(_ value: inout [UInt8]) {
    length(value.count)
    bytes.append(contentsOf: value)
  }

  public mutating func text(_ value: inout String) {
    length(value.utf8.count)
    bytes.append(contentsOf: value.utf8)
  }

  public mutating func array<T: Coded>(_ value: inout [T]) throws(ProtocolError) {
    length(value.count)
    for index in value.indices { try value[index].code(&self) }
  }

  private mutating func length(_ count: Int) {
    var length = UInt32(truncatingIfNeeded: count)
    integer(&length)
  }
}

/// Reads fields from bytes of any origin: no length is believed before it is compared with what is there.
public struct ByteReader: Coder {
  private let source: [UInt8]
  private var offset = 0

  public init(_ bytes: [UInt8]) { source = bytes }

  public var remaining: Int { source.count - offset }

  public mutating func integer<T: FixedWidthInteger>(_ value: inout T) throws(ProtocolError) {
    let size = MemoryLayout<T>.size
    guard remaining >= size else { throw .truncated }
    value = T(littleEndian: source.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: T.self) })
    offset += size
  }

  public mutating func bytes(_ value: inout [UInt8]) throws(ProtocolError) {
    value = Array(try slice())
  }

  public mutating func text(_ value: inout String) throws(ProtocolError) {
    value = String(decoding: try slice(), as: UTF8.self)
  }

  public mutating func array<T: Coded>(_ value: inout [T]) throws(ProtocolError) {
    let count = try length()
    value = []
    // Every element takes at least a byte, so a count beyond what remains is a lie that must not reserve memory.
    guard count <= remaining else { throw .truncated }
    value.reserveCapacity(min(count, 64))
    for _ in 0..<count {
      var element = T()
      try element.code(&self)
      value.append(element)
    }
  }

  private mutating func length() throws(ProtocolError) -> Int {
    var length: UInt32 = 0
    try integer(&length)
    return Int(length)
  }

  private mutating func slice() throws(ProtocolError) -> ArraySlice<UInt8> {
    let count = try length()
    guard count <= remaining else { throw .truncated }
    defer { offset += count }
    return source[offset..<offset + count]
  }
}
