import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// Manifests, configurations and layers as they came, under their digests: `blobs/sha256` holds what images are made of,
/// `ingest` what is on its way. A blob goes from one to the other with one rename(2), after it was verified and before the
/// image is recorded; what is in `ingest` may be half a blob, and is resumed by whoever wants it next.
final class ContentStore: Sendable {
  let blobs: String
  let ingest: String
  let locks = BlobLocks()
  /// Seconds that what nobody works on stays in `ingest`.
  private let lifetime: Int
  /// Blobs in `ingest` that this engine has verified, and that no image has yet.
  private let verified = Mutex<Set<Digest>>([])

  init(directory: String, lifetime: Int) {
    blobs = "\(directory)/blobs/sha256"
    ingest = "\(directory)/ingest"
    self.lifetime = lifetime
  }

  func prepare() throws(EngineError) {
    do {
      try Files.makeDirectories(blobs)
      try Files.makeDirectories(ingest)
    } catch {
      throw EngineError(.internalFailure, "the images cannot be kept: \(error)")
    }
  }

  func blob(_ digest: Digest) -> String { "\(blobs)/\(digest.hex)" }
  func ingestion(_ digest: Digest) -> String { "\(ingest)/\(digest.hex)" }
  func has(_ digest: Digest) -> Bool { Files.exists(blob(digest)) }

  /// Opens a blob that is whole and verified, wherever it lies; nil where there is none.
  func openWhole(_ digest: Digest) -> Descriptor? {
    for _ in 0..<2 {
      let path = has(digest) ? blob(digest) : verified.withLock { $0.contains(digest) } ? ingestion(digest) : nil
      guard let path else { return nil }
      // It may move from one place to the other meanwhile, once.
      if let file = try? Files.open(path, O_RDONLY) { return Descriptor(adopting: file.release()) }
    }
    return nil
  }

  /// Opens what an image needs.
  ///
  /// - Throws: `corrupt` when it is not there.
  func open(_ digest: Digest) throws(EngineError) -> Descriptor {
    if let file = openWhole(digest) { return file }
    throw EngineError(.corrupt, "the content \(digest) of the image is missing: pull or load the image again")
  }

  /// What is in `ingest` under this digest is whole.
  func markVerified(_ digest: Digest) { verified.withLock { _ = $0.insert(digest) } }

  func read(_ digest: Digest, limit: Int = 16 << 20) throws(EngineError) -> [UInt8] {
    do {
      return try Files.read(blob(digest), limit: limit)
    } catch {
      throw EngineError(.corrupt, "the content \(digest) of the image does not read: \(error)")
    }
  }

  /// Moves verified blobs to where images keep theirs.
  ///
  /// - Returns: those that were moved, for `withdraw`.
  func commit(_ digests: Set<Digest>) throws(EngineError) -> [Digest] {
    var moved: [Digest] = []
    for digest in digests.sorted() where !has(digest) {
      if rename(ingestion(digest), blob(digest)) < 0 {
        let number = errno
        withdraw(moved)
        throw Storage.error(
          "the image cannot be stored",
          SystemCallError(call: "rename", subject: ingestion(digest), number: number))
      }
      moved.append(digest)
      verified.withLock { _ = $0.remove(digest) }
    }
    return moved
  }

  /// Writes back the file system that the blobs are on.
  func sync() throws(EngineError) {
    do {
      try Files.syncFileSystem(of: blobs)
    } catch {
      throw Storage.error("the blobs cannot be synced", error)
    }
  }

  /// Undoes `commit`.
  func withdraw(_ digests: [Digest]) {
    for digest in digests where rename(blob(digest), ingestion(digest)) == 0 { markVerified(digest) }
  }

  /// Gives a verified file to `ingest` under its digest.
  ///
  /// - Parameter keepsPath: the file is linked rather than renamed.
  func adopt(_ path: String, as digest: Digest, keepsPath: Bool) async throws(EngineError) {
    let unlock = try await locks.acquire(digest)
    defer { unlock() }
    if has(digest) || verified.withLock({ $0.contains(digest) }) {
      if !keepsPath { unlink(path) }
      return
    }
    unlink(ingestion(digest))
    let result = keepsPath ? link(path, ingestion(digest)) : rename(path, ingestion(digest))
    if result < 0 {
      let number = errno
      throw Storage.error(
        "the image cannot be stored", SystemCallError(call: "link", subject: ingestion(digest), number: number))
    }
    markVerified(digest)
  }

  /// A file in `ingest` for a blob whose digest is not known yet.
  func makeTemporary() throws(EngineError) -> (path: String, file: Descriptor) {
    let path = "\(ingest)/new-\(ObjectID.random().short)"
    do {
      let file = try Files.open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND, mode: 0o600)
      return (path, Descriptor(adopting: file.release()))
    } catch {
      throw Storage.error("the image cannot be stored", error)
    }
  }

  func discard(_ digest: Digest) {
    verified.withLock { _ = $0.remove(digest) }
    unlink(ingestion(digest))
  }

  /// Removes blobs that no image needs.
  ///
  /// - Returns: the bytes that were freed.
  @discardableResult
  func remove(_ digests: some Sequence<Digest>) -> Int64 {
    var freed: Int64 = 0
    for digest in digests {
      let size = Files.status(blob(digest)).map { Int64($0.st_size) } ?? 0
      if unlink(blob(digest)) == 0 { freed += size }
    }
    return freed
  }

  /// Blobs beside those that are needed.
  func unneeded(_ needed: Set<Digest>) throws(EngineError) -> [String] {
    let known = Set(needed.map(\.hex))
    return try list(blobs).filter { !known.contains($0) }.sorted().map { "\(blobs)/\($0)" }
  }

  /// What in `ingest` is too old to be resumed, or is nothing that anybody would resume.
  ///
  /// - Parameter isBusy: work is going on that owns files without a digest.
  func expired(isBusy: Bool) throws(EngineError) -> [String] {
    let held = locks.held
    let now = time(nil)
    return try list(ingest).filter { name in
      guard let digest = Digest(hex: name) else { return !isBusy }
      if held.contains(digest) { return false }
      guard let status = Files.status("\(ingest)/\(name)") else { return false }
      return now - status.st_mtim.tv_sec > lifetime
    }.sorted().map { "\(ingest)/\($0)" }
  }

  private func list(_ path: String) throws(EngineError) -> [String] {
    do {
      return try Files.list(path)
    } catch {
      throw EngineError(.internalFailure, "the blobs cannot be listed: \(error)")
    }
  }
}
