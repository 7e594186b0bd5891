import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// Images go between the engine, skopeo, podman and a registry, and stay what they are, byte for byte.
  @Suite(
    .enabled(
      if: ["podman", "skopeo", "docker-registry"].allSatisfy { access("/usr/bin/\($0)", X_OK) == 0 },
      "podman, skopeo or docker-registry is not installed"))
  struct Exchanges {
    private static let repository = "127.0.0.1:5000/multi"

    private let fixture: Fixture
    private let registry: LocalRegistry
    private let directory: String

    init() throws {
      fixture = try Fixture()
      registry = try LocalRegistry(fixture)
      directory = fixture.directory
    }

    private func end() {
      registry.end()
      fixture.end()
    }

    @discardableResult
    private func shell(_ script: String) throws -> String {
      let outcome = fixture.host(["sh", "-c", "set -e; \(script)"])
      guard outcome.status == 0 else { throw Fixture.Problem(description: "\(script): \(outcome)") }
      return outcome.text
    }

    /// A docker-archive of busybox for an architecture, that says which one when it runs.
    private func makeArchive(_ architecture: String) throws {
      try shell(
        """
        mkdir -p \(directory)/\(architecture)/a/bin \(directory)/\(architecture)/b/etc
        cd \(directory)/\(architecture)
        cp /bin/busybox a/bin/
        ln -s busybox a/bin/cat
        echo \(architecture) >b/etc/arch
        for layer in a b; do tar -C $layer --sort=name --mtime=@1 -cf $layer.tar .; done
        a=$(sha256sum <a.tar | cut -d' ' -f1) b=$(sha256sum <b.tar | cut -d' ' -f1)
        printf '{"architecture":"\(architecture)","os":"linux","config":{"Cmd":["cat","/etc/arch"],"Env":["PATH=/bin"]},' \
          >config.json
        printf '"rootfs":{"type":"layers","diff_ids":["sha256:%s","sha256:%s"]}}' $a $b >>config.json
        printf '[{"Config":"config.json","RepoTags":null,"Layers":["a.tar","b.tar"]}]' >manifest.json
        tar -cf ../\(architecture).tar manifest.json config.json a.tar b.tar
        """)
    }

    /// Puts an image into the registry with layers of one compression.
    private func put(_ architecture: String, _ compression: String, as tag: String) throws {
      let copy = "skopeo --insecure-policy copy -q"
      let layout = "oci:\(directory)/layouts/\(tag):latest"
      try shell(
        """
        mkdir -p \(directory)/layouts
        \(copy) docker-archive:\(directory)/\(architecture).tar \(layout) --dest-compress-format \(compression)
        \(copy) --preserve-digests --dest-tls-verify=false \(layout) docker://\(Self.repository):\(tag)
        """)
    }

    private var podman: String {
      "podman --root \(directory)/podman --runroot \(directory)/podman-run --storage-driver vfs"
    }

    /// Puts an index of two platforms into the registry as `latest`.
    private func putIndex() throws {
      try shell(
        """
        \(podman) manifest create both >/dev/null
        \(podman) manifest add --tls-verify=false both docker://\(Self.repository):zst >/dev/null
        \(podman) manifest add --tls-verify=false both docker://\(Self.repository):arm >/dev/null
        \(podman) manifest push -q --tls-verify=false --all both docker://\(Self.repository):latest
        """)
    }

    private func digest(_ source: String) throws -> String {
      try "sha256:" + shell("skopeo inspect --raw --tls-verify=false \(source) | sha256sum | cut -d' ' -f1")
    }

    @Test func everyNameKeepsItsDigest() throws {
      defer { end() }
      try makeArchive("amd64")
      try makeArchive("arm64")
      try put("amd64", "gzip", as: "gz")
      try put("amd64", "zstd", as: "zst")
      try put("arm64", "zstd", as: "arm")
      try putIndex()
      var expected: [String: String] = [:]
      for tag in ["gz", "zst", "latest"] { expected[tag] = try digest("docker://\(Self.repository):\(tag)") }
      #expect(Set(expected.values).count == 3)
      for (tag, digest) in expected {
        #expect(fixture.succeed("pull", "\(Self.repository):\(tag)").contains("Digest: \(digest)\nStatus: Downloaded"))
      }
      // Again, there is nothing but the digest and what became of it.
      #expect(
        fixture.succeed("pull", "\(Self.repository):gz") == """
          gz: Pulling from multi
          Digest: \(expected["gz"] ?? "")
          Status: Image is up to date for \(Self.repository):gz
          \(Self.repository):gz
          """)
      #expect(Set(fixture.succeed("images", "-q").split(separator: "\n")).count == 1)
      let rows = fixture.succeed("images", "--digests", "--format", "{{.Tag}} {{.Digest}}").split(separator: "\n")
      #expect(Set(rows.map(String.init)) == Set(expected.map { "\($0.key) \($0.value)" }))
      let names = fixture.succeed("image", "inspect", "-f", "{{join .RepoDigests \" \"}}", Self.repository)
      #expect(
        Set(names.split(separator: " ").map(String.init)) == Set(expected.values.map { "\(Self.repository)@\($0)" }))
      #expect(fixture.succeed("run", "--rm", Self.repository) == "amd64")

      // What is pushed is what was pulled, for the registry and for podman; what is saved is, for skopeo.
      fixture.succeed("save", "-o", "\(directory)/saved.tar", "\(Self.repository):gz", "\(Self.repository):zst")
      for tag in ["gz", "zst"] {
        let name = "127.0.0.1:5000/out:\(tag)"
        fixture.succeed("tag", "\(Self.repository):\(tag)", name)
        #expect(fixture.succeed("push", name).contains("\(tag): digest: \(expected[tag] ?? "") size: "))
        #expect(try digest("docker://\(name)") == expected[tag])
        let theirs = try shell(
          """
          \(podman) pull -q --tls-verify=false \(name) >/dev/null
          \(podman) image inspect --format '{{.Digest}} {{.Id}}' \(name)
          \(podman) rmi -f \(name) >/dev/null
          """)
        let id = fixture.succeed("images", "-q", "--no-trunc", name)
        #expect(theirs == "\(expected[tag] ?? "") \(id.dropFirst(7))")
        #expect(try digest("oci-archive:\(directory)/saved.tar:\(tag)") == expected[tag])
      }

      // Each name that goes takes its own along, and the last one everything.
      for text in ["\(Self.repository):zst", "127.0.0.1:5000/out:zst", "\(Self.repository):latest"] {
        fixture.succeed("rmi", text)
        fixture.expectClean()
      }
      #expect(fixture.succeed("run", "--rm", "\(Self.repository):gz") == "amd64")
      fixture.succeed("rmi", "-f", fixture.succeed("images", "-q", "\(Self.repository):gz"))
      fixture.expectClean()
      #expect(try shell("ls \(fixture.root)/images/blobs/sha256 | wc -l") == "0")
    }

    @Test func theRightPlatformIsPulled() throws {
      defer { end() }
      try makeArchive("amd64")
      try makeArchive("arm64")
      try put("amd64", "zstd", as: "zst")
      try put("arm64", "zstd", as: "arm")
      try putIndex()
      let name = Self.repository
      func run(_ words: String...) -> Outcome { fixture.engine(["run", "--rm"] + words + [name]) }
      fixture.succeed("pull", "-q", "--platform", "linux/arm64", name)
      // What nobody asked for is told; the image is busybox of this machine all the same.
      let foreign = run()
      #expect(
        foreign.text == "arm64" && foreign.errors.hasPrefix("WARNING: The requested image's platform (linux/arm64)"))
      let never = run("--pull", "never", "--platform", "linux/amd64")
      #expect(
        never.status == 125
          && never.errors.contains(
            "image with reference \(name):latest was found but does not match the specified platform: "
              + "wanted linux/amd64, actual: linux/arm64"),
        "\(never)")
      let right = run("--platform", "linux/amd64")
      #expect(
        right.text == "amd64" && right.errors.hasPrefix("Unable to find image '\(name):latest' locally\n"), "\(right)")
      let here = run("--platform", "linux/amd64")
      #expect(here.text == "amd64" && here.errors.isEmpty, "\(here)")
      let missing = run("--platform", "linux/s390x")
      #expect(missing.status == 125 && missing.errors.contains("no matching manifest for linux/s390x"), "\(missing)")
      let bad = run("--platform", "a b")
      #expect(bad.status == 125 && bad.errors.contains("platform specifier component"), "\(bad)")
      let saved = fixture.engine("save", "--platform", "linux/arm64", "-o", "\(directory)/x.tar", name)
      #expect(saved.status == 1 && saved.errors.contains("does not match the specified platform"), "\(saved)")
      #expect(!FileManager.default.fileExists(atPath: "\(directory)/x.tar"))
    }

    /// Stands on port 5001 before the registry, and on each connection after 400 000 bytes of answers cuts it (`cut`),
    /// changes one of them (`change`) or says nothing more (`stall`).
    private static let proxy = """
      import socket, sys, threading, time
      mode, limit = sys.argv[1], 400_000
      def pump(source, target, isAnswer):
          done = 0
          try:
              while data := source.recv(65536):
                  if isAnswer and done + len(data) > limit >= done:
                      if mode == "cut":
                          target.sendall(data[:limit - done])
                          break
                      if mode == "stall": time.sleep(1000)
                      data = bytearray(data)
                      data[limit - done] ^= 1
                  done += len(data)
                  target.sendall(data)
          except OSError: pass
          for one in (source, target):
              try: one.shutdown(socket.SHUT_RDWR)
              except OSError: pass
      server = socket.create_server(("127.0.0.1", 5001))
      while True:
          client, _ = server.accept()
          upstream = socket.create_connection(("127.0.0.1", 5000))
          threading.Thread(target=pump, args=(client, upstream, False), daemon=True).start()
          threading.Thread(target=pump, args=(upstream, client, True), daemon=True).start()
      """

    @Test func aFaultyRegistryEndsInTheImageOrInOneLine() throws {
      defer { end() }
      try makeArchive("amd64")
      try put("amd64", "gzip", as: "gz")
      let digest = try digest("docker://\(Self.repository):gz")
      try Self.proxy.write(toFile: "\(directory)/proxy.py", atomically: true, encoding: .utf8)
      try "[plugins.registry]\nstall-timeout = 1\nretries = 2\n".write(
        toFile: "\(directory)/engine.toml", atomically: true, encoding: .utf8)
      let name = "127.0.0.1:5001/multi:gz"
      for mode in ["change", "stall", "cut"] {
        let proxy = try fixture.spawnOnHost(["python3", "\(directory)/proxy.py", mode])
        defer {
          kill(proxy, SIGKILL)
          waitpid(proxy, nil, 0)
        }
        #expect(Fixture.eventually { fixture.fetch("http://127.0.0.1:5001/v2/").status == 0 })
        let pull = fixture.engine("--config", "\(directory)/engine.toml", "pull", name)
        if mode == "change" {
          #expect(pull.status == 1 && pull.errors.hasPrefix("Error response from engine: "), "\(pull)")
          #expect(pull.errors.split(separator: "\n").count == 1, "\(pull)")
          #expect(fixture.succeed("images", "-q") == "")
          let kept = try shell(
            "cd \(fixture.root); ls images/blobs/sha256 snapshots-overlay/layers | grep -c '^[0-9a-f]' || true")
          #expect(kept == "0")
        } else {
          // Each connection goes on where the one before ended, and none with what was wrong.
          #expect(pull.status == 0 && pull.output.contains("Digest: \(digest)\nStatus: Downloaded newer"), "\(pull)")
          #expect(fixture.succeed("run", "--rm", name) == "amd64")
          fixture.succeed("rmi", name)
        }
        fixture.expectClean()
      }
    }

    @Test func whatARegistryCannotDoIsTheEnginesAnswer() throws {
      defer { end() }
      for words in [["pull", "127.0.0.1:1/x"], ["search", "127.0.0.1:1/x"]] {
        let outcome = fixture.engine(words)
        #expect(
          outcome.status == 1
            && outcome.errors == "Error response from engine: cannot reach 127.0.0.1:1: connection refused\n",
          "\(outcome)")
      }
      let unknown = fixture.engine("pull", "\(Self.repository):none")
      #expect(unknown.errors.hasPrefix("Error response from engine: manifest for \(Self.repository):none not found"))
      try fixture.importBusybox("127.0.0.1:1/x")
      let push = fixture.engine("push", "127.0.0.1:1/x")
      #expect(
        push.status == 1
          && push.errors == "Error response from engine: cannot reach 127.0.0.1:1: connection refused\n", "\(push)")
      let run = fixture.engine("run", "127.0.0.1:1/y")
      #expect(run.status == 125 && run.errors.contains("\nengine: cannot reach 127.0.0.1:1: connection refused.\n"))
    }
  }
}
