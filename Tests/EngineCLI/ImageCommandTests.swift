import Contracts
import Testing

@testable import EngineCLI

/// The grammar of the commands that move images: what words become, and what is said of wrong ones.
@Suite struct ImageCommandTests {
  /// The flags that are set and the arguments, or the complaint; `not read` for what is no command.
  private static func read(_ line: String) -> String {
    let words = line.split(separator: " ").map(String.init)
    guard case .command(let command, let spelling, let rest) = try? CommandTable.find(words) else { return "not read" }
    do throws(ParseError) {
      let flags = command.flags()
      let (options, arguments) = try Parser(flags: flags, isInterspersed: command.isInterspersed).parse(rest)
      if let complaint = command.complaint(about: arguments.count, spelling: spelling) { return complaint }
      let names = flags.map(\.name).filter(options.isSet).sorted()
      return (names.map { "\($0)=\(options.list($0).joined(separator: "|"))" } + ["--"] + arguments)
        .joined(separator: " ")
    } catch {
      return switch error {
      case .help: "help"
      case .invalid(let why): why
      }
    }
  }

  @Test(arguments: [
    ("pull nginx", "-- nginx"),
    ("pull -q --platform linux/arm64 nginx:1", "platform=linux/arm64 quiet=true -- nginx:1"),
    ("image pull nginx -a", "all-tags=true -- nginx"),
    ("pull --disable-content-trust x", "disable-content-trust=true -- x"),
    ("pull", "engine: 'engine pull' requires 1 argument"),
    ("image pull a b", "engine: 'engine image pull' requires 1 argument"),
    ("pull --tls x", "unknown flag: --tls"),
    ("push -aq reg/x", "all-tags=true quiet=true -- reg/x"),
    ("image push x", "-- x"),
    ("push a b", "engine: 'engine push' requires 1 argument"),
    ("push --platform linux/amd64 x", "unknown flag: --platform"),
    ("save a b -o f", "output=f -- a b"),
    ("image save --output=f --platform linux/amd64 a", "output=f platform=linux/amd64 -- a"),
    ("save", "engine: 'engine save' requires at least 1 argument"),
    ("save -o", "flag needs an argument: 'o' in -o"),
    ("load -qi f", "input=f quiet=true --"),
    ("load --platform arm64", "platform=arm64 --"),
    ("image load f", "engine: 'engine image load' accepts no arguments"),
    ("history -q --no-trunc x", "no-trunc=true quiet=true -- x"),
    ("image history -H=false --format {{.ID}} x", "format={{.ID}} human=false -- x"),
    ("history", "engine: 'engine history' requires 1 argument"),
    ("image prune -af", "all=true force=true --"),
    ("image prune --filter until=24h --filter label!=a", "filter=until=24h|label!=a --"),
    (
      "image prune --filter until",
      #"invalid argument "until" for "--filter" flag: bad format of filter (expected name=value)"#
    ),
    ("image prune x", "engine: 'engine image prune' accepts no arguments"),
    ("image inspect -f {{.Id}} a b", "format={{.Id}} -- a b"),
    ("image inspect", "engine: 'engine image inspect' requires at least 1 argument"),
    ("import -c CMD=x --change ENV -m note - name:tag", "change=CMD=x|ENV message=note -- - name:tag"),
    ("import", "engine: 'engine import' requires at least 1 argument"),
    ("import a b c", "engine: 'engine import' requires at most 2 arguments"),
    (
      "import --platform plan9 f",
      #"invalid argument "plan9" for "--platform" flag: platform "plan9" is not available: "#
        + "this engine runs linux/\(Platform.architecture) only"
    ),
    ("export -o f box", "output=f -- box"),
    ("container export box", "-- box"),
    ("export", "engine: 'engine export' requires 1 argument"),
    (
      "search --limit 5 --no-trunc -f stars=3 -f is-official=true redis",
      "filter=stars=3|is-official=true limit=5 no-trunc=true -- redis"
    ),
    (
      "search --limit many redis",
      #"invalid argument "many" for "--limit" flag: strconv.ParseInt: parsing "many": invalid syntax"#
    ),
    ("search", "engine: 'engine search' requires 1 argument"),
    ("login -u me --password-stdin reg:5000", "password-stdin=true username=me -- reg:5000"),
    ("login -u me -p secret", "password=secret username=me --"),
    ("login a b", "engine: 'engine login' requires at most 1 argument"),
    ("logout", "--"), ("logout reg:5000", "-- reg:5000"),
    ("logout a b", "engine: 'engine logout' requires at most 1 argument"),
    (
      "images -aq --no-trunc --digests -f dangling=true nginx",
      "all=true digests=true filter=dangling=true no-trunc=true quiet=true -- nginx"
    ),
    ("image list --format json", "format=json --"),
    ("rmi -f a b --no-prune", "force=true no-prune=true -- a b"),
    ("image remove", "engine: 'engine image remove' requires at least 1 argument"),
    ("image tag a b", "-- a b"), ("tag a", "engine: 'engine tag' requires 2 arguments"),
    ("image pul x", "not read"), ("image pull --help", "help"),
  ])
  func grammar(line: String, expected: String) {
    #expect(Self.read(line) == expected)
  }

  @Test(arguments: [
    ("--platform linux/arm64 x", "linux/arm64"), ("--platform= x", nil), ("x", nil), ("--platform arm64 x", "arm64"),
  ])
  func platforms(line: String, expected: String?) throws {
    let words = line.split(separator: " ").map(String.init)
    let (options, arguments) = try Parser(flags: ContainerFlags.run(), isInterspersed: false).parse(words)
    #expect(try ContainerRequest(options: options, arguments: arguments).configuration.platform == expected)
  }

  @Test(arguments: ["a b", "linux/", "toaster", "linux/arm/v7/x"])
  func badPlatforms(text: String) throws {
    let (options, arguments) = try Parser(flags: ContainerFlags.run(), isInterspersed: false)
      .parse(["--platform", text, "x"])
    #expect(throws: EngineError.self) { try ContainerRequest(options: options, arguments: arguments) }
  }

  @Test func digestsOfEachName() throws {
    let id = try #require(Samples.digest("e"))
    let (one, two, three) = (
      try #require(Samples.digest("1")), try #require(Samples.digest("2")), try #require(Samples.digest("3"))
    )
    var image = ImageDescription(
      id: id, references: ["nginx:gz", "nginx:zst", "mine:1"],
      repositoryDigests: ["nginx@\(one)", "nginx@\(two)", "nginx@\(three)", "gone@\(one)"],
      configuration: ImageConfiguration(architecture: "amd64", os: "linux", rootfs: .init(differenceIDs: [])),
      layers: [], size: 0, stored: Samples.now)
    image.referenceDigests = ["nginx:gz": one, "nginx:zst": two]
    func rows(_ shows: Bool) throws -> [String] {
      try ImageListing.rows([image], matching: nil, filters: [], showsDigests: shows).map {
        "\($0.repository):\($0.tag) \($0.digest?.description ?? "<none>")"
      }
    }
    #expect(try rows(false) == ["mine:1 <none>", "nginx:gz \(one)", "nginx:zst \(two)"])
    // What only a digest names is a row of its own there.
    #expect(
      try rows(true) == [
        "mine:1 <none>", "nginx:gz \(one)", "nginx:zst \(two)", "nginx:<none> \(three)", "gone:<none> \(one)",
      ])
    image.references = []
    #expect(try rows(false) == ["nginx:<none> \(one)", "gone:<none> \(one)"])
  }
}
