import CLinux
import Contracts
import Glibc
import LinuxSystem

/// Shows the progress of a pull or push: on a terminal each layer keeps a line that is written again and again, in a pipe
/// each step is a line of its own.
struct ImageProgressView {
  private let output: Int32
  private let isTerminal: Bool
  private let width: Int
  /// The lines of layers so far, in order.
  private var items: [String] = []

  /// - Parameter output: 1 or 2.
  init(output: Int32) {
    self.output = output
    isTerminal = isatty(output) != 0
    var size = winsize()
    width = linux_ioctl_pointer(output, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 ? Int(size.ws_col) : 80
  }

  mutating func show(_ progress: ImageProgress) {
    guard !progress.item.isEmpty else {
      items = []
      write(progress.status + "\n")
      return
    }
    guard isTerminal else {
      // What moves has no place in a pipe.
      if progress.current != nil || progress.status == "Extracting" { return }
      write("\(progress.item): \(progress.status)\n")
      return
    }
    var text = ""
    let line: Int
    if let known = items.firstIndex(of: progress.item) {
      line = known
    } else {
      line = items.count
      items.append(progress.item)
      text = "\n"
    }
    let distance = items.count - line
    text += "\u{1B}[\(distance)A\u{1B}[2K\r\(progress.item): \(progress.status)\(amount(progress))\r\u{1B}[\(distance)B"
    write(text)
  }

  /// ` [====>    ]  1.2MB/3.4MB`, without the bar where there is no room (moby, pkg/jsonmessage).
  private func amount(_ progress: ImageProgress) -> String {
    guard let current = progress.current, let total = progress.total, total > 0 else { return "" }
    var text = " "
    if width > 110 {
      let filled = Int(min(50, max(0, current * 50 / total)))
      let head = filled == 50 ? String(repeating: "=", count: 50) + ">" : String(repeating: "=", count: filled) + ">"
      text += "[\(head)\(String(repeating: " ", count: max(0, 50 - filled)))]"
    }
    let done = HumanText.size(current)
    text += String(repeating: " ", count: max(1, 8 - done.utf8.count)) + done + "/" + HumanText.size(total)
    return text
  }

  private func write(_ text: String) { try? Files.writeAll(output, Array(text.utf8)) }
}
