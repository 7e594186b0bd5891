import Contracts
import Testing

@testable import EngineCLI

@Suite struct TraceTests {
  private static func span(
    _ name: String, _ parent: Int, _ begin: Int64, _ end: Int64?, process: Int32 = 1, error: String = ""
  ) -> TraceSpan {
    TraceSpan(
      name: name, process: process, program: "p\(process)", parent: parent, begin: begin, end: end, error: error)
  }

  /// Spans by parent, begin and end, and the lanes they belong in.
  @Test(
    arguments: [
      ([(-1, 0, 10), (0, 1, 3), (0, 3, 9)], [1, 1, 1]),
      // Side by side: the second one gets a lane of its own, and what it causes goes with it.
      ([(-1, 0, 10), (0, 1, 5), (0, 2, 8), (2, 3, 4)], [1, 1, 2, 2]),
      // A lane is used again once it is free.
      ([(-1, 0, 20), (0, 1, 5), (0, 2, 8), (0, 9, 12), (0, 10, 11)], [1, 1, 2, 1, 2]),
      // One that outlives its cause does not lie within it.
      ([(-1, 0, 10), (0, 5, 15)], [1, 2]),
      // The same begin: the longer one is outside, whichever was recorded first.
      ([(1, 0, 5), (-1, 0, 10)], [1, 1]),
      ([(-1, 0, 0), (-1, 0, 0)], [1, 1]),
    ] as [([(Int, Int64, Int64)], [Int])])
  func lanes(spans: [(Int, Int64, Int64)], expected: [Int]) {
    let spans = spans.map { Self.span("s", $0.0, $0.1, $0.2) }
    #expect(TraceText.lanes(spans, spans.map { $0.end ?? 0 }) == expected)
  }

  @Test func everyProcessHasItsOwnLanes() {
    let spans = [Self.span("a", -1, 0, 10), Self.span("b", 0, 1, 9, process: 2), Self.span("c", 0, 2, 8, process: 3)]
    #expect(TraceText.lanes(spans, [10, 9, 8]) == [1, 1, 1])
  }

  @Test func writesCompleteEventsInMicroseconds() throws {
    let text = TraceText.chrome([
      Self.span("engine \"run\"", -1, 1_000_000, 3_500_500), Self.span("open", 0, 2_000_000, nil, error: "no"),
    ])
    #expect(text.contains("\"name\": \"engine \\\"run\\\"\""))
    #expect(text.contains("\"ts\": 0") && text.contains("\"dur\": 2500.5"))
    // What has no end lasts until the last one that is known.
    #expect(text.contains("\"ts\": 1000") && text.contains("\"dur\": 1500.5") && text.contains("\"error\": \"no\""))
    #expect(text.contains("\"process_name\""))
  }

  @Test func theEnginesSpansFollowTheCommandsOwn() {
    #expect(TraceText.moved(Self.span("a", 3, 0, 1), by: 5).parent == 8)
    #expect(TraceText.moved(Self.span("a", -1, 0, 1), by: 5).parent == -1)
  }
}
