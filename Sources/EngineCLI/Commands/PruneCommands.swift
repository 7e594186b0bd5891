import Contracts
import Glibc
import LinuxSystem
import Wire

/// What nobody uses any more is removed: `container prune`, `volume prune`, `network prune`, `system prune`.
enum PruneCommands {
  static let all: [Command] = [
    Command(
      "container prune", usage: "[OPTIONS]", summary: "Remove all stopped containers", arguments: .exactly(0),
      flags: { [filter, force] }, run: containers),
    Command(
      "volume prune", usage: "[OPTIONS]", summary: "Remove unused local volumes", arguments: .exactly(0),
      flags: { [.boolean("all", "a", "Remove all unused volumes, not just anonymous ones"), filter, force] },
      run: volumes),
    Command(
      "network prune", usage: "[OPTIONS]", summary: "Remove all unused networks", arguments: .exactly(0),
      flags: { [filter, force] }, run: networks),
    Command(
      "system prune", usage: "[OPTIONS]", summary: "Remove unused data", arguments: .exactly(0),
      flags: {
        [
          .boolean("all", "a", "Remove all unused images not just dangling ones"), filter, force,
          .boolean("volumes", nil, "Prune anonymous volumes"),
        ]
      }, run: system),
  ]

  private static var filter: Flag {
    .list("filter", nil, "Provide filter values (e.g. \"label=<key>=<value>\")", type: "filter")
  }
  private static var force: Flag { .boolean("force", "f", "Do not prompt for confirmation") }

  /// `until` and `label` of `--filter`.
  struct Filter {
    var until: Timestamp?
    var labels: [String] = []
    var excludedLabels: [String] = []

    init(_ texts: [String], takesUntil: Bool = true) throws {
      for text in texts {
        let pair = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        guard pair.count == 2 else {
          throw Failure(
            "invalid argument \"\(text)\" for \"--filter\" flag: bad format of filter (expected name=value)")
        }
        switch pair[0] {
        case "until" where takesUntil: until = try Moment.parse(pair[1])
        case "label": labels.append(pair[1])
        case "label!": excludedLabels.append(pair[1])
        default: throw EngineError(.invalidArgument, "invalid filter '\(pair[0])'")
        }
      }
    }

    func takes(_ created: Timestamp, _ labels: [String: String]) -> Bool {
      if let until, created >= until { return false }
      return ContainerFilter.has(labels, self.labels)
        && !excludedLabels.contains { ContainerFilter.has(labels, [$0]) }
    }
  }

  /// Asks the user; what is not `y` means no.
  private static func confirms(_ options: Options, _ warning: String) -> Bool {
    if options.boolean("force") { return true }
    Console.out("\(warning)\nAre you sure you want to continue? [y/N] ")
    var answer: [UInt8] = []
    var byte: UInt8 = 0
    while read(0, &byte, 1) == 1, byte != 10 { answer.append(byte) }
    return ["y", "Y"].contains(String(decoding: answer, as: UTF8.self).prefix { $0 != "\r" })
  }

  /// - Returns: nil when somebody else was faster: it is gone, or in use now.
  private static func ask<R: Request>(_ request: R, _ client: inout Client) throws(EngineError) -> R.Reply? {
    do throws(EngineError) {
      return try client.request(request)
    } catch {
      if [.notFound, .conflict, .inUse].contains(error.code) { return nil }
      throw error
    }
  }

  /// Removes what a driver has made. One that is gone or does not answer keeps it, and nothing else from going.
  ///
  /// - Parameters:
  ///   - thing: what it is, for people.
  ///   - there: tells whether it is still there.
  private static func remove<R: Request>(
    _ thing: String, _ request: R, _ client: inout Client, there: (inout Client) throws(EngineError) -> Bool
  ) throws(EngineError) -> Bool {
    do throws(EngineError) {
      _ = try client.request(request)
      return true
    } catch {
      // Somebody else was faster, unless it is there after all.
      if ![.conflict, .inUse].contains(error.code), try there(&client) {
        Console.error("WARNING: the \(thing) is kept: \(error)")
      }
      return false
    }
  }

  /// What went, for the end of the report.
  private struct Gone {
    var names: [String] = []
    var bytes: Int64 = 0

    func show(_ title: String) { if !names.isEmpty { Console.out("\(title):\n\(names.joined(separator: "\n"))\n\n") } }
  }

  private static func containers(_ invocation: borrowing Invocation) throws -> Int32 {
    let filter = try Filter(invocation.options.list("filter"))
    guard confirms(invocation.options, "WARNING! This will remove all stopped containers.") else {
      throw Failure("container prune has been cancelled")
    }
    var client = try Engine.connect(invocation.global)
    let gone = try pruneContainers(&client, filter)
    gone.show("Deleted Containers")
    Console.line("Total reclaimed space: \(HumanText.size(gone.bytes))")
    return 0
  }

  private static func pruneContainers(_ client: inout Client, _ filter: Filter) throws -> Gone {
    var gone = Gone()
    for record in try client.request(ContainerList(all: true)) {
      guard [.created, .exited, .dead].contains(record.state.status),
        filter.takes(record.created, ContainerListing.labels(record))
      else { continue }
      let id = record.id.text
      guard let size = try ask(ContainerSize(container: id), &client),
        try ask(ContainerRemove(container: id, force: false, removesVolumes: false), &client) != nil
      else { continue }
      gone.names.append(id)
      gone.bytes += size
    }
    return gone
  }

