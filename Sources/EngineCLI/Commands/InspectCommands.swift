import Contracts
import Wire

/// `inspect` and its companions for one kind of object.
enum InspectCommands {
  /// In the order in which an object that could be several things is looked for.
  enum Kind: String, CaseIterable {
    case container
    case image
    case network
    case volume
  }

  static let all: [Command] = [
    Command(
      "inspect", usage: "[OPTIONS] NAME|ID [NAME|ID...]", summary: "Return low-level information on objects",
      arguments: .atLeast(1),
      flags: {
        [
          formatFlag, .boolean("size", "s", "Display total file sizes if the type is container"),
          timingsFlag, .string("type", nil, "Only inspect objects of the given type"),
        ]
      },
      run: { invocation in
        if invocation.options.boolean("timings") { return try TimingsCommand.run(invocation) }
        guard let type = invocation.options.string("type"), !type.isEmpty else {
          return try inspect(invocation, Kind.allCases)
        }
        guard let kind = Kind(rawValue: type) else {
          let kinds = Kind.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
          throw Failure("unknown type: \"\(type)\": must be one of \(kinds)")
        }
        return try inspect(invocation, [kind])
      }),
    Command(
      "container inspect", usage: "[OPTIONS] CONTAINER [CONTAINER...]",
      summary: "Display detailed information on one or more containers", arguments: .atLeast(1),
      flags: { [formatFlag, .boolean("size", "s", "Display total file sizes"), timingsFlag] },
      run: { invocation in
        if invocation.options.boolean("timings") { return try TimingsCommand.run(invocation) }
        return try inspect(invocation, [.container])
      }),
    Command(
      "image inspect", usage: "[OPTIONS] IMAGE [IMAGE...]",
      summary: "Display detailed information on one or more images", arguments: .atLeast(1),
      flags: { [formatFlag] }, run: { try inspect($0, [.image]) }),
    Command(
      "volume inspect", usage: "[OPTIONS] VOLUME [VOLUME...]",
      summary: "Display detailed information on one or more volumes", arguments: .atLeast(1),
      flags: { [formatFlag] }, run: { try inspect($0, [.volume]) }),
    Command(
      "network inspect", usage: "[OPTIONS] NETWORK [NETWORK...]",
      summary: "Display detailed information on one or more networks", arguments: .atLeast(1),
      flags: { [formatFlag, .boolean("verbose", "v", "Verbose output for diagnostics")] },
      run: { try inspect($0, [.network]) }),
  ]

  static let formatFlag = Flag.string(
    "format", "f",
    "Format output using a custom template:\n'json':             Print in JSON format\n"
      + "'TEMPLATE':         Print output using the given Go template.")

  private static let timingsFlag = Flag.boolean("timings", nil, "Show how a container's start went, step by step")

  /// The members whose keys are data, so that a missing one is no mistake.
  static let maps: Set<String> = [
    "Labels", "Ports", "Networks", "Options", "Volumes", "ExposedPorts", "PortBindings", "Data", "DriverOpts",
    "Sysctls", "Tmpfs", "Containers", "Status",
  ]

  private static func inspect(_ invocation: borrowing Invocation, _ kinds: [Kind]) throws -> Int32 {
    let format = invocation.options.string("format") ?? ""
    var template: Template?
    if !format.isEmpty, format != "json" {
      do { template = try Template(OutputFormat.unescaped(format)) } catch {
        throw Failure("template parsing error: \(error)")
      }
    }
    var client = try Engine.connect(invocation.global)
    var values: [JSONValue] = []
    var complaints: [String] = []
    for name in invocation.arguments {
      do {
        guard let value = try find(name, kinds, &client, size: invocation.options.boolean("size")) else {
          complaints.append("Error: No such object: \(name)")
          continue
        }
        values.append(value)
      } catch {
        complaints.append(Reports.line(error))
        if error.code == .unavailable { break }
      }
    }
    if let template {
      do {
        var text = ""
        for value in values { text += try template.render(value, strictness: .keys(maps: maps)) + "\n" }
        Console.out(text.isEmpty ? "\n" : text)
      } catch {
        throw Failure("template parsing error: \(error)")
      }
    } else {
      Console.line(JSONText.write(.array(values), indent: format == "json" ? nil : "    "))
    }
    for complaint in complaints { Console.error(complaint) }
    return complaints.isEmpty ? 0 : 1
  }

  /// - Returns: nil when there is no such object of any of several kinds.
  private static func find(
    _ name: String, _ kinds: [Kind], _ client: inout Client, size: Bool
  ) throws(EngineError) -> JSONValue? {
    for kind in kinds {
      do {
        return try find(name, kind, &client, size: size)
      } catch {
        // A name that one kind cannot have may be another's.
        guard kinds.count > 1, error.code == .notFound || error.code == .invalidArgument else { throw error }
      }
    }
    return nil
  }

  private static func find(
    _ name: String, _ kind: Kind, _ client: inout Client, size: Bool
  ) throws(EngineError) -> JSONValue {
    switch kind {
    case .container:
      let record = try client.request(ContainerInspect(container: name))
      guard size else { return ContainerInspection.value(record) }
      let writable = try client.request(ContainerSize(container: record.id.text))
      let image = try client.request(ImageList()).first { $0.id == record.imageID }?.size ?? 0
      return ContainerInspection.value(record, size: .init(writable: writable, virtual: writable + image))
    case .image: return ImageInspection.value(try client.request(ImageResolve(reference: name)))
    case .volume: return VolumeInspection.value(try client.request(VolumeInspect(volume: name)))
    case .network:
      let network = try client.request(NetworkInspect(network: name))
      var names: [ObjectID: String] = [:]
      if !network.endpoints.isEmpty {
        for container in try client.request(ContainerList(all: true)) { names[container.id] = container.name }
      }
      return NetworkInspectionText.value(network, names: names)
    }
  }
}
