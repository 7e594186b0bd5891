import Contracts
import Kernel

extension Lifecycle {
  /// Tells everybody what happened to a container, with its labels, its image and its name.
  func tell(_ action: String, _ record: ContainerRecord, _ more: [String: String] = [:]) async {
    var attributes = record.imageLabels.merging(record.configuration.labels) { $1 }
    attributes["image"] = record.configuration.image
    attributes["name"] = record.name
    attributes.merge(more) { $1 }
    await bus.publish(
      EngineEvent(kind: .container, action: action, object: record.id.text, attributes: attributes))
  }

  /// Tells that a container came to its networks, or left them.
  func tell(_ action: String, _ endpoints: [Endpoint], of record: ContainerRecord) async {
    for endpoint in endpoints {
      await bus.publish(
        EngineEvent(
          kind: .network, action: action, object: endpoint.networkID.text,
          attributes: ["container": record.id.text, "name": endpoint.networkName, "type": endpoint.driver]))
    }
  }
}
