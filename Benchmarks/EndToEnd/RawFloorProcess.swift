import BenchmarkSupport
import CLinux
import Glibc

/// A process that makes containers by raw system calls, one whenever it is told to (`RawFloor.serve`).
final class RawFloorProcess {
  private let process: pid_t
  private var request: Int32
  /// What can be read here is the answer to the last request.
  let answer: Int32

  init(rootfs: String, directory: String) throws {
    var down: [Int32] = [-1, -1]
    var up: [Int32] = [-1, -1]
    pipe2(&down, O_CLOEXEC)
    pipe2(&up, O_CLOEXEC)
    process = try Processes.spawn(
      ["unshare", "--net", "--mount", "/proc/\(getpid())/exe", RawFloor.argument, rootfs, directory],
      pipes: (down[0], up[1]), isApart: true)
    close(down[0])
    close(up[1])
    (request, answer) = (down[1], up[0])
  }

  /// Tells it to make one; `finish` waits for the end.
  func begin() throws {
    guard write(request, "r", 1) == 1 else { throw Self.failure }
  }

  /// - Returns: the microseconds that the container took.
  func finish() throws -> Double {
    var time = 0.0
    guard read(answer, &time, MemoryLayout<Double>.size) == MemoryLayout<Double>.size, time > 0 else {
      throw Self.failure
    }
    return time
  }

  func time() throws -> Double {
    try begin()
    return try finish()
  }

  private static let failure = Processes.Failure(description: "the raw system calls failed")

  func end() {
    guard request >= 0 else { return }
    close(request)
    close(answer)
    request = -1
    Processes.wait(process, atMost: 5)
  }

  /// Lets all of them make containers, until so many are done.
  ///
  /// - Returns: how many were made a second.
  static func rate(_ count: Int, of floors: [RawFloorProcess]) throws -> Double {
    let begin = Processes.microseconds()
    var begun = 0
    var done = 0
    for floor in floors where begun < count {
      try floor.begin()
      begun += 1
    }
    var waiting = floors.map { pollfd(fd: $0.answer, events: Int16(POLLIN), revents: 0) }
    while done < begun {
      guard poll(&waiting, nfds_t(waiting.count), 60_000) > 0 else { throw failure }
      for index in waiting.indices where waiting[index].revents != 0 {
        _ = try floors[index].finish()
        done += 1
        if begun < count {
          try floors[index].begin()
          begun += 1
        }
      }
    }
    return Double(done) * 1e6 / (Processes.microseconds() - begin)
  }
}
