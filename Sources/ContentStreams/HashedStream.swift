import CLinux
import Contracts
import Glibc
import LinuxSystem

/// A stream that is read and hashed on a thread of its own while another thread works on what was read, through a ring
/// of four buffers. The reader runs ahead, so that reading, hashing and working overlap.
public final class HashedStream: @unchecked Sendable {
  // Unchecked: everything mutable is reached under the pthread mutex, but for the buffers' bytes, each of which belongs
  // to one side at a time: to the reader while it is free, to the consumer while it is the one last returned.
  private static let bufferSize = 256 << 10
  private static let bufferCount = 4

  private let descriptor: Int32
  private let interruption: Interruption
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private let memory = UnsafeMutableRawBufferPointer.allocate(
    byteCount: bufferSize * bufferCount, alignment: 4096)
  private var lengths = [Int](repeating: 0, count: bufferCount)
  private var filled = 0
  private var taken = 0
  /// Buffers the consumer is done with; at most one less than `taken`.
  private var released = 0
  private var outcome: Result<Digest, EngineError>?
  /// Trailing zero bytes of the stream, at most 1024 (the end of a tar archive has that many).
  private var trailingZeros = 0

  /// - Parameter descriptor: borrowed; it must stay open until `finish` or `abandon` returned.
  public init(_ descriptor: Int32, interruption: Interruption) {
    self.descriptor = descriptor
    self.interruption = interruption
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
    memory.deallocate()
  }

  /// The reader's work: call it on a thread of its own. It returns at the end of the stream, on an error, or when
  /// interrupted.
  public func readAndHash() {
    var hash = SHA256()
    var zeros = 0
    let result: Result<Digest, EngineError>
    do throws(EngineError) {
      while let buffer = waitForFreeBuffer() {
        let count = try interruption.read(descriptor, into: buffer)
        if count == 0 { break }
        let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        hash.update(bytes)
        let run = bytes.reversed().prefix(1024).prefix { $0 == 0 }.count
        zeros = run == count ? min(1024, zeros + run) : run
        publish(count)
      }
      result = .success(try hash.finish())
    } catch {
      result = .failure(error)
    }
    pthread_mutex_lock(mutex)
    trailingZeros = zeros
    outcome = result
    pthread_cond_broadcast(condition)
    pthread_mutex_unlock(mutex)
  }

  private func buffer(_ number: Int) -> UnsafeMutableRawBufferPointer {
    let start = number % Self.bufferCount * Self.bufferSize
    return UnsafeMutableRawBufferPointer(rebasing: memory[start..<start + Self.bufferSize])
  }

  /// Nil when interrupted while every buffer was full.
  private func waitForFreeBuffer() -> UnsafeMutableRawBufferPointer? {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while filled - released == Self.bufferCount { pthread_cond_wait(condition, mutex) }
    return buffer(filled)
  }

  private func publish(_ count: Int) {
    pthread_mutex_lock(mutex)
    lengths[filled % Self.bufferCount] = count
    filled += 1
    pthread_cond_broadcast(condition)
    pthread_mutex_unlock(mutex)
  }

  /// The next bytes, or an empty buffer at the end; they stay valid until the next call.
  public func next() throws(EngineError) -> UnsafeRawBufferPointer {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    if released < taken {
      released = taken
      pthread_cond_broadcast(condition)
    }
    while taken == filled {
      switch outcome {
      case nil: pthread_cond_wait(condition, mutex)
      case .success: return UnsafeRawBufferPointer(start: nil, count: 0)
      case .failure(let error): throw error
      }
    }
    let bytes = UnsafeRawBufferPointer(rebasing: buffer(taken)[..<lengths[taken % Self.bufferCount]])
    taken += 1
    return bytes
  }

  /// Reads what is left, and gives the digest of the whole.
  public func finish() throws(EngineError) -> (digest: Digest, endsInZeros: Bool) {
    while try !next().isEmpty {}
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while true {
      switch outcome {
      case nil: pthread_cond_wait(condition, mutex)
      case .success(let digest): return (digest, trailingZeros >= 512)
      case .failure(let error): throw error
      }
    }
  }

  /// Interrupts the reader, and returns when it no longer uses the descriptor.
  public func abandon() {
    interruption.interrupt()
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while outcome == nil {
      released = filled
      pthread_cond_broadcast(condition)
      pthread_cond_wait(condition, mutex)
    }
  }
}
