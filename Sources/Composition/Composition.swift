import CComposition
import Contracts
import Kernel

/// The built-in plugins. `Package.swift` is the only place that names them.
public enum Composition {
  /// The plugins in the order of `Package.swift`: of each module the class of its name.
  ///
  /// - Throws: `notFound` for a module without such a class, `invalidArgument` where that is no `Plugin`.
  public static func plugins() throws(EngineError) -> [any Plugin.Type] {
    var count = 0
    let modules = UnsafeBufferPointer(start: built_in_modules(&count), count: count)
    var plugins: [any Plugin.Type] = []
    for module in modules {
      let name = String(cString: module.name)
      guard let metadata = module.type?(0) else {
        throw EngineError(.notFound, "the module \(name) of Package.swift has no class of the name \(name)")
      }
      guard let plugin = unsafeBitCast(metadata, to: Any.Type.self) as? any Plugin.Type else {
        throw EngineError(.invalidArgument, "the class \(name) of the module \(name) is no Plugin")
      }
      plugins.append(plugin)
    }
    return plugins
  }
}
