import Contracts
import Testing

@testable import EngineCLI

@Suite struct ValueTests {
  private func text<Value>(_ body: () throws(EngineError) -> Value) -> String {
    do { return "\(try body())" } catch { return error.message }
  }

  @Test(arguments: [
    ("32m", "33554432"), ("1.5g", "1610612736"), ("64KiB", "65536"), ("100", "100"), ("10b", "10"), ("2 kb", "2048"),
    ("1T", "1099511627776"), ("0", "0"), ("x", "invalid size: 'x'"), ("", "invalid size: ''"),
    ("3x", "invalid suffix: 'x'"), ("-5m", "invalid size: '-5m'"), ("1..5m", "invalid size: '1..5m'"),
    ("9999999p", "invalid size: '9999999p'"),
  ])
  func sizes(input: String, expected: String) {
    #expect(text { () throws(EngineError) in try ByteSize(parsing: input).bytes } == expected)
  }

  @Test(arguments: [
    ("0.5", "500000000"), ("2", "2000000000"), (".25", "250000000"), ("1.", "1000000000"), ("0", "0"),
    ("x", "failed to parse x as a rational number"), ("", "failed to parse  as a rational number"),
    ("0.0000000001", "value is too precise"),
    ("3", "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
    ("0.001", "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
    ("-1", "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
  ])
  func cpus(input: String, expected: String) {
    let result = text { () throws(EngineError) in
      let cpus = try CPUCount(parsing: input)
      try cpus.check(available: 2)
      return cpus.billionths
    }
    #expect(result == expected)
  }

  @Test(arguments: [
    ("80", ":0-0>80/tcp"), ("8080:80", ":8080-8080>80/tcp"), ("127.0.0.1:8080:80/udp", "127.0.0.1:8080-8080>80/udp"),
    ("127.0.0.1::80", "127.0.0.1:0-0>80/tcp"), ("8000-8010:80", ":8000-8010>80/tcp"),
    ("80-81:90-91", ":80-80>90/tcp :81-81>91/tcp"), ("80-81", ":0-0>80/tcp :0-0>81/tcp"), (":80", ":0-0>80/tcp"),
    ("target=80,published=8080,protocol=udp", ":8080-8080>80/udp"), ("80/TCP", ":0-0>80/tcp"),
    ("99999:80", "invalid hostPort: 99999"), ("x:80", "invalid hostPort: x"), ("80:x", "invalid containerPort: x"),
    ("80:0", "invalid containerPort: 0"), ("1.2.3:80:80", "invalid IP address: 1.2.3"),
    ("80-82:80-83", "invalid ranges specified for container and host Ports: 80-83 and 80-82"),
    ("82-80:1-3", "invalid hostPort: 82-80"), ("80/foo", "invalid proto: foo"),
    ("80:", "no port specified: 80:<empty>"), ("", "no port specified: <empty>"),
    (
      "[::1]:80:80",
      "invalid publish specification \"[::1]:80:80\": publishing on an IPv6 address is not supported yet"
    ),
    ("80/sctp", "invalid publish specification \"80/sctp\": sctp is not supported"),
  ])
  func published(input: String, expected: String) {
    let result = text { () throws(EngineError) in
      try PortSpecification.parse(input).map {
        "\($0.hostAddress):\($0.hostPort)-\($0.hostPortEnd)>\($0.containerPort)/\($0.transport.rawValue)"
      }.joined(separator: " ")
    }
    #expect(result == expected)
  }

  private static func describe(_ mount: MountRequest) -> String {
    var words = [mount.kind.rawValue, mount.source, mount.target]
    if mount.isReadOnly { words.append("ro") }
    if mount.createsSource { words.append("creates") }
    if !mount.copiesImage { words.append("nocopy") }
    if !mount.isRecursive { words.append("nonrecursive") }
    if !mount.propagation.isEmpty { words.append(mount.propagation) }
    if !mount.subpath.isEmpty { words.append("sub=\(mount.subpath)") }
    if let driver = mount.driver { words.append("driver=\(driver)") }
    words += mount.driverOptions.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
    return (words + mount.tmpfsOptions).joined(separator: " ")
  }

  @Test(arguments: [
    ("data:/var", "volume data /var"), ("/var", "volume  /var"), ("/srv:/var:ro", "bind /srv /var ro creates"),
    ("./x:/var", "bind /home/me/x /var creates"), ("../x:/var", "bind /home/x /var creates"),
    ("data:/var:nocopy,ro", "volume data /var ro nocopy"), ("/a:/b:rw,rshared,z", "bind /a /b creates rshared"),
    ("", "invalid empty volume spec"), (":/x", "invalid spec: :/x: empty section between colons"),
    ("a1:b", "invalid volume specification: 'a1:b': mount path must be absolute: b"),
    ("/a:/", "invalid volume specification: '/a:/': destination can't be '/'"),
    ("data:/x:zz", "invalid volume specification: 'data:/x:zz': invalid mode: zz"),
    ("data:/x:ro,rw", "invalid volume specification: 'data:/x:ro,rw': invalid mode: ro,rw"),
    ("data:/x:rshared", "invalid volume specification: 'data:/x:rshared': invalid mode: rshared"),
    ("/a:/b:nocopy", "invalid volume specification: '/a:/b:nocopy': invalid mode: nocopy"),
    ("a1:/b:ro:d", "invalid volume specification: 'a1:/b:ro:d'"),
    (
      "rel/x:/b",
      "invalid volume specification: 'rel/x:/b': \"rel/x\" includes invalid characters for a local volume name, only "
        + "\"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    ),
  ])
  func volumes(input: String, expected: String) {
    let result = text { () throws(EngineError) in
      Self.describe(try VolumeSpecification.parse(input, currentDirectory: "/home/me"))
    }
    #expect(result == expected)
  }

  @Test(arguments: [
    ("type=bind,src=/a,dst=/b,readonly", "bind /a /b ro"),
    (
      "type=bind,source=/a,target=/b,ro=false,bind-propagation=rslave,bind-nonrecursive",
      "bind /a /b nonrecursive rslave"
    ),
    ("dst=/b", "volume  /b"),
    ("src=data,destination=/b,volume-nocopy=true,volume-subpath=x/y", "volume data /b nocopy sub=x/y"),
    (
      "type=volume,src=data,dst=/b,volume-driver=local,volume-opt=type=nfs,\"volume-opt=o=addr=h,rw\"",
      "volume data /b driver=local o=addr=h,rw type=nfs"
    ),
    ("type=tmpfs,dst=/b,tmpfs-size=64m,tmpfs-mode=1770", "tmpfs  /b size=67108864 mode=1770"),
    ("x", "invalid field 'x' must be a key=value pair"), ("type=bind,src=/x", "target is required"),
    ("foo=bar", "unexpected key 'foo' in 'foo=bar'"),
    ("type=bind,src=/x,dst=/y,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
    ("type=volume,dst=/x,readonly=maybe", "invalid value for readonly: maybe"),
    ("type=tmpfs,dst=/x,tmpfs-size=zz", "invalid value for tmpfs-size: zz"),
    ("type=tmpfs,dst=/x,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
    ("type=bind,dst=/x", "invalid mount config for type \"bind\": field Source must not be empty"),
    ("type=tmpfs,src=/y,dst=/x", "invalid mount config for type \"tmpfs\": field Source must not be specified"),
    ("type=foo,dst=/x", "mount type \"foo\" is not known: it must be \"volume\", \"bind\" or \"tmpfs\""),
    ("dst=x", "invalid mount path: 'x' mount path must be absolute"),
    ("\"dst=/x", "extraneous or missing \" in quoted-field"),
  ])
  func mounts(input: String, expected: String) {
    #expect(text { () throws(EngineError) in Self.describe(try MountSpecification.parse(input)) } == expected)
  }

  @Test(arguments: [
    ("/run", "tmpfs  /run"), ("/run:size=64m,noexec", "tmpfs  /run size=64m noexec"),
    ("x", "invalid tmpfs path 'x': it must be absolute and beneath the root"),
  ])
  func tmpfs(input: String, expected: String) {
    #expect(text { () throws(EngineError) in Self.describe(try TmpfsSpecification.parse(input)) } == expected)
  }

  @Test(arguments: [
    ("nofile=1024:2048", "nofile 1024 2048"), ("core=0", "core 0 0"),
    ("memlock=-1:-1", "memlock 18446744073709551615 18446744073709551615"),
    ("x", "invalid ulimit argument: x"), ("foo=1", "invalid ulimit type: foo"),
    ("nofile=2:1", "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
    ("nofile=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
  ])
  func ulimits(input: String, expected: String) {
    let result = text { () throws(EngineError) in
      let limit = try Ulimit.parse(input)
      return "\(limit.name) \(limit.soft) \(limit.hard)"
    }
    #expect(result == expected)
  }

  @Test(arguments: [
    ("A=1\n# no\n\n  B = 2 \nHOME\nNOT_SET\nC=\r\n", "variable 'B ' contains whitespaces"),
    ("\u{FEFF}A=1\n# no\n\n  B=x y\nHOME\nNOT_SET\nC=\r\n", "A=1|B=x y|HOME=/root|C="),
    ("=x", "no variable name on line '=x'"),
  ])
  func environmentFiles(content: String, expected: String) {
    let result = text { () throws(EngineError) in
      try KeyValues.parseFile(Array(content.utf8), path: "f") { $0 == "HOME" ? "/root" : nil }.joined(separator: "|")
    }
    #expect(result == expected || result == "invalid env file (f): \(expected)")
  }

  @Test(arguments: [
    ("net1", "net1 - - -"),
    (
      "name=n,alias=a,alias=b,ip=10.0.0.2,mac-address=02:42:AC:11:00:02",
      "n a,b 10.0.0.2 02:42:ac:11:00:02"
    ), ("name=a,zz=c", "invalid field key zz"), ("ip=10.0.0.2", "no name set for network"),
    ("name=n,ip=1", "invalid IPv4 address: 1"), ("name=n,mac-address=1", "1 is not a valid mac address"),
  ])
  func networks(input: String, expected: String) {
    let result = text { () throws(EngineError) in
      let request = try NetworkSpecification.parse(input)
      let aliases = request.aliases.isEmpty ? "-" : request.aliases.joined(separator: ",")
      return "\(request.network) \(aliases) \(request.address ?? "-") \(request.hardwareAddress ?? "-")"
    }
    #expect(result == expected)
  }

  @Test(arguments: [
    ("a:1.2.3.4", "a:1.2.3.4"), ("a=::1", "a:::1"), ("a:[::1]", "a:::1"), ("g:host-gateway", "g:host-gateway"),
    ("x", "bad format for add-host: \"x\""), ("x:y", "invalid IP address in add-host: \"y\""),
  ])
  func extraHosts(input: String, expected: String) {
    #expect(text { () throws(EngineError) in try NetworkSpecification.extraHost(input) } == expected)
  }

  @Test(arguments: [
    ("web", true), ("a1", true), ("a_b.c-d", true), ("a", false), ("", false), ("-a", false), ("a/b", false),
    ("é1", false),
  ])
  func names(input: String, isValid: Bool) {
    #expect(ObjectName.isValid(input) == isValid)
  }

  @Test(
    arguments: [
      ("1h30m", 5_400_000_000_000), ("42m", 2_520_000_000_000), ("1.5s", 1_500_000_000), ("300ms", 300_000_000),
      ("0", 0),
      ("-2s", -2_000_000_000), ("", nil), ("5", nil), ("x", nil), ("5d", nil),
    ] as [(String, Int64?)])
  func durations(input: String, expected: Int64?) {
    #expect(GoDuration.parse(input) == expected)
  }

  @Test(arguments: [
    ("2013-01-02T13:23:37Z", "2013-01-02T13:23:37Z"), ("1136073600", "2006-01-01T00:00:00Z"),
    ("1136073600.5", "2006-01-01T00:00:00.5Z"), ("10m", "1999-12-31T23:50:00Z"),
    ("x", "\"x\" is not a time: write 2013-01-02T13:23:37Z, 1136073600, or 42m for 42 minutes ago"),
  ])
  func moments(input: String, expected: String) {
    let now = Timestamp("2000-01-01T00:00:00Z") ?? .never
    #expect(text { () throws(EngineError) in try Moment.parse(input, now: now) } == expected)
  }

  @Test(arguments: [
    ("", true), ("ctrl-p,ctrl-q", true), ("a,b", true), ("ctrl-@", true), ("zz", false), ("ctrl-1", false),
  ])
  func detachKeys(input: String, isValid: Bool) {
    #expect(((try? DetachKeys.check(input)) != nil) == isValid)
  }
}
