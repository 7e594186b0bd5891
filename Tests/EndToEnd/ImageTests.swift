import Foundation
import Glibc
import Testing

/// Debian's docker-registry on the loopback of a fixture's namespaces, on port 5000.
struct LocalRegistry {
  let process: pid_t

  init(_ fixture: Fixture) throws {
    let directory = "\(fixture.directory)/registry"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    let configuration = """
      version: 0.1
      log: {level: error}
      storage: {filesystem: {rootdirectory: \(directory)/data}, delete: {enabled: true}}
      http: {addr: 127.0.0.1:5000}
      """
    try configuration.write(toFile: "\(directory)/config.yml", atomically: true, encoding: .utf8)
    process = try fixture.spawnOnHost(["docker-registry", "serve", "\(directory)/config.yml"])
    Fixture.eventually { fixture.fetch("http://127.0.0.1:5000/v2/").status == 0 }
  }

  func end() {
    kill(process, SIGKILL)
    waitpid(process, nil, 0)
  }
}

extension EndToEnd {
  /// Real images from a real registry.
  @Suite struct Images {
    /// An OCI layout that the tests make once from Debian packages, under `.build`.
    static func layout(_ kind: String) throws -> String {
      let checkout = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path
      let layout = "\(checkout)/.build/test-images/\(kind)"
      if !FileManager.default.fileExists(atPath: "\(layout)/index.json") {
        let outcome = Fixture.command([
          "\(checkout)/Examples/images/make-image", kind, layout, "\(checkout)/.build/test-images/packages",
        ])
        guard outcome.status == 0 else { throw Fixture.Problem(description: "\(kind): \(outcome)") }
      }
      return layout
    }

    private func push(_ layout: String, as name: String, _ fixture: Fixture) throws {
      let outcome = fixture.host([
        "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "oci:\(layout):latest",
        "docker://\(name)",
      ])
      guard outcome.status == 0 else { throw Fixture.Problem(description: "skopeo: \(outcome)") }
    }

    private func digest(_ name: String, _ fixture: Fixture) -> String {
      fixture.host(["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://\(name)"]).text
    }

    @Test func nginxServesAPage() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      let registry = try LocalRegistry(fixture)
      defer { registry.end() }
      let name = "127.0.0.1:5000/library/nginx:latest"
      try push(try Self.layout("nginx"), as: name, fixture)
      let digest = digest(name, fixture)
      // The run itself pulls.
      let run = fixture.engine(
        "run", "-d", "--name", "web", "-p", "8080:80", "127.0.0.1:5000/library/nginx")
      #expect(run.status == 0, "\(run)")
      #expect(run.errors.hasPrefix("Unable to find image '\(name)' locally\nlatest: Pulling from library/nginx\n"))
      #expect(run.errors.hasSuffix("Digest: \(digest)\nStatus: Downloaded newer image for \(name)\n"))
      Fixture.eventually { fixture.fetch("http://127.0.0.1:8080/").status == 0 }
      #expect(fixture.fetch("http://127.0.0.1:8080/").output == "served by nginx\n")

      let again = fixture.succeed("pull", "127.0.0.1:5000/library/nginx").split(separator: "\n")
      #expect(again.first == "Using default tag: latest" && again.last == "127.0.0.1:5000/library/nginx:latest")
      #expect(again.contains("Status: Image is up to date for \(name)"))
      #expect(fixture.succeed("pull", "-q", "127.0.0.1:5000/library/nginx@\(digest)").hasSuffix("@\(digest)"))
      #expect(fixture.succeed("images", "--digests", "--format", "{{.Tag}} {{.Digest}}") == "latest \(digest)")
      let steps = fixture.succeed("history", "--no-trunc", "--format", "{{.CreatedBy}}", name).split(separator: "\n")
      #expect(steps.first == "dpkg -x nginx-common nginx" && steps.count == 4)

      let missing = fixture.engine("run", "--rm", "127.0.0.1:5000/library/nothing")
      #expect(missing.status == 125 && missing.errors.contains("Run 'engine run --help' for more information"))
      #expect(fixture.engine("run", "--rm", "--pull", "never", "127.0.0.1:5000/none").errors.contains("No such image"))

      // Pushed under another name, it has the same digest, and its blobs are not sent again.
      fixture.succeed("tag", name, "127.0.0.1:5000/mine/web:v1")
      let pushed = fixture.succeed("push", "127.0.0.1:5000/mine/web:v1")
      #expect(pushed.contains("Mounted from library/nginx") && pushed.contains("v1: digest: \(digest) size: "))
      #expect(self.digest("127.0.0.1:5000/mine/web:v1", fixture) == digest)

