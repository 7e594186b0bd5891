import BenchmarkSupport
import Testing

@testable import EngineBench

@Suite("The page of the benchmarks")
struct PageTests {
  /// Elements of HTML that have no end.
  private static let empty: Set<Substring> = ["meta", "br", "!doctype"]

  /// What is wrong with the nesting of a page's elements; nil when all is closed in order.
  static func fault(_ html: String) -> String? {
    var open: [Substring] = []
    var rest = html[...]
    while let begin = rest.firstIndex(of: "<") {
      rest = rest[rest.index(after: begin)...]
      guard let end = rest.firstIndex(of: ">") else { return "a tag has no end: <\(rest.prefix(40))" }
      let tag = rest[..<end]
      rest = rest[rest.index(after: end)...]
      if tag.contains("<") { return "a < inside of a tag: <\(tag)>" }
      if tag.filter({ $0 == "\"" }).count % 2 != 0 { return "a quote is open in <\(tag)>" }
      if tag.hasPrefix("/") {
        guard open.popLast() == tag.dropFirst() else { return "</\(tag.dropFirst())> closes what is not open" }
        continue
      }
      let name = tag.prefix { $0 != " " && $0 != "/" }
      if !tag.hasSuffix("/"), !empty.contains(Substring(name.lowercased())) { open.append(name) }
    }
    return open.isEmpty ? nil : "not closed: \(open)"
  }

  @Test(
    "The checker sees what is wrong",
    arguments: ["<p>", "<p></b>", "<p><b></p></b>", "</p>", "<p a=\"></p>", "<p"])
  func checker(html: String) { #expect(Self.fault(html) != nil) }

  @Test("Everything is closed in order, with and without a comparison, also with nothing in it")
  func wellFormed() {
    #expect(Self.fault(ReportPage.html(.example(), former: nil)) == nil)
    #expect(Self.fault(ReportPage.html(.example(), former: .example(scale: 3))) == nil)
    #expect(
      Self.fault(ReportPage.html(Report(machine: .example, runs: 1, pauseMilliseconds: 30), former: nil)) == nil)
  }

  @Test("Nothing comes from elsewhere, and nothing runs")
  func selfContained() {
    let page = ReportPage.html(.example(), former: nil).lowercased()
    for word in ["http:", "https:", "//", "src=", "href", "url(", "@import", "<script", "<link", "<iframe", "onload"] {
      #expect(!page.contains(word), "the page contains \(word)")
    }
  }

  @Test("It has distributions, curves, a start, and every figure")
  func content() {
    let page = ReportPage.html(.example(), former: .example())
    for text in [
      "<h2>Distributions</h2>", "<h2>Scaling</h2>", "<h2>A start, step by step</h2>", "a &lt;b&gt; &amp; &quot;c&quot;",
      "shim: clone3", "<polyline", "<th>change</th>", "namespace user: not &lt;allowed&gt;", "Debian &lt;12&gt;",
    ] {
      #expect(page.contains(text), "the page lacks \(text)")
    }
    #expect(page.components("<svg ") == 3 + 1 + 1)
  }
}

extension String {
  /// How often a text occurs.
  fileprivate func components(_ text: String) -> Int {
    var count = 0
    var rest = self[...]
    while let range = rest.firstRange(of: text) {
      count += 1
      rest = rest[range.upperBound...]
    }
    return count
  }
}
