import Foundation
import PackagePlugin

/// Writes a target's `Composition`: the list of the built-in plugins that it links, so that `Package.swift` is the only
/// place that names them. They are its dependencies whose folders are below `Plugins`, in the order of `Package.swift`.
@main
struct Composition: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
    let place = context.package.directoryURL.appending(path: "Plugins").path + "/"
    let modules = target.dependencies.compactMap { dependency -> String? in
      guard case .target(let module) = dependency, module.directoryURL.path.hasPrefix(place) else { return nil }
      return module.name
    }
    let file = context.pluginWorkDirectoryURL.appending(path: "Composition.swift")
    // The names are arguments, and not read from a file, because other arguments are what runs the command again.
    return [
      .buildCommand(
        displayName: "Composing \(modules.count) plugins for \(target.name)",
        executable: try context.tool(named: "composition-writer").url, arguments: [file.path] + modules,
        outputFiles: [file])
    ]
  }
}
