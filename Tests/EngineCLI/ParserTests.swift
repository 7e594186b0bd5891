import Contracts
import Testing

@testable import EngineCLI

@Suite struct ParserTests {
  private static func read(_ words: [String]) -> String {
    do throws(ParseError) {
      let (options, arguments) = try Parser(flags: ContainerFlags.run(), isInterspersed: false).parse(words)
      let names = ContainerFlags.run().map(\.name).filter(options.isSet).sorted()
      let flags = names.map { "\($0)=\(options.list($0).joined(separator: "|"))" }
      return (flags + ["--"] + arguments).joined(separator: " ")
    } catch {
      return switch error {
      case .help: "help"
      case .invalid(let why): why
      }
    }
  }

  @Test(arguments: [
    (["-p8080:80", "x"], "publish=8080:80 -- x"),
    (["-itd", "x", "sh"], "detach=true interactive=true tty=true -- x sh"),
    (["-itp", "80", "x"], "interactive=true publish=80 tty=true -- x"),
    (["--rm=false", "x"], "rm=false -- x"),
    (["--rm=T", "x"], "rm=true -- x"),
    (["-d=false", "x"], "detach=false -- x"),
    (["-e", "-x=3", "x"], "env=-x=3 -- x"),
    (["-e=a=b", "x"], "env=a=b -- x"),
    (["--env", "--", "x"], "env=-- -- x"),
    (["--name=", "x"], "name= -- x"),
    (["--net", "none", "x"], "network=none -- x"),
    (["-e", "A=1", "-e", "B=2", "--name", "a", "--name", "b", "x"], "env=A=1|B=2 name=b -- x"),
    (["x", "--rm", "-z"], "-- x --rm -z"),
    (["--", "-x", "--rm"], "-- -x --rm"),
    (["-", "-t"], "-- - -t"),
    (["-h", "web", "x"], "hostname=web -- x"),
    (["--help"], "help"),
    (["-z", "x"], "unknown shorthand flag: 'z' in -z"),
    (["-itz", "x"], "unknown shorthand flag: 'z' in -z"),
    (["--zz", "x"], "unknown flag: --zz"),
    (["--memroy", "x"], "unknown flag: --memroy (did you mean --memory?)"),
    (["-e"], "flag needs an argument: 'e' in -e"),
    (["-ite"], "flag needs an argument: 'e' in -e"),
    (["--env"], "flag needs an argument: --env"),
    (["---x"], "bad flag syntax: ---x"),
    (
      ["--rm=maybe", "x"],
      "invalid argument \"maybe\" for \"--rm\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax"
    ),
    (["-m", "3x", "x"], "invalid argument \"3x\" for \"-m, --memory\" flag: invalid suffix: 'x'"),
    (
      ["--blkio-weight", "99999", "x"],
      "invalid argument \"99999\" for \"--blkio-weight\" flag: strconv.ParseUint: parsing \"99999\": value out of range"
    ),
    (["-a", "x"], "invalid argument \"x\" for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR"),
    (
      ["--device", "/dev/null", "x"],
      "invalid argument \"/dev/null\" for \"--device\" flag: this engine does not support it yet; leave the flag out"
    ),
  ])
  func run(words: [String], expected: String) {
    #expect(Self.read(words) == expected)
  }

  @Test func flagsMayFollowArgumentsWhereTheTableSaysSo() throws {
    let flags: [Flag] = [.boolean("force", "f", ""), .boolean("volumes", "v", "")]
    let (options, arguments) = try Parser(flags: flags, isInterspersed: true).parse(["a", "-f", "b", "--", "-v"])
    #expect(options.boolean("force") && !options.boolean("volumes"))
    #expect(arguments == ["a", "b", "-v"])
  }

  @Test(arguments: [
    ("ps", "ps"), ("container ls", "ps"), ("container list", "ps"), ("container ps", "ps"), ("image ls", "images"),
    ("images", "images"), ("image rm", "rmi"), ("volume list", "volume ls"), ("system info", "info"),
    ("network remove", "network rm"), ("container run", "run"), ("container inspect", "container inspect"),
  ])
  func everySpellingFindsItsCommand(spelling: String, first: String) throws {
    let words = spelling.split(separator: " ").map(String.init)
    guard case .command(let command, let found, let rest) = try CommandTable.find(words + ["-q"]) else {
      Issue.record("\(spelling) is a group")
      return
    }
    #expect(command.spellings[0] == first && found == spelling && rest == ["-q"])
  }

  @Test(arguments: [
    (["pss"], "engine: 'pss' is not an engine command.\n\nDid you mean 'engine ps'?\n\nSee 'engine --help'"),
    (["xyzzy"], "engine: 'xyzzy' is not an engine command.\n\nSee 'engine --help'"),
    (
      ["volume", "lst"],
      "engine: 'volume lst' is not an engine command.\n\nDid you mean 'engine volume ls'?\n\nSee 'engine volume --help'"
    ),
    (["commit", "x"], "engine: 'commit' is not available yet.\n\nSee 'engine --help'"),
  ])
  func unknownCommands(words: [String], expected: String) {
    #expect(throws: Failure(expected, status: 1)) { _ = try CommandTable.find(words) }
  }

  @Test func theTableIsConsistent() {
    var spellings: Set<String> = []
    for command in CommandTable.commands {
      for spelling in command.spellings { #expect(spellings.insert(spelling).inserted, "\(spelling) twice") }
      var names: Set<String> = []
      var letters: Set<Character> = []
      for flag in command.flags() {
        for name in [flag.name] + flag.aliases { #expect(names.insert(name).inserted, "--\(name) twice") }
        if let short = flag.short { #expect(letters.insert(short).inserted, "-\(short) twice") }
        #expect(flag.isHidden || !flag.help.isEmpty, "--\(flag.name) has no help")
      }
    }
  }

  @Test(arguments: [
    ("rm", 0, "engine: 'engine rm' requires at least 1 argument"),
    ("exec", 1, "engine: 'engine exec' requires at least 2 arguments"),
    ("ps", 1, "engine: 'engine ps' accepts no arguments"),
    ("tag", 1, "engine: 'engine tag' requires 2 arguments"),
    ("images", 2, "engine: 'engine images' requires at most 1 argument"),
  ])
  func numberOfArguments(name: String, count: Int, expected: String) {
    let command = CommandTable.commands.first { $0.spellings[0] == name }
    #expect(command?.complaint(about: count, spelling: name) == expected)
  }

  @Test func helpHasDockersLayout() throws {
    guard case .command(let command, let spelling, _) = try CommandTable.find(["container", "stop"]) else { return }
    #expect(
      Help.text(for: command, spelling: spelling, width: 80) == """
        Usage:  engine container stop [OPTIONS] CONTAINER [CONTAINER...]

        Stop one or more running containers

        Aliases:
          engine container stop, engine stop

        Options:
          -s, --signal string   Signal to send to the container
          -t, --timeout int     Seconds to wait before killing the container

        """)
  }

  @Test(arguments: [
    (["p"], ["pause", "plugin", "port", "ps", "pull", "push"]),
    (["volume", ""], ["create", "inspect", "ls", "prune", "rm"]),
    (["rm", "--f"], ["--force"]), (["run", "--cpu-s"], ["--cpu-shares"]), (["nothing", "--"], []),
  ])
  func completions(words: [String], expected: [String]) {
    #expect(Completions.candidates(words) == expected)
  }
}
