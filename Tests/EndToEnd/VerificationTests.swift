import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// `plugin verify` on the built binaries: whatever ends it, no driver is left behind.
  @Suite struct Verification {
    static func isRunning(_ word: String) -> Bool {
      let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
      return entries.contains { entry in
        guard pid_t(entry) != nil, let data = FileManager.default.contents(atPath: "/proc/\(entry)/cmdline") else {
          return false
        }
        let arguments = data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        return arguments.contains(word) && arguments.contains { $0.hasSuffix("faulty-volume") }
      }
    }

    /// What examinations have in /tmp whose process does not live any more.
    static func directories() -> Set<String> {
      let names = (try? FileManager.default.contentsOfDirectory(atPath: "/tmp")) ?? []
      return Set(
        names.filter { name in
          guard name.hasPrefix("engine-verify-") else { return false }
          let directory = open("/tmp/\(name)", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
          defer { close(directory) }
          return directory >= 0 && flock(directory, LOCK_SH | LOCK_NB) == 0
        })
    }

    static func verify(_ path: String) -> Outcome {
      Fixture.command(["\(Fixture.binaries)/engine", "plugin", "verify", path])
    }

    @Test(arguments: [SIGINT, SIGTERM, SIGKILL])
    func leavesNoDriver(signal: Int32) throws {
      let directory = "/tmp/engine-e2e-verify-\(UUID().uuidString.prefix(8).lowercased())"
      try FileManager.default.createDirectory(atPath: "\(directory)/place", withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: directory) }
      // The last word is there to be found.
      try
        "#!/bin/sh\nexec \(DriverMatrix.checkout)/Tests/Drivers/faulty-volume hang volume.driver.mount '' \(directory)\n"
        .write(toFile: "\(directory)/hanger", atomically: true, encoding: .utf8)
      chmod("\(directory)/hanger", 0o755)
      let verification = Process()
      verification.executableURL = URL(fileURLWithPath: "\(Fixture.binaries)/engine")
      verification.arguments = ["plugin", "verify", "--option", "place=\(directory)/place", "\(directory)/hanger"]
      _ = FileManager.default.createFile(atPath: "\(directory)/output", contents: nil)
      let file = FileHandle(forWritingAtPath: "\(directory)/output")
      (verification.standardOutput, verification.standardError) = (file, file)
      try verification.run()
      func output() -> String { (try? String(contentsOfFile: "\(directory)/output", encoding: .utf8)) ?? "" }
      // The next point is the one that hangs.
      Fixture.eventually { output().contains("create twice") }
      #expect(Self.isRunning(directory), "\(output())")
      kill(verification.processIdentifier, signal)
      verification.waitUntilExit()
      #expect(Fixture.eventually { !Self.isRunning(directory) }, "the driver is left")
      if signal == SIGKILL {
        // Where its state was, the next examination clears, and touches none that still runs.
        let left = Self.directories()
        #expect(!left.isEmpty)
        let next = Self.verify("/bin/false")
        #expect(next.status == 1, "\(next)")
        #expect(Self.directories().isDisjoint(with: left), "\(left)")
        return
      }
      #expect(verification.terminationReason == .exit && verification.terminationStatus == 128 + signal)
      #expect(output().contains("interrupted"), "\(output())")
      #expect(try FileManager.default.contentsOfDirectory(atPath: "\(directory)/place") == [])
    }
  }
}
