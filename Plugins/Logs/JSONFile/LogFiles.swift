import CLinux
import Glibc
import LinuxSystem

/// An open file of a log. The inode tells it from the others when names change by rotation.
final class LogFile: Sendable {
  let descriptor: OwnedDescriptor
  let inode: UInt64

  init?(_ path: String) {
    guard let opened = try? Files.open(path, O_RDONLY) else { return nil }
    var status = stat()
    guard fstat(opened.number, &status) == 0 else { return nil }
    descriptor = opened
    inode = UInt64(status.st_ino)
  }

  var size: Int {
    var status = stat()
    return fstat(descriptor.number, &status) == 0 ? Int(status.st_size) : 0
  }

  func read(_ buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(SystemCallError) -> Int {
    try SystemCallError.check("pread", "the log") {
      pread(descriptor.number, buffer.baseAddress, buffer.count, off_t(offset))
    }
  }
}

/// The files of one log: the newest has the plain name, older ones `.1`, `.2` and so on.
struct LogFiles: Sendable {
  let directory: String
  let name: String

  var path: String { "\(directory)/\(name)" }

  /// Every file, oldest first. Opened from the newest on, so that a rotation meanwhile shows one file twice (which is
  /// passed over) rather than not at all.
  func open() -> [LogFile] {
    var files: [LogFile] = []
    var seen: Set<UInt64> = []
    let rotated = ((try? Files.list(directory)) ?? []).compactMap { entry -> Int? in
      entry.hasPrefix("\(name).") ? Int(entry.dropFirst(name.utf8.count + 1)) : nil
    }
    // One more than there are: a rotation may have moved the last.
    let last = (rotated.max() ?? 0) + 1
    for path in [path] + (1...last).map({ "\(path).\($0)" }) {
      if let file = LogFile(path), seen.insert(file.inode).inserted { files.append(file) }
    }
    return files.reversed()
  }

  /// The file that was begun after `file`, or nil while `file` is the newest.
  func next(after file: LogFile) -> LogFile? {
    guard let status = Files.status(path), UInt64(status.st_ino) != file.inode else { return nil }
    let files = open()
    guard let index = files.firstIndex(where: { $0.inode == file.inode }) else { return files.first }
    return index + 1 < files.count ? files[index + 1] : nil
  }

  /// Where the last `count` lines begin: an index into `files` and an offset in that file.
  static func tail(_ count: Int, of files: [LogFile]) throws(SystemCallError) -> (index: Int, offset: Int) {
    var missing = count
    if count <= 0, let last = files.last { return (files.count - 1, last.size) }
    let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
    defer { chunk.deallocate() }
    for index in files.indices.reversed() {
      var end = files[index].size
      // The newline that ends the last line does not begin another one.
      var isEnd = true
      while end > 0 {
        let start = max(0, end - chunk.count)
        let length = end - start
        let read = try files[index].read(UnsafeMutableRawBufferPointer(rebasing: chunk[..<length]), at: start)
        for position in stride(from: min(read, length) - 1, through: 0, by: -1) where chunk[position] == 10 {
          if isEnd {
            isEnd = false
            missing -= 1
            continue
          }
          if missing == 0 { return (index, start + position + 1) }
          missing -= 1
        }
        end = start
      }
      if missing <= 0 { return (index, 0) }
    }
    return (0, 0)
  }
}
