import CLinux
import Glibc
import LinuxSystem

/// What the daemon does for its own size: it lives for weeks, mostly with nothing to do.
enum ProcessMemory {
  /// Keeps the allocator from making a heap for each thread (mallopt(3), M_ARENA_MAX): the engine's threads mostly wait,
  /// and a heap keeps what its busiest moment took.
  static func limitHeaps() { mallopt(M_ARENA_MAX, 2) }

  /// Makes the process's table of descriptors long enough for most (some 40 kB of the kernel's). It never shrinks, and
  /// growing it when there are threads waits for a grace period of the kernel's, 15 ms in the middle of some start.
  static func growDescriptorTable() {
    let high = linux_fcntl(0, F_DUPFD_CLOEXEC, 4095)
    if high >= 0 { close(high) }
  }

  /// Gives back what the heap does not use (malloc_trim(3)).
  static func trimHeap() { malloc_trim(0) }

  /// Lets go of the pages of code that only the start needed: they are the page cache's, which has them when they are wanted
  /// again (madvise(2), MADV_DONTNEED). Only code: nothing else is sure never to have been written.
  static func releaseStartCode() {
    guard let maps = try? Files.readText("/proc/self/maps") else { return }
    for line in maps.split(separator: "\n") {
      // proc_pid_maps(5): address range, permissions, offset, device, inode, path.
      let fields = line.split(separator: " ", omittingEmptySubsequences: true)
      guard fields.count >= 6, fields[1] == "r-xp", fields[5].hasPrefix("/") else { continue }
      let range = fields[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
      guard range.count == 2, let start = UnsafeMutableRawPointer(bitPattern: range[0]) else { continue }
      madvise(start, Int(range[1] - range[0]), MADV_DONTNEED)
    }
  }
}
