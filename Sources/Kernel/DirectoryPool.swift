import Contracts
import Glibc
import LinuxSystem
import Synchronization

/// Directories that were made before anybody asked for them, beside those that they are to become: a container's takes
/// one rename(2) then. To make one takes a file system on a disk several times as long, and where the file system has to
/// find a place of its own for it (`InodePlacement`), ten times.
///
/// They hold nothing of anybody, so the journal does not know them.
public final class DirectoryPool: Sendable {
  /// What the name of each begins with; nobody else's does.
  public static let prefix = "spare-"

  /// `RENAME_NOREPLACE` of rename(2).
  private static let noReplace: UInt32 = 1

  private let parent: String
  private let capacity: Int
  private let limit: Int
  /// Nil where only `fill` makes more.
  private let replenisher: Replenisher?
  private let prepare: @Sendable (String) throws(SystemCallError) -> Void
  private let stock = Stock<String>()
  private let number = Atomic(0)

  /// - Parameters:
  ///   - parent: where they are; it may be made later than this.
  ///   - capacity: how many are made ahead.
  ///   - limit: how many are kept of those that are given back, so that as many containers as come and go at once each
  ///     find one.
  ///   - refills: those that were taken are replaced by themselves, as soon as nobody wants any.
  ///   - prepare: makes in a new directory, whose mode is 0700, what one of these has.
  public init(
    in parent: String, capacity: Int = 4, limit: Int = 32, bus: Bus, refills: Bool = true,
    _ prepare: @escaping @Sendable (String) throws(SystemCallError) -> Void = { (_) throws(SystemCallError) in }
  ) {
    self.parent = parent
    self.capacity = capacity
    self.limit = max(capacity, limit)
    self.prepare = prepare
    replenisher = refills ? Replenisher(bus) : nil
  }

  /// Removes what an engine before this one left.
  public func clean() {
    for name in (try? Files.list(parent)) ?? [] where name.hasPrefix(Self.prefix) {
      try? Files.removeTree("\(parent)/\(name)")
    }
  }

  /// Makes a directory out of one that is ready, or anew.
  ///
  /// - Throws: EEXIST where there is something at `path`.
  public func take(as path: String) throws(SystemCallError) {
    let (ready, isLast) = stock.take()
    replenisher?.taken(isLast: isLast) { [self] in await fill() }
    if let ready {
      // Not onto an empty directory, which rename(2) would replace.
      if renameat2(AT_FDCWD, ready, AT_FDCWD, path, Self.noReplace) == 0 { return }
      let number = errno
      if !stock.keep(ready) { try? Files.removeTree(ready) }
      if number == EEXIST { throw SystemCallError(call: "rename", subject: path, number: number) }
      // A file system without that flag (EINVAL), or one that was taken away: as if none had been ready.
    }
    try SystemCallError.check("mkdir", path) { mkdir(path, 0o700) }
    try prepare(path)
  }

  /// The same where what is there already is as good.
  public func ensure(_ path: String) throws(SystemCallError) {
    do throws(SystemCallError) { try take(as: path) } catch  where error.number == EEXIST {}
  }

  /// Takes a directory back, or removes it; what it holds goes first. Nothing there is not an error.
  ///
  /// - Parameter isPrepared: it is like a new one already.
  public func give(back path: String, isPrepared: Bool = false) throws(SystemCallError) {
    guard stock.hasRoom(upTo: limit) else { return try Files.removeTree(path) }
    let spare = newPath()
    if !isPrepared {
      do throws(SystemCallError) {
        try Files.empty(path)
      } catch  where error.number == ENOENT {
        return
      }
    }
    guard rename(path, spare) == 0 else { return try Files.removeTree(path) }
    if !isPrepared {
      do throws(SystemCallError) {
        try prepare(spare)
      } catch {
        return try Files.removeTree(spare)
      }
    }
    if !stock.keep(spare) { try Files.removeTree(spare) }
  }

  /// Makes those that are missing.
  public func fill() async {
    await stock.fill(to: capacity) { [self] in
      let path = newPath()
      do throws(SystemCallError) {
        try SystemCallError.check("mkdir", path) { mkdir(path, 0o700) }
        try prepare(path)
      } catch {
        try? Files.removeTree(path)
        return nil
      }
      return path
    } discard: {
      try? Files.removeTree($0)
    }
  }

  private func newPath() -> String {
    "\(parent)/\(Self.prefix)\(number.add(1, ordering: .relaxed).newValue)"
  }

  /// Removes those that are ready; from now on each is made when it is asked for.
  public func close() async {
    for path in await stock.close() { try? Files.removeTree(path) }
  }
}
