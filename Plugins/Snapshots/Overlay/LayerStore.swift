import CLinux
import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// The unpacked layers: `layers/<chain ID>/diff` is a layer's tree and `layers/<chain ID>/layer` what is known of it.
/// A layer is unpacked under a temporary name and renamed when it is complete, so that there is never half a layer.
final class LayerStore: Sendable {
  /// What is known of a layer; kept as text beside its tree.
  struct Layer: Sendable {
    var differenceID: Digest
    /// The chain ID of the layer below; nil for the lowest.
    var parent: Digest?
    /// Bytes of its regular files.
    var size: Int64
    /// Of the tree's topmost directory; a layer that does not mention it has its parent's.
    var mode: mode_t
    var uid: uid_t
    var gid: gid_t
  }

  static let temporaryPrefix = "tmp-"

  let path: String
  private let host: PluginHost
  private let trash: Trash
  private let layers = Mutex<[Digest: Layer]>([:])
  private let unpacking = Mutex<Set<String>>([])
  private let arrivals = LayerArrivals()
  private let policy: UnpackPolicy
  private let view: LowerView

  init(path: String, host: PluginHost, trash: Trash, view: LowerView) {
    self.path = path
    self.host = host
    self.trash = trash
    self.view = view
    policy = UnpackPolicy(host.configuration)
  }

  /// Reads what is there. What a former engine or a power failure left half unpacked is thrown away.
  ///
  /// - Throws: `corrupt` that names the file that does not read.
  func load() throws(EngineError) {
    let names: [String]
    do {
      try Files.makeDirectory(path)
      InodePlacement.spread(path)
      names = try Files.list(path)
    } catch {
      throw EngineError(.internalFailure, "the layers cannot be listed: \(error)")
    }
    for name in names {
      if let chain = Digest(hex: name) {
        // A layer that was not synced before a power failure is a directory without what was written last. No image
        // relies on it.
        guard let status = Files.status("\(path)/\(name)/layer"), status.st_size > 0 else {
          host.log.error("the layer \(chain.short) is incomplete, as a power failure leaves it, and goes")
          try trash.throwAway("\(path)/\(name)")
          continue
        }
        let layer = try read(chain)
        layers.withLock { $0[chain] = layer }
      } else if name.hasPrefix(Self.temporaryPrefix) {
        try trash.throwAway("\(path)/\(name)")
      }
    }
    for entry in host.journal.entries(plugin: host.manifest.name, kind: "layer") where !Files.exists(entry.object) {
      try host.journal.end([entry.number])
    }
  }

  var all: [Digest] { layers.withLock { $0.keys.sorted() } }

  func layer(_ chain: Digest) throws(EngineError) -> Layer {
    if let layer = layers.withLock({ $0[chain] }) { return layer }
    throw EngineError(.notFound, "layer \(chain) is not unpacked here")
  }

  func tree(_ chain: Digest) -> String { "\(path)/\(chain.hex)/diff" }

  /// Names of directories that an unpacking in progress owns.
  var temporaries: Set<String> { unpacking.withLock { $0 } }

  // MARK: Applying

  func apply(
    _ request: SnapshotApply, interruption: Interruption
  ) throws(EngineError) -> SnapshotApply.Reply {
    let stream = HashedStream(request.archive.number, interruption: interruption)
    guard Thread.start({ stream.readAndHash() }) else {
      throw EngineError(.resourceExhausted, "no thread left to read the archive")
    }
    // The thread borrows the descriptor, which must therefore stay open until it ended.
    defer { withExtendedLifetime(request.archive) { stream.abandon() } }
    if let parent = request.parent, !request.waitsForParent { _ = try layer(parent) }
    if let differenceID = request.differenceID {
      let chain = try Self.chainID(parent: request.parent, differenceID: differenceID)
      if let layer = try? layer(chain) {
        let read = try stream.finish().digest
        try Self.compare(read, with: differenceID)
        return SnapshotApply.Reply(differenceID: differenceID, chainID: chain, size: layer.size)
      }
    }
    let name = "\(Self.temporaryPrefix)\(ObjectID.random().short)"
    let temporary = "\(path)/\(name)"
    unpacking.withLock { _ = $0.insert(name) }
    defer { unpacking.withLock { _ = $0.remove(name) } }
    let entry = try host.journal.begin(plugin: host.manifest.name, [("layer", temporary)])
    do throws(EngineError) {
      let reply = try unpack(request, from: stream, into: temporary, interruption)
      try host.journal.end(entry)
      return reply
    } catch {
      stream.abandon()
      do throws(SystemCallError) {
        try TreeRemover.remove(AT_FDCWD, temporary.utf8CString.map { $0 })
      } catch let second {
        throw EngineError(
          error.code, error.message,
          causes: [.init(code: .internalFailure, message: "what was unpacked stays: \(second)")])
      }
      try host.journal.end(entry)
      throw error
    }
  }

