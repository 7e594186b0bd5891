import Contracts
import Glibc
import LinuxSystem
import Wire

/// `login`, `logout`, `search`.
enum RegistryCommands {
  static let all: [Command] = [
    Command(
      "login", usage: "[OPTIONS] [SERVER]",
      summary: "Authenticate to a registry, Docker Hub if no server is named", arguments: 0...1,
      flags: {
        [
          .string("password", "p", "Password or Personal Access Token (PAT)"),
          .boolean("password-stdin", nil, "Take the Password or Personal Access Token (PAT) from stdin"),
          .string("username", "u", "Username"),
        ]
      }, run: login),
    Command(
      "logout", usage: "[SERVER]",
      summary: "Log out from a registry, Docker Hub if no server is named", arguments: 0...1,
      run: logout),
    Command(
      "search", usage: "[OPTIONS] TERM", summary: "Search a registry for images", arguments: .exactly(1),
      flags: {
        [
          ListCommands.filterFlag("Filter output based on conditions provided"),
          .string("format", nil, "Pretty-print search using a Go template"),
          .integer("limit", nil, "Max number of search results"),
          .boolean("no-trunc", nil, "Don't truncate output"),
        ]
      }, run: search),
  ]

  // MARK: Login

  private static func login(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    var password = options.string("password") ?? ""
    if !password.isEmpty {
      Console.error("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
      if options.boolean("password-stdin") {
        throw Failure("--password and --password-stdin are mutually exclusive")
      }
    }
    if options.boolean("password-stdin") {
      guard options.string("username")?.isEmpty == false else {
        throw Failure("the --password-stdin option requires --username to be set")
      }
      password = try LoginPrompt.passwordFromInput()
    }
    let registry = CredentialStore.host(invocation.arguments.first ?? "")
    let store = try CredentialStore(directory: CredentialStore.directory())
    let asked = options.string("username") ?? ""
    if asked.isEmpty, password.isEmpty, let known = try store.read(registry) {
      let name = known.username.isEmpty ? "" : " [Username: \(known.username)]"
      Console.line("Authenticating with existing credentials...\(name)")
      do {
        return try finish(known, registry, store, invocation.global)
      } catch let error as EngineError where error.code == .permissionDenied {
        Console.error("Login did not succeed, error: \(error)")
      }
    }
    let credentials = try LoginPrompt.complete(
      username: asked, password: password, isHub: registry == "docker.io",
      known: try store.read(registry)?.username ?? "")
    return try finish(credentials, registry, store, invocation.global)
  }

  /// Tries the credentials, and keeps what the registry gave for them.
  private static func finish(
    _ credentials: RegistryCredentials, _ registry: String, _ store: CredentialStore, _ global: GlobalOptions
  ) throws -> Int32 {
    var client = try Engine.connect(global)
    let reply = try ask(&client, RegistryLogin(registry: registry, credentials: credentials))
    var kept = credentials
    if let token = reply.identityToken, !token.isEmpty {
      kept.identityToken = token
      kept.password = ""
    }
    if let path = try store.write(kept, for: registry) {
      Console.error(
        "\nWARNING! Your credentials are stored unencrypted in '\(path)'.\n"
          + "Configure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n")
    }
    Console.line("Login Succeeded")
    return 0
  }

  /// A registry that cannot be reached is told as the engine's answer.
  private static func ask<R: Request>(_ client: inout Client, _ request: R) throws -> R.Reply {
    let id = try client.send(request)
    while true {
      switch try client.receive() {
      case .reply(id, let body): return try body.decode(R.Reply.self)
      case .failure(id, let error): throw Reports.answered(error)
      case .reply, .failure, .element: continue
      }
    }
  }

  private static func logout(_ invocation: borrowing Invocation) throws -> Int32 {
    let registry = CredentialStore.host(invocation.arguments.first ?? "")
    let shown = registry == "docker.io" ? CredentialStore.hubKey : registry
    Console.line("Removing login credentials for \(shown)")
    do throws(EngineError) {
      try CredentialStore(directory: CredentialStore.directory()).erase(registry)
    } catch {
      Console.error("WARNING: could not erase credentials:\n\(shown): \(error)")
    }
    return 0
  }

  // MARK: Search

  private static func search(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let limit = options.integer("limit") ?? 0
    guard limit == 0 || (1...100).contains(limit) else {
      throw Failure("Error response from engine: invalid limit \(limit) -- must be between 1 and 100")
    }
    let filter = try SearchFilter(options.list("filter"))
    let format = try OutputFormat(options.string("format"))
    let (registry, term) = split(invocation.arguments[0])
    let credentials = try Credentials.credentials(for: registry)
    var client = try Engine.connect(invocation.global)
    let found = try ask(
      &client,
      RegistrySearch(registry: registry, term: term, limit: limit == 0 ? 25 : limit, credentials: credentials))
    let shown = found.filter { filter.accepts($0) }.enumerated()
      .sorted { ($1.element.stars, $0.offset) < ($0.element.stars, $1.offset) }.map(\.element)
    Console.out(try listing(shown, truncates: !options.boolean("no-trunc")).text(format))
    return 0
  }

  /// `host.domain/term` names a registry; everything else is looked for at Docker Hub.
  static func split(_ text: String) -> (registry: String, term: String) {
    guard let slash = text.firstIndex(of: "/") else { return ("docker.io", text) }
    let first = text[..<slash]
    guard first.contains(".") || first.contains(":") || first == "localhost" else { return ("docker.io", text) }
    return (CredentialStore.host(String(first)), String(text[text.index(after: slash)...]))
  }

  static func listing(_ results: [RegistrySearchResult], truncates: Bool) -> Listing {
    let rows = results.map { result in
      var description = result.description.split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r" }
        .joined(separator: " ")
      if truncates, description.count > 45 { description = String(description.prefix(44)) + "…" }
      return [
        "Name": result.name, "Description": description, "StarCount": String(result.stars),
        "IsOfficial": result.isOfficial ? "[OK]" : "",
      ]
    }
    return Listing(
      rowType: "searchContext", columns: ["Name", "Description", "StarCount", "IsOfficial"],
      fields: [
        Listing.Column("Name", "NAME"), Listing.Column("Description", "DESCRIPTION"),
        Listing.Column("StarCount", "STARS"), Listing.Column("IsOfficial", "OFFICIAL"),
      ], rows: rows)
  }
}

/// `--filter` of `search`.
struct SearchFilter: Equatable {
  private(set) var isOfficial: Bool?
  private(set) var stars = 0

  /// - Throws: `Failure` in Docker's words for a filter that there is not.
  init(_ texts: [String]) throws {
    for text in texts {
      let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      let (name, value) = (parts[0], parts.count > 1 ? parts[1] : "")
      switch name {
      case "is-official":
        guard value == "true" || value == "false" else { throw Self.invalid(name, value) }
        isOfficial = value == "true"
      case "stars":
        guard let number = Int(value), number >= 0 else { throw Self.invalid(name, value) }
        stars = max(stars, number)
      case "is-automated":
        guard value == "true" || value == "false" else { throw Self.invalid(name, value) }
      default: throw Failure("Error response from engine: invalid filter '\(name)'")
      }
    }
  }

  private static func invalid(_ name: String, _ value: String) -> Failure {
    Failure("Error response from engine: invalid filter '\(name)=[\(value)]'")
  }

  func accepts(_ result: RegistrySearchResult) -> Bool {
    result.stars >= stars && (isOfficial == nil || isOfficial == result.isOfficial)
  }
}
