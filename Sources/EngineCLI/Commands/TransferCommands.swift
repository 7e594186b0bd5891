import Contracts
import Glibc
import Wire

/// `pull`, `push`, `save`, `history`, `image prune`, `export`.
enum TransferCommands {
  static let all: [Command] = [
    Command(
      "pull", "image pull", usage: "[OPTIONS] NAME[:TAG|@DIGEST]", summary: "Download an image from a registry",
      arguments: .exactly(1),
      flags: {
        [
          .boolean("all-tags", "a", "Download all tagged images in the repository"),
          .string("platform", nil, "Set platform if server is multi-platform capable"),
          .boolean("quiet", "q", "Suppress verbose output"), .ignored("disable-content-trust"),
        ]
      }, run: pull),
    Command(
      "push", "image push", usage: "[OPTIONS] NAME[:TAG]", summary: "Upload an image to a registry",
      arguments: .exactly(1),
      flags: {
        [
          .boolean("all-tags", "a", "Push all tags of an image to the repository"),
          .boolean("quiet", "q", "Suppress verbose output"), .ignored("disable-content-trust"),
        ]
      }, run: push),
    Command(
      "save", "image save", usage: "[OPTIONS] IMAGE [IMAGE...]",
      summary: "Save one or more images to a tar archive (streamed to STDOUT by default)", arguments: .atLeast(1),
      flags: {
        [
          .string("output", "o", "Write to a file, or to a directory as an OCI layout, instead of STDOUT"),
          .string("platform", nil, "Save only the given platform variant. Formatted as \"os[/arch[/variant]]\""),
        ]
      },
      run: { invocation in
        try ImageTransfer.output(invocation.options.string("output"), takesDirectory: true) { output in
          let request = ImageSave(
            references: invocation.arguments, output: output, platform: invocation.options.string("platform"))
          _ = try ImageTransfer.follow(request, invocation.global, output: 2, isQuiet: true)
        }
        return 0
      }),
    Command(
      "export", "container export", usage: "[OPTIONS] CONTAINER",
      summary: "Export a container's filesystem as a tar archive", arguments: .exactly(1),
      flags: { [.string("output", "o", "Write to a file, instead of STDOUT")] },
      run: { invocation in
        try ImageTransfer.output(invocation.options.string("output"), takesDirectory: false) { output in
          var client = try Engine.connect(invocation.global)
          _ = try client.request(ContainerExport(container: invocation.arguments[0], output: output))
        }
        return 0
      }),
    Command(
      "history", "image history", usage: "[OPTIONS] IMAGE", summary: "Show the history of an image",
      arguments: .exactly(1),
      flags: {
        [
          .string("format", nil, ListCommands.formatHelp),
          .boolean("human", "H", "Print sizes and dates in human readable format", initially: true),
          .boolean("no-trunc", nil, "Don't truncate output"), .boolean("quiet", "q", "Only show image IDs"),
        ]
      }, run: history),
    Command(
      "image prune", usage: "[OPTIONS]", summary: "Remove unused images", arguments: .exactly(0),
      flags: {
        [
          .boolean("all", "a", "Remove all unused images, not just dangling ones"),
          .list("filter", nil, "Provide filter values (e.g. \"until=<timestamp>\")", type: "filter") {
            (text) throws(EngineError) in
            guard text.contains("=") else {
              throw EngineError(.invalidArgument, "bad format of filter (expected name=value)")
            }
          },
          .boolean("force", "f", "Do not prompt for confirmation"),
        ]
      }, run: prune),
  ]

  private static func pull(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let text = invocation.arguments[0]
    let isQuiet = options.boolean("quiet")
    let allTags = options.boolean("all-tags")
    let reference = try ImageReference(parsing: text)
    if !allTags, !isQuiet, try ImageReference.isBare(text) { Console.line("Using default tag: latest") }
    try ImageTransfer.pull(
      text, platform: options.string("platform"), allTags: allTags, invocation.global, output: 1, isQuiet: isQuiet,
      isOwnCommand: true)
    Console.line(allTags ? "\(reference.registry)/\(reference.repository)" : reference.description)
    return 0
  }

