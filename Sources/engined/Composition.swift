import BindVolumePlugin
import BridgeNetworkPlugin
import CgroupsPlugin
import ContainersPlugin
import Contracts
import HostNetworkPlugin
import ImagesPlugin
import JSONFileLogsPlugin
import Kernel
import LinuxRuntimePlugin
import LocalVolumePlugin
import NetworkCatalogPlugin
import NoneNetworkPlugin
import OverlaySnapshotsPlugin
import SQLiteRecordsPlugin
import SystemPlugin
import TmpfsVolumePlugin
import VolumeCatalogPlugin

/// The composition root: the only place that names the built-in plugins.
enum Composition {
  static func add(to manager: PluginManager) {
    manager.add(SQLiteRecordsPlugin.self)
    manager.add(JSONFileLogsPlugin.self)
    manager.add(OverlaySnapshotsPlugin.self)
    manager.add(ImagesPlugin.self)
    manager.add(CgroupsPlugin.self)
    manager.add(LinuxRuntimePlugin.self)
    manager.add(BridgeNetworkPlugin.self)
    manager.add(HostNetworkPlugin.self)
    manager.add(NoneNetworkPlugin.self)
    manager.add(NetworkCatalogPlugin.self)
    manager.add(LocalVolumePlugin.self)
    manager.add(BindVolumePlugin.self)
    manager.add(TmpfsVolumePlugin.self)
    manager.add(VolumeCatalogPlugin.self)
    manager.add(ContainersPlugin.self)
    manager.add(SystemPlugin.self)
  }

  /// The driver of each role that answers when none is named.
  static func setDefaults(on bus: Bus) {
    bus.setDefaultDriver(
      "overlay",
      for: [
        SnapshotApply.self, SnapshotRemoveLayers.self, SnapshotLayers.self, SnapshotMount.self, SnapshotRemove.self,
        SnapshotUsage.self, SnapshotDifferences.self, SnapshotSync.self,
      ])
    bus.setDefaultDriver("json-file", for: [LogOpen.self, LogRead.self, LogRemove.self])
    bus.setDefaultDriver(
      "bridge",
      for: [
        NetworkDriverCreate.self, NetworkDriverRemove.self, NetworkDriverAttach.self, NetworkDriverDetach.self,
      ])
    bus.setDefaultDriver(
      "local",
      for: [
        VolumeDriverCreate.self, VolumeDriverRemove.self, VolumeDriverMount.self, VolumeDriverUnmount.self,
      ])
  }
}
