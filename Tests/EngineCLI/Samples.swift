import Contracts

/// Records to show.
enum Samples {
  static let now = Timestamp("2024-01-02T03:04:05Z") ?? .never

  static func ago(_ seconds: Int64) -> Timestamp { Timestamp(nanoseconds: now.nanoseconds - seconds * 1_000_000_000) }

  static func id(_ digit: Character) -> ObjectID? { ObjectID(String(repeating: digit, count: 64)) }
  static func digest(_ digit: Character) -> Digest? { Digest(hex: String(repeating: digit, count: 64)) }

  static func container(
    _ digit: Character, name: String, image: String = "nginx", status: ContainerStatus = .running,
    change: (inout ContainerRecord) -> Void = { _ in }
  ) -> ContainerRecord? {
    guard let id = id(digit), let imageID = digest("e"), let network = Self.id("f") else { return nil }
    var configuration = ContainerConfiguration(image: image)
    configuration.labels = ["tier": "web"]
    var record = ContainerRecord(
      id: id, name: name, created: ago(7200), configuration: configuration, imageID: imageID, layers: [imageID],
      path: "/docker-entrypoint.sh", arguments: ["nginx", "-g", "daemon off;"], environment: ["PATH=/bin"],
      workingDirectory: "/", user: "", exposedPorts: ["80/tcp"], stopSignal: "SIGQUIT", imageLabels: [:], mounts: [],
      mountPoints: [], log: LogOpen.Reply(path: "/log", maximumSize: 0, maximumFiles: 1))
    record.state.status = status
    if status != .created { record.state.started = ago(180) }
    if status == .running { record.state.pid = 42 }
    record.endpoints = [
      Endpoint(
        id: id, networkID: network, networkName: "bridge", driver: "bridge", interface: "eth0", address: "172.17.0.2",
        prefixLength: 16, gateway: "172.17.0.1", hardwareAddress: "02:42:ac:11:00:02")
    ]
    change(&record)
    return record
  }
}
