import CLinux
import Glibc
import LinuxSystem

/// Small calls that several files need.

@inline(__always)
func linuxSend(_ socket: Int32, _ bytes: [UInt8], _ descriptors: [Int32]) -> Int {
  linux_send_with_descriptors(socket, bytes, bytes.count, descriptors, Int32(descriptors.count), 0)
}

/// Calls `body` with a null-terminated array of C strings.
func withCStrings<Value>(_ texts: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Value) -> Value {
  var pointers: [UnsafeMutablePointer<CChar>?] = texts.map { strdup($0) }
  pointers.append(nil)
  defer { for pointer in pointers { free(pointer) } }
  return pointers.withUnsafeBufferPointer { buffer in
    guard let base = buffer.baseAddress else { return withUnsafePointer(to: nil) { body($0) } }
    return body(base)
  }
}

/// fork(2) with the options of clone3(2); 0 in the child. Only in a single-threaded process.
func clone(
  flags: UInt64, cgroup: Int32 = -1
) throws(SystemCallError) -> (pid: Int32, pidfd: Int32) {
  var arguments = clone_args()
  var pidfd: Int32 = -1
  let pid = try withUnsafeMutablePointer(to: &pidfd) { (pointer) throws(SystemCallError) -> Int in
    arguments.flags = flags | UInt64(CLONE_PIDFD)
    arguments.pidfd = UInt64(UInt(bitPattern: pointer))
    arguments.exit_signal = UInt64(SIGCHLD)
    if cgroup >= 0 {
      arguments.flags |= 0x2_0000_0000  // CLONE_INTO_CGROUP
      arguments.cgroup = UInt64(cgroup)
    }
    return try SystemCallError.check("clone3") { linux_clone3(&arguments, MemoryLayout<clone_args>.size) }
  }
  return (Int32(pid), pidfd)
}

/// _IOW('T', 0x31, int) and _IO('T', 0x41) of ioctl_tty(2), macros that Swift does not see.
let unlockTerminal: UInt = 0x4004_5431
let openTerminalPeer: UInt = 0x5441

/// Nanoseconds since 1970 (CLOCK_REALTIME).
func wallClock() -> Int64 {
  var time = timespec()
  clock_gettime(CLOCK_REALTIME, &time)
  return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

/// Nanoseconds of CLOCK_MONOTONIC.
func monotonicClock() -> UInt64 { UInt64(MonotonicClock.now) }

/// Two descriptors that were made together; -1 once taken. What is left is closed.
struct DescriptorPair: ~Copyable {
  var first: Int32
  var second: Int32

  mutating func takeFirst() -> Int32 {
    defer { first = -1 }
    return first
  }

  mutating func takeSecond() -> Int32 {
    defer { second = -1 }
    return second
  }

  deinit {
    if first >= 0 { close(first) }
    if second >= 0 { close(second) }
  }
}

/// A pair of connected sockets that keep packets apart, close-on-exec.
func socketPair() throws(SystemCallError) -> DescriptorPair {
  var numbers: [Int32] = [-1, -1]
  try SystemCallError.check("socketpair") {
    socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &numbers)
  }
  return DescriptorPair(first: numbers[0], second: numbers[1])
}

/// A pipe, close-on-exec: its reading end, then its writing end.
func pipePair() throws(SystemCallError) -> DescriptorPair {
  var numbers: [Int32] = [-1, -1]
  try SystemCallError.check("pipe2") { pipe2(&numbers, O_CLOEXEC) }
  return DescriptorPair(first: numbers[0], second: numbers[1])
}

/// The system call's text for `number` as runc writes it: in lower case.
func reason(_ number: Int32) -> String {
  let text = SystemCallError.text(number)
  return text.prefix(1).lowercased() + text.dropFirst()
}

/// Whether something, or the end, can be read from a descriptor now.
func isReadable(_ number: Int32) -> Bool {
  var waiting = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
  return poll(&waiting, 1, 0) == 1
}
