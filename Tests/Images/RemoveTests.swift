import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Testing

@testable import ImagesPlugin

@Suite(.enabled(if: Harness.isRoot, "needs root for overlay mounts"))
struct RemoveTests {
  private func loaded() async throws -> (ImagesHarness, ImageDescription, ImageDescription) {
    let harness = try await ImagesHarness()
    for (note, tag) in [("a", "demo:a"), ("b", "demo:b")] {
      _ = try await harness.loading(try pipeline(try ArchiveBuilder.standard(note: note, tags: [tag]).bytes))
    }
    return (harness, try await harness.resolve("demo:a"), try await harness.resolve("demo:b"))
  }

  @Test func removesByNameAndKeepsSharedLayers() async throws {
    let (harness, a, b) = try await loaded()
    #expect(a.layers[0] == b.layers[0] && a.layers[1] != b.layers[1])
    _ = try await harness.bus.request(ImageTag(source: "demo:a", target: "other"))
    func remove(_ text: String) async throws -> [ImageRemovalStep] {
      try await harness.bus.request(ImageRemove(reference: text, force: false))
    }
    #expect(try await remove("demo:a") == [.untagged("demo:a")])
    #expect(try await remove("other") == [.untagged("other:latest"), .deleted(a.id), .deleted(a.layers[1])])
    #expect(harness.base.names(harness.base.layerDirectory) == b.layers.map(\.hex).sorted())
    #expect(
      try await remove(b.id.short) == [
        .untagged("demo:b"), .deleted(b.id), .deleted(b.layers[1]), .deleted(b.layers[0]),
      ])
    #expect(harness.leftovers.isEmpty && harness.base.names("\(harness.base.root)/images/blobs/sha256").isEmpty)
    let error = await #expect(throws: EngineError.self) { try await remove("demo:b") }
    #expect(error?.message == "No such image: demo:b")
  }

  @Test func severalNamesNeedForceByID() async throws {
    let (harness, a, _) = try await loaded()
    _ = try await harness.bus.request(ImageTag(source: a.id.short, target: "other:x"))
    let error = await #expect(throws: EngineError.self) {
      try await harness.bus.request(ImageRemove(reference: a.id.short, force: false))
    }
    #expect(
      error?.message
        == "conflict: unable to delete \(a.id.short) (must be forced) - image is referenced in multiple repositories")
    let steps = try await harness.bus.request(ImageRemove(reference: a.id.short, force: true))
    #expect(steps == [.untagged("demo:a"), .untagged("other:x"), .deleted(a.id), .deleted(a.layers[1])])
  }

  @Test(arguments: [false, true])
  func containersKeepTheirImage(_ runs: Bool) async throws {
    let (harness, a, _) = try await loaded()
    let user = ContainerUsers.User(id: .random(), containerName: "web", isRunning: runs)
    harness.users.users.withLock { $0 = [user] }
    func refusal(_ text: String, force: Bool) async -> String? {
      let error = await #expect(throws: EngineError.self) {
        try await harness.bus.request(ImageRemove(reference: text, force: force))
      }
      #expect(error?.code == .inUse)
      return error?.message
    }
    #expect(
      await refusal("demo:a", force: false)
        == "conflict: unable to remove repository reference \"demo:a\" (must force) - container \(user.id.short) is using "
        + "its referenced image \(a.id.short)")
    let how = runs ? "cannot be forced" : "must be forced"
    #expect(
      await refusal(a.id.short, force: false)
        == "conflict: unable to delete \(a.id.short) (\(how)) - image is being used by \(runs ? "running" : "stopped") "
        + "container \(user.id.short)")
    if runs { _ = await refusal(a.id.hex, force: true) }
    // Its file system stands on the image's layers, so these stay for as long as there is the container.
    let text = runs ? "demo:a" : a.id.short
    #expect(try await harness.bus.request(ImageRemove(reference: text, force: true)) == [.untagged("demo:a")])
    #expect(try await harness.resolve(a.id.short).references.isEmpty)
    #expect(try await harness.bus.request(ImagePrune(all: true)).steps == [])
    harness.users.users.withLock { $0 = [] }
    let steps = try await harness.bus.request(ImageRemove(reference: a.id.short, force: false))
    #expect(steps == [.deleted(a.id), .deleted(a.layers[1])])
  }

  @Test func aNameMovesToTheImageLoadedLast() async throws {
    let (harness, a, b) = try await loaded()
    _ = try await harness.bus.request(ImageTag(source: "demo:b", target: "demo:a"))
    #expect(try await harness.resolve("demo:a").id == b.id)
    #expect(try await harness.resolve(a.id.short).references.isEmpty)
    #expect(Set(try await harness.bus.request(ImageList()).map(\.id)) == [a.id, b.id])
    for (target, message) in [
      ("demo@\(a.id)", "refusing to create a tag with a digest reference"), ("UP", "invalid reference format"),
      ("sha256:x", "refusing to create an ambiguous tag"),
    ] {
      let error = await #expect(throws: EngineError.self) {
        try await harness.bus.request(ImageTag(source: "demo:b", target: target))
      }
      #expect(error?.message.contains(message) == true)
    }
  }

  struct Change: Sendable {
    let text: String
    /// The part of the configuration it made, or the error.
    let gives: String
  }

  static let changes: [Change] = [
    .init(text: #"CMD ["a", "b c"]"#, gives: #"cmd ["a", "b c"]"#),
    .init(text: "cmd a b", gives: #"cmd ["/bin/sh", "-c", "a b"]"#),
    .init(
      text: #"CMD ["a", 1]"#,
      gives: "dockerfile parse error on line 1: when using JSON array syntax, arrays must be comprised of strings only"),
    .init(text: #"ENTRYPOINT ["/x"]"#, gives: #"entrypoint ["/x"]"#),
    .init(text: "ENTRYPOINT [x", gives: #"entrypoint ["/bin/sh", "-c", "[x"]"#),
    .init(text: #"ENV a=1 b="x y" c=z\ z"#, gives: #"env ["a=1", "b=x y", "c=z z"]"#),
    .init(text: "ENV a the rest", gives: #"env ["a=the rest"]"#),
    .init(text: "ENV a", gives: "dockerfile parse error on line 1: ENV must have two arguments"),
    .init(
      text: "ENV a=1 b",
      gives: #"dockerfile parse error on line 1: Syntax error - can't find = in "b". Must be of the form: name=value"#),
    .init(text: "ENV", gives: "dockerfile parse error on line 1: ENV requires at least one argument"),
    .init(text: "LABEL =x", gives: "dockerfile parse error on line 1: LABEL names can not be blank"),
    .init(text: "LABEL a=b", gives: #"labels ["a": "b"]"#),
    .init(text: "EXPOSE 80 90-91/udp", gives: #"ports ["80/tcp", "90/udp", "91/udp"]"#),
    .init(text: "EXPOSE x", gives: "invalid containerPort: x"),
    .init(text: "EXPOSE 80/icmp", gives: "invalid proto: icmp"),
    .init(text: "EXPOSE", gives: "dockerfile parse error on line 1: EXPOSE requires at least one argument"),
    .init(text: "STOPSIGNAL SIGQUIT", gives: "signal SIGQUIT"),
    .init(text: "STOPSIGNAL NO", gives: "invalid signal: NO"),
    .init(text: "USER", gives: "dockerfile parse error on line 1: USER requires exactly one argument"),
    .init(text: "USER www", gives: "user www"), .init(text: "WORKDIR a/../b", gives: "workdir /b"),
    .init(text: #"VOLUME ["/a", "/b"]"#, gives: #"volumes ["/a", "/b"]"#),
    .init(text: "VOLUME /a /b", gives: #"volumes ["/a", "/b"]"#),
    .init(text: "HEALTHCHECK NONE", gives: #"health ["NONE"]"#),
    .init(
      text:
        "HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 --start-period=2s --start-interval=1s CMD curl -f x",
      gives: #"health ["CMD-SHELL", "curl -f x"] 90000000000 500000000 2000000000 1000000000 3"#),
    .init(text: #"HEALTHCHECK CMD ["a", "b"]"#, gives: #"health ["CMD", "a", "b"]"#),
    .init(text: "HEALTHCHECK", gives: "dockerfile parse error on line 1: HEALTHCHECK requires at least one argument"),
    .init(text: "HEALTHCHECK CMD", gives: "dockerfile parse error on line 1: missing command after HEALTHCHECK CMD"),
    .init(
      text: "HEALTHCHECK RUN x",
      gives: #"dockerfile parse error on line 1: unknown type "RUN" in HEALTHCHECK (try CMD)"#),
    .init(
      text: "HEALTHCHECK --interval=soon CMD x",
      gives: #"dockerfile parse error on line 1: invalid duration "soon" for --interval"#),
    .init(
      text: "HEALTHCHECK --interval=1us CMD x",
      gives: #"dockerfile parse error on line 1: Interval "interval" cannot be less than 1ms"#),
    .init(text: "ONBUILD RUN make all", gives: #"onbuild ["RUN make all"]"#),
    .init(
      text: "ONBUILD ONBUILD RUN x",
      gives: "dockerfile parse error on line 1: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
    .init(text: "ONBUILD FROM x", gives: "dockerfile parse error on line 1: FROM isn't allowed as an ONBUILD trigger"),
    .init(text: "COPY a b", gives: "COPY is not a valid change command"),
    .init(
      text: #"ENV a="x"#,
      gives: "dockerfile parse error on line 1: unexpected end of statement while looking for matching double-quote"),
  ]

  @Test(arguments: changes)
  func readsChanges(_ change: Change) {
    do throws(EngineError) {
      let result = try ImportChanges.apply([change.text])
      var parts: [String] = []
      if let value = result.command { parts.append("cmd \(value)") }
      if let value = result.entrypoint { parts.append("entrypoint \(value)") }
      if let value = result.environment { parts.append("env \(value)") }
      if let value = result.labels { parts.append("labels \(value)") }
      if let value = result.exposedPorts { parts.append("ports \(value.keys.sorted())") }
      if let value = result.volumes { parts.append("volumes \(value.keys.sorted())") }
      if let value = result.stopSignal { parts.append("signal \(value)") }
      if let value = result.healthCheck {
        let times = [value.interval, value.timeout, value.startPeriod, value.startInterval].compactMap { $0 }
        let numbers = times.map { "\($0)" } + (value.retries.map { ["\($0)"] } ?? [])
        parts.append((["health \(value.test ?? [])"] + numbers).joined(separator: " "))
      }
      if let value = result.onBuild { parts.append("onbuild \(value)") }
      if let value = result.user { parts.append("user \(value)") }
      if let value = result.workingDirectory { parts.append("workdir \(value)") }
      #expect(parts == [change.gives])
    } catch {
      #expect(error.message == change.gives)
    }
  }
}
