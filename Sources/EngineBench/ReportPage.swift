import BenchmarkSupport

/// A report as a page.
package enum ReportPage {
  package static func html(_ report: Report, former: Report?) -> String {
    Document.html(title: "engine bench", body: "")
  }
}
