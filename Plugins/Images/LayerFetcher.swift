import CLinux
import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// One layer of an image that is to be here: where it lies, and what its content must be.
struct LayerPlan: Sendable {
  /// The chain ID of the layer below.
  var parent: Digest?
  var chain: Digest
  var differenceID: Digest
  var blob: ContentDescriptor

  /// The layers of an image, lowest first.
  ///
  /// - Throws: `invalidArgument` when configuration and manifest do not fit.
  static func list(
    _ configuration: ImageConfiguration, _ blobs: [ContentDescriptor]
  ) throws(EngineError) -> [LayerPlan] {
    let differences = configuration.rootfs.differenceIDs
    guard differences.count == blobs.count else {
      throw EngineError(
        .invalidArgument,
        "invalid manifest, layers length mismatch: expected \(differences.count), got \(blobs.count)")
    }
    var plans: [LayerPlan] = []
    for (difference, blob) in zip(differences, blobs) {
      let parent = plans.last?.chain
      // OCI image specification, config.md, "Layer ChainID".
      let chain = try parent.map { (parent) throws(EngineError) in
        try SHA256.digest(of: Array("\(parent) \(difference)".utf8))
      }
      plans.append(LayerPlan(parent: parent, chain: chain ?? difference, differenceID: difference, blob: blob))
    }
    return plans
  }
}

/// Fetches layers from registries and has them unpacked while they come.
final class LayerFetcher: Sendable {
  private let host: PluginHost
  private let content: ContentStore
  private let settings: ImageSettings
  private let jobs: LayerJobs
  private let places: AsyncSemaphore
  private let downloads: AsyncSemaphore

  init(host: PluginHost, content: ContentStore, settings: ImageSettings) {
    self.host = host
    self.content = content
    self.settings = settings
    jobs = LayerJobs(executor: host.bus.executor)
    places = AsyncSemaphore(settings.layers)
    downloads = AsyncSemaphore(settings.downloads)
  }

  /// Makes a layer's blob and its unpacked form be here, together with whoever else wants the same.
  func fetch(
    _ plan: LayerPlan, from repository: RegistryRepository, tell: @escaping LayerJobs.Tell
  ) async throws(EngineError) -> SnapshotApply.Reply {
    try await jobs.run(LayerJobs.Key(chain: plan.chain, blob: plan.blob.digest), tell: tell) {
      (tell) async throws(EngineError) in
      // The order in which layers get their places is that of the image, so none waits for one that gets none.
      try await self.places.acquire()
      defer { self.places.release() }
      do throws(EngineError) {
        return try await self.transfer(plan, repository, tell)
      } catch  where error == Self.staleIngestion {
        // What an earlier pull left did not fit; nothing of it is left now.
        return try await self.transfer(plan, repository, tell)
      }
    }
  }

  /// What is thrown once when bytes of an earlier pull were not those of the blob.
  private static let staleIngestion = EngineError(.corrupt, "the blob was begun with other bytes")

  private func transfer(
    _ plan: LayerPlan, _ repository: RegistryRepository, _ tell: @escaping LayerJobs.Tell
  ) async throws(EngineError) -> SnapshotApply.Reply {
    let item = plan.blob.digest.short
    try await downloads.acquire()
    let lock = Releasing { [downloads] in downloads.release() }
    defer { lock.release() }
    let blob = Releasing(try await content.locks.acquire(plan.blob.digest))
    defer { blob.release() }

    let interruption = try Interruption()
    let source = try openSource(plan.blob)
    let call = Call(bus: host.bus)
    // The second pipe is made only when the first is owned, so that a process without descriptors loses none.
    var downloadEnd: Int32?
    var inputs = source.inputs
    if source.missing > 0 {
      let incoming = try Pipes.make()
      inputs.append(Descriptor(adopting: incoming.reading))
      downloadEnd = incoming.writing
    }
    var ends: (reading: Int32, writing: Int32)
    do throws(EngineError) {
      ends = try Pipes.make()
    } catch {
      if let downloadEnd { close(downloadEnd) }
      throw error
    }
    Pipes.makeNonBlocking(&ends.writing)
    let pump = LayerPump(
      inputs: inputs, kept: source.missing > 0 ? source.kept : nil, total: plan.blob.size, limit: settings.layerLimit,
      subject: "the layer \(plan.blob.digest.short)", interruption: interruption,
      progress: { tell(ImageProgress(item: item, status: "Downloading", current: $0, total: plan.blob.size)) })
    inputs = []
    let (reading, writing, sink) = (ends.reading, ends.writing, downloadEnd)
    tell(ImageProgress(item: item, status: "Downloading", current: 0, total: plan.blob.size))

    let results = await withTaskCancellationHandler {
      async let fetched = attempt { () async throws(EngineError) -> Int64 in
        guard let sink else { return 0 }
        return try await call.request(
          RegistryBlobGet(
            repository: repository, digest: plan.blob.digest, size: plan.blob.size,
            offset: plan.blob.size - source.missing, sink: Descriptor(adopting: sink)))
      }
      async let pumped = attempt { () async throws(EngineError) -> Void in
        let outcome = try pump.run(output: OwnedDescriptor(adopting: writing))
        try self.verify(outcome, plan.blob, source)
        // The blob is whole. Of one that is not, the lock is held until it is known whether its bytes are any good.
        blob.release()
        lock.release()
        FaultPoint.reach("images.pull.fetched")
        tell(ImageProgress(item: item, status: "Download complete"))
        tell(ImageProgress(item: item, status: "Extracting"))
      }
      let applied = await attempt { () async throws(EngineError) in
        try await call.request(
          SnapshotApply(
            parent: plan.parent, differenceID: plan.differenceID, archive: Descriptor(adopting: reading),
            waitsForParent: plan.parent != nil, limit: settings.layerLimit))
      }
      return await (fetched, pumped, applied)
    } onCancel: {
      interruption.interrupt()
    }
    await call.lease.release()
    if source.kept != nil, Self.isDamaged(results.0, results.1, results.2) {
      content.discard(plan.blob.digest)
      if source.isResumed { throw Self.staleIngestion }
    }
    FaultPoint.reach("images.pull.layer")
    let reply = try Self.outcome(results.0, results.1, results.2)
    tell(ImageProgress(item: item, status: "Pull complete"))
    return reply
  }

