import Contracts
import Glibc
import LinuxSystem
import Testing
import Wire

@Suite("Frames")
struct FrameTests {
  @Test func headerRoundTrip() throws {
    for (length, descriptors) in [(0, 0), (1, 253), (65_536, 3), (FrameHeader.maximumLength, 0)] {
      let header = FrameHeader(length: length, descriptors: descriptors)
      #expect(try FrameHeader(parsing: header.bytes) == header)
    }
  }

  @Test func cutsAStreamAnywhereIntoTheSameFrames() throws {
    let frames = try (1...5).map { try OutgoingMessage.request(UInt64($0), "m\($0)", ["key": String($0)]) }
    let bytes = frames.flatMap(\.bytes)
    for step in [1, 3, 7, 64, bytes.count] {
      let ends = try UnixSocket.pair().release()
      defer {
        close(ends.first)
        close(ends.second)
      }
      var reader = FrameReader()
      var methods: [String] = []
      var offset = 0
      while offset < bytes.count {
        let end = min(bytes.count, offset + step)
        try Files.writeAll(ends.first, Array(bytes[offset..<end]))
        offset = end
        _ = try reader.receive(from: ends.second)
        while let frame = try reader.next() {
          if case .request(let request) = try RemoteMessage(parsing: frame) { methods.append(request.method) }
        }
      }
      #expect(methods == ["m1", "m2", "m3", "m4", "m5"])
    }
  }

  @Test func closesDescriptorsThatNobodyTook() throws {
    var pipeEnds: [Int32] = [0, 0]
    #expect(pipe2(&pipeEnds, O_CLOEXEC) == 0)
    let ends = try UnixSocket.pair().release()
    do {
      let frame = try OutgoingMessage.request(1, "m", ["d": Descriptor(adopting: pipeEnds[1])])
      try frame.sendAll(to: ends.first)
    }
    do {
      var reader = FrameReader()
      _ = try reader.receive(from: ends.second)
      _ = try reader.next()
    }
    close(ends.first)
    close(ends.second)
    // With the last writer closed the pipe is at its end; were one left open this would be EAGAIN.
    _ = fcntl(pipeEnds[0], F_SETFL, O_NONBLOCK)
    var byte: UInt8 = 0
    #expect(read(pipeEnds[0], &byte, 1) == 0)
    close(pipeEnds[0])
  }

  @Test func anEndInsideAFrameIsAnError() throws {
    let ends = try UnixSocket.pair().release()
    try Files.writeAll(ends.first, [0, 0, 0, 9, 1, 0, 0, 0, 1])
    close(ends.first)
    var reader = FrameReader()
    _ = try reader.receive(from: ends.second)
    #expect(try reader.next() == nil)
    do {
      _ = try reader.receive(from: ends.second)
      Issue.record("expected an error")
    } catch {
      #expect(error.code == .protocolViolation)
    }
    close(ends.second)
  }

  @Test func aNilResultIsNullAndNotMissing() throws {
    let frame = try OutgoingMessage.result(3, Int?.none)
    #expect(String(decoding: frame.bytes.dropFirst(8), as: UTF8.self) == #"{"jsonrpc":"2.0","id":3,"result":null}"#)
  }
}

@Suite("Instance paths")
struct InstancePathsTests {
  @Test(arguments: [
    ("", "/var/lib/engine", true), ("/var/lib/engine/", "/var/lib/engine", true), ("x/../y", "/work/y", false),
    ("/a//b/./c", "/a/b/c", false),
  ])
  func normalises(root: String, expected: String, isDefault: Bool) {
    let paths = InstancePaths(root: root, currentDirectory: "/work")
    #expect(paths.root == expected)
    #expect(paths.isDefault == isDefault)
    #expect(paths.hash.utf8.count == 8)
    #expect(paths.socket.utf8.count < 108)
  }
}
