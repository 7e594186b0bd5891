import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// A disk that is full, for an engine whose root is a small file system in memory.
  @Suite struct Disk {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      let mounted = fixture.host([
        "sh", "-c", "mkdir -p \(fixture.root) && mount -t tmpfs -o size=12m tmpfs \(fixture.root)",
      ])
      #expect(mounted.status == 0, "\(mounted)")
      try fixture.importBusybox()
    }

    /// Bytes that are in use, as the file system counts.
    private var used: Int {
      Int(
        fixture.host(["df", "--output=used", "-B1", fixture.root]).lines.last?.trimmingCharacters(in: .whitespaces)
          ?? "")
        ?? 0
    }

    private var names: Set<String> {
      Set(fixture.host(["find", fixture.root]).lines.filter { !$0.contains("/trash/") && !$0.contains("/spare-") })
    }

    @Test func anImageThatDoesNotFitLeavesNothing() {
      defer { fixture.end() }
      let scratch = fixture.directory
      let archives = Fixture.command([
        "sh", "-c",
        """
        set -e
        cd \(scratch)
        mkdir big image
        head -c 20000000 /dev/urandom >big/data
        tar -C big -cf image/layer.tar .
        digest=$(sha256sum image/layer.tar | cut -d' ' -f1)
        printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
          $digest >image/config.json
        printf '[{"Config":"config.json","RepoTags":["big:latest"],"Layers":["layer.tar"]}]' >image/manifest.json
        tar -C image -cf image.tar manifest.json config.json layer.tar
        """,
      ])
      #expect(archives.status == 0, "\(archives)")
      fixture.expectClean()
      let (before, bytes) = (names, used)
      for arguments in [
        ["import", "\(scratch)/image/layer.tar", "big"], ["load", "-i", "\(scratch)/image.tar"], ["load", "-q"],
      ] {
        let outcome =
          arguments == ["load", "-q"]
          ? fixture.host([
            "sh", "-c", "\(Fixture.binaries)/engine --root \(fixture.root) load -q <\(scratch)/image.tar",
          ])
          : fixture.engine(arguments)
        #expect(outcome.status == 1, "\(arguments): \(outcome)")
        #expect(outcome.errors.split(separator: "\n").count == 1, "\(arguments): \(outcome)")
        #expect(outcome.errors.lowercased().contains("no space left on device"), "\(arguments): \(outcome)")
        fixture.expectClean()
        #expect(fixture.succeed("images", "-q").split(separator: "\n").count == 1)
        #expect(names == before, "\(arguments) leaves \(names.subtracting(before))")
        #expect(used < bytes + 1_000_000, "\(arguments) leaves \(used - bytes) bytes")
        #expect(fixture.succeed("run", "--rm", "bb", "echo", "works") == "works")
      }
    }

    /// A sparse terabyte would fill the disk long after the user has given up.
    @Test func anExportEndsWithItsClient() throws {
      defer { fixture.end() }
      let scratch = "\(fixture.directory)/exports"
      try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true)
      fixture.succeed("run", "--name", "sparse", "bb", "truncate", "-s", "1000G", "/hole")
      let client = try fixture.spawnOnHost([
        "\(Fixture.binaries)/engine", "--root", fixture.root, "export", "-o", "\(scratch)/sparse.tar", "sparse",
      ])
      /// What the daemon writes below the directory, also without a name.
      func written() -> [String] {
        fixture.processes(named: "engined").flatMap { process -> [String] in
          let descriptors = "/proc/\(process)/fd"
          return ((try? FileManager.default.contentsOfDirectory(atPath: descriptors)) ?? []).compactMap {
            try? FileManager.default.destinationOfSymbolicLink(atPath: "\(descriptors)/\($0)")
          }
        }.filter { $0.hasPrefix(scratch) }
      }
      #expect(Fixture.eventually { !written().isEmpty })
      kill(client, SIGKILL)
      #expect(Fixture.eventually { written().isEmpty })
      #expect(try FileManager.default.contentsOfDirectory(atPath: scratch) == [])
      fixture.succeed("rm", "sparse")
      fixture.expectClean()
    }
  }
}