  /// Whether what came of a blob is not what it should be, so that a later pull must not go on with it: it does not
  /// uncompress or unpack, and not because the registry gave less than all of it.
  private static func isDamaged(
    _ fetched: Result<Int64, EngineError>, _ pumped: Result<Void, EngineError>,
    _ applied: Result<SnapshotApply.Reply, EngineError>
  ) -> Bool {
    func code<Value>(_ result: Result<Value, EngineError>) -> EngineError.Code? {
      if case .failure(let error) = result { return error.code }
      return nil
    }
    guard let pump = code(pumped), code(fetched) == nil || code(fetched) == .cancelled else { return false }
    return pump == .invalidArgument || (pump == .cancelled && code(applied) == .invalidArgument)
  }

  /// The error that caused the others: the registry's, then the stream's, then the unpacker's.
  private static func outcome(
    _ fetched: Result<Int64, EngineError>, _ pumped: Result<Void, EngineError>,
    _ applied: Result<SnapshotApply.Reply, EngineError>
  ) throws(EngineError) -> SnapshotApply.Reply {
    if case .failure(let error) = pumped, error == staleIngestion { throw error }
    if case .failure(let error) = fetched, error.code != .cancelled { throw error }
    if case .failure(let error) = pumped, error.code != .cancelled { throw error }
    if case .failure(let error) = applied, error.code != .cancelled { throw error }
    _ = try fetched.get()
    let reply = try applied.get()
    try pumped.get()
    return reply
  }

  // MARK: Blobs

  /// Where a blob's bytes come from.
  private struct Source: Sendable {
    /// What is here.
    var inputs: [Descriptor]
    /// Where the rest is kept; nil when all is here and verified.
    var kept: Descriptor?
    /// Bytes that the registry has to give.
    var missing: Int64
    /// Some of it is from an earlier pull.
    var isResumed: Bool
  }

  static func wrongSize(_ blob: ContentDescriptor) -> EngineError {
    EngineError(
      .invalidArgument, "the manifest is refused: it says that \(blob.digest) has \(blob.size) bytes, which it has not")
  }

  private func openSource(_ blob: ContentDescriptor) throws(EngineError) -> Source {
    if let file = content.openWhole(blob.digest) {
      var status = stat()
      guard fstat(file.number, &status) == 0, Int64(status.st_size) == blob.size else {
        throw Self.wrongSize(blob)
      }
      return Source(inputs: [file], kept: nil, missing: 0, isResumed: false)
    }
    let path = content.ingestion(blob.digest)
    do throws(SystemCallError) {
      let kept = Descriptor(adopting: try Files.open(path, O_WRONLY | O_CREAT | O_APPEND, mode: 0o600).release())
      var status = stat()
      try SystemCallError.check("fstat", path) { fstat(kept.number, &status) }
      var present = Int64(status.st_size)
      if present > blob.size {
        try SystemCallError.check("ftruncate", path) { ftruncate(kept.number, 0) }
        present = 0
      }
      FaultPoint.reach("images.pull.ingest")
      let inputs =
        present > 0 ? [Descriptor(adopting: try Files.open(path, O_RDONLY).release())] : []
      // What is here is read to the size it has now, not to where what follows is being appended.
      let bounded = present > 0 && present < blob.size ? try Self.bounded(inputs, present, path) : inputs
      return Source(inputs: bounded, kept: kept, missing: blob.size - present, isResumed: present > 0)
    } catch {
      throw Storage.error("the layer \(blob.digest.short) cannot be stored", error)
    }
  }

