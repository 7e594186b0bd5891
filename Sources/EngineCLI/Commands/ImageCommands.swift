import CLinux
import Contracts
import Glibc
import LinuxSystem
import Wire

/// `images`, `rmi`, `load`, `import`, `tag`.
enum ImageCommands {
  static let all: [Command] = [
    Command(
      "images", "image ls", "image list", usage: "[OPTIONS] [REPOSITORY[:TAG]]", summary: "List images",
      arguments: 0...1,
      flags: {
        [
          .boolean("all", "a", "Show all images (default hides intermediate images)"),
          .boolean("digests", nil, "Show digests"),
          ListCommands.filterFlag("Filter output based on conditions provided"),
          .string("format", nil, ListCommands.formatHelp),
          .boolean("no-trunc", nil, "Don't truncate output"),
          .boolean("quiet", "q", "Only show image IDs"),
        ]
      }, run: list),
    Command(
      "rmi", "image rm", "image remove", usage: "[OPTIONS] IMAGE [IMAGE...]", summary: "Remove one or more images",
      arguments: .atLeast(1),
      flags: { [.boolean("force", "f", "Force removal of the image"), .ignored("no-prune")] },
      run: { invocation in
        let force = invocation.options.boolean("force")
        return try ContainerCommands.forEach(
          invocation, forgiving: force ? .notFound : nil,
          show: { _, steps in steps.map(line).joined(separator: "\n") },
          { ImageRemove(reference: $0, force: force) })
      }),
    Command(
      "load", "image load", usage: "[OPTIONS]", summary: "Load an image from a tar archive or STDIN",
      arguments: .exactly(0),
      flags: {
        [
          .string("input", "i", "Read from tar archive file, instead of STDIN"),
          .string("platform", nil, "Load only the given platform variant. Formatted as \"os[/arch[/variant]]\""),
          .boolean("quiet", "q", "Suppress the load output"),
        ]
      }, run: load),
    Command(
      "import", "image import", usage: "[OPTIONS] file|- [REPOSITORY[:TAG]]",
      summary: "Import the contents from a tarball to create a filesystem image", arguments: 1...2,
      flags: {
        [
          .list("change", "c", "Apply Dockerfile instruction to the created image"),
          .string("message", "m", "Set commit message for imported image"),
          .string("platform", nil, "Set platform; only this machine's") { (text) throws(EngineError) in
            try Platform.check(text)
          },
        ]
      }, run: importArchive),
    Command(
      "tag", "image tag", usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
      summary: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", arguments: .exactly(2),
      run: { invocation in
        var client = try Engine.connect(invocation.global)
        _ = try client.request(ImageTag(source: invocation.arguments[0], target: invocation.arguments[1]))
        return 0
      }),
  ]

  private static func line(_ step: ImageRemovalStep) -> String {
    switch step {
    case .untagged(let name): "Untagged: \(name)"
    case .deleted(let digest): "Deleted: \(digest)"
    }
  }

  private static func list(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let format = try OutputFormat(options.string("format"))
    var client = try Engine.connect(invocation.global)
    let rows = try ImageListing.rows(
      try client.request(ImageList()), matching: invocation.arguments.first, filters: options.list("filter"),
      showsDigests: options.boolean("digests"))
    if options.boolean("quiet"), case .table = format {
      var seen: Set<Digest> = []
      let ids = rows.map(\.image.id).filter { seen.insert($0).inserted }
      Console.out(ids.map { (options.boolean("no-trunc") ? $0.description : $0.short) + "\n" }.joined())
      return 0
    }
    let listing = ImageListing.make(
      rows, truncates: !options.boolean("no-trunc"), showsDigests: options.boolean("digests"))
    Console.out(try listing.text(format))
    return 0
  }

  private static func load(_ invocation: borrowing Invocation) throws -> Int32 {
    let archive: Descriptor
    if let path = invocation.options.string("input"), path != "-" {
      archive = try open(path)
    } else {
      guard isatty(0) == 0 else { throw Failure("requested load from stdin, but stdin is empty") }
      archive = try OwnStreams.duplicate(0)
    }
    let request = ImageLoad(archive: archive, platform: invocation.options.string("platform"))
    let names = try follow(request, invocation, isQuiet: invocation.options.boolean("quiet"))
    for name in names {
      Console.line(name.hasPrefix("sha256:") ? "Loaded image ID: \(name)" : "Loaded image: \(name)")
    }
    return 0
  }

  private static func importArchive(_ invocation: borrowing Invocation) throws -> Int32 {
    let source = invocation.arguments[0]
    guard !source.hasPrefix("http://"), !source.hasPrefix("https://") else {
      throw Failure("import from a URL is not available: fetch it first, or pipe it into 'engine import -'")
    }
    let archive = source == "-" ? try OwnStreams.duplicate(0) : try open(source)
    let reference = invocation.arguments.dropFirst().first
    if let reference { _ = try ImageReference(parsing: reference) }
    let message = ImageImport(
      archive: archive, reference: reference, changes: invocation.options.list("change"),
      comment: invocation.options.string("message"))
    Console.line(try follow(message, invocation, isQuiet: true).description)
    return 0
  }

  private static func open(_ path: String) throws -> Descriptor {
    do {
      return Descriptor(adopting: try Files.open(path, O_RDONLY).release())
    } catch {
      throw Failure("open \(path): \(error.reason.lowercasedFirst)")
    }
  }

  /// Shows the progress of a long work on a terminal, where each item keeps one line.
  private static func follow<R: StreamRequest>(
    _ request: R, _ invocation: borrowing Invocation, isQuiet: Bool
  ) throws -> R.Reply where R.Element == ImageProgress {
    var client = try Engine.connect(invocation.global)
    let id = try client.send(request)
    let isShown = !isQuiet && isatty(2) != 0
    var last = ""
    defer { if isShown, !last.isEmpty { Console.error("") } }
    while true {
      switch try client.receive() {
      case .reply(id, let body): return try body.decode(R.Reply.self)
      case .failure(id, let error): throw error
      case .element(id, let body):
        guard isShown else { continue }
        let progress = try body.decode(ImageProgress.self)
        let line = [
          progress.item, progress.status, progress.current.map { HumanText.size($0) } ?? "",
          progress.total.map { "/ \(HumanText.size($0))" } ?? "",
        ].filter { !$0.isEmpty }.joined(separator: " ")
        Console.progress(line)
        last = line
      case .reply, .failure, .element: continue
      }
    }
  }
}