  private static func volumes(_ invocation: borrowing Invocation) throws -> Int32 {
    let all = invocation.options.boolean("all")
    var texts = invocation.options.list("filter")
    let wantsAll = all || texts.contains { $0 == "all=true" || $0 == "all=1" }
    texts.removeAll { $0.hasPrefix("all=") }
    let filter = try Filter(texts, takesUntil: false)
    let kind = wantsAll ? "all" : "anonymous"
    guard
      confirms(
        invocation.options, "WARNING! This will remove \(kind) local volumes not used by at least one container.")
    else { throw Failure("volume prune has been cancelled") }
    var client = try Engine.connect(invocation.global)
    let gone = try pruneVolumes(&client, filter, all: wantsAll)
    gone.show("Deleted Volumes")
    Console.line("Total reclaimed space: \(HumanText.size(gone.bytes))")
    return 0
  }

  private static func pruneVolumes(_ client: inout Client, _ filter: Filter, all: Bool) throws -> Gone {
    var gone = Gone()
    let used = Set(try client.request(ContainerList(all: true)).flatMap { $0.mountPoints.map(\.volume) })
    for volume in try client.request(VolumeList()).sorted(by: { $0.name < $1.name }) {
      guard volume.driver == "local", !used.contains(volume.name), all || volume.isAnonymous,
        filter.takes(volume.created, volume.labels)
      else { continue }
      let size = DiskUsage.bytes(beneath: volume.mountpoint)
      let request = VolumeRemove(volume: volume.name, force: false)
      let isGone = try remove("volume \(volume.name)", request, &client) { (client) throws(EngineError) in
        try client.request(VolumeList()).contains { $0.name == volume.name }
      }
      if !isGone { continue }
      gone.names.append(volume.name)
      gone.bytes += size
    }
    return gone
  }

  private static func networks(_ invocation: borrowing Invocation) throws -> Int32 {
    let filter = try Filter(invocation.options.list("filter"))
    guard
      confirms(
        invocation.options, "WARNING! This will remove all custom networks not used by at least one container.")
    else { throw Failure("network prune has been cancelled") }
    var client = try Engine.connect(invocation.global)
    try pruneNetworks(&client, filter).show("Deleted Networks")
    return 0
  }

  private static func pruneNetworks(_ client: inout Client, _ filter: Filter) throws -> Gone {
    var gone = Gone()
    // A container that is stopped has its networks by name.
    var wanted: Set<String> = []
    for record in try client.request(ContainerList(all: true)) {
      for endpoint in record.configuration.networks { wanted.insert(endpoint.network) }
    }
    for network in try client.request(NetworkList()).sorted(by: { $0.name < $1.name }) {
      guard !["bridge", "host", "none"].contains(network.name), !wanted.contains(network.name),
        !wanted.contains(network.id.text), filter.takes(network.created, network.labels)
      else { continue }
      let request = NetworkRemove(network: network.id.text)
      let isGone = try remove("network \(network.name)", request, &client) { (client) throws(EngineError) in
        try client.request(NetworkList()).contains { $0.id == network.id }
      }
      if !isGone { continue }
      gone.names.append(network.name)
    }
    return gone
  }

  private static func system(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let filter = try Filter(options.list("filter"))
    let (all, takesVolumes) = (options.boolean("all"), options.boolean("volumes"))
    var what = ["all stopped containers", "all networks not used by at least one container"]
    if takesVolumes { what.append("all anonymous volumes not used by at least one container") }
    what.append(all ? "all images without at least one container associated to them" : "all dangling images")
    let list = what.map { "  - \($0)\n" }.joined()
    guard confirms(options, "WARNING! This will remove:\n\(list)") else {
      throw Failure("system prune has been cancelled")
    }
    var client = try Engine.connect(invocation.global)
    let containers = try pruneContainers(&client, filter)
    containers.show("Deleted Containers")
    try pruneNetworks(&client, filter).show("Deleted Networks")
    var bytes = containers.bytes
    if takesVolumes {
      let volumes = try pruneVolumes(&client, filter, all: false)
      volumes.show("Deleted Volumes")
      bytes += volumes.bytes
    }
    let images = try pruneImages(&client, filter, all: all)
    images.show("Deleted Images")
    Console.line("Total reclaimed space: \(HumanText.size(bytes + images.bytes))")
    return 0
  }

  private static func pruneImages(_ client: inout Client, _ filter: Filter, all: Bool) throws -> Gone {
    var gone = Gone()
    let used = Set(try client.request(ContainerList(all: true)).map(\.imageID))
    for image in try client.request(ImageList()) {
      guard all || image.references.isEmpty, !used.contains(image.id),
        filter.takes(image.configuration.created ?? image.stored, image.configuration.config?.labels ?? [:])
      else { continue }
      guard let steps = try ask(ImageRemove(reference: image.id.description, force: true), &client) else { continue }
      for step in steps {
        switch step {
        case .untagged(let name): gone.names.append("untagged: \(name)")
        case .deleted(let digest): gone.names.append("deleted: \(digest)")
        }
      }
      gone.bytes += image.size
    }
    return gone
  }
}

/// How much a directory holds, as du(1) counts it.
enum DiskUsage {
  static func bytes(beneath path: String) -> Int64 {
    var total: Int64 = 0
    guard let names = try? Files.list(path) else { return 0 }
    for name in names {
      var status = stat()
      guard lstat("\(path)/\(name)", &status) == 0 else { continue }
      if status.st_mode & S_IFMT == S_IFDIR {
        total += bytes(beneath: "\(path)/\(name)")
      } else {
        total += Int64(status.st_size)
      }
    }
    return total
  }
}
