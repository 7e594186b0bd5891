import Contracts
import Testing

@testable import EngineCLI

@Suite struct FormattingTests {
  @Test(arguments: [
    (0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (119, "About a minute"),
    (120, "2 minutes"), (3540, "59 minutes"), (3600, "About an hour"), (5399, "About an hour"), (5400, "2 hours"),
    (86_400, "24 hours"), (172_799, "2 days"), (172_800, "2 days"), (1_209_600, "2 weeks"), (5_184_000, "2 months"),
    (63_072_000, "2 years"), (-5, "Less than a second"),
  ])
  func durations(seconds: Int64, expected: String) {
    #expect(HumanText.duration(nanoseconds: seconds * 1_000_000_000) == expected)
  }

  @Test(arguments: [
    (0, "0B"), (999, "999B"), (1000, "1kB"), (4_263_000, "4.26MB"), (77_800_000, "77.8MB"), (187_000_000, "187MB"),
    (1_500_000_000, "1.5GB"),
  ])
  func sizes(bytes: Int64, expected: String) {
    #expect(HumanText.size(bytes) == expected)
  }

  @Test func binarySizes() { #expect(HumanText.binarySize(16_728_000_000) == "15.58GiB") }

  private typealias Port = PortText.Port

  @Test func portsMergeIntoRanges() {
    func port(_ host: UInt16, _ inner: UInt16, _ transport: String = "tcp", _ address: String = "0.0.0.0") -> Port {
      Port(address: address, hostPort: host, containerPort: inner, transport: transport)
    }
    let rows: [([Port], String)] = [
      ([], ""),
      ([port(8080, 80)], "0.0.0.0:8080->80/tcp"),
      ([port(80, 80)], "0.0.0.0:80->80/tcp"),
      ([port(81, 81), port(80, 80), port(82, 82)], "0.0.0.0:80-82->80-82/tcp"),
      ([port(80, 80), port(82, 82)], "0.0.0.0:80->80/tcp, 0.0.0.0:82->82/tcp"),
      ([port(0, 80, "tcp", ""), port(0, 81, "tcp", ""), port(0, 53, "udp", "")], "53/udp, 80-81/tcp"),
      ([port(8080, 80), port(0, 443, "tcp", "")], "443/tcp, 0.0.0.0:8080->80/tcp"),
      (
        [port(53, 53, "udp", "127.0.0.1"), port(53, 53, "tcp", "127.0.0.1")],
        "127.0.0.1:53->53/tcp, 127.0.0.1:53->53/udp"
      ),
      ([port(8080, 80, "tcp", "::")], "[::]:8080->80/tcp"),
    ]
    for (ports, expected) in rows { #expect(PortText.text(ports) == expected) }
  }

  /// A list is shown from summaries: every field and every filter sees what it would see of the whole record.
  @Test func aSummaryShowsWhatTheRecordShows() throws {
    let record = try #require(
      Samples.container("a", name: "web") {
        $0.imageLabels = ["tier": "image", "from": "image"]
        $0.configuration.exposedPorts = ["9090/tcp"]
        $0.publishedPorts = [PortBinding(transport: .tcp, hostAddress: "", hostPort: 8080, containerPort: 80)]
        $0.configuration.networks = [EndpointRequest(network: "front")]
        $0.mountPoints = [
          MountPoint(
            kind: .volume, volume: "data", source: "/v", target: "/data", driver: "local", isReadOnly: false,
            propagation: "")
        ]
      })
    var unattached = record
    unattached.endpoints = []
    for record in [record, unattached] {
      let shown = ContainerSummary(record).record
      let format = OutputFormat.json
      #expect(
        try ContainerListing.make([shown], now: Samples.now).text(format)
          == ContainerListing.make([record], now: Samples.now).text(format))
      for filter in [
        "label=tier=web", "label=from=image", "publish=80", "expose=9090", "volume=data", "volume=/data",
        "network=front", "network=bridge", "status=running", "name=web", "id=aaaa",
      ] {
        let filter = try ContainerFilter([filter])
        #expect(
          try filter.apply(to: [shown], all: [shown], images: []).count
            == filter.apply(to: [record], all: [record], images: []).count)
      }
    }
  }

