import Foundation
import Testing

extension EndToEnd {
  /// Bad input gets one clear line, the right exit code, and leaves nothing.
  @Suite struct BadInput {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    @Test func namesWhatIsWrongAndLeavesNothing() {
      defer { fixture.end() }
      let table: [(arguments: [String], status: Int32, words: String)] = [
        (["run", "--rm", "absent"], 125, "absent:latest"),
        (["run", "--rm", "Not A Name", "true"], 125, "invalid reference format"),
        (["run", "--no-such-flag", "bb"], 125, "--no-such-flag"),
        (["run", "--nmae", "x", "bb"], 125, "--name"),
        (["rnu", "bb"], 1, "run"),
        (["run"], 125, "requires at least 1 argument"),
        (["run", "--rm", "-p", "notaport", "bb", "true"], 125, "notaport"),
        (["run", "--rm", "-p", "70000:80", "bb", "true"], 125, "70000"),
        (["run", "--rm", "-p", "80:80:80:80", "bb", "true"], 125, "80:80:80:80"),
        (["run", "--rm", "-v", "relative/path:/x", "bb", "true"], 125, "relative/path"),
        (["run", "--rm", "-v", "a:b:c:d", "bb", "true"], 125, "a:b:c:d"),
        (["run", "--rm", "-v", "x:/", "bb", "true"], 125, "/"),
        (["run", "--rm", "--mount", "type=nonsense,dst=/x", "bb", "true"], 125, "nonsense"),
        (["run", "--rm", "--name", "bad name", "bb", "true"], 125, "bad name"),
        (["run", "--rm", "--network", "absent", "bb", "true"], 125, "network absent not found"),
        (["run", "--rm", "--cap-add", "NO_SUCH", "bb", "true"], 125, "NO_SUCH"),
        (["start", "absent"], 1, "No such container: absent"),
        (["stop", "absent"], 1, "No such container: absent"),
        (["rm", "absent"], 1, "No such container: absent"),
        (["exec", "absent", "true"], 1, "No such container: absent"),
        (["logs", "absent"], 1, "No such container: absent"),
        (["inspect", "absent"], 1, "absent"),
        (["rmi", "absent"], 1, "No such image: absent"),
        (["volume", "inspect", "absent"], 1, "absent"),
        (["volume", "rm", "absent"], 1, "absent"),
        (["network", "rm", "absent"], 1, "absent"),
        (["network", "rm", "bridge"], 1, "bridge"),
      ]
      for (arguments, status, words) in table {
        let outcome = fixture.engine(arguments)
        #expect(outcome.status == status, "engine \(arguments.joined(separator: " ")): \(outcome)")
        #expect(outcome.errors.contains(words), "engine \(arguments.joined(separator: " ")): \(outcome)")
        #expect(!outcome.errors.contains("EngineError"), "\(outcome)")
      }
      #expect(fixture.succeed("ps", "-aq").isEmpty)
      #expect(fixture.succeed("volume", "ls", "-q").isEmpty)
    }

    @Test func refusesArchivesThatAreCutShortOrReachOut() throws {
      defer { fixture.end() }
      let make = """
        import io, sys, tarfile
        directory = sys.argv[1]
        def write(name, members):
            with tarfile.open(f"{directory}/{name}.tar", "w") as archive:
                for path, kind, target in members:
                    entry = tarfile.TarInfo(path)
                    entry.type = kind
                    entry.linkname = target
                    data = b"hostile" if kind == tarfile.REGTYPE else b""
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
        R, S, L = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
        write("parent", [("../escaped", R, "")])
        write("deep", [("a/b/../../../escaped", R, "")])
        write("link", [("out", S, directory), ("out/escaped", R, "")])
        write("hard", [("out", L, "/etc/hostname")])
        write("harddots", [("out", L, "../../../../../../etc/hostname")])
        """
      let tool = Fixture.command(["python3", "-c", make, fixture.directory])
      #expect(tool.status == 0, "\(tool)")
      for name in ["parent", "deep", "hard", "harddots"] {
        let outcome = fixture.engine("import", "\(fixture.directory)/\(name).tar", "hostile")
        #expect(outcome.status == 1, "\(name): \(outcome)")
        #expect(outcome.errors.split(separator: "\n").count == 1, "\(name): \(outcome)")
      }
      // A link that points out is a link like any other; what is written through it stays inside.
      _ = fixture.engine("import", "\(fixture.directory)/link.tar", "hostile")
      #expect(!FileManager.default.fileExists(atPath: "\(fixture.directory)/escaped"))
      let whole = try Data(contentsOf: URL(fileURLWithPath: try Fixture.busyboxArchive.get()))
      try whole.prefix(whole.count / 2).write(to: URL(fileURLWithPath: "\(fixture.directory)/short.tar"))
      let short = fixture.engine("import", "\(fixture.directory)/short.tar", "short")
      #expect(short.status == 1 && !short.errors.isEmpty, "\(short)")
      let nothing = fixture.engine("load", "-i", "\(fixture.directory)/short.tar")
      #expect(nothing.status == 1 && !nothing.errors.isEmpty, "\(nothing)")
      #expect(fixture.engine("load", "-i", "\(fixture.directory)/absent.tar").status == 1)
      let images = fixture.succeed("images", "--format", "{{.Repository}}").split(separator: "\n")
      #expect(!images.contains("short"))
    }

    @Test func goesOnAfterAFailureAmongSeveral() {
      defer { fixture.end() }
      fixture.succeed("create", "--name", "one", "bb", "true")
      fixture.succeed("create", "--name", "two", "bb", "true")
      let removal = fixture.engine("rm", "one", "absent", "two")
      #expect(removal.status == 1)
      #expect(removal.output == "one\ntwo\n", "\(removal)")
      #expect(removal.errors.contains("No such container: absent"))
    }
  }
}
