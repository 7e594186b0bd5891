import Contracts

/// `no`, `always`, `unless-stopped`, `on-failure` and `on-failure:3`, with Docker's words for the rest.
enum RestartPolicy {
  static func parse(_ text: String) throws(EngineError) -> ContainerConfiguration.Restart {
    func refuse(_ why: String) -> EngineError { EngineError(.invalidArgument, "invalid restart policy: \(why)") }
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    if text.isEmpty { return .no }
    var retries: Int?
    if parts.count == 2 {
      guard !parts[0].isEmpty else {
        throw EngineError(.invalidArgument, "invalid restart policy format: no policy provided before colon")
      }
      guard let number = Int(parts[1]) else {
        throw EngineError(.invalidArgument, "invalid restart policy format: maximum retry count must be an integer")
      }
      retries = number
    }
    if let retries, parts[0] != "on-failure" {
      let negative = retries < 0 ? " and cannot be negative" : ""
      throw refuse("maximum retry count can only be used with 'on-failure'\(negative)")
    }
    switch parts[0] {
    case "no": return .no
    case "always": return .always
    case "unless-stopped": return .unlessStopped
    case "on-failure":
      guard retries ?? 0 >= 0 else { throw refuse("maximum retry count cannot be negative") }
      return .onFailure(maximumRetries: retries ?? 0)
    default:
      throw refuse("unknown policy '\(parts[0])'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'")
    }
  }
}
