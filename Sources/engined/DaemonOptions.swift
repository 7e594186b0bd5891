import Contracts

/// The daemon's command line.
struct DaemonOptions: Equatable {
  static let usage = """
    Usage:  engined [--root DIR] [--ready-fd N]

    The engine's daemon. `engine` starts it when it is needed.

    Options:
          --root DIR       Where durable state is kept; selects the instance (default "/var/lib/engine")
          --ready-fd N     A descriptor on which to say "ok", or why not, once
    """

  var root = ""
  var readyDescriptor: Int32?

  /// - Throws: `invalidArgument` that names the argument.
  init(parsing arguments: [String]) throws(EngineError) {
    var rest = arguments[...]
    while let argument = rest.popFirst() {
      let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      func value() throws(EngineError) -> String {
        if parts.count == 2 { return parts[1] }
        guard let next = rest.popFirst() else {
          throw EngineError(.invalidArgument, "flag needs an argument: \(parts[0])")
        }
        return next
      }
      switch parts[0] {
      case "--root":
        root = try value()
      case "--ready-fd":
        let text = try value()
        guard let number = Int32(text), number > 2 else {
          throw EngineError(.invalidArgument, "--ready-fd wants a descriptor's number above 2, not \"\(text)\"")
        }
        readyDescriptor = number
      default:
        throw EngineError(.invalidArgument, "unknown argument \"\(argument)\"\n\n\(Self.usage)")
      }
    }
  }
}
