/// Writes a container's file system as a tar archive, without what is mounted into it (`export`); the container may run.
public struct ContainerExport: Request {
  public static let name = "container.export"
  public typealias Reply = Done
  /// Name, ID or a unique prefix.
  public var container: String
  /// A file or pipe, written to its end.
  public var output: Descriptor

  public init(container: String, output: Descriptor) {
    self.container = container
    self.output = output
  }
}