  private static func push(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let text = invocation.arguments[0]
    let isQuiet = options.boolean("quiet")
    let allTags = options.boolean("all-tags")
    let reference = try ImageReference(parsing: text)
    if !allTags, !isQuiet, try ImageReference.isBare(text) { Console.line("Using default tag: latest") }
    let request = ImagePush(
      reference: text, allTags: allTags, credentials: try Credentials.credentials(for: reference.registry))
    _ = try ImageTransfer.follow(request, invocation.global, output: 1, isQuiet: isQuiet, isOwnCommand: true)
    if isQuiet { Console.line(allTags ? "\(reference.registry)/\(reference.repository)" : reference.description) }
    return 0
  }

  private static func history(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let format = try OutputFormat(options.string("format"))
    var client = try Engine.connect(invocation.global)
    let steps = try client.request(ImageHistory(reference: invocation.arguments[0]))
    let truncates = !options.boolean("no-trunc")
    if options.boolean("quiet"), case .table = format {
      Console.out(
        steps.map { ($0.id.map { truncates ? $0.short : $0.description } ?? "<missing>") + "\n" }.joined())
      return 0
    }
    let listing = HistoryListing.make(
      steps, truncates: truncates, isHuman: options.boolean("human", default: true))
    Console.out(try listing.text(format))
    return 0
  }

  private static func prune(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let all = options.boolean("all")
    var request = ImagePrune(all: all)
    for text in options.list("filter") {
      let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      switch parts[0] {
      case "until": request.until = try Moment.parse(parts[1], now: .now)
      case "label": request.labels.append(parts[1])
      case "label!": request.withoutLabels.append(parts[1])
      case "dangling": request.all = !(try Truth.parse(parts[1]))
      default: throw EngineError(.invalidArgument, "invalid filter '\(parts[0])'")
      }
    }
    if !options.boolean("force") {
      let what = all ? "all images without at least one container associated to them" : "all dangling images"
      Console.out("WARNING! This will remove \(what).\nAre you sure you want to continue? [y/N] ")
      guard let answer = readLine(), ["y", "yes"].contains(answer.lowercased()) else { return 0 }
    }
    var client = try Engine.connect(invocation.global)
    let reply = try client.request(request)
    if !reply.steps.isEmpty {
      Console.line("Deleted Images:")
      for step in reply.steps {
        switch step {
        case .untagged(let name): Console.line("untagged: \(name)")
        case .deleted(let digest): Console.line("deleted: \(digest)")
        }
      }
      Console.line("")
    }
    Console.line("Total reclaimed space: \(HumanText.size(reply.reclaimed))")
    return 0
  }
}

/// The rows of `history`.
enum HistoryListing {
  private static let fields: [Listing.Column] = [
    .init("ID", "IMAGE"), .init("CreatedSince", "CREATED"), .init("CreatedAt", "CREATED AT"),
    .init("CreatedBy", "CREATED BY"), .init("Size", "SIZE"), .init("Comment", "COMMENT"),
  ]

  static func make(
    _ steps: [ImageHistoryEntry], truncates: Bool, isHuman: Bool, now: Timestamp = .now
  ) -> Listing {
    Listing(
      rowType: "historyContext",
      columns: ["ID", isHuman ? "CreatedSince" : "CreatedAt", "CreatedBy", "Size", "Comment"], fields: fields,
      rows: steps.map { step in
        let by = String(step.createdBy.map { $0 == "\t" ? " " : $0 })
        return [
          "ID": step.id.map { truncates ? $0.short : $0.description } ?? "<missing>",
          "CreatedSince": step.created.map { HumanText.ago($0, now: now) } ?? "N/A",
          "CreatedAt": step.created?.description ?? "",
          "CreatedBy": truncates ? HumanText.ellipsis(by, 45) : by,
          "Size": isHuman ? HumanText.size(step.size) : String(step.size),
          "Comment": step.comment,
        ]
      })
  }
}