      // Saved and loaded into an engine that knows nothing, it is the same.
      fixture.succeed("save", "-o", "\(fixture.directory)/nginx.tar", name)
      let exported = fixture.engine("export", "-o", "\(fixture.directory)/web.tar", "web")
      #expect(exported.status == 0, "\(exported)")
      let list = fixture.host(["tar", "-tf", "\(fixture.directory)/web.tar"]).lines
      #expect(list.contains("usr/share/nginx/html/index.html") && list.contains("usr/sbin/nginx"))
      let id = fixture.succeed("images", "-q", "--no-trunc", name)
      fixture.succeed("rm", "-f", "web")
      fixture.succeed("image", "prune", "-a", "-f")
      #expect(fixture.succeed("images", "-q") == "")
      #expect(fixture.succeed("load", "-i", "\(fixture.directory)/nginx.tar") == "Loaded image: \(name)")
      #expect(fixture.succeed("images", "-q", "--no-trunc", name) == id)
      #expect(fixture.succeed("push", name).contains("digest: \(digest) size: "))
    }

    @Test func aDatabaseKeepsItsDataOnAVolume() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      let registry = try LocalRegistry(fixture)
      defer { registry.end() }
      let name = "127.0.0.1:5000/library/redis:7"
      try push(try Self.layout("redis"), as: name, fixture)
      func ask(_ words: String...) -> String {
        fixture.engine(["exec", "db", "/usr/bin/redis-cli"] + words).text
      }
      fixture.succeed("run", "-d", "--name", "db", "-v", "data:/data", name)
      #expect(Fixture.eventually { ask("ping") == "PONG" })
      #expect(ask("set", "kept", "yes") == "OK")
      fixture.succeed("stop", "db")
      fixture.succeed("start", "db")
      #expect(Fixture.eventually { ask("ping") == "PONG" })
      #expect(ask("get", "kept") == "yes")
      fixture.succeed("rm", "-f", "db")
      fixture.succeed("run", "-d", "--name", "db", "-v", "data:/data", name)
      #expect(Fixture.eventually { ask("ping") == "PONG" })
      #expect(ask("get", "kept") == "yes")
      fixture.succeed("rm", "-f", "db")
      fixture.succeed("volume", "rm", "data")
    }

    /// The daemon dies at each step of a pull; the next one ends in the whole image.
    @Test func aPullSurvivesTheDaemonsDeath() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      let registry = try LocalRegistry(fixture)
      defer { registry.end() }
      let name = "127.0.0.1:5000/library/nginx:latest"
      try push(try Self.layout("nginx"), as: name, fixture)
      let points = [
        "images.pull.ingest", "overlay.apply.directory", "overlay.apply.unpacked", "images.pull.fetched",
        "overlay.apply.published", "images.pull.layer", "images.pull.complete", "images.commit.moved",
        "images.add.blobs", "images.add.recorded",
      ]
      for point in points {
        for daemon in fixture.processes(named: "engined") { kill(daemon, SIGKILL) }
        Fixture.eventually { fixture.processes(named: "engined").isEmpty }
        let broken = fixture.engine(["pull", name], environment: ["ENGINE_FAULT": point])
        #expect(broken.status != 0, "\(point) was not reached: \(broken)")
        let state = fixture.engine("images", "-q").lines.count
        #expect(state == (point == "images.add.recorded" ? 1 : 0), "\(point)")
        fixture.expectClean()
        #expect(fixture.engine("run", "--rm", name, "/bin/true").status == 0, "after \(point)")
        fixture.succeed("rmi", name)
        fixture.expectClean()
      }
      // Behind the answer: the image is there, and the next engine syncs it.
      for daemon in fixture.processes(named: "engined") { kill(daemon, SIGKILL) }
      Fixture.eventually { fixture.processes(named: "engined").isEmpty }
      _ = fixture.engine(["pull", name], environment: ["ENGINE_FAULT": "images.sync.synced"])
      #expect(Fixture.eventually { fixture.processes(named: "engined").isEmpty }, "it did not die")
      #expect(fixture.engine("images", "-q").lines.count == 1)
      fixture.expectClean()
      #expect(fixture.engine("run", "--rm", name, "/bin/true").status == 0)
    }
  }
}
