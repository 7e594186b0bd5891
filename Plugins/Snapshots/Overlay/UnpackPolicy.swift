/// What layers may hold.
struct UnpackPolicy: Sendable, Equatable {
  /// Entries of one layer's archive.
  var maximumEntries = 16_000_000
  /// Character and block devices; a container can only open those that its device rules allow.
  var allowsDevices = true

  init() {}

  /// - Parameter configuration: `layer-entries`, `layer-devices` (`allow` or `refuse`); what is left out keeps its
  ///   default.
  init(_ configuration: [String: String]) {
    if let limit = configuration["layer-entries"].flatMap({ Int($0) }), limit > 0 { maximumEntries = limit }
    if let devices = configuration["layer-devices"] { allowsDevices = devices != "refuse" }
  }
}
