/// What a list shows of a container: a quarter of its record, since a list of hundreds is mostly the work of encoding
/// and decoding it.
public struct ContainerSummary: Codable, Sendable, Equatable {
  public var id: ObjectID
  public var containerName: String
  public var created: Timestamp
  /// The image as the user wrote it, and what it was then.
  public var image: String
  public var imageID: Digest
  /// Chain IDs of the image's layers, lowest first.
  public var layers: [Digest]
  public var path: String
  public var arguments: [String]
  /// The image's, with the container's own over them.
  public var labels: [String: String]
  /// The image's and the container's own.
  public var exposedPorts: [String]
  @PortRuns public var publishedPorts: [PortBinding] = []
  public var mountPoints: [MountPoint]
  /// What the user asked for, by name.
  public var networks: [String]
  public var endpoints: [Endpoint]
  public var state: ContainerState

  public init(_ record: ContainerRecord) {
    id = record.id
    containerName = record.name
    created = record.created
    image = record.configuration.image
    imageID = record.imageID
    layers = record.layers
    path = record.path
    arguments = record.arguments
    labels = record.imageLabels.merging(record.configuration.labels) { _, own in own }
    exposedPorts = record.exposedPorts + record.configuration.exposedPorts
    publishedPorts = record.publishedPorts
    mountPoints = record.mountPoints
    networks = record.configuration.networks.map(\.network)
    endpoints = record.endpoints
    state = record.state
  }

  /// A record with nothing but what the summary tells.
  public var record: ContainerRecord {
    var configuration = ContainerConfiguration(image: image)
    configuration.labels = labels
    configuration.networks = networks.map { EndpointRequest(network: $0) }
    var record = ContainerRecord(
      id: id, name: containerName, created: created, configuration: configuration, imageID: imageID, layers: layers,
      path: path, arguments: arguments, environment: [], workingDirectory: "", user: "", exposedPorts: exposedPorts,
      stopSignal: "", imageLabels: [:], mounts: [], mountPoints: mountPoints,
      log: LogOpen.Reply(path: "", maximumSize: 0, maximumFiles: 0))
    record.publishedPorts = publishedPorts
    record.endpoints = endpoints
    record.state = state
    return record
  }
}

/// What `ps` shows, newest first; filters, limits and formats are the client's.
public struct ContainerSummaries: Request {
  public static let name = "container.summaries"
  public typealias Reply = [ContainerSummary]
  /// Also those that do not run.
  public var all: Bool

  public init(all: Bool) { self.all = all }
}