  private func unpack(
    _ request: SnapshotApply, from stream: HashedStream, into temporary: String, _ interruption: Interruption
  ) throws(EngineError) -> SnapshotApply.Reply {
    let root = try makeRoot(temporary)
    FaultPoint.reach("overlay.apply.directory")
    let reader = try ArchiveReader(.tar, decompressing: false, subject: "the layer") { () throws(EngineError) in
      try stream.next()
    }
    let extractor = LayerExtractor(
      root: root.number, reader: reader, isLowest: request.parent == nil, policy: policy,
      limit: request.limit ?? .max
    ) { () throws(EngineError) in
      if Task.isCancelled { throw EngineError(.cancelled, "interrupted") }
    }
    try extractor.run()
    FaultPoint.reach("overlay.apply.unpacked")
    let (digest, endsInZeros) = try stream.finish()
    if let differenceID = request.differenceID {
      try Self.compare(digest, with: differenceID)
    } else if !endsInZeros {
      throw EngineError(.invalidArgument, "the layer is cut short: it has no end-of-archive marker")
    }
    if let parent = request.parent {
      try arrivals.wait(for: parent, interruption) { layers.withLock { $0[parent] != nil } }
    }
    if extractor.needsLower, let parent = request.parent {
      let lower = try view.open(try chain(above: parent).map(tree))
      try extractor.settle(lower: lower.number)
      withExtendedLifetime(lower) {}
    } else {
      try extractor.settle(lower: -1)
    }
    let chain = try Self.chainID(parent: request.parent, differenceID: digest)
    var status = stat()
    guard fstat(root.number, &status) == 0 else {
      throw EngineError(.internalFailure, "fstat \(temporary): \(SystemCallError.text(errno))")
    }
    let layer = Layer(
      differenceID: digest, parent: request.parent, size: extractor.size, mode: status.st_mode & 0o7777,
      uid: status.st_uid,
      gid: status.st_gid)
    try publish(layer, as: chain, from: temporary)
    return SnapshotApply.Reply(differenceID: digest, chainID: chain, size: layer.size)
  }

  /// The layers from `top` down to the lowest.
  private func chain(above top: Digest) throws(EngineError) -> [Digest] {
    var result = [top]
    while let below = try layer(result[result.count - 1]).parent { result.append(below) }
    return result
  }

  private func makeRoot(_ temporary: String) throws(EngineError) -> OwnedDescriptor {
    do {
      try SystemCallError.check("mkdir", temporary) { mkdir(temporary, 0o700) }
      try SystemCallError.check("mkdir", temporary) { mkdir("\(temporary)/diff", 0o700) }
      let root = try Files.open("\(temporary)/diff", O_RDONLY | O_DIRECTORY)
      try SystemCallError.check("fchmod", temporary) { fchmod(root.number, 0o755) }
      return root
    } catch {
      throw Self.storageError("a layer cannot be stored", error)
    }
  }

  private func publish(_ layer: Layer, as chain: Digest, from temporary: String) throws(EngineError) {
    let text =
      "difference \(layer.differenceID)\nsize \(layer.size)\nroot \(String(layer.mode, radix: 8)) \(layer.uid) \(layer.gid)\n"
      + (layer.parent.map { "parent \($0)\n" } ?? "")
    do {
      let file = try Files.open("\(temporary)/layer", O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
      try Files.writeAll(file.number, Array(text.utf8), subject: "\(temporary)/layer")
      do {
        try SystemCallError.check("rename", temporary) { rename(temporary, "\(path)/\(chain.hex)") }
      } catch  where error.number == EEXIST || error.number == ENOTEMPTY {
        // Somebody else unpacked the same layer meanwhile; one of the two is enough.
        try TreeRemover.remove(AT_FDCWD, temporary.utf8CString.map { $0 })
      }
    } catch {
      throw Self.storageError("a layer cannot be stored", error)
    }
    FaultPoint.reach("overlay.apply.published")
    layers.withLock { $0[chain] = layer }
    arrivals.announce(chain)
  }

  // MARK: Removing

  func remove(_ chains: [Digest]) throws(EngineError) {
    for chain in chains {
      layers.withLock { _ = $0.removeValue(forKey: chain) }
      try trash.throwAway("\(path)/\(chain.hex)")
    }
  }

  // MARK: Reading and computing

  private func read(_ chain: Digest) throws(EngineError) -> Layer {
    let file = "\(path)/\(chain.hex)/layer"
    let text: String
    do {
      text = try Files.readText(file, limit: 4096)
    } catch {
      throw EngineError(.corrupt, "the layer \(chain.short) is damaged: \(error)")
    }
    let words = text.split(whereSeparator: { $0 == " " || $0 == "\n" })
    let parent = words.count == 10 && words[8] == "parent" ? Digest(String(words[9])) : nil
    guard words.count == 8 || parent != nil, words[0] == "difference", words[2] == "size", words[4] == "root",
      let difference = Digest(String(words[1])), let size = Int64(words[3]), let mode = mode_t(words[5], radix: 8),
      let uid = uid_t(words[6]), let gid = gid_t(words[7])
    else { throw EngineError(.corrupt, "the layer \(chain.short) is damaged: \(file) does not read") }
    return Layer(differenceID: difference, parent: parent, size: size, mode: mode, uid: uid, gid: gid)
  }

  /// OCI image specification, config.md, "Layer ChainID".
  static func chainID(parent: Digest?, differenceID: Digest) throws(EngineError) -> Digest {
    guard let parent else { return differenceID }
    return try SHA256.digest(of: Array("\(parent) \(differenceID)".utf8))
  }

  private static func compare(_ read: Digest, with expected: Digest) throws(EngineError) {
    if read == expected { return }
    throw EngineError(.invalidArgument, "the layer's digest is \(read), not \(expected) as the image says")
  }

  static func storageError(_ what: String, _ error: SystemCallError) -> EngineError {
    if error.number == ENOSPC || error.number == EDQUOT {
      return EngineError(.resourceExhausted, "\(what): no space left on device")
    }
    return EngineError(.internalFailure, "\(what): \(error)")
  }
}
