import Contracts
import Foundation
import PluginKit
import Testing

/// The author's guide shows what the types say. With ENGINE_WRITE_GUIDE=1 the examples in it are written anew.
@Suite("The author's guide")
struct GuideTests {
  static let path = TestDrivers.checkout.appendingPathComponent("docs/plugins.md")

  /// Every example by its name, as it must stand in the guide.
  static func examples() throws -> [String: String] {
    var examples = ["hello": try MessageSamples.greeting(), "error": try MessageSamples.refusal()]
    for sample in try MessageSamples.all() {
      examples[sample.message] = sample.request
      examples["\(sample.message) answer"] = sample.answer
    }
    examples["volume-python"] = try String(
      contentsOf: TestDrivers.examples.appendingPathComponent("volume-python"), encoding: .utf8)
    return examples
  }

  @Test func everyExampleIsWhatTheTypesSay() throws {
    var text = try String(contentsOf: Self.path, encoding: .utf8)
    var seen: Set<String> = []
    for (name, example) in try Self.examples() {
      guard let marker = text.range(of: "<!-- example: \(name) -->\n```"),
        let start = text.range(of: "\n", range: marker.upperBound..<text.endIndex),
        let end = text.range(of: "\n```", range: text.index(before: start.upperBound)..<text.endIndex)
      else {
        Issue.record("the guide has no example \"\(name)\"")
        continue
      }
      seen.insert(name)
      let wanted = example.hasSuffix("\n") ? String(example.dropLast()) : example
      // Between the fences, with the last line's break; nothing in an empty block.
      let range = start.upperBound..<max(start.upperBound, text.index(after: end.lowerBound))
      if ProcessInfo.processInfo.environment["ENGINE_WRITE_GUIDE"] != nil {
        text.replaceSubrange(range, with: wanted + "\n")
      } else {
        #expect(
          String(text[range]) == wanted + "\n",
          "\"\(name)\" is out of date: ENGINE_WRITE_GUIDE=1 swift test writes it anew")
      }
    }
    if ProcessInfo.processInfo.environment["ENGINE_WRITE_GUIDE"] != nil {
      try text.write(to: Self.path, atomically: true, encoding: .utf8)
    }
    // Nothing that is marked as an example is forgotten here.
    let marked = text.components(separatedBy: "<!-- example: ").dropFirst()
      .compactMap { $0.components(separatedBy: " -->").first }
    #expect(Set(marked) == seen)
  }

  @Test func everyMessageOfTheKitsRolesHasASection() throws {
    let text = try String(contentsOf: Self.path, encoding: .utf8)
    for role in DriverRole.all {
      for message in role.messages { #expect(text.contains("`\(message.name)`"), "\(message.name)") }
    }
    for code in EngineError.Code.allCases { #expect(text.contains("`\(code.rawValue)`"), "\(code.rawValue)") }
  }
}
