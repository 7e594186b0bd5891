import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// Layers that nobody would make by accident.
  @Suite struct HostileLayers {
    /// 100 000 by default; a million with `ENGINE_ENTRIES=1000000`, for which the tmpfs takes 1 GB.
    private static let entries = ProcessInfo.processInfo.environment["ENGINE_ENTRIES"].flatMap { Int($0) } ?? 100_000

    /// Writes a tar archive of empty files in directories of a thousand.
    private static let many = """
      import sys
      count = int(sys.argv[1])
      out = sys.stdout.buffer
      head = bytearray(512)
      head[100:108], head[108:116], head[116:124] = b"0000644\\0", b"0000000\\0", b"0000000\\0"
      head[124:136], head[136:148], head[257:265] = b"00000000000\\0", b"14524554000\\0", b"ustar\\x0000"
      for number in range(count):
          name = b"d%04d/f%07d" % (number // 1000, number)
          head[0:len(name)] = name
          head[156:157] = b"0"
          head[148:156] = b" " * 8
          head[148:155] = b"%06o\\0" % sum(head)
          out.write(head)
      out.write(bytes(1024))
      """

    private func memory(_ fixture: Fixture) throws -> Int {
      let daemon = try #require(fixture.processes(named: "engined").first)
      let status = try String(contentsOfFile: "/proc/\(daemon)/status", encoding: .utf8)
      let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") })
      return try #require(line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) })
    }

    @Test func aMillionEntries() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      let count = Self.entries
      let script = "\(fixture.directory)/many.py"
      try Self.many.write(toFile: script, atomically: true, encoding: .utf8)
      let configuration = "\(fixture.directory)/engine.toml"
      // The directories are no entries of the archive.
      try "[plugins.snapshots-overlay]\nlayer-entries = \(count)\n".write(
        toFile: configuration, atomically: true, encoding: .utf8)
      _ = fixture.host(["sh", "-c", "mkdir -p \(fixture.root) && mount -t tmpfs tmpfs \(fixture.root)"])
      let engine = "\(Fixture.binaries)/engine --root \(fixture.root) --config \(configuration)"
      func load(_ number: Int, _ name: String) -> Outcome {
        fixture.host(["sh", "-c", "python3 \(script) \(number) | \(engine) import - \(name)"])
      }
      let loaded = load(count, "many")
      #expect(loaded.status == 0, "\(loaded)")
      let files = fixture.host(["sh", "-c", "find \(fixture.root)/snapshots-overlay/layers -type f -name 'f*' | wc -l"])
      #expect(files.text == "\(count)")
      let peak = try memory(fixture)
      #expect(peak < 150_000, "\(peak) kB")
      let refused = load(count + 1, "more")
      #expect(
        refused.status == 1
          && refused.errors.contains("the layer is refused: it has more than the \(count) entries allowed"),
        "\(refused)")
      #expect(fixture.succeed("images", "--format", "{{.Repository}}") == "many")
      fixture.succeed("rmi", "many")
      fixture.expectClean()
      let left = fixture.host(["sh", "-c", "ls \(fixture.root)/snapshots-overlay/layers | wc -l"])
      #expect(left.text == "0")
    }

    @Test func strangeNamesAndHolesGoEveryWay() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      let directory = fixture.directory
      let script = """
        import io, os, shutil, sys, tarfile
        source, target, hole = sys.argv[1:4]
        shutil.copy(source, target)
        with tarfile.open(target, "a", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as tar:
            def add(name, text, kind=tarfile.REGTYPE, link=""):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname, entry.size = kind, link, len(text)
                tar.addfile(entry, io.BytesIO(text))
            os.makedirs("names", exist_ok=True)
            add("names", b"", tarfile.DIRTYPE)
            add("names/twice", b"first")
            add("names/twice", b"second")
            add("names/was", b"", tarfile.SYMTYPE, "/etc/passwd")
            add("names/was", b"a file")
            add(os.fsdecode(b"names/latin-\\xe9\\xff"), b"latin")
            add("names/two\\nlines", b"lines")
            add("names/" + "l" * 255, b"long")
            add(os.fsdecode(b"names/to-\\xfe"), b"", tarfile.SYMTYPE, os.fsdecode(b"latin-\\xe9\\xff"))
            add("/names/absolute", b"absolute")
        """
      try script.write(toFile: "\(directory)/names.py", atomically: true, encoding: .utf8)
      let made = fixture.host([
        "sh", "-c",
        """
        set -e
        cd \(directory)
        python3 names.py \(try Fixture.busyboxArchive.get()) names.tar hole
        mkdir -p sparse/holes
        truncate -s 1T sparse/holes/terabyte
        printf end >>sparse/holes/terabyte
        tar -C sparse -rSf names.tar holes
        """,
      ])
      #expect(made.status == 0, "\(made)")
      let imported = fixture.engine("import", "\(directory)/names.tar", "names")
      #expect(imported.status == 0, "\(imported)")

      func check(_ name: String) {
        let shown = fixture.engine(
          "run", "--rm", name, "sh", "-c",
          #"cd /names; cat twice; echo; cat was; echo; cat to-*; echo; cat absolute; echo; cat "two"*; echo; cat l*l; echo; "#
            + #"printf %s latin-* | od -An -tx1 | tr -d ' \n' | grep -c 'e9ff$'; tail -c 3 /holes/terabyte; echo; "#
            + #"[ $(du -k /holes/terabyte | cut -f1) -lt 1000 ] && stat -c %s /holes/terabyte"#)
        #expect(
          shown.output == "second\na file\nlatin\nabsolute\nlines\nlong\n1\nend\n1099511627779\n", "\(name): \(shown)")
      }
      check("names")
      #expect(fixture.host(["du", "-sk", "\(fixture.root)/snapshots-overlay/layers"]).text.hasPrefix("1099") == false)

      // There and back again.
      let id = fixture.succeed("images", "-q", "--no-trunc", "names")
      fixture.succeed("save", "-o", "\(directory)/saved.tar", "names")
      fixture.succeed("rmi", "names")
      fixture.succeed("load", "-i", "\(directory)/saved.tar")
      #expect(fixture.succeed("images", "-q", "--no-trunc", "names") == id)
      check("names")
      fixture.succeed("rmi", "names")
      fixture.expectClean()
    }
  }
}
