import Composition
import Contracts
import EngineConfiguration
import Kernel
import LinuxSystem
import Wire

/// Which configuration file a daemon reads, and what it says.
enum DaemonConfiguration {
  /// The file of an instance: the one that the command line names; the one that a daemon of this instance read before,
  /// until the machine reboots (so that a container's shim starts the same engine again); or the usual places.
  ///
  /// - Returns: nil where there is none: everything is at its default.
  static func path(named: String?, _ paths: InstancePaths) -> String? {
    if let named { return named.isEmpty ? nil : named }
    let usual = ["\(paths.root)/engine.toml"] + (paths.isDefault ? ["/etc/engine/engine.toml"] : [])
    if let former = try? Files.readText(paths.configurationNote), !former.isEmpty, !usual.contains(former) {
      return former
    }
    return usual.first { Files.exists($0) }
  }

  /// Reads the file and notes which one it is.
  static func load(
    named: String?, _ paths: InstancePaths, _ manifests: [PluginManifest]
  ) throws(EngineError) -> EngineConfiguration {
    let path = path(named: named, paths)
    let configuration = try path.map { (path) throws(EngineError) in
      try ConfigurationFile.read(path, manifests: manifests)
    }
    do {
      try Files.replace(paths.configurationNote, with: Array((path ?? "").utf8), durable: false)
    } catch {
      throw EngineError(.internalFailure, "the configuration's path cannot be noted: \(error)")
    }
    return configuration ?? EngineConfiguration()
  }

  /// `engined --check-config FILE`.
  ///
  /// - Returns: the exit status.
  static func check(_ path: String) -> Int32 {
    do {
      let configuration = try ConfigurationFile.read(path, manifests: try Composition.plugins().map { $0.manifest })
      for warning in configuration.warnings { DaemonOptions.print(warning, to: 2) }
      DaemonOptions.print("\(path) is correct.", to: 1)
      return 0
    } catch {
      DaemonOptions.print(error.description, to: 2)
      return 1
    }
  }

  /// `engined --default-config`.
  ///
  /// - Returns: the exit status.
  static func printStandard() -> Int32 {
    do {
      var text = EngineConfiguration.standardText(try Composition.plugins().map { $0.manifest })
      text.removeLast()
      DaemonOptions.print(text, to: 1)
      return 0
    } catch {
      DaemonOptions.print("engined: \(error)", to: 2)
      return 1
    }
  }
}
