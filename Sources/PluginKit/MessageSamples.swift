import Contracts
import Wire

/// One message of a role with its answer, as they travel, for the author's guide: made of the contract's own types, so
/// that the guide cannot say what the types do not.
public struct MessageSample: Sendable {
  public var message: String
  /// The whole request and the whole answer, indented.
  public var request: String
  public var answer: String
}

public enum MessageSamples {
  private static let container = ObjectID("4b3770c4894e" + String(repeating: "0", count: 52))
  private static let network = ObjectID("9f86d081884c" + String(repeating: "0", count: 52))
  private static let endpoint = ObjectID("e3b0c44298fc" + String(repeating: "0", count: 52))

  /// A sample of each message that a driver out of tree may be sent.
  public static func all() throws(EngineError) -> [MessageSample] {
    guard let container, let network, let endpoint else { return [] }
    // Descriptors of no file: only their places beside the frame are shown.
    func descriptor() -> Descriptor { Descriptor(adopting: -1) }
    var definition = NetworkDefinition(
      id: network, name: "lab", driver: "example", created: Timestamp(nanoseconds: 1_790_000_000_000_000_000))
    let asked = definition
    definition.pools = [AddressPool(subnet: "10.213.0.0/16", gateway: "10.213.0.1")]
    let port = PortBinding(transport: .tcp, hostAddress: "", hostPort: 8080, containerPort: 80)
    let place = Endpoint(
      id: endpoint, networkID: network, networkName: "lab", driver: "example", interface: "eth0",
      address: "10.213.0.2", prefixLength: 16, gateway: "10.213.0.1", hardwareAddress: "02:42:0a:d5:00:02")
    return [
      try sample(
        PluginDescribe(
          plugin: "example", stateDirectory: "/var/lib/engine/drivers/example",
          runtimeDirectory: "/run/engine/5f0c1a2b/drivers/example", options: ["place": "/srv/volumes"]),
        .init(role: "volume", driver: "example", version: "1.0", capabilities: [])),
      try sample(
        VolumeDriverCreate(volume: "data", options: [:]), .init(mountpoint: "/srv/volumes/data")),
      try sample(
        VolumeDriverMount(volume: "data", container: container, options: [:]),
        .init(mount: nil, path: "/srv/volumes/data")),
      try sample(VolumeDriverUnmount(volume: "data", container: container), Done()),
      try sample(VolumeDriverRemove(volume: "data"), Done()),
      try sample(NetworkDriverCreate(definition: asked), definition),
      try sample(
        NetworkDriverAttach(
          container: container, namespace: descriptor(),
          attachments: [
            .init(
              definition: definition, request: EndpointRequest(network: "lab"), interface: "eth0",
              isDefaultRoute: true)
          ], ports: [port]), .init(endpoints: [place], ports: [port], reservations: [])),
      try sample(NetworkDriverDetach(container: container), Done()),
      try sample(NetworkDriverRemove(definition: definition), Done()),
      try sample(
        LogOpen(container: container, options: ["address": "unix:///run/collector.sock"]),
        .init(path: "/var/lib/engine/drivers/example/4b3770c4894e/log", maximumSize: 10 << 20, maximumFiles: 1)),
      try sample(
        LogRead(
          container: container, output: descriptor(), error: descriptor(), follow: true, running: descriptor(),
          tail: 100, since: Timestamp(nanoseconds: 1_790_000_000_000_000_000),
          until: Timestamp(nanoseconds: 1_790_000_060_500_000_000), timestamps: false)),
      try sample(LogRemove(container: container), Done()),
    ] + (try snapshots(container))
  }

  private static func snapshots(_ container: ObjectID) throws(EngineError) -> [MessageSample] {
    guard let lower = Digest("sha256:6e34" + String(repeating: "0", count: 60)),
      let upper = Digest("sha256:a1d0" + String(repeating: "0", count: 60)),
      let stream = Digest("sha256:c7f2" + String(repeating: "0", count: 60))
    else { return [] }
    func descriptor() -> Descriptor { Descriptor(adopting: -1) }
    return [
      try sample(
        SnapshotApply(parent: lower, differenceID: stream, archive: descriptor()),
        .init(differenceID: stream, chainID: upper, size: 4096)),
      try sample(SnapshotSync(), Done()),
      try sample(SnapshotLayers(), [lower, upper]),
      try sample(SnapshotRemoveLayers(chainIDs: [upper]), Done()),
      try sample(
        SnapshotMount(container: container, layers: [lower, upper], discardable: false), .init(root: descriptor())),
      try sample(SnapshotRemove(container: container), Done()),
      try sample(SnapshotUsage(container: container), 4096),
      try sample(
        SnapshotDifferences(container: container, layers: [lower, upper], ignored: ["/etc/hosts"]),
        [.init(kind: .added, path: "/note")]),
      try sample(SnapshotExport(container: container, layers: [lower, upper], output: descriptor()), Done()),
    ]
  }

  private static func sample<R: Request>(_ request: R, _ reply: R.Reply) throws(EngineError) -> MessageSample {
    MessageSample(
      message: R.name, request: try text(try OutgoingMessage.request(7, R.name, request, driver: driver(R.name))),
      answer: try text(try OutgoingMessage.result(7, reply)))
  }

  private static func sample<R: StreamRequest>(_ request: R) throws(EngineError) -> MessageSample {
    MessageSample(
      message: R.name, request: try text(try OutgoingMessage.request(7, R.name, request, driver: driver(R.name))),
      answer: try text(try OutgoingMessage.result(7, Done())))
  }

  private static func driver(_ message: String) -> String { message == PluginDescribe.name ? "" : "example" }

  private static func text(_ frame: OutgoingFrame) throws(EngineError) -> String {
    try JSON.write(try JSON.parse(frame.bytes.dropFirst(FrameHeader.size)), pretty: true)
  }

  /// The answer of a driver that refuses.
  public static func refusal() throws(EngineError) -> String {
    try text(try OutgoingMessage.failure(7, EngineError(.notFound, "no such volume: data")))
  }

  /// The first message in each direction.
  public static func greeting() throws(EngineError) -> String {
    try text(try OutgoingMessage.hello(Hello(agent: "example 1.0")))
  }
}
