import Contracts

/// The command line and the configuration guess alike.
typealias Suggestion = Contracts.Suggestion