  @Test func theTableOfContainersIsDockers() throws {
    let web = try #require(
      Samples.container("a", name: "web") {
        $0.publishedPorts = [
          PortBinding(transport: .tcp, hostAddress: "", hostPort: 8080, containerPort: 80)
        ]
      })
    let done = try #require(
      Samples.container("b", name: "done", image: "busybox", status: .exited) {
        $0.path = "sh"
        $0.arguments = ["-c", "echo \"hi\""]
        $0.state.exitCode = 3
        $0.state.finished = Samples.ago(5)
      })
    let text = try ContainerListing.make([web, done], now: Samples.now).text(.table)
    #expect(
      text == """
        CONTAINER ID   IMAGE     COMMAND                  CREATED       STATUS                     PORTS                  NAMES
        aaaaaaaaaaaa   nginx     "/docker-entrypoint.…"   2 hours ago   Up 3 minutes               0.0.0.0:8080->80/tcp   web
        bbbbbbbbbbbb   busybox   "sh -c 'echo \\"hi\\"'"    2 hours ago   Exited (3) 5 seconds ago                          done

        """)
    // What the plain table leaves out is not in it.
    let lean = ContainerListing.make([web, done], asTable: true, now: Samples.now)
    #expect(try lean.text(.table) == text)
    #expect(lean.rows.allSatisfy { $0["CreatedAt"] == "" })
  }

  @Test func anEmptyTableIsItsHeading() throws {
    #expect(
      try ContainerListing.make([]).text(.table)
        == "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n")
  }

  @Test(arguments: [
    (ContainerStatus.created, "Created"), (.running, "Up 3 minutes"), (.paused, "Up 3 minutes (Paused)"),
    (.exited, "Exited (137) About a minute ago"), (.dead, "Dead"), (.removing, "Removal In Progress"),
    (.restarting, "Restarting (137) About a minute ago"),
  ])
  func statuses(status: ContainerStatus, expected: String) {
    var state = ContainerState()
    state.status = status
    state.started = Samples.ago(180)
    state.finished = Samples.ago(61)
    state.exitCode = 137
    #expect(ContainerListing.status(state, now: Samples.now) == expected)
  }

  @Test func formatsOfAList() throws {
    let web = try #require(Samples.container("a", name: "web"))
    let listing = ContainerListing.make([web], now: Samples.now)
    #expect(try listing.text(try OutputFormat("{{.ID}} {{.State}}")) == "aaaaaaaaaaaa running\n")
    #expect(
      try listing.text(try OutputFormat("table {{.Names}}\\t{{.Status}}"))
        == "NAMES     STATUS\nweb       Up 3 minutes\n")
    let json = try listing.text(try OutputFormat("json"))
    #expect(json.hasPrefix(#"{"Command":"\"/docker-entrypoint.…\"","CreatedAt":""#))
    #expect(json.contains(#""Ports":"80/tcp""#) && json.hasSuffix("}\n"))
    #expect(throws: Failure("failed to parse template: template: :1: unclosed action")) {
      _ = try OutputFormat("{{.ID")
    }
    #expect(
      throws: Failure(
        "failed to execute template: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type "
          + "*formatter.ContainerContext")
    ) { _ = try listing.text(try OutputFormat("{{.Foo}}")) }
  }

  @Test(arguments: [
    ([], "a b c"), (["name=we"], "a"), (["name=web", "name=db"], "a b"), (["id=bb"], "b"), (["label=tier"], "a b c"),
    (["label=tier=db"], "b"), (["status=exited"], "c"), (["exited=3"], "c"), (["exited=0"], ""),
    (["ancestor=nginx"], "a b c"), (["ancestor=eeee"], "a b c"), (["ancestor=busybox"], ""), (["before=db"], "c"),
    (["since=db"], "a"), (["publish=80"], "a"), (["publish=8080"], ""), (["expose=80/tcp"], "a b c"),
    (["volume=data"], "b"), (["volume=/data"], "b"), (["network=bridge"], "a b c"), (["network=other"], ""),
    (["name=web", "status=exited"], ""),
  ])
  func filters(texts: [String], expected: String) throws {
    let containers = try [
      #require(
        Samples.container("a", name: "web") {
          $0.created = Samples.ago(10)
          $0.publishedPorts = [PortBinding(transport: .tcp, hostAddress: "", hostPort: 8080, containerPort: 80)]
        }),
      #require(
        Samples.container("b", name: "db") {
          $0.created = Samples.ago(20)
          $0.configuration.labels = ["tier": "db"]
          $0.mountPoints = [
            MountPoint(
              kind: .volume, volume: "data", source: "/v", target: "/data", driver: "local", isReadOnly: false,
              propagation: "")
          ]
        }),
      #require(
        Samples.container("c", name: "old", status: .exited) {
          $0.created = Samples.ago(30)
          $0.state.exitCode = 3
        }),
    ]
    let id = try #require(Samples.digest("e"))
    let image = ImageDescription(
      id: id, references: ["nginx:latest"], repositoryDigests: [],
      configuration: ImageConfiguration(architecture: "amd64", os: "linux", rootfs: .init(differenceIDs: [])),
      layers: [], size: 0, stored: Samples.now)
    let found = try ContainerFilter(texts).apply(to: containers, all: containers, images: [image])
    #expect(found.map { String($0.id.text.prefix(1)) }.joined(separator: " ") == expected)
  }

  @Test(arguments: ["colour=red", "status=zz", "exited=x", "publish=x"])
  func wrongFilters(text: String) {
    #expect(throws: EngineError.self) { _ = try ContainerFilter([text]) }
  }

  @Test func images() throws {
    let id = try #require(Samples.digest("e"))
    var configuration = ImageConfiguration(architecture: "amd64", os: "linux", rootfs: .init(differenceIDs: []))
    configuration.created = Samples.ago(3 * 86_400)
    func image(_ references: [String]) -> ImageDescription {
      ImageDescription(
        id: id, references: references, repositoryDigests: [], configuration: configuration, layers: [],
        size: 4_263_000, stored: Samples.now)
    }
    let all = [image(["nginx:latest", "localhost:5000/x/web:1.0"]), image([])]
    let listing = ImageListing.make(
      try ImageListing.rows(all, matching: nil, filters: []), truncates: true, showsDigests: false, now: Samples.now)
    #expect(
      try listing.text(.table) == """
        REPOSITORY             TAG       IMAGE ID       CREATED      SIZE
        localhost:5000/x/web   1.0       eeeeeeeeeeee   3 days ago   4.26MB
        nginx                  latest    eeeeeeeeeeee   3 days ago   4.26MB
        <none>                 <none>    eeeeeeeeeeee   3 days ago   4.26MB

        """)
    func tags(_ name: String?, _ filters: [String] = []) throws -> [String] {
      try ImageListing.rows(all, matching: name, filters: filters).map { "\($0.repository):\($0.tag)" }
    }
    #expect(try tags("nginx") == ["nginx:latest"])
    #expect(try tags("nginx:1") == [])
    #expect(try tags("localhost:5000/x/web") == ["localhost:5000/x/web:1.0"])
    #expect(try tags("ngi*") == ["nginx:latest"])
    #expect(try tags(nil, ["dangling=true"]) == ["<none>:<none>"])
    #expect(try tags(nil, ["reference=*/x/*"]) == ["localhost:5000/x/web:1.0"])
  }
}

@Suite struct BenchCommandTests {
  @Test(arguments: [
    ([], []), (["--runs", "5", "--list"], ["--runs=5", "--list"]),
    (
      ["--only", "a b,c", "--only=d*", "--json", "-", "--pause=40"],
      ["--json=-", "--pause=40", "--only=a b,c", "--only=d*"]
    ), (["--compare", "old.json", "--html", "x=y.html", "--list=false"], ["--compare=old.json", "--html=x=y.html"]),
  ])
  func flagsReachTheProgramThatMeasures(given: [String], expected: [String]) throws {
    let command = try #require(BenchCommand.all.first)
    let (options, rest) = try Parser(flags: command.flags(), isInterspersed: true).parse(given)
    #expect(rest.isEmpty)
    #expect(BenchCommand.words(options) == expected)
  }
}
