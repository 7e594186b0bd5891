import CArchive
import CLinux
import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// The members of an archive of images, kept in a directory of the store until the load is over: they come in any order,
/// and what says what they are comes last.
final class ArchiveSpool {
  private enum Member {
    /// The number of a file in the directory.
    case file(Int)
    /// Another member: `docker save` of old wrote links to layers that several images share.
    case alias(String)
  }

  /// Of the JSON members. Docker's own are a few kilobytes.
  static let documentLimit = 8 << 20
  static let memberLimit = 100_000

  private let directory: String
  /// Bytes that one member may have.
  private let limit: Int64
  /// A layout that is a directory of somebody else's, read where it is.
  private var layout: Descriptor?
  private let subject = "the archive"
  private var members: [String: Member] = [:]
  private var files = 0

  /// - Parameters:
  ///   - directory: an empty directory that the caller removes.
  ///   - limit: bytes that one member may have.
  init(directory: String, limit: Int64) {
    self.directory = directory
    self.limit = limit
  }

  /// Reads the whole stream, compressed or not.
  ///
  /// - Throws: `invalidArgument` for an archive that is damaged or hostile, `resourceExhausted` for a full disk.
  func fill(from descriptor: Int32, interruption: Interruption) throws(EngineError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)
    defer { buffer.deallocate() }
    let reader = try ArchiveReader(.tar, decompressing: true, subject: subject) { () throws(EngineError) in
      UnsafeRawBufferPointer(rebasing: buffer[..<(try interruption.read(descriptor, into: buffer))])
    }
    while try reader.next() {
      guard let entry = reader.entry, let name = archive_entry_pathname(entry) else {
        throw refusal("?", "an entry without a name")
      }
      try add(entry, String(cString: name), reader)
      if members.count > Self.memberLimit { throw refusal("?", "more than \(Self.memberLimit) members") }
    }
    if members.isEmpty { throw EngineError(.invalidArgument, "the archive is empty or not a tar archive") }
    // Writers pad an archive beyond its end; one that still writes would die of SIGPIPE.
    var padding = 0
    while padding < 1 << 20 {
      let count = try interruption.read(descriptor, into: buffer)
      if count == 0 { break }
      padding += count
    }
  }

  private func add(_ entry: OpaquePointer, _ name: String, _ reader: ArchiveReader) throws(EngineError) {
    guard let path = Self.normalise(name, from: "") else { throw refusal(name, "its name leads out of the archive") }
    if let target = archive_entry_hardlink(entry).map({ String(cString: $0) }) {
      guard let other = Self.normalise(target, from: "") else {
        throw refusal(name, "the target of its link leads out of the archive: \(target)")
      }
      if other != path { members[path] = .alias(other) }
      return
    }
    switch archive_entry_filetype(entry) {
    case S_IFDIR: return
    case S_IFLNK:
      let target = archive_entry_symlink(entry).map { String(cString: $0) } ?? ""
      let holder = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
      guard let other = Self.normalise(target, from: holder) else {
        throw refusal(name, "the target of its link leads out of the archive: \(target)")
      }
      members[path] = .alias(other)
    case S_IFREG:
      files += 1
      try write(reader, name, to: "\(directory)/\(files)")
      members[path] = .file(files)
    default: throw refusal(name, "it is neither a file, a directory nor a link")
    }
  }

  private func write(_ reader: ArchiveReader, _ name: String, to path: String) throws(EngineError) {
    do {
      let file = try Files.open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
      while let (bytes, offset) = try reader.block() {
        if offset > limit - Int64(bytes.count) {
          throw EngineError(
            .resourceExhausted, "the archive is refused: \"\(name)\" is larger than the \(limit) bytes allowed")
        }
        var done = 0
        while done < bytes.count {
          done += try SystemCallError.check("write", path) {
            pwrite(file.number, bytes.baseAddress?.advanced(by: done), bytes.count - done, off_t(offset) + done)
          }
        }
      }
    } catch let error as SystemCallError {
      throw Storage.error("the archive cannot be stored", error)
    } catch {
      throw EngineError(wrapping: error)
    }
  }

  private func refusal(_ name: String, _ why: String) -> EngineError {
    EngineError(.invalidArgument, "the archive is refused: entry \"\(name)\": \(why)")
  }

  /// A path within the archive, whose root is `/` for absolute ones.
  ///
  /// - Returns: nil for a relative path that leads above the root.
  private static func normalise(_ path: String, from holder: String) -> String? {
    let isAbsolute = path.hasPrefix("/")
    var components = isAbsolute ? [] : holder.split(separator: "/")
    for component in path.split(separator: "/") where component != "." {
      if component == ".." {
        if components.isEmpty && !isAbsolute { return nil }
        _ = components.popLast()
      } else {
        components.append(component)
      }
    }
    return components.joined(separator: "/")
  }

  // MARK: Reading

  /// Reads members from a directory instead of an archive.
  func read(layout: Descriptor) { self.layout = layout }

  func has(_ name: String) -> Bool {
    if layout != nil { return (try? open(name)) != nil }
    return (try? file(name)) != nil
  }

  /// The path of a member's bytes in this spool, or nil where they are not in it.
  func path(_ name: String) throws(EngineError) -> String? {
    layout == nil ? "\(directory)/\(try file(name))" : nil
  }

  /// Opens a member for reading.
  ///
  /// - Throws: `invalidArgument` that names a member that is not there.
  func open(_ name: String) throws(EngineError) -> Descriptor {
    if let layout { return try open(name, in: layout) }
    do {
      return Descriptor(adopting: try Files.open("\(directory)/\(try file(name))", O_RDONLY).release())
    } catch {
      throw EngineError(wrapping: error)
    }
  }

  /// Only regular files beneath the directory, through no link.
  private func open(_ name: String, in layout: Descriptor) throws(EngineError) -> Descriptor {
    var how = open_how()
    how.flags = UInt64(UInt32(bitPattern: O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC))
    how.resolve = UInt64(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    let file = Descriptor(adopting: linux_openat2(layout.number, name, &how))
    var status = stat()
    guard file.number >= 0, fstat(file.number, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      throw EngineError(.invalidArgument, "the archive is not complete: \(name) is missing")
    }
    return file
  }

  private func attemptOpen(_ name: String, _ layout: Descriptor) throws(SystemCallError) -> Descriptor {
    do throws(EngineError) {
      return try open(name, in: layout)
    } catch {
      throw SystemCallError(call: "openat2", subject: name, number: ENOENT)
    }
  }

  /// The content of a JSON member.
  func document(_ name: String) throws(EngineError) -> [UInt8] {
    if let layout {
      do throws(SystemCallError) {
        let file = try attemptOpen(name, layout)
        defer { withExtendedLifetime(file) {} }
        return try Files.readAll(file.number, subject: name, limit: Self.documentLimit)
      } catch {
        throw error.number == EFBIG
          ? refusal(name, "it is larger than \(Self.documentLimit >> 20) MiB")
          : EngineError(.invalidArgument, "the archive is not complete: \(name): \(error.reason)")
      }
    }
    let path = "\(directory)/\(try file(name))"
    do {
      return try Files.read(path, limit: Self.documentLimit)
    } catch  where error.number == EFBIG {
      throw refusal(name, "it is larger than \(Self.documentLimit >> 20) MiB")
    } catch {
      throw Storage.error("the archive cannot be read", error)
    }
  }

  private func file(_ name: String) throws(EngineError) -> Int {
    var wanted = Self.normalise(name, from: "") ?? ""
    // Links to links end somewhere, or are a ring.
    for _ in 0..<16 {
      switch members[wanted] {
      case .file(let number): return number
      case .alias(let other): wanted = other
      case nil: throw EngineError(.invalidArgument, "the archive is not complete: \(name) is missing")
      }
    }
    throw refusal(name, "its links lead in a ring")
  }
}
