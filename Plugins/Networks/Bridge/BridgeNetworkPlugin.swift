import Contracts
import Kernel

/// The driver `bridge`: containers on a Linux bridge, with addresses, masquerading and published ports.
///
/// | message | what it does | where |
/// | --- | --- | --- |
/// | `network.driver.create` | chooses bridge, pool and gateway; makes what is missing | `BridgeNetworks.swift` |
/// | `network.driver.remove` | removes bridge and rules | `BridgeNetworks.swift` |
/// | `network.driver.prepare` | makes a link ahead, for a container to come | `BridgePrepare.swift` |
/// | `network.driver.attach` | addresses, links, ports of one container | `BridgeAttach.swift`, `BridgePublish.swift` |
/// | `network.driver.detach` | unpublishes, sets down, leaves the rest to the reaper | `BridgeDetach.swift` |
/// | `plugin.check` | compares journal and host | `BridgeCheck.swift` |
public final class BridgeNetworkPlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "network-bridge", role: "network", driver: "bridge",
    keys: [
      ConfigurationKey(
        "name", .text(""), form: NetworkPlan.linkName,
        "The default network's bridge; empty for docker0 where that is free, otherwise a name of the engine's own."),
      ConfigurationKey(
        "pool", .text(""), form: NetworkPlan.subnetForm,
        "The default network's subnet in CIDR form; empty for 172.17.0.0/16 where that is free, otherwise the next."),
      ConfigurationKey(
        "mtu", .integer(0), range: 0...65535,
        "Bytes of the longest packet on bridges whose network does not say otherwise; 0 for the kernel's choice."),
      ConfigurationKey(
        "icc", .flag(true), "Whether containers on the default network may connect to each other."),
    ])

  public static let examinations = [Examination(configuration: ["namespace": "{namespace}"])]

  let driver: BridgeDriver

  public init(host: PluginHost) throws(EngineError) {
    do {
      driver = try BridgeDriver(host: host)
    } catch {
      throw EngineError(.unavailable, "the bridge driver cannot open its network namespace: \(error)")
    }
    // Here and not in `start`, because other plugins' start-up may already send `network.driver.create`.
    driver.restore()
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    let driver = driver
    try registrar.answerAsDriver(NetworkDriverCreate.self) { (request, _) throws(EngineError) in
      try driver.create(request.definition)
    }
    try registrar.answerAsDriver(NetworkDriverRemove.self) { (request, _) throws(EngineError) in
      try driver.remove(request.definition)
      return Done()
    }
    try registrar.answerAsDriver(NetworkDriverPrepare.self) { (request, _) throws(EngineError) in
      try driver.prepare(request)
      return Done()
    }
    try registrar.answerAsDriver(NetworkDriverAttach.self) { (request, call) throws(EngineError) in
      let reply = try driver.attach(request)
      let container = request.container
      await call.lease.hold("networks of \(container.short)") { try? driver.detach(container) }
      return reply
    }
    try registrar.answerAsDriver(NetworkDriverDetach.self) { (request, _) throws(EngineError) in
      try driver.detach(request.container)
      return Done()
    }
    try registrar.answerAsPlugin(PluginCheck.self) { (request, _) throws(EngineError) in
      try driver.check(request)
    }
  }

  public func stop() async {
    driver.removeSpares()
    driver.release()
  }
}
