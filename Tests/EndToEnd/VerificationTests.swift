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
      if signal == SIGKILL { return }
      #expect(verification.terminationReason == .exit && verification.terminationStatus == 128 + signal)
      #expect(output().contains("interrupted"), "\(output())")
      #expect(try FileManager.default.contentsOfDirectory(atPath: "\(directory)/place") == [])
    }
  }
}
