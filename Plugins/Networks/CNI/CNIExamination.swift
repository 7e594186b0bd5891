import Kernel

extension CNINetworkPlugin {
  /// Debian's plugins, in the network namespace of the examination: they work in that of the thread that starts them.
  public static let examinations = [
    Examination(
      configuration: ["configuration_directories": "{directory}/lists", "binary_directories": "{directory}/bin"],
      files: [
        "{directory}/lists/10-test.conflist": list, "{directory}/bin/bridge": inside("bridge"),
        "{directory}/bin/host-local": inside("host-local"), "{directory}/bin/tuning": inside("tuning"),
      ], needs: ["/usr/lib/cni/bridge"])
  ]

  private static func inside(_ plugin: String) -> String {
    "#!/bin/sh\nexec nsenter --net={namespace} /usr/lib/cni/\(plugin)\n"
  }

  private static let list = """
    {"cniVersion": "1.0.0", "name": "conformance", "plugins": [
      {"type": "bridge", "bridge": "cni-test", "isGateway": true,
       "ipam": {"type": "host-local", "dataDir": "{directory}/leases", "subnet": "10.99.0.0/24",
                "routes": [{"dst": "0.0.0.0/0"}]}},
      {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}]}
    """
}
