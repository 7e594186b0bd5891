import Contracts
import Testing

@testable import EngineCLI

@Suite struct RequestTests {
  private static var surroundings: ContainerRequest.Surroundings {
    ContainerRequest.Surroundings(
      environment: { $0 == "HOME" ? "/root" : nil }, currentDirectory: { "/work" }, availableCPUs: { 2 },
      readFile: { (path) throws(EngineError) in
        switch path {
        case "env": return Array("A=1\nHOME\nB=file\n".utf8)
        case "labels": return Array("x=1\ny\n".utf8)
        case "profile.json": return Array("{}".utf8)
        default: throw EngineError(.invalidArgument, "open \(path): no such file or directory")
        }
      })
  }

  private func request(_ line: String) throws -> ContainerRequest {
    let words = line.split(separator: " ").map(String.init)
    let (options, arguments) = try Parser(flags: ContainerFlags.run(), isInterspersed: false).parse(words)
    return try ContainerRequest(options: options, arguments: arguments, surroundings: Self.surroundings)
  }

  @Test func flagsBecomeAConfiguration() throws {
    let asked = try request(
      "-it --rm --name web -p 8080:80 -p 53:53/udp --expose 9000-9001 -v data:/d --tmpfs /t --env-file env -e B=2 -e HOME "
        + "-e GONE --entrypoint sh -w /w -u 1:2 --cpus 1.5 -m 32m --memory-swap -1 --pids-limit -1 --ulimit nofile=5 "
        + "-l z=3 --label-file labels --network net1 --network-alias al --ip 10.0.0.9 --dns 1.1.1.1 --shm-size 1m "
        + "--pid host --ipc container:x --cap-add ALL --security-opt seccomp=profile.json "
        + "--security-opt no-new-privileges --sysctl a.b=1 --stop-timeout 3 nginx:1 -c true")
    let configuration = asked.configuration
    #expect(asked.name == "web" && asked.warnings.isEmpty)
    #expect(configuration.image == "nginx:1" && configuration.command == ["-c", "true"])
    #expect(configuration.environment == ["A=1", "HOME=/root", "B=file", "B=2", "HOME=/root", "GONE"])
    #expect(configuration.entrypoint == ["sh"] && configuration.workingDirectory == "/w" && configuration.user == "1:2")
    #expect(configuration.hasTerminal && configuration.keepsInputOpen && configuration.removesItself)
    #expect(configuration.attachesInput && configuration.attachesOutput && configuration.attachesError)
    #expect(
      configuration.ports.map(\.hostPort) == [8080, 53] && configuration.exposedPorts == ["9000/tcp", "9001/tcp"])
    #expect(configuration.mounts.map(\.target) == ["/d", "/t"])
    #expect(configuration.limits.nanoCPUs == 1_500_000_000 && configuration.limits.memory == 32 << 20)
    #expect(configuration.limits.memorySwap == -1 && configuration.limits.pids == -1)
    #expect(configuration.labels == ["x": "1", "y": "", "z": "3"])
    #expect(configuration.networkMode == "net1")
    #expect(configuration.networks == [EndpointRequest(network: "net1", address: "10.0.0.9", aliases: ["al"])])
    #expect(configuration.pidMode == .host && configuration.ipcMode == .container("x"))
    #expect(configuration.securityOptions == ["seccomp={}", "no-new-privileges"])
    #expect(configuration.sharedMemorySize == 1 << 20 && configuration.stopTimeout == 3)
  }

  @Test(arguments: [
    ("x", false, true, true), ("-i x", true, true, true), ("-d x", false, false, false), ("-di x", false, false, false),
    ("-a stdout x", false, true, false), ("-a stdin -a STDERR x", true, false, true),
  ])
  func attachment(line: String, input: Bool, output: Bool, error: Bool) throws {
    let configuration = try request(line).configuration
    #expect(configuration.attachesInput == input)
    #expect(configuration.attachesOutput == output && configuration.attachesError == error)
  }

  @Test(arguments: [
    ("-m 3m x", "Minimum memory limit allowed is 6MB"),
    ("--memory-swap 10m x", "You should always set the Memory limit when using Memoryswap limit, see usage"),
    ("-m 10m --memory-swap 8m x", "Minimum memoryswap limit should be larger than memory limit, see usage"),
    ("--cpus 3 x", "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
    ("--cpus 1 --cpu-period 1000 x", "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
    ("--blkio-weight 5 x", "Range of blkio weight is from 10 to 1000"),
    ("--oom-score-adj 5000 x", "Invalid value 5000, range for oom score adj is [-1000, 1000]"),
    ("--name a x", "Invalid container name (a), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    ("-w rel x", "the working directory 'rel' is invalid, it needs to be an absolute path"),
    ("-v a1:/d -v b1:/d/ x", "Duplicate mount point: /d/"),
    ("--env-file gone x", "open gone: no such file or directory"),
    ("--pid zz x", "--pid: invalid PID mode"), ("--uts zz x", "--uts: invalid UTS mode"),
    ("--cgroupns zz x", "--cgroupns: invalid CGROUP mode"), ("--ipc zz x", "--ipc: invalid IPC mode"),
    ("--security-opt x x", "Invalid --security-opt: \"x\""),
    ("--rm --restart always x", "conflicting options: cannot specify both --restart and --rm"),
    (
      "--restart sometimes x",
      "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
    ),
    ("--restart always:3 x", "invalid restart policy: maximum retry count can only be used with 'on-failure'"),
    ("--restart on-failure:-1 x", "invalid restart policy: maximum retry count cannot be negative"),
    ("--restart on-failure:x x", "invalid restart policy format: maximum retry count must be an integer"),
    ("--restart :3 x", "invalid restart policy format: no policy provided before colon"),
    ("--pull zz x", "invalid pull option: 'zz': must be one of \"always\", \"missing\" or \"never\""),
    ("--network container:a -p 80 x", "conflicting options: port publishing and the container type network mode"),
    ("--network container:a -h b x", "conflicting options: hostname and the network mode"),
    ("UPPER", "invalid reference format: \"UPPER\": repository name must be lowercase"),
  ])
  func refusals(line: String, expected: String) {
    do {
      _ = try request(line)
      Issue.record("accepted: \(line)")
    } catch {
      #expect((error as? EngineError)?.message == expected)
    }
  }

  @Test(arguments: [
    ("--kernel-memory 10m x", "Specifying a kernel memory limit is deprecated and has no effect."),
    (
      "--oom-kill-disable x",
      "Disabling the OOM killer on containers without setting a '-m/--memory' limit may be dangerous."
    ),
  ])
  func warnings(line: String, expected: String) throws {
    #expect(try request(line).warnings == [expected])
  }
}
