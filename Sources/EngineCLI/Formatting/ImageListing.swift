import Contracts

/// The rows of `images`: one for each name, `<none>` where an image has none.
enum ImageListing {
  struct Row {
    var image: ImageDescription
    var repository = "<none>"
    var tag = "<none>"
    /// What the registry has under the name.
    var digest: Digest?
  }

  private static let fields: [Listing.Column] = [
    .init("Repository", "REPOSITORY"), .init("Tag", "TAG"), .init("Digest", "DIGEST"), .init("ID", "IMAGE ID"),
    .init("CreatedSince", "CREATED"), .init("CreatedAt", "CREATED AT"), .init("Size", "SIZE"),
    .init("Containers", "CONTAINERS"), .init("VirtualSize", "SIZE"), .init("SharedSize", "SHARED SIZE"),
    .init("UniqueSize", "UNIQUE SIZE"),
  ]

  /// - Parameters:
  ///   - name: a repository, with or without a tag; `*` stands for any characters but a slash.
  ///   - filters: `dangling`, `label`, `reference`, `before`, `since`.
  ///   - showsDigests: each digest that no tag has is a row of its own.
  /// - Throws: `invalidArgument` for another filter.
  static func rows(
    _ images: [ImageDescription], matching name: String?, filters: [String], showsDigests: Bool = false
  ) throws(EngineError) -> [Row] {
    var rows = images.sorted { created($0) > created($1) }.flatMap { Self.rows($0, showsDigests) }
    if let name { rows.removeAll { !matches($0, name) } }
    for text in filters {
      let pair = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      let value = pair.count == 2 ? pair[1] : ""
      switch pair[0] {
      case "dangling":
        guard let wants = try? Truth.parse(value) else {
          throw EngineError(.invalidArgument, "invalid filter 'dangling=[\(value)]'")
        }
        rows.removeAll { $0.image.references.isEmpty != wants }
      case "label": rows.removeAll { !ContainerFilter.has($0.image.configuration.config?.labels ?? [:], [value]) }
      case "reference": rows.removeAll { !matches($0, value) }
      case "before", "since":
        guard let other = rows.first(where: { matches($0, value) || isID($0.image, value) })?.image else {
          throw EngineError(.notFound, "No such image: \(value)")
        }
        rows.removeAll {
          pair[0] == "before" ? created($0.image) >= created(other) : created($0.image) <= created(other)
        }
      default: throw EngineError(.invalidArgument, "invalid filter '\(pair[0])'")
      }
    }
    return rows
  }

  private static func created(_ image: ImageDescription) -> Timestamp { image.configuration.created ?? image.stored }

  private static func rows(_ image: ImageDescription, _ showsDigests: Bool) -> [Row] {
    var rows = image.references.sorted().map { name -> Row in
      let digest = image.referenceDigests?[name]
      guard let colon = name.lastIndex(of: ":"), !name[colon...].contains("/") else {
        return Row(image: image, repository: name, digest: digest)
      }
      return Row(
        image: image, repository: String(name[..<colon]), tag: String(name[name.index(after: colon)...]),
        digest: digest)
    }
    if !rows.isEmpty && !showsDigests { return rows }
    // What lost its tag, or never had one, but is known by digest in a repository.
    for text in image.repositoryDigests {
      let repository = String(text.prefix { $0 != "@" })
      let digest = Digest(String(text.dropFirst(repository.count + 1)))
      let isShown = rows.contains { $0.repository == repository && ($0.digest == digest || !showsDigests) }
      if !isShown { rows.append(Row(image: image, repository: repository, digest: digest)) }
    }
    return rows.isEmpty ? [Row(image: image)] : rows
  }

  private static func matches(_ row: Row, _ pattern: String) -> Bool {
    guard row.repository != "<none>" else { return false }
    let familiar = (try? ImageReference(parsing: pattern)).map { ($0.familiarRepository, $0.tag ?? "latest") }
    if let familiar, familiar.0 == row.repository {
      let lastPart = pattern.split(separator: "/").last ?? ""
      return familiar.1 == row.tag || !lastPart.contains(":")
    }
    return Glob.matches(row.repository, pattern) || Glob.matches("\(row.repository):\(row.tag)", pattern)
  }

  private static func isID(_ image: ImageDescription, _ text: String) -> Bool {
    !text.isEmpty && (image.id.hex.hasPrefix(text) || image.id.description.hasPrefix(text))
  }

  static func make(_ rows: [Row], truncates: Bool, showsDigests: Bool, now: Timestamp = .now) -> Listing {
    var columns = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if showsDigests { columns.insert("Digest", at: 2) }
    return Listing(
      rowType: "imageContext", columns: columns, fields: fields,
      rows: rows.map { row in
        let created = row.image.configuration.created
        let size = HumanText.size(row.image.size)
        return [
          "Repository": row.repository,
          "Tag": row.tag,
          "Digest": row.digest?.description ?? "<none>",
          "ID": truncates ? row.image.id.short : row.image.id.description,
          "CreatedSince": created.map { HumanText.ago($0, now: now) } ?? "N/A",
          "CreatedAt": created.map { HumanText.localTime($0) } ?? "N/A",
          "Size": size,
          "Containers": "N/A",
          "VirtualSize": size,
          "SharedSize": "N/A",
          "UniqueSize": "N/A",
        ]
      })
  }
}

/// Patterns with `*` and `?`, neither of which stands for a slash (Go's path.Match without classes).
enum Glob {
  static func matches(_ text: String, _ pattern: String) -> Bool {
    matches(Array(text.utf8)[...], Array(pattern.utf8)[...])
  }

  private static func matches(_ text: ArraySlice<UInt8>, _ pattern: ArraySlice<UInt8>) -> Bool {
    guard let first = pattern.first else { return text.isEmpty }
    if first == 0x2A {
      var rest = text
      while true {
        if matches(rest, pattern.dropFirst()) { return true }
        guard let next = rest.popFirst(), next != 0x2F else { return false }
      }
    }
    guard let next = text.first, first == next || (first == 0x3F && next != 0x2F) else { return false }
    return matches(text.dropFirst(), pattern.dropFirst())
  }
}
