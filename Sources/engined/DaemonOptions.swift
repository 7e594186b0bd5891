import Contracts
import Glibc
import LinuxSystem

/// The daemon's command line.
struct DaemonOptions: Equatable {
  static let usage = """
    Usage:  engined [--root DIR] [--config FILE] [--ready-fd N]

    The engine's daemon. `engine` starts it when it is needed.

    Options:
          --root DIR       Where durable state is kept; selects the instance (default "/var/lib/engine")
          --config FILE    The configuration of the instance
          --ready-fd N     A descriptor on which to say "ok", or why not, once
          --check-config FILE   Say what is wrong with a configuration, and end
          --verify PATH         Examine a driver out of tree, and end; with --option and --create-option KEY=VALUE
          --default-config      Print every key of the configuration with its default, and end
    """

  /// What to do instead of being the daemon.
  enum Errand: Equatable {
    case checkConfiguration(String)
    case printConfiguration
    /// Run the conformance kit on an executable.
    case verify(String)
  }

  var root = ""
  /// Nil where the command line names none.
  var configuration: String?
  var errand: Errand?
  /// For `verify`: as in the driver's table of the configuration, and with each creation.
  var driverOptions: [String: String] = [:]
  var creationOptions: [String: String] = [:]
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
      case "--config":
        configuration = try value()
      case "--check-config":
        errand = .checkConfiguration(try value())
      case "--default-config":
        errand = .printConfiguration
      case "--verify":
        errand = .verify(try value())
      case "--option":
        let pair = try value().split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        driverOptions[pair[0]] = pair.count == 2 ? pair[1] : ""
      case "--create-option":
        let pair = try value().split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        creationOptions[pair[0]] = pair.count == 2 ? pair[1] : ""
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

  static func print(_ text: String, to descriptor: Int32) {
    try? Files.writeAll(descriptor, Array("\(text)\n".utf8))
  }
}
