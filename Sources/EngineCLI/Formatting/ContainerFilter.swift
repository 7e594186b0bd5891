import Contracts

/// The filters of `ps`: different keys must all hold, of the values of one key any.
struct ContainerFilter {
  static let keys: Set<String> = [
    "id", "name", "label", "exited", "status", "ancestor", "before", "since", "publish", "expose", "volume", "network",
    "health", "is-task",
  ]

  private let values: [String: [String]]

  /// - Throws: `invalidArgument` for a key or a value that no filter has.
  init(_ texts: [String]) throws(EngineError) {
    var values: [String: [String]] = [:]
    for text in texts {
      let pair = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      let (key, value) = (pair[0].lowercased(), pair.count == 2 ? pair[1] : "")
      guard Self.keys.contains(key) else { throw EngineError(.invalidArgument, "invalid filter '\(key)'") }
      try Self.check(key, value)
      values[key, default: []].append(value)
    }
    self.values = values
  }

  private static func check(_ key: String, _ value: String) throws(EngineError) {
    let isValid =
      switch key {
      case "status": ContainerStatus(rawValue: value) != nil
      case "exited": Int32(value) != nil
      case "publish", "expose": port(value) != nil
      default: true
      }
    guard isValid else { throw EngineError(.invalidArgument, "invalid filter '\(key)=\(value)'") }
  }

  /// Whether a container that does not run can be meant, so that all must be asked for.
  var wantsAll: Bool { values["status"] != nil || values["exited"] != nil }

  /// - Parameters:
  ///   - all: every container, among which `before` and `since` find theirs.
  ///   - images: needed for `ancestor` only.
  func apply(
    to containers: [ContainerRecord], all: [ContainerRecord], images: [ImageDescription]
  ) throws(EngineError) -> [ContainerRecord] {
    var result = containers
    for (key, wanted) in values {
      switch key {
      case "id": result.removeAll { container in !wanted.contains { container.id.text.hasPrefix($0) } }
      case "name":
        result.removeAll { container in !wanted.contains { "/\(container.name)".holds($0) } }
      case "label": result.removeAll { !Self.has(ContainerListing.labels($0), wanted) }
      case "exited":
        result.removeAll { $0.state.status != .exited || !wanted.contains(String($0.state.exitCode)) }
      case "status": result.removeAll { !wanted.contains($0.state.status.rawValue) }
      case "ancestor":
        let ancestors = wanted.compactMap { Self.image($0, images) }
        result.removeAll { container in !ancestors.contains { Self.descends(container, from: $0, images) } }
      case "before", "since":
        for name in wanted {
          let other = try Self.find(name, all)
          result.removeAll { key == "before" ? $0.created >= other.created : $0.created <= other.created }
        }
      case "publish": result.removeAll { container in !wanted.contains { Self.publishes(container, $0) } }
      case "expose": result.removeAll { container in !wanted.contains { Self.exposes(container, $0) } }
      case "volume":
        result.removeAll { container in
          !container.mountPoints.contains { wanted.contains($0.volume) || wanted.contains($0.target) }
        }
      case "network":
        result.removeAll { container in
          let ids = container.endpoints.map(\.networkID.text)
          return !wanted.contains { name in
            ContainerListing.networks(container).contains(name) || ids.contains { $0.hasPrefix(name) }
          }
        }
      case "health": result.removeAll { _ in !wanted.contains("none") }
      default: continue
      }
    }
    return result
  }

  /// All of the labels, given as `key` or `key=value`.
  static func has(_ labels: [String: String], _ wanted: [String]) -> Bool {
    wanted.allSatisfy { text in
      let pair = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard let value = labels[pair[0]] else { return false }
      return pair.count == 1 || pair[1] == value
    }
  }

  private static func find(_ name: String, _ all: [ContainerRecord]) throws(EngineError) -> ContainerRecord {
    let found = all.first { $0.name == name } ?? all.first { !name.isEmpty && $0.id.text.hasPrefix(name) }
    guard let found else { throw EngineError(.notFound, "No such container: \(name)") }
    return found
  }

  private static func image(_ name: String, _ images: [ImageDescription]) -> ImageDescription? {
    let familiar = (try? ImageReference(parsing: name))?.familiar
    let hex = name.hasPrefix("sha256:") ? String(name.dropFirst(7)) : name
    return images.first { image in familiar.map { image.references.contains($0) } ?? false }
      ?? images.first { !hex.isEmpty && $0.id.hex.hasPrefix(hex) }
  }

  /// An image descends from every image whose layers are the first of its own.
  private static func descends(
    _ container: ContainerRecord, from image: ImageDescription, _ images: [ImageDescription]
  ) -> Bool {
    container.imageID == image.id || (!image.layers.isEmpty && container.layers.starts(with: image.layers))
  }

  private static func port(_ text: String) -> (range: PortRange, transport: String)? {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count <= 2, let range = parts.first.flatMap({ PortRange($0) }) else { return nil }
    return (range, parts.count == 2 ? String(parts[1]) : "tcp")
  }

  private static func publishes(_ container: ContainerRecord, _ text: String) -> Bool {
    guard let (range, transport) = port(text) else { return false }
    return container.publishedPorts.contains {
      $0.transport.rawValue == transport && range.ports.contains($0.containerPort)
    }
  }

  private static func exposes(_ container: ContainerRecord, _ text: String) -> Bool {
    guard let (range, transport) = port(text) else { return false }
    let declared =
      container.exposedPorts + container.configuration.exposedPorts
      + container.publishedPorts.map { "\($0.containerPort)/\($0.transport.rawValue)" }
    return range.ports.contains { declared.contains("\($0)/\(transport)") }
  }
}
