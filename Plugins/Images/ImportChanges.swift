import Contracts

enum ImportChanges {
  static func apply(_ changes: [String]) throws(EngineError) -> ImageConfiguration.Execution { .init() }
}
