import Glibc

/// Writes tar archives as nobody should, for the tests: any name, any type, any link.
struct TarWriter {
  private(set) var bytes: [UInt8] = []

  mutating func add(
    _ name: [UInt8], type: Character = "0", mode: Int = 0o644, uid: Int = 0, gid: Int = 0, link: String = "",
    data: [UInt8] = [], time: Int = 1_700_000_000, device: (Int, Int) = (0, 0), attributes: [String: [UInt8]] = [:],
    extended: [String: String] = [:]
  ) {
    let fields =
      attributes.map { ("SCHILY.xattr.\($0.key)", $0.value) } + extended.map { ($0.key, Array($0.value.utf8)) }
    if !fields.isEmpty {
      var records: [UInt8] = []
      for (key, value) in fields.sorted(by: { $0.0 < $1.0 }) {
        let body = Array(" \(key)=".utf8) + value + [10]
        var length = body.count + 1
        while String(length).utf8.count + body.count != length { length = String(length).utf8.count + body.count }
        records += Array(String(length).utf8) + body
      }
      header(Array("PaxHeaders/x".utf8), "x", 0o644, 0, 0, "", records.count, time, (0, 0))
      append(records)
    }
    header(name, type, mode, uid, gid, link, data.count, time, device)
    append(data)
  }

  mutating func add(
    _ name: String, type: Character = "0", mode: Int = 0o644, uid: Int = 0, gid: Int = 0, link: String = "",
    text: String = "", device: (Int, Int) = (0, 0), attributes: [String: [UInt8]] = [:]
  ) {
    add(
      Array(name.utf8), type: type, mode: mode, uid: uid, gid: gid, link: link, data: Array(text.utf8), device: device,
      attributes: attributes)
  }

  /// A sparse file as GNU tar writes it (format 1.0): a map of pieces, then the pieces.
  mutating func sparse(_ name: String, size: Int64, pieces: [(offset: Int64, bytes: [UInt8])]) {
    var map = Array("\(pieces.count)\n".utf8)
    for piece in pieces { map += Array("\(piece.offset)\n\(piece.bytes.count)\n".utf8) }
    map += [UInt8](repeating: 0, count: (512 - map.count % 512) % 512)
    add(
      Array("GNUSparseFile.0/\(name)".utf8), data: map + pieces.flatMap(\.bytes),
      extended: [
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": "\(size)",
      ])
  }

  mutating func directory(_ name: String, mode: Int = 0o755, uid: Int = 0, gid: Int = 0) {
    add(name, type: "5", mode: mode, uid: uid, gid: gid)
  }

  /// The archive with its end marker.
  var finished: [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }

  private mutating func append(_ data: [UInt8]) {
    bytes += data
    bytes += [UInt8](repeating: 0, count: (512 - data.count % 512) % 512)
  }

  private mutating func header(
    _ name: [UInt8], _ type: Character, _ mode: Int, _ uid: Int, _ gid: Int, _ link: String, _ size: Int, _ time: Int,
    _ device: (Int, Int)
  ) {
    precondition(name.count <= 100 && link.utf8.count <= 100)
    var block = [UInt8](repeating: 0, count: 512)
    func put(_ offset: Int, _ text: [UInt8]) { for (index, byte) in text.enumerated() { block[offset + index] = byte } }
    func octal(_ value: Int, _ width: Int) -> [UInt8] {
      let text = String(value, radix: 8)
      return Array((String(repeating: "0", count: width - 1 - text.count) + text).utf8)
    }
    put(0, name)
    put(100, octal(mode, 8))
    put(108, octal(uid, 8))
    put(116, octal(gid, 8))
    put(124, octal(size, 12))
    put(136, octal(time, 12))
    put(148, Array("        ".utf8))
    put(156, [type.asciiValue ?? 48])
    put(157, Array(link.utf8))
    put(257, Array("ustar".utf8) + [0, 48, 48])
    put(329, octal(device.0, 8))
    put(337, octal(device.1, 8))
    put(148, octal(block.reduce(0) { $0 + Int($1) }, 7) + [0, 32])
    bytes += block
  }
}