  /// A pipe that gives the first bytes of a file, filled by a thread that ends with them.
  private static func bounded(
    _ files: [Descriptor], _ count: Int64, _ path: String
  ) throws(SystemCallError) -> [Descriptor] {
    guard let file = files.first else { return [] }
    var ends: [Int32] = [0, 0]
    try SystemCallError.check("pipe2") { pipe2(&ends, O_CLOEXEC) }
    let reading = Descriptor(adopting: ends[0])
    let writing = Descriptor(adopting: ends[1])
    let started = Thread.start {
      var signals = sigset_t()
      sigemptyset(&signals)
      sigaddset(&signals, SIGPIPE)
      pthread_sigmask(SIG_BLOCK, &signals, nil)
      var offset: off_t = 0
      while offset < Int(count) {
        let moved = splice(file.number, &offset, writing.number, nil, min(Int(count) - offset, 1 << 20), 0)
        if moved < 0 && errno == EINTR { continue }
        if moved <= 0 { break }
      }
      withExtendedLifetime((file, writing)) {}
    }
    guard started else { throw SystemCallError(call: "pthread_create", subject: path, number: EAGAIN) }
    return [reading]
  }

  private func verify(
    _ outcome: LayerPump.Outcome, _ blob: ContentDescriptor, _ source: Source
  ) throws(EngineError) {
    if outcome.size < blob.size {
      throw EngineError(
        .unavailable, "the layer \(blob.digest.short) is cut short: \(outcome.size) of \(blob.size) bytes came")
    }
    if outcome.digest == blob.digest {
      if source.kept != nil { content.markVerified(blob.digest) }
      return
    }
    guard source.kept != nil else {
      throw EngineError(
        .corrupt, "the blob \(content.blob(blob.digest)) is damaged: remove the images that use it and pull again")
    }
    content.discard(blob.digest)
    if source.isResumed { throw Self.staleIngestion }
    throw EngineError(
      .invalidArgument,
      "filesystem layer verification failed for digest \(blob.digest): what came has the digest \(outcome.digest)")
  }

  /// A small blob, whole in memory: a configuration.
  func document(
    _ blob: ContentDescriptor, from repository: RegistryRepository, limit: Int64, subject: String, _ call: Call
  ) async throws(EngineError) -> [UInt8] {
    if content.has(blob.digest) {
      let bytes = try content.read(blob.digest)
      guard Int64(bytes.count) == blob.size else { throw Self.wrongSize(blob) }
      return bytes
    }
    guard blob.size <= limit else {
      throw EngineError(
        .invalidArgument, "\(subject) is refused: it says it has \(blob.size) bytes; \(limit) are allowed")
    }
    let interruption = try Interruption()
    let ends = try Pipes.make()
    let reading = Descriptor(adopting: ends.reading)
    let (fetched, read) = await withTaskCancellationHandler {
      async let fetched = attempt { () async throws(EngineError) -> Int64 in
        try await call.request(
          RegistryBlobGet(
            repository: repository, digest: blob.digest, size: blob.size, offset: 0,
            sink: Descriptor(adopting: ends.writing)))
      }
      async let read = attempt { () async throws(EngineError) -> [UInt8] in
        var bytes: [UInt8] = []
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
        defer { chunk.deallocate() }
        while Int64(bytes.count) <= blob.size {
          let count = try interruption.read(reading.number, into: chunk)
          if count == 0 { break }
          bytes += chunk[..<count]
        }
        return bytes
      }
      return await (fetched, read)
    } onCancel: {
      interruption.interrupt()
    }
    _ = try fetched.get()
    let bytes = try read.get()
    guard Int64(bytes.count) == blob.size, try SHA256.digest(of: bytes) == blob.digest else {
      throw EngineError(.invalidArgument, "\(subject) is not what its digest \(blob.digest) says")
    }
    return bytes
  }
}

/// Something that is given back once.
final class Releasing: Sendable {
  private let body: Mutex<(@Sendable () -> Void)?>

  init(_ body: @escaping @Sendable () -> Void) { self.body = Mutex(body) }

  func release() {
    let body = body.withLock { body in
      defer { body = nil }
      return body
    }
    body?()
  }
}

enum Pipes {
  /// A pipe of 1 MiB, or of what the system allows.
  static func make() throws(EngineError) -> (reading: Int32, writing: Int32) {
    var ends: [Int32] = [0, 0]
    guard pipe2(&ends, O_CLOEXEC) == 0 else {
      throw EngineError(.resourceExhausted, "no descriptor left: \(SystemCallError.text(errno))")
    }
    // A pipe may not be enlarged beyond /proc/sys/fs/pipe-user-pages-soft; a small one only costs speed.
    _ = linux_fcntl(ends[1], F_SETPIPE_SZ, 1 << 20)
    return (ends[0], ends[1])
  }

  static func makeNonBlocking(_ end: inout Int32) { _ = linux_fcntl(end, F_SETFL, Int(O_WRONLY | O_NONBLOCK)) }
}
