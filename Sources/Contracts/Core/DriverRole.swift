/// A role that drivers fill, in the engine or out of tree: the messages that are routed by the driver's name.
public struct DriverRole: Sendable {
  public let name: String
  public let requests: [any Request.Type]
  public let streams: [any StreamRequest.Type]

  public var messages: [any Message.Type] { requests + streams }

  public static let volume = DriverRole(
    name: "volume",
    requests: [
      VolumeDriverCreate.self, VolumeDriverRemove.self, VolumeDriverMount.self, VolumeDriverUnmount.self,
    ], streams: [])

  public static let network = DriverRole(
    name: "network",
    requests: [
      NetworkDriverCreate.self, NetworkDriverRemove.self, NetworkDriverAttach.self, NetworkDriverDetach.self,
    ], streams: [])

  public static let log = DriverRole(
    name: "log", requests: [LogOpen.self, LogRemove.self], streams: [LogRead.self])

  public static let snapshot = DriverRole(
    name: "snapshot",
    requests: [
      SnapshotApply.self, SnapshotRemoveLayers.self, SnapshotLayers.self, SnapshotMount.self, SnapshotRemove.self,
      SnapshotUsage.self, SnapshotSync.self, SnapshotExport.self, SnapshotDifferences.self,
    ], streams: [])

  public static let all = [volume, network, log, snapshot]

  public static func named(_ name: String) -> DriverRole? { all.first { $0.name == name } }
}
