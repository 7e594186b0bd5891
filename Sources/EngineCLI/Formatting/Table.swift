/// Text in columns, as Go's text/tabwriter lays it out for Docker: at least ten wide, three spaces between.
package enum Table {
  /// - Parameter rows: cells; the last one of a row is not padded.
  package static func text(_ rows: [[String]], minimum: Int = 10, padding: Int = 3) -> String {
    var widths: [Int] = []
    for row in rows {
      for (index, cell) in row.dropLast().enumerated() {
        let width = max(minimum, cell.unicodeScalars.count + padding)
        if index < widths.count { widths[index] = max(widths[index], width) } else { widths.append(width) }
      }
    }
    var text = ""
    for row in rows {
      for (index, cell) in row.enumerated() {
        text += cell
        if index < row.count - 1 {
          text += String(repeating: " ", count: widths[index] - cell.unicodeScalars.count)
        }
      }
      text += "\n"
    }
    return text
  }
}
