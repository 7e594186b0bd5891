import BindVolumePlugin
import BridgeNetworkPlugin
import CNINetworkPlugin
import CgroupsPlugin
import ContainersPlugin
import DockerVolumePlugin
import HostNetworkPlugin
import ImagesPlugin
import JSONFileLogsPlugin
import Kernel
import LinuxRuntimePlugin
import LocalVolumePlugin
import NetworkCatalogPlugin
import NoneNetworkPlugin
import OverlaySnapshotsPlugin
import RegistryPlugin
import SQLiteRecordsPlugin
import SystemPlugin
import TmpfsVolumePlugin
import VolumeCatalogPlugin

/// The composition root: the only place that names the built-in plugins.
enum Composition {
  static func add(to manager: some PluginTaker) {
    manager.add(SQLiteRecordsPlugin.self)
    manager.add(JSONFileLogsPlugin.self)
    manager.add(OverlaySnapshotsPlugin.self)
    manager.add(RegistryPlugin.self)
    manager.add(ImagesPlugin.self)
    manager.add(CgroupsPlugin.self)
    manager.add(LinuxRuntimePlugin.self)
    manager.add(BridgeNetworkPlugin.self)
    manager.add(HostNetworkPlugin.self)
    manager.add(NoneNetworkPlugin.self)
    manager.add(CNINetworkPlugin.self)
    manager.add(NetworkCatalogPlugin.self)
    manager.add(LocalVolumePlugin.self)
    manager.add(BindVolumePlugin.self)
    manager.add(TmpfsVolumePlugin.self)
    manager.add(DockerVolumePlugin.self)
    manager.add(VolumeCatalogPlugin.self)
    manager.add(ContainersPlugin.self)
    manager.add(SystemPlugin.self)
  }

  /// What the built-in plugins say of themselves.
  static var manifests: [PluginManifest] {
    let list = ManifestList()
    add(to: list)
    return list.manifests
  }
}
