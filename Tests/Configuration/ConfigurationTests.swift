import Contracts
import Kernel
import Testing

@testable import EngineConfiguration

@Suite("Configuration")
struct ConfigurationTests {
  static let bridge = PluginManifest(
    name: "network-bridge", role: "network", driver: "bridge",
    keys: [
      ConfigurationKey("name", .text(""), "The bridge's name."),
      ConfigurationKey("mtu", .integer(1500), range: 68...65535, "Bytes."),
      ConfigurationKey("icc", .flag(true), "Whether containers may talk."),
      ConfigurationKey("pools", .list(["10.0.0.0/8"]), "A list with a rather long explanation."),
      ConfigurationKey("level", .text("a"), choices: ["a", "b"], "One of two."),
    ])
  static let local = PluginManifest(name: "volume-local", role: "volume", driver: "local")
  static let manifests = [bridge, local, PluginManifest(name: "images", role: "image")]

  static func parse(_ text: String) -> (EngineConfiguration, [String]) {
    let (configuration, complaints) = ConfigurationFile.parse(text, path: "f", manifests: manifests)
    return (configuration, complaints.map(\.description))
  }

  @Test func readsEveryKindOfValue() {
    let (configuration, complaints) = Self.parse(
      """
      [engine]
      idle_seconds = 7

      [defaults]
      volume = "tmpfs"

      [plugins.network-bridge]
      mtu = 9000
      icc = false
      pools = [
        "10.1.0.0/16", # a comment with ] in it
        "10.2.0.0/16",
      ]
      on_failure = "skip"
      after = ["images"]

      [plugins.volume-local]
      enabled = false

      [drivers.mine]
      command = ["/opt/mine", "--fast"]
      deadline_seconds = 3
      options.place = "/srv"
      options.count = 4
      """)
    #expect(complaints == [])
    #expect(configuration.engine("idle_seconds") == .integer(7))
    #expect(configuration.defaultDriver("volume") == "tmpfs")
    #expect(configuration.defaultDriver("network") == "bridge")
    #expect(
      configuration.pluginValues["network-bridge"]
        == ["mtu": "9000", "icc": "false", "pools": "10.1.0.0/16\n10.2.0.0/16"])
    let manifest = configuration.manifest(Self.bridge)
    #expect(manifest.onFailure == .skip)
    #expect(manifest.dependencies == ["images"])
    #expect(!configuration.isEnabled("volume-local"))
    var driver = ExternalDriver(name: "mine", command: ["/opt/mine", "--fast"])
    driver.deadline = .seconds(3)
    driver.options = ["place": "/srv", "count": "4"]
    #expect(configuration.drivers == [driver])
  }

  @Test(arguments: [
    ("[plugins.network-bridge]\nmtu = 1\n", "f:2: plugins.network-bridge.mtu must be a number from 68 to 65535, not 1"),
    (
      "[plugins.network-bridge]\n\nmtu = \"x\"\n",
      "f:3: plugins.network-bridge.mtu must be a whole number, not a string (\"x\")"
    ),
    (
      "[plugins.network-bridge]\nmut = 1500\n",
      "f:2: unknown key \"mut\" in [plugins.network-bridge]; did you mean \"mtu\"?"
    ),
    ("# one\n[plugin.x]\na = 1\n", "f:2: unknown table \"plugin\"; did you mean \"plugins\"?"),
    (
      "[plugins.network-birdge]\n",
      "f:1: unknown plugin \"network-birdge\" in [plugins]; did you mean \"network-bridge\"?"
    ),
    (
      "[plugins]\nnetwork-bridge.level = \"c\"",
      "f:2: plugins.network-bridge.level must be one of a, b, not \"c\""
    ),
    (
      "[plugins.network-bridge]\npools = [1]",
      "f:2: plugins.network-bridge.pools must be a list of strings, not a list of something else"
    ),
    ("[engine]\nidle_seconds = 1.5", "f:2: engine.idle_seconds must be a whole number, not a number with a fraction"),
    ("engine = 4", "f:1: engine must be a table"),
    ("[drivers.a]\nrole = \"volume\"", "f:1: drivers.a needs command = [\"/path/of/the/driver\", ...]"),
    (
      "[drivers.a]\ncommand = [\"x\"]",
      "f:2: drivers.a.command must begin with an absolute path, not \"x\""
    ),
  ])
  func saysWhatIsWrongAndWhere(text: String, complaint: String) {
    #expect(Self.parse(text).1 == [complaint])
  }

  @Test func saysEachThingOnce() {
    #expect(
      Self.parse("[drivers.a]\ncommand = \"/bin/a\"\n").1
        == ["f:2: drivers.a.command must be a list of strings, not a string (\"/bin/a\")"])
    #expect(Self.parse("[drivers.a]\nenabled = false\n").1 == [])
  }

  @Test(arguments: [
    (
      "[defaults]\nvolume = \"nope\"\n",
      "f:2: warning: defaults.volume names no driver that is known: \"nope\"; there is: local; the engine can only use "
        + "it if a driver of this name is put into a plugin directory"
    ),
    (
      "[defaults]\nnetwork = \"nope\"\n[drivers.mine]\ncommand = [\"/m\"]\n",
      "f:2: warning: defaults.network names no driver that is known: \"nope\"; there is: bridge, mine; it can only be the "
        + "name of a network then, or that of a driver that is put into a plugin directory"
    ),
    (
      "[plugins.volume-local]\nenabled = false\n[defaults]\nvolume = \"local\"\n[drivers.mine]\ncommand = [\"/m\"]\n",
      "f:4: warning: defaults.volume names no driver that is known: \"local\"; there is: mine; the engine can only use it "
        + "if a driver of this name is put into a plugin directory"
    ),
    ("[defaults]\nvolume = \"mine\"\n[drivers.mine]\ncommand = [\"/m\"]\n", nil),
    ("[defaults]\nvolume = \"local\"\n", nil),
  ])
  func warnsOfDefaultsThatNothingAnswersFor(text: String, warning: String?) {
    let (configuration, complaints) = Self.parse(text)
    #expect(complaints == [])
    #expect(configuration.warnings == (warning.map { [$0] } ?? []))
  }

  @Test func saysWhereATextIsNoTOML() {
    let complaints = Self.parse("[engine]\nidle_seconds = \n").1
    #expect(complaints.count == 1)
    #expect(complaints.first?.hasPrefix("f:2: ") == true, "\(complaints)")
  }

  @Test func complainsAboutEverythingInTheOrderOfTheFile() {
    let complaints = Self.parse("[plugins.volume-local]\nx = 1\ny = 2\n[defaults]\nvolum = \"a\"\n").1
    #expect(complaints.map { $0.prefix(4) } == ["f:2:", "f:3:", "f:5:"])
  }

  @Test func theDefaultIsAValidFileThatChangesNothing() {
    let text = EngineConfiguration.standardText(Self.manifests)
    let (configuration, complaints) = Self.parse(text)
    #expect(complaints == [])
    for manifest in Self.manifests {
      #expect(configuration.manifest(manifest) == manifest)
      #expect(configuration.isEnabled(manifest.name))
      for key in manifest.keys {
        #expect(configuration.plugins[manifest.name]?.values[key.name] == key.standard)
        #expect(text.contains(key.explanation))
      }
    }
    for key in EngineConfiguration.engineKeys { #expect(configuration.engine(key.name) == key.standard) }
    for line in text.split(separator: "\n") { #expect(line.utf8.count <= 140, "\(line)") }
  }

  @Test(arguments: ["a\"b", "c\\d", "tab\tnew\nline", "\u{1}", "plain"])
  func quotesTexts(text: String) {
    let (configuration, complaints) = Self.parse("[defaults]\nvolume = \(ConfigurationValue.text(text).toml)")
    #expect(complaints == [])
    #expect(configuration.defaults["volume"] == text)
  }

  @Test func findsKeysAfterValuesOverSeveralLines() {
    let text = """
      [plugins.network-bridge]
      name = \"\"\"
      mtu = 3
      \"\"\"
      pools = [
        "[a]",
        "b",
      ]
      mtu = 1
      """
    #expect(Self.parse(text).1.first?.hasPrefix("f:9: ") == true)
  }

  /// A set of plugins that could not start, though each key is correct.
  @Test(arguments: [
    (
      "[plugins.catalog]\nenabled = false\n",
      "f:2: the plugin lifecycle needs catalog, so that cannot be switched off alone"
    ),
    (
      "[plugins.bridge]\nmtu = 1\nafter = [\"lifecycle\"]\n",
      "f:3: the plugins depend on each other in a circle: lifecycle -> catalog -> bridge -> lifecycle"
    ),
    ("[plugins.catalog]\nenabled = false\n[plugins.lifecycle]\nenabled = false\n", nil),
    ("[plugins.other]\nafter = [\"bridge\"]\n", nil), ("[plugins.bridge]\nenabled = false\n", nil),
  ])
  func theSetOfPluginsIsExamined(text: String, complaint: String?) {
    let manifests = [
      PluginManifest(name: "lifecycle", role: "lifecycle", dependencies: ["catalog"]),
      PluginManifest(name: "catalog", role: "network-catalog", dependencies: ["network"]),
      PluginManifest(
        name: "bridge", role: "network", driver: "bridge", keys: [ConfigurationKey("mtu", .integer(0), "")]),
      PluginManifest(name: "other", role: "network", driver: "other"),
    ]
    let (_, complaints) = ConfigurationFile.parse(text, path: "f", manifests: manifests)
    #expect(complaints.map(\.description) == (complaint.map { [$0] } ?? []))
  }

  @Test func aDefaultThatIsSwitchedOffIsAWarning() {
    let (configuration, complaints) = Self.parse("\n[plugins.volume-local]\nenabled = false\n")
    #expect(complaints == [])
    let words =
      "f:3: warning: \"local\" is the default volume driver and is switched off; name another one with "
      + "volume = \"...\" in [defaults]"
    #expect(configuration.warnings == [words])
    let (other, _) = Self.parse("[defaults]\nvolume = \"bridge\"\n[plugins.volume-local]\nenabled = false\n")
    #expect(other.warnings.count == 1 && other.warnings[0].contains("names no driver that is known"))
  }
}
