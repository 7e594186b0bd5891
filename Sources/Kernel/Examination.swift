/// What the conformance kit of a role has to know to examine a driver. Most need nothing of it. It lies with the driver,
/// so that nobody else has to know the driver in order to examine it.
///
/// In each text `{directory}` stands for a directory of the examination's own, `{namespace}` for the path of a network
/// namespace to be taken for the host's, and `{programs}` for the directory of the programs that the tests have.
public struct Examination: Sendable {
  /// For people, where a driver is examined in several ways.
  public var name: String
  /// The name in its role of the driver that is examined, where a plugin speaks for several; otherwise that of the manifest.
  public var driver: String
  /// What the configuration sets, by key.
  public var configuration: [String: String]
  /// What goes with each volume, network, or log that the kit makes.
  public var options: [String: String]
  /// What is made before: a file of this text, executable if it begins with `#!`; or a directory, if the path ends in `/`.
  public var files: [String: String]
  /// A program with its arguments that runs meanwhile, and a file that shows that it is ready.
  public var program: [String]
  public var programFile: String
  /// Paths without which this examination is skipped.
  public var needs: [String]

  public init(
    _ name: String = "", driver: String = "", configuration: [String: String] = [:], options: [String: String] = [:],
    files: [String: String] = [:], program: [String] = [], programFile: String = "", needs: [String] = []
  ) {
    self.name = name
    self.driver = driver
    self.configuration = configuration
    self.options = options
    self.files = files
    self.program = program
    self.programFile = programFile
    self.needs = needs
  }
}
