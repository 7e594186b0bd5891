import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// Fills an empty volume with what the image has where the volume is mounted.
///
/// An interrupted fill does not count: its entry stays open in the journal, and the volume is emptied and filled anew
/// when it is next mounted. (A power failure clears the journal with everything that ran; what was copied until then
/// stays, as with Docker.)
final class VolumeFill: Sendable {
  private let host: PluginHost
  private let store: VolumeStore
  /// Volume to journal number: fills that go on now, and those that were interrupted.
  private let unfinished: Mutex<[String: UInt64]>

  private static let kind = "fill"

  init(host: PluginHost, store: VolumeStore) {
    self.host = host
    self.store = store
    var open: [String: UInt64] = [:]
    for entry in host.journal.entries(plugin: host.manifest.name, kind: Self.kind) { open[entry.object] = entry.number }
    unfinished = Mutex(open)
  }

  /// Of several containers that mount a new volume at once, one fills it and the others wait for that.
  func fillIfEmpty(
    _ volume: Volume, _ base: Descriptor, root: Descriptor, target: String
  ) async throws(EngineError) {
    // The usual case, a volume with data in it, takes no lock; one that is being filled has its entry open.
    if unfinished.withLock({ $0[volume.name] }) == nil, try !isEmpty(base, volume) { return }
    try await store.alone(volume.name) { () async throws(EngineError) in
      do throws(SystemCallError) {
        if let number = unfinished.withLock({ $0[volume.name] }) {
          try TreeCopy.empty(base.number)
          try end(number, volume)
        } else if try !TreeCopy.isEmpty(base.number) {
          return
        }
        try fill(volume, base, root: root, target: target)
      } catch {
        let code: EngineError.Code =
          error.number == ENOSPC || error.number == EDQUOT ? .resourceExhausted : .internalFailure
        throw EngineError(code, "the volume \(volume.name) cannot be filled from the image's \(target): \(error)")
      }
    }
  }

  private func isEmpty(_ base: Descriptor, _ volume: Volume) throws(EngineError) -> Bool {
    do throws(SystemCallError) {
      return try TreeCopy.isEmpty(base.number)
    } catch {
      throw EngineError(.internalFailure, "the volume \(volume.name) cannot be read: \(error)")
    }
  }

  private func fill(
    _ volume: Volume, _ base: Descriptor, root: Descriptor, target: String
  ) throws(SystemCallError) {
    let source: OwnedDescriptor
    do throws(SystemCallError) {
      source = try Files.open(inRoot: root.number, target, O_RDONLY | O_DIRECTORY)
    } catch  where error.number == ENOENT || error.number == ENOTDIR {
      return
    }
    let number = try begin(volume)
    FaultPoint.reach("volumes.fill.recorded")
    do throws(SystemCallError) {
      var copy = TreeCopy(root: base.number)
      try copy.copyDirectory(source.number, base.number)
    } catch {
      // What was copied is taken back, so that a later start fills from nothing; where that fails too, the entry stays.
      let failure = error
      if (try? TreeCopy.empty(base.number)) != nil { try end(number, volume) }
      throw failure
    }
    FaultPoint.reach("volumes.fill.copied")
    try end(number, volume)
  }

  private func begin(_ volume: Volume) throws(SystemCallError) -> UInt64 {
    guard
      let number = try? host.journal.begin(plugin: host.manifest.name, [(Self.kind, volume.name)]).first
    else { throw SystemCallError(call: "write", subject: "the journal", number: EIO) }
    unfinished.withLock { $0[volume.name] = number }
    return number
  }

  private func end(_ number: UInt64, _ volume: Volume) throws(SystemCallError) {
    guard (try? host.journal.end([number])) != nil else {
      throw SystemCallError(call: "write", subject: "the journal", number: EIO)
    }
    unfinished.withLock { $0[volume.name] = nil }
  }
}
